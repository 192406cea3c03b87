"""What an interval of updates did, summed on the device: the rows of metrics.jsonl."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any


class Meter:
    """Sums of what an interval of updates did; they stay on the device until `row` reads them."""

    def __init__(self, accelerator: Any, state: Any):
        import torch

        self._accelerator, self._state = accelerator, state
        self._zero = torch.zeros((), device=accelerator.device)
        self.bad_in_a_row = self._zero
        """Updates since the last one with a finite gradient."""
        self._clock = time.perf_counter()
        self._restart()
        if (
            state.interval
        ):  # a resumed run goes on inside the interval, so that its rows are the undisturbed run's
            saved = dict(state.interval)
            self._first = saved.pop("first")
            self._skipped = self._zero + saved.pop("skipped")
            self._sums = {name: self._zero + value for name, value in saved["sums"].items()}

    def _restart(self) -> None:
        self._sums: dict[str, Any] = {}
        self._update: dict[str, Any] = {}
        self._skipped = self._zero
        self._waited = 0.0
        self._began, self._began_at, self._first = (
            time.perf_counter(),
            self._state.updates,
            self._state.updates,
        )

    def store(self) -> None:
        """Put the open interval and the clock into the training state, before a checkpoint."""
        self.clock()
        means = self._accelerator.reduce(
            self._sums, "mean"
        )  # one process's state is every process's after a resume
        sums = {name: float(total) for name, total in means.items()}
        self._state.interval = {"first": self._first, "skipped": float(self._skipped), "sums": sums}

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for data."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time inside out of the rate and of the training time."""
        began = time.perf_counter()
        yield
        away = time.perf_counter() - began
        self._began += away
        self._clock += away

    def add(self, metrics: dict[str, Any], *, share: float) -> None:
        """Scalars of one batch, which is this share of the update being made."""
        for name, value in metrics.items():
            self._update[name] = self._update.get(name, self._zero) + share * value

    def count(self, bad: Any) -> None:
        """End of an update; where `bad` is 1 its gradient was not finite, nothing moved, and its scalars are left out."""
        import torch

        self._skipped = self._skipped + bad
        self.bad_in_a_row = (self.bad_in_a_row + bad) * bad
        for name, value in self._update.items():
            self._sums[name] = self._sums.get(name, self._zero) + torch.where(bad > 0, self._zero, value)
        self._update = {}

    def clock(self) -> float:
        """Seconds of training up to now, over all sessions of the run."""
        now = time.perf_counter()
        self._state.seconds += now - self._clock
        self._clock = now
        return self._state.seconds

    def row(self, norm: Any) -> dict[str, Any]:
        """Means over the interval and over the processes; starts the next interval."""
        updates, seconds = self._state.updates - self._first, time.perf_counter() - self._began
        done_here = self._state.updates - self._began_at
        good = (updates - self._skipped).clamp(min=1)
        means = self._accelerator.reduce({name: total / good for name, total in self._sums.items()}, "mean")
        self._state.skipped += int(self._skipped)
        row = {"updates": self._state.updates} | {name: float(value) for name, value in means.items()}
        row |= {
            "grad_norm": float(norm),
            "skipped_updates": self._state.skipped,
            "updates_per_second": done_here / seconds,
            "data_wait_share": self._waited / seconds,
            "seconds": self.clock(),
        }
        self._restart()
        return row
