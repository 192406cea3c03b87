"""How far could a mean be off? Bootstrap intervals over source videos, and the interquartile mean of RL runs.

Shape key: B windows, R runs.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

BOOTSTRAP_FIELDS = ("resamples", "confidence", "seed")


def bootstrap_interval(
    values: Float[np.ndarray, "B *rest"],
    *,
    videos: Sequence[Hashable] | None = None,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap interval (low, high) of the mean over the first axis, resampled together over the rest.

    Args:
        values: One number, or a row of them, per window.
        videos: The source video of every value. Windows of one video are alike, and may even overlap: whole videos are
            resampled, which is the wider and honest interval. None, or a single video, resamples the values.
        resamples: Bootstrap resamples.
        confidence: Coverage of the interval.
        seed: Seed of the resampling.
    """
    if len(values) < 2:
        raise ValueError(f"an interval needs at least two values, got {len(values)}")
    groups = _numbered(videos if videos is not None and len(set(videos)) > 1 else range(len(values)))
    sizes = np.bincount(groups)
    sums = np.zeros((len(sizes), *values.shape[1:]))
    np.add.at(sums, groups, values)
    count = len(sizes)
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    totals = (draws @ sizes).reshape(-1, *[1] * (values.ndim - 1))
    means = np.tensordot(draws, sums, axes=1) / totals
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return np.asarray(low), np.asarray(high)


def _numbered(names: Iterable[Hashable]) -> np.ndarray:
    """The number of each name, in the order of first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names])


def interquartile_mean(
    scores: Mapping[str, Sequence[float]], *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> dict[str, float]:
    """IQM over all runs of all tasks, with a bootstrap interval stratified by task (Agarwal et al., arXiv 2108.13264).

    Args:
        scores: Task -> one score per run. Runs are resampled within their own task.
        resamples: Bootstrap resamples.
        confidence: Coverage of the interval.
        seed: Seed of the resampling.

    Returns:
        `iqm`, `low`, `high` in the units of the scores, and the number of `runs`.
    """
    tasks = [np.asarray(runs, dtype=float) for runs in scores.values()]
    if not tasks or any(len(runs) == 0 for runs in tasks):
        raise ValueError(
            f"IQM needs at least one run of every task, got { ({k: len(v) for k, v in scores.items()}) }"
        )
    rng = np.random.default_rng(seed)
    drawn = [runs[rng.integers(len(runs), size=(resamples, len(runs)))] for runs in tasks]
    means = stats.trim_mean(np.concatenate(drawn, axis=1), 0.25, axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    together = np.concatenate(tasks)
    iqm = stats.trim_mean(together, 0.25)
    return {"iqm": float(iqm), "low": float(low), "high": float(high), "runs": len(together)}


def mean_interval(values: Float[np.ndarray, " B"], bootstrap: Mapping[str, Any]) -> dict[str, float]:
    """`mean`, `low` and `high` of values with one entry a window."""
    low, high = bootstrap_interval(values, **bootstrap)
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}
