"""Openers that need no video file, and misbehave on demand; a module of its own, because workers import it by name."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from dataprep.decode.frames import DecodeSettings
from dataprep.decode.video_file import VideoError
from dataprep.sharding.plan import Listing, ShardConfig, SourceVideo


class NumberedFrames:
    """`count` frames whose first pixel's grey value is their number modulo 256; the others move, to keep a codec busy."""

    output_fps = 12.0

    def __init__(self, count: int, *, seconds_per_frame: float = 0.0) -> None:
        self.count = count
        self.seconds_per_frame = seconds_per_frame
        self.seconds_before = 0.0
        """At work on frames that are not kept."""
        self.alive: Callable[[], None] = lambda: None
        self.arrays: dict[str, np.ndarray] | None = None

    def __enter__(self) -> "NumberedFrames":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __iter__(self) -> Iterator[np.ndarray]:
        end = time.monotonic() + self.seconds_before
        while time.monotonic() < end:
            time.sleep(0.01)
            self.alive()
        for number in range(self.count):
            time.sleep(self.seconds_per_frame)
            grey = number + np.outer(np.arange(8), np.arange(8) + number)
            yield np.repeat((grey % 256).astype(np.uint8)[..., None], 3, axis=2)


def open_numbered(source: SourceVideo, config: ShardConfig) -> NumberedFrames:
    """`source.path` is the number of frames, or the name of a misbehaviour with the frames it would have had."""
    behaviour, _, count = source.path.rpartition(":")
    frames = NumberedFrames(int(count))
    if behaviour == "slow":
        frames.seconds_per_frame = 0.002
    elif behaviour == "rare":
        frames.seconds_before = 5.0
    elif behaviour == "logged":
        rows = np.arange(int(count), dtype=np.float32)
        frames.arrays = {"action": rows[:, None], "reward": rows}
    elif behaviour == "broken":
        raise VideoError("decode_error", "made up")
    elif behaviour == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif behaviour == "exit":
        sys.exit("the worker has had enough")
    elif behaviour == "bug":
        raise ZeroDivisionError("a bug in the opener")
    elif behaviour == "hang":
        time.sleep(3600)
    elif behaviour.startswith("die-once "):
        marker = Path(behaviour.removeprefix("die-once "))
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return frames


def numbered_listing(*paths: str | int) -> Listing:
    """Sources `v000`, `v001`, ... for `open_numbered`."""
    return Listing(
        tuple(
            SourceVideo(f"v{i:03d}", f":{p}" if isinstance(p, int) else p, f"videos/{i}")
            for i, p in enumerate(paths)
        )
    )


def raw_config(**changes: object) -> ShardConfig:
    """Small raw shards: 4 videos each."""
    fields = {"name": "numbered", "codec": "raw", "videos_per_shard": 4, "decode": DecodeSettings(size=8)}
    return ShardConfig(**{**fields, **changes})  # type: ignore[arg-type]
