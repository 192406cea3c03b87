"""What an interval of updates did, summed on the device: the rows of metrics.jsonl."""

import contextlib
import math
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
        if state.interval:  # a resumed run goes on inside it, so that its rows are the undisturbed run's
            self._first = state.interval["first"]
            self._skipped = self._zero + state.interval["skipped"]
            self._names = list(state.interval["sums"])
            self._sums = torch.tensor(list(state.interval["sums"].values()), device=accelerator.device)

    def _restart(self) -> None:
        self._names: list[str] = []
        self._sums = self._update = self._skipped = self._zero
        self._waited, self._began = 0.0, time.perf_counter()
        self._began_at = self._first = self._state.updates

    def store(self) -> None:
        """Put the open interval and the clock into the training state, before a checkpoint."""
        self.clock()
        self._state.interval = {}
        if self._names:
            means = self._means_of_processes(self._sums)  # one process's state is all processes' on resume
            self._state.interval = {"first": self._first, "skipped": float(self._skipped), "sums": means}

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
        import torch

        self._names = list(metrics)
        self._update = self._update + share * torch.stack([value.float() for value in metrics.values()])

    def count(self, bad: Any) -> None:
        """End of an update; where `bad` is 1 its gradient was not finite, nothing moved, and its scalars are left out."""
        import torch

        self._skipped = self._skipped + bad
        self.bad_in_a_row = (self.bad_in_a_row + bad) * bad
        self._sums = self._sums + torch.where(bad > 0, self._zero, self._update)
        self._update = self._zero

    @property
    def last_good_update(self) -> int:
        """The last update with a finite gradient."""
        return self._state.updates - int(self.bad_in_a_row)

    def clock(self) -> float:
        """Seconds of training up to now, over all sessions of the run."""
        now = time.perf_counter()
        self._state.seconds += now - self._clock
        self._clock = now
        return self._state.seconds

    def row(self, norm: Any) -> dict[str, Any]:
        """Means over the interval and over the processes; starts the next interval.

        None stands for what is no number: every mean where all updates were skipped, and a norm that is not finite.
        """
        updates, seconds = self._state.updates - self._first, time.perf_counter() - self._began
        done_here = self._state.updates - self._began_at
        means = self._means_of_processes(self._sums / (updates - self._skipped))  # NaN where all were skipped
        self._state.skipped += int(self._skipped)
        row = {"updates": self._state.updates}
        row |= {name: _finite(value) for name, value in means.items()}
        row |= {
            "grad_norm": _finite(float(norm)),
            "skipped_updates": self._state.skipped,
            "updates_per_second": done_here / seconds,
            "data_wait_share": self._waited / seconds,
            "seconds": self.clock(),
        }
        self._restart()
        return row

    def _means_of_processes(self, sums: Any) -> dict[str, float]:
        means = self._accelerator.reduce(sums, "mean").tolist()
        return dict(zip(self._names, means, strict=True))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
