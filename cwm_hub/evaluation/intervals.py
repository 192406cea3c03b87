"""How far could a mean be off? Bootstrap intervals over source videos; of RL runs, the interquartile mean and the
probability of improvement (Agarwal et al., arXiv 2108.13264).

Shape key: B windows, R runs, P points of a learning curve.
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
            resampled, which is the wider and honest interval. None resamples the values.
        resamples: Bootstrap resamples.
        confidence: Coverage of the interval.
        seed: Seed of the resampling.

    Raises:
        ValueError: one value, or values of one video: they do not say how far another would be off.
    """
    groups = _numbered(range(len(values)) if videos is None else videos)
    sizes = np.bincount(groups)
    if len(sizes) < 2:
        what = "values" if videos is None else "source videos"
        raise ValueError(f"an interval needs at least two {what}, got {len(sizes)}")
    sums = np.zeros((len(sizes), *values.shape[1:]))
    np.add.at(sums, groups, values)
    count = len(sizes)
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    totals = (draws @ sizes).reshape(-1, *[1] * (values.ndim - 1))
    means = np.tensordot(draws, sums, axes=1) / totals
    return _ends(means, confidence)


def _numbered(names: Iterable[Hashable]) -> np.ndarray:
    """The number of each name, in the order of first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names])


def interquartile_mean(
    scores: Mapping[str, Sequence[float]], *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> dict[str, float]:
    """IQM over all runs of all tasks, with a bootstrap interval stratified by task.

    Args:
        scores: Task -> one score per run. Runs are resampled within their own task.
        resamples: Bootstrap resamples.
        confidence: Coverage of the interval.
        seed: Seed of the resampling.

    Returns:
        `iqm` in the units of the scores and the number of `runs`; `low` and `high` where every task has two runs or
        more: a single run says nothing of how far another would be off.
    """
    tasks = _strata(scores, "IQM")
    rng = np.random.default_rng(seed)
    together = np.concatenate(tasks)
    found = {"iqm": float(stats.trim_mean(together, 0.25)), "runs": len(together)}
    if min(map(len, tasks)) < 2:
        return found
    drawn = [_redrawn(runs, resamples, rng) for runs in tasks]
    means = stats.trim_mean(np.concatenate(drawn, axis=1), 0.25, axis=1)
    return found | _named_ends(means, confidence)


def interquartile_band(
    curves: Float[np.ndarray, "R P"], *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> tuple[Float[np.ndarray, " P"], Float[np.ndarray, " P"], Float[np.ndarray, " P"]]:
    """`(iqm, low, high)` over the runs at every point of their curves; whole runs are resampled.

    One run has no band: its ends are NaN.
    """
    iqm = stats.trim_mean(curves, 0.25, axis=0)
    if len(curves) < 2:
        nothing = np.full_like(iqm, np.nan)
        return iqm, nothing, nothing
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(curves), size=(resamples, len(curves)))
    means = stats.trim_mean(curves[chosen], 0.25, axis=1)
    return iqm, *_ends(means, confidence)


def probability_of_improvement(
    ours: Mapping[str, Sequence[float]],
    theirs: Mapping[str, Sequence[float]],
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, float]:
    """How probable it is that a run of ours beats one of theirs on a task drawn at random; a tie is half a win.

    Args:
        ours: Task -> one score per run.
        theirs: The same tasks, as many runs as there are. Runs are resampled within their task and their side.
        resamples: Bootstrap resamples.
        confidence: Coverage of the interval.
        seed: Seed of the resampling.

    Returns:
        `probability`, and `low` and `high` where every task has two runs or more on both sides.

    Raises:
        ValueError: other tasks on one side, or a task without a run.
    """
    if ours.keys() != theirs.keys():
        raise ValueError(f"improvement needs the same tasks, got {sorted(ours)} and {sorted(theirs)}")
    pairs = list(
        zip(
            _strata(ours, "improvement"),
            _strata({task: theirs[task] for task in ours}, "improvement"),
            strict=True,
        )
    )
    found = {"probability": float(np.mean([_wins(a[None], b[None])[0] for a, b in pairs]))}
    if min(len(runs) for pair in pairs for runs in pair) < 2:
        return found
    rng = np.random.default_rng(seed)
    wins = [_wins(_redrawn(a, resamples, rng), _redrawn(b, resamples, rng)) for a, b in pairs]
    return found | _named_ends(np.mean(wins, axis=0), confidence)


def _strata(scores: Mapping[str, Sequence[float]], what: str) -> list[np.ndarray]:
    """The runs of every task."""
    tasks = [np.asarray(runs, dtype=float) for runs in scores.values()]
    if not tasks or any(len(runs) == 0 for runs in tasks):
        raise ValueError(
            f"{what} needs at least one run of every task, got { ({k: len(v) for k, v in scores.items()}) }"
        )
    return tasks


def _redrawn(runs: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """[resamples, R]: as many runs as there are, drawn with replacement, anew in every row."""
    return runs[rng.integers(len(runs), size=(resamples, len(runs)))]


def _wins(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Share of the pairs of a row that ours win."""
    a, b = ours[:, :, None], theirs[:, None, :]
    return ((a > b) + 0.5 * (a == b)).mean(axis=(1, 2))


def _ends(resampled: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """`(low, high)` over the first axis."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return np.asarray(low), np.asarray(high)


def _named_ends(resampled: np.ndarray, confidence: float) -> dict[str, float]:
    low, high = _ends(resampled, confidence)
    return {"low": float(low), "high": float(high)}


def mean_interval(values: Float[np.ndarray, "B *rest"], bootstrap: Mapping[str, Any]) -> dict[str, Any]:
    """`mean`, `low` and `high` of values with one entry a window, as numbers or lists of them.

    Where all windows are of one source video there is the mean alone.
    """
    found = {"mean": values.mean(0).tolist()}
    if len(set(bootstrap["videos"])) < 2:
        return found
    low, high = bootstrap_interval(values, **bootstrap)
    return found | {"low": low.tolist(), "high": high.tolist()}
