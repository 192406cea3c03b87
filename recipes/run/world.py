"""The processes of a run: refuse another world than promised, and end with the launcher. No torch."""

import ctypes
import os
import signal
import sys
from pathlib import Path

from recipes.run.folder import RecipeError

PR_SET_PDEATHSIG = 1
"""Of Linux's prctl: the signal to send this process when its parent ends."""


def check_world(processes: int, *, promised: int | None) -> None:
    """Refuse a world of another size than the launcher was told.

    `accelerate launch --cpu --num_processes 2` starts one process without a word, and `--multi_gpu` on a machine
    without GPUs starts two runs of one process each that write into the same folder.

    Args:
        processes: what accelerate found.
        promised: what the configuration says; None asks the launcher's environment and command line.
    """
    if promised is None:
        promised = _launched_processes()
    if processes != promised:
        raise RecipeError(
            f"{promised} processes were promised and there are {processes}: on CPUs launch with `accelerate launch "
            "--multi_gpu --num_processes N recipes/... --cpu true` or `ACCELERATE_USE_CPU=1 torchrun "
            "--nproc_per_node N -- recipes/...`, which start N processes; `accelerate launch --cpu` starts one"
        )


def _launched_processes() -> int:
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    import psutil

    command = psutil.Process(os.getppid()).cmdline()
    for flag, value in zip(command, [*command[1:], ""], strict=True):
        name, _, joined = flag.partition("=")
        if name in ("--num_processes", "--num-processes"):
            return int(joined or value)
    return 1


def end_with_launcher() -> None:
    """On Linux, be sent SIGTERM where accelerate's launcher ends before this process.

    Its launcher of one process passes no signal on: without this, SIGTERM to it leaves a trainer that nobody knows of.
    A shell that ends is no reason to stop.
    """
    launcher = os.getppid()
    if sys.platform != "linux" or not _is_accelerate(launcher):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != launcher:  # it ended while it was asked about
        os.kill(os.getpid(), signal.SIGTERM)


def _is_accelerate(process: int) -> bool:
    import psutil

    try:
        command = psutil.Process(process).cmdline()
    except psutil.Error:
        return False
    python, *words = [Path(word).name for word in command[:4]] or [""]
    launchers = ("accelerate", "accelerate-launch", "accelerate.commands.launch")
    return python.startswith("python") and any(word in launchers for word in words)
