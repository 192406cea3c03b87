"""`cwm-hub doctor`: what this machine has of what training needs, and what to install where it does not.

Every line was tried or looked up when it is printed: GL drew a frame, PyAV wrote and read a film, the GPU is torch's. GL is
tried in processes of its own while the lines before it are found out.
"""

import os
import platform
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwm_hub import EXTRAS, __version__
from cwm_hub.provenance import usable_cores

if TYPE_CHECKING:
    import argparse

LIBRARIES = ("torch", "av", "mujoco", "gymnasium", "metaworld", "dm_control", "accelerate", "webdataset")
EXAMPLES = ("cwm-hub doctor", "cwm-hub doctor --no-speed")
GPU_FILES = ("nvidia*", "nvhost*", "nvmap", "kfd", "dxg")
"""Files in /dev of which a Linux with a GPU that torch can use has at least one: NVIDIA's, its Jetson's, AMD's, WSL's."""
DRAW_ON_GPU = (
    "install the driver's libEGL (libnvidia-gl), and start a container with NVIDIA_DRIVER_CAPABILITIES=all"
)


def add_arguments(parser: "argparse.ArgumentParser") -> None:
    """Add this sub-command's options."""
    parser.add_argument("--no-speed", action="store_true", help="do not measure how fast frames are drawn")


def run(args: Any) -> Iterator[str]:
    """A line for each thing looked at; those that name a command to run begin with an arrow.

    Args:
        args: the options above by name.
    """
    from cwm_hub.envs.rendering import gl_devices

    tried = ThreadPoolExecutor(1).submit(gl_devices if find_spec("mujoco") else dict)
    machine = platform.platform(terse=True)
    yield _line(
        "cwm-hub", f"{__version__}, Python {platform.python_version()}, {machine} {platform.machine()}"
    )
    yield _line("cores", f"{usable_cores()} of {os.cpu_count()} for this process")
    yield _line("memory", memory())
    yield _line("libraries", ", ".join(f"{name} {installed(name) or '-'}" for name in LIBRARIES))
    yield from extras()
    yield _line("video", video())
    gpu = gpu_name() if may_have_gpu() else None
    seen = f"that torch {installed('torch')} sees" if may_have_gpu() else "in /dev"
    yield _line("GPU", gpu or f"none {seen}: training runs on the CPU")
    tried.result()
    yield from rendering(has_gpu=gpu is not None, speed=not args.no_speed)


def installed(package: str) -> str | None:
    """Version of a package, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def memory() -> str:
    """The machine's memory, and what is left of it where the system says."""
    page = os.sysconf("SC_PAGE_SIZE")
    told = f"{os.sysconf('SC_PHYS_PAGES') * page / 2**30:.1f} GiB"
    try:
        with open("/proc/meminfo") as file:
            available = dict(line.split(":") for line in file)["MemAvailable"]
    except FileNotFoundError:  # macOS
        return told
    return f"{told}, {int(available.split()[0]) / 2**20:.1f} GiB of it free"


def extras() -> Iterator[str]:
    """The extras that are installed whole, and for the others what brings them."""
    missing = {
        extra: [module for module in modules if find_spec(module) is None]
        for extra, modules in EXTRAS.items()
    }
    yield _line("extras", ", ".join(extra for extra, absent in missing.items() if not absent) or "none")
    for extra, absent in missing.items():
        if absent:
            yield _advice(f"pip install 'cwm-hub[{extra}]' brings {', '.join(absent)}")


def may_have_gpu() -> bool:
    """Whether it is worth asking torch, whose import takes seconds: on Linux, whether a driver has made its files."""
    return sys.platform != "linux" or any(next(Path("/dev").glob(name), None) for name in GPU_FILES)


def gpu_name() -> str | None:
    """The first GPU and its memory, None where torch sees none."""
    import torch  # and with it triton, before software GL loads its own LLVM

    if not torch.cuda.is_available():
        return None
    more = torch.cuda.device_count() - 1
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    return f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB{f', and {more} more' if more else ''}"


def video() -> str:
    """Whether PyAV writes and reads H.264, and which codecs of raw video it reads."""
    import av
    import numpy as np

    from cwm_hub.shards.codecs import decode_clip, encode_clip

    try:
        seen = decode_clip(encode_clip(np.full((2, 64, 64, 3), 128, np.uint8), "h264", 10.0), "h264")
    except (ValueError, av.error.FFmpegError) as error:
        return f"PyAV {av.__version__} does not write H.264 ({error}): pip install --force-reinstall av"
    assert seen.shape == (2, 64, 64, 3)
    readers = [name for name in ("h264", "hevc", "vp9", "libdav1d") if name in av.codecs_available]
    return (
        f"PyAV {av.__version__} with FFmpeg {av.ffmpeg_version_info} writes H.264 by x264 and reads "
        f"{', '.join(readers)}; no ffmpeg command is needed"
    )


def rendering(*, has_gpu: bool, speed: bool) -> Iterator[str]:
    """Which GL draws MuJoCo's frames without a display, on what, and how fast.

    Args:
        has_gpu: whether there is a GPU that could.
        speed: whether to measure.
    """
    from cwm_hub.envs.rendering import gl_backend, gl_devices, gl_problem

    if find_spec("mujoco") is None:
        yield _line("rendering", "not tried: mujoco is not installed")
        return
    chosen = os.environ.get("MUJOCO_GL")
    for name, device in gl_devices().items():
        text = f"{name} draws on {device}" if device else f"{name} does not draw"
        yield _line("rendering", f"{text} (MUJOCO_GL is set: nothing else is tried)" if chosen else text)
    problem = gl_problem()
    if problem is not None:
        yield _advice(problem)
        return
    backend = gl_backend()
    if backend.is_software and has_gpu:
        yield _advice(f"the CPU draws, though there is a GPU: {DRAW_ON_GPU}")
    if not speed:
        return
    if find_spec("metaworld") is None:
        yield _line("speed", "not measured: metaworld is not installed")
        return
    from cwm_hub.envs.frame_rates import TASK, frame_rates

    for quality, rate in frame_rates():
        yield _line(
            "speed", f"{rate:.0f} frames a second, {quality}, 64 pixels, metaworld:{TASK} by {backend.name}"
        )


def _line(what: str, text: str) -> str:
    return f"{what:10s} {text}"


def _advice(text: str) -> str:
    return f"{'':10s} -> {text}"
