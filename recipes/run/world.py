"""The processes of a run: refuse another world than promised, and end with the launcher. No torch."""

import ctypes
import os
import signal
import sys

from recipes.run.folder import RecipeError

PR_SET_PDEATHSIG = 1
"""Of Linux's prctl: the signal to send this process when its parent ends."""


def check_world(processes: int, *, promised: int | None) -> None:
    """Refuse a world of another size than the launcher was told.

    `accelerate launch --cpu --num_processes 2` starts one process without a word, and `--multi_gpu` on a machine
    without GPUs starts two runs of one process each that write into the same folder. Both show in the environment:
    the second as WORLD_SIZE, the first as an address to meet at (MASTER_ADDR) without one.

    Args:
        processes: what accelerate found.
        promised: what the configuration says; None asks the launcher's environment.
    """
    size = os.environ.get("WORLD_SIZE")
    if promised is None and size is not None:
        promised = int(size)
    is_alone = promised is None and processes == 1 and "MASTER_ADDR" in os.environ
    if is_alone or processes != (promised or processes):
        raise RecipeError(
            f"{promised or 'several'} processes were promised and there are {processes}: on CPUs launch with `accelerate "
            "launch --multi_gpu --num_processes N recipes/... --cpu true` or `ACCELERATE_USE_CPU=1 torchrun "
            "--nproc_per_node N -- recipes/...`, which start N processes; `accelerate launch --cpu` starts one, and for "
            "one `--processes 1` says so"
        )


def end_with_launcher() -> None:
    """On Linux, be sent SIGTERM where the launcher, accelerate's or torchrun, ends before this process.

    accelerate's launcher of one process passes no signal on, and torchrun that is killed while its trainers start leaves them
    asking for it: trainers that nobody knows of. A shell that ends is no reason to stop; launchers are known by what they set.
    """
    if os.environ.keys() & {"ACCELERATE_DYNAMO_BACKEND", "TORCHELASTIC_RUN_ID"}:
        end_with_parent()


def end_with_parent() -> None:
    """On Linux, be sent SIGTERM where the process that started this one ends; a recipe then saves."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:  # it ended just now
        os.kill(os.getpid(), signal.SIGTERM)
