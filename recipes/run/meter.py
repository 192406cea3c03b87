"""What an interval of updates did, summed on the device, and where its time went: the rows of metrics.jsonl."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from cwm_hub.command_line import LOG_SECONDS


class Counters(Protocol):
    """What the meter keeps in a run's training state, so that a resumed run's rows are the undisturbed run's."""

    updates: int
    skipped: int
    """Updates left out up to the last row."""
    seconds: float
    """Of training, over all sessions of the run."""
    interval: dict[str, Any]
    """What has been summed since the last row."""


class Meter:
    """Sums of what an interval of updates did; they stay on the device until `row` reads them.

    Args:
        state: the run's counters; the page moves `updates`, the meter the others.
        device: where the scalars are.
        times: what `timing` may be told.
        mean_of_processes: of a tensor, where there are several.
    """

    def __init__(
        self,
        state: Counters,
        device: torch.device,
        *,
        times: Sequence[str],
        mean_of_processes: Callable[[Tensor], Tensor] = lambda values: values,
    ):
        self._state, self._mean_of_processes = state, mean_of_processes
        self.device = device
        self._zero = torch.zeros((), device=device)
        self.bad_in_a_row = self._zero
        """Updates since the last one with a finite gradient."""
        self._spent = dict.fromkeys(times, 0.0)
        self._names: list[str] = []
        self._clock = self._told = time.perf_counter()
        self._restart()
        if state.interval:
            self._first = state.interval["first"]
            self._skipped = self._zero + state.interval["skipped"]
            self._names = list(state.interval["sums"])
            if self._names:
                self._sums = torch.tensor(list(state.interval["sums"].values()), device=device)

    def _restart(self) -> None:
        self._sums = self._update = self._skipped = self._zero
        self._spent = dict.fromkeys(self._spent, 0.0)
        self._began = time.perf_counter()
        self._began_at = self._first = self._state.updates

    def store(self) -> None:
        """Put the open interval and the clock into the training state, before a checkpoint."""
        self.clock()
        # One process's state is all processes' on resume.
        self._state.interval = {
            "first": self._first,
            "skipped": float(self._skipped),
            "sums": self._means_of_processes(self._sums),
        }

    @contextlib.contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Count the time inside under one of the names, whose share of the interval `row` tells."""
        began = time.perf_counter()
        yield
        self._spent[name] += time.perf_counter() - began

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time inside out of the rate and of the training time."""
        began = time.perf_counter()
        yield
        away = time.perf_counter() - began
        self._began += away
        self._clock += away

    def add(self, metrics: dict[str, Tensor], *, share: float = 1.0) -> None:
        """Scalars of one batch, which is this share of the update being made."""
        self._names = list(metrics)
        self._update = self._update + share * torch.stack([value.float() for value in metrics.values()])

    def count(self, bad: Tensor) -> None:
        """End of an update; where `bad` is 1 its gradient was not finite, nothing moved, and its scalars are left out."""
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

    def row(self) -> dict[str, Any]:
        """Means over the interval and over the processes; starts the next interval.

        None stands for what is no number: every mean where all updates were skipped.
        """
        updates, rates = self._state.updates - self._first, self.rates()
        means = self._means_of_processes(self._sums / (updates - self._skipped))  # NaN where all were skipped
        self._state.skipped += int(self._skipped)
        row: dict[str, Any] = {"updates": self._state.updates}
        row |= {name: finite(value) for name, value in means.items()}
        row |= {"skipped_updates": self._state.skipped, **rates}
        self._restart()
        self._told = time.perf_counter()
        return row

    def rates(self) -> dict[str, float]:
        """Updates a second of the interval up to now, where its time went, and the seconds of all training."""
        seconds = time.perf_counter() - self._began
        rates = {"updates_per_second": (self._state.updates - self._began_at) / seconds}
        rates |= {f"{name}_share": spent / seconds for name, spent in self._spent.items()}
        return rates | {"seconds": self.clock()}

    def is_silent(self) -> bool:
        """Whether there was no row for `LOG_SECONDS`, nor a yes to this question."""
        now = time.perf_counter()
        if now - self._told < LOG_SECONDS:
            return False
        self._told = now
        return True

    def _means_of_processes(self, sums: Tensor) -> dict[str, float]:
        means = (
            self._mean_of_processes(sums).expand(len(self._names)).tolist()
        )  # one number where all were skipped
        return dict(zip(self._names, means, strict=True))


def finite(value: float) -> float | None:
    """The value, or None where it is no number."""
    return value if math.isfinite(value) else None
