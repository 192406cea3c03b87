"""What is said of several agents on several tasks with several seeds each, from the curve of every run. No torch.

A run's curve has one value per evaluation. Runs are compared at one number of environment frames a task, where the value
of a run is that of its last evaluation up to there; intervals resample runs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cwm_hub.evaluation.intervals import interquartile_band, interquartile_mean, probability_of_improvement

QUANTITIES = ("success", "score")
"""What an episode is judged by: whether it solved the task, and its return."""


@dataclass(frozen=True)
class RunCurve:
    """Means over the episodes of every evaluation of one run."""

    task: str
    agent: str
    seed: int
    env_frames: tuple[int, ...]
    """Of the evaluations, rising."""
    values: Mapping[str, tuple[float, ...]]
    """Quantity -> a mean for each evaluation."""

    def at(self, frames: int, quantity: str) -> float | None:
        """Of the last evaluation up to there, None where there is none."""
        before = [
            value for at, value in zip(self.env_frames, self.values[quantity], strict=True) if at <= frames
        ]
        return before[-1] if before else None


@dataclass(frozen=True)
class AgentCurve:
    """What the runs of one agent on one task have reached together."""

    env_frames: np.ndarray
    iqm: np.ndarray
    low: np.ndarray
    high: np.ndarray
    runs: np.ndarray
    """How many have reached each point."""


def together(runs: Sequence[RunCurve], quantity: str) -> AgentCurve:
    """IQM and band at every point at which a run was evaluated, over the runs that have come so far.

    The value of a run between two of its evaluations is that of the first.
    """
    points = []
    for at in sorted({at for run in runs for at in run.env_frames}):
        so_far = [run.at(at, quantity) for run in runs if run.env_frames[-1] >= at]
        values = np.array([value for value in so_far if value is not None])
        iqm, low, high = interquartile_band(values[:, None])
        points.append((at, iqm[0], low[0], high[0], len(values)))
    return AgentCurve(*map(np.array, zip(*points, strict=True)))


def compared_at(runs: Iterable[RunCurve], frames: int | None = None) -> dict[str, int]:
    """Task -> environment frames at which its runs are compared: as far as all of them have come, or as given."""
    ends: dict[str, int] = {}
    for run in runs:
        ends[run.task] = min(ends.get(run.task, run.env_frames[-1]), run.env_frames[-1])
    return {task: end if frames is None else frames for task, end in ends.items()}


def scores_by_agent(
    runs: Sequence[RunCurve], at: Mapping[str, int], quantity: Mapping[str, str]
) -> dict[str, dict[str, list[float]]]:
    """Agent -> task -> the value of every run at the point of comparison, in the quantity of the task."""
    found: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        value = run.at(at[run.task], quantity[run.task])
        if value is not None:
            found.setdefault(run.agent, {}).setdefault(run.task, []).append(value)
    return found


def shared_tasks(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Tasks on which every agent has a run, in the order of the first."""
    first, *others = scores.values()
    return [task for task in first if all(task in other for other in others)]


def compare_agents(
    scores: Mapping[str, Mapping[str, Sequence[float]]], tasks: Sequence[str], successes: Sequence[str]
) -> dict[str, Any]:
    """IQM of every agent, and of every two the probability that the one improves on the other.

    Args:
        scores: Agent -> task -> a value per run, as `scores_by_agent` gives them.
        tasks: All agents have these.
        successes: Those of them whose values are success rates, which alone can be put together in one IQM.

    Returns:
        `iqm` (agent -> as `interquartile_mean`), `improvement` (agent -> other -> as `probability_of_improvement`).
    """
    chosen = {agent: {task: of_agent[task] for task in tasks} for agent, of_agent in scores.items()}
    iqm = {
        agent: interquartile_mean({task: of_agent[task] for task in successes})
        for agent, of_agent in chosen.items()
        if successes
    }
    improvement = {
        agent: {
            other: probability_of_improvement(chosen[agent], chosen[other])
            for other in chosen
            if other != agent
        }
        for agent in chosen
    }
    return {"iqm": iqm, "improvement": improvement}
