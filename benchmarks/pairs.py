"""Ways to do one thing, timed in turns on a machine that others use too, until their ratio is known well enough.

Each round times every way once, back and forth, so that a busy minute strikes all alike and a ratio is taken between
neighbours. CPU seconds (all threads of this process, and children that were waited for) are kept beside wall seconds: on a
shared machine only the first say what the work costs, and only the second what its threads and processes gain.
"""

import math
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Clock = Literal["cpu", "wall"]
LEAST_ROUNDS = 6
"""Below it the interval of a median at 95 % is wider than the range."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one call."""

    wall: float
    user: float
    system: float

    @property
    def cpu(self) -> float:
        """User and system seconds together."""
        return self.user + self.system


@dataclass(frozen=True)
class Ratio:
    """How many times longer one way takes than another, round by round."""

    median: float
    low: float
    """Lower end of the 95 % interval of the median; by order statistics, whatever the distribution."""
    high: float
    rounds: int

    @property
    def spread(self) -> float:
        """Half the interval's width, as a share of the median."""
        return (self.high - self.low) / 2 / self.median

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}] of {self.rounds} rounds"


@dataclass
class Pairs:
    """The timings of every way, one entry a round."""

    timings: dict[str, list[Timing]] = field(default_factory=dict)

    def median(self, name: str, clock: Clock) -> float:
        """Median seconds of one way."""
        return statistics.median(getattr(timing, clock) for timing in self.timings[name])

    def ratio(self, name: str, over: str, clock: Clock) -> Ratio:
        """Seconds of `name` over seconds of `over`."""
        both = zip(self.timings[name], self.timings[over], strict=True)
        ratios = sorted(getattr(a, clock) / getattr(b, clock) for a, b in both)
        outside = _order_below(len(ratios))
        return Ratio(statistics.median(ratios), ratios[outside], ratios[-1 - outside], len(ratios))

    def seconds(self) -> dict[str, dict[str, float]]:
        """Median wall, user and system seconds of every way, for json."""
        return {
            name: {
                kind: statistics.median(asdict(t)[kind] for t in times) for kind in ("wall", "user", "system")
            }
            for name, times in self.timings.items()
        }


def time_pairs(
    ways: Mapping[str, Callable[[], Any]],
    *,
    compared: Mapping[tuple[str, str], Clock],
    spread: float = 0.05,
    most_seconds: float = 300.0,
    least_rounds: int = LEAST_ROUNDS,
) -> Pairs:
    """Time all ways in turns until every compared ratio's spread is below `spread`, or `most_seconds` have passed.

    Args:
        ways: work by name; each was warmed up by the caller where that matters.
        compared: (name, name) to the clock by which their ratio is judged.
        spread: see `Ratio.spread`.
        most_seconds: no round begins after it, except the first `least_rounds`.
    """
    pairs, began = Pairs({name: [] for name in ways}), time.perf_counter()
    for rounds in range(10**6):
        if rounds >= least_rounds:
            worst = max((pairs.ratio(*names, clock).spread for names, clock in compared.items()), default=0.0)
            if worst < spread or time.perf_counter() - began > most_seconds:
                break
        for name in sorted(ways, reverse=bool(rounds % 2)):
            pairs.timings[name].append(timed(ways[name]))
    return pairs


def warning(name: str, ratio: Ratio, *, spread: float = 0.05) -> str | None:
    """What to say of a ratio that did not settle; None where it did."""
    if ratio.spread < spread:
        return None
    return f"warning: {name} did not settle: +-{ratio.spread:.0%} after {ratio.rounds} rounds; something else runs here"


def timed(work: Callable[[], Any]) -> Timing:
    """Seconds of one call, of this process and the children it waited for."""
    user, system = _cpu()
    wall = time.perf_counter()
    work()
    wall = time.perf_counter() - wall
    user_after, system_after = _cpu()
    return Timing(wall, user_after - user, system_after - system)


def _cpu() -> tuple[float, float]:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime for usage in usages), sum(usage.ru_stime for usage in usages)


def _order_below(count: int) -> int:
    """How many values lie below the 95 % interval of the median of `count` values: 0 up to 8, 1 from 9 on, ..."""
    below, probability = 0, 0.5**count
    while (probability := probability + math.comb(count, below + 1) * 0.5**count) <= 0.025:
        below += 1
    return below
