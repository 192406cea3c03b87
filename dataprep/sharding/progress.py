"""The one line that tells how a run is going: rewritten in place on a terminal, a plain line now and then elsewhere."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TextIO

from cwm_hub.command_line import TERMINAL_SECONDS, how_many
from dataprep.sharding.worker import Beat

PLAIN_SECONDS = 30.0
FILE_SECONDS = 5.0


class ProgressLine:
    """Called with the work of this run so far; writes to `stream` (standard error) and, less often, through `save`."""

    def __init__(
        self, total_videos: int, *, stream: TextIO | None = None, save: Callable[[bytes], None]
    ) -> None:
        self.total_videos = total_videos
        self.stream = sys.stderr if stream is None else stream
        self.save = save
        self.terminal = self.stream.isatty()
        self.started = time.monotonic()
        self.latest = Beat()
        self._printed = self._saved = self.started

    def __call__(self, done: Beat) -> None:
        """Take in the newest count; prints and saves only when it is time to."""
        self.latest = done
        now = time.monotonic()
        if now - self._printed >= (TERMINAL_SECONDS if self.terminal else PLAIN_SECONDS):
            self._printed = now
            self._print()
        if now - self._saved >= FILE_SECONDS:
            self._saved = now
            self.save(self._json())

    def close(self) -> None:
        """Print and save the last state."""
        self._print()
        if self.terminal:
            print(file=self.stream)
        self.save(self._json())

    def line(self) -> str:
        """`12/40 videos, 15 clips, 900 frames/s, 1.2 MB, 1 failed, 0:31 left`."""
        done, seconds = self.latest, max(1e-3, time.monotonic() - self.started)
        left = (self.total_videos - done.videos) * seconds / done.videos if done.videos else None
        return (
            f"{done.videos}/{self.total_videos} videos, {how_many(done.clips, 'clip')}, {done.frames / seconds:.0f} frames/s, "
            f"{done.bytes / 1e6:.1f} MB, {done.failures} failed, {'?' if left is None else clock(left)} left"
        )

    def _print(self) -> None:
        if self.terminal:
            print(f"\r\x1b[K{self.line()}", end="", file=self.stream, flush=True)
        else:
            print(self.line(), file=self.stream, flush=True)

    def _json(self) -> bytes:
        seconds = round(time.monotonic() - self.started, 1)
        return json.dumps(
            {
                **asdict(self.latest),
                "total_videos": self.total_videos,
                "seconds": seconds,
                "time": round(time.time()),
            }
        ).encode()


def clock(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
