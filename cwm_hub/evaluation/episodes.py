"""How good is an agent on a task? A row per episode, what they say together, and whether agent and task go together.

A row has `task`, `policy` (random, mode or sampled), `seed`, `score` (undiscounted sum of rewards), `success` (1.0 where
any step solved the task), `episode_steps` and `terminated`: those of fine-tuning's eval.jsonl.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from cwm_hub.agents.agent import Agent
from cwm_hub.agents.rollout import EpisodeRecord
from cwm_hub.envs.table import EnvConfig
from cwm_hub.evaluation.intervals import bootstrap_interval

if TYPE_CHECKING:
    import gymnasium

FILMED_EPISODES = 4
"""First episodes of an evaluation that its film shows side by side."""
SUMMARISED = {"score": "score", "success": "success_rate"}
"""Column of a row to the name of its mean."""


def check_fits(agent: Agent, env: "gymnasium.Env[Any, Any]", *, task: str) -> None:
    """Refuse a task whose frames or actions are not the agent's.

    Raises:
        ValueError: what the agent sees or gives, and what the task draws or takes.
    """
    assert env.observation_space.shape is not None and env.action_space.shape is not None
    side, actions = env.observation_space.shape[0], env.action_space.shape[0]
    if side != agent.image_size:
        raise ValueError(
            f"the agent sees {agent.image_size} pixels a side and {task} draws {side}: set its image_size to "
            f"{agent.image_size}"
        )
    if actions != agent.action_size:
        raise ValueError(
            f"the agent's actions have {agent.action_size} numbers and {task} takes {actions}: it cannot act there"
        )


def differences(env: EnvConfig, trained: EnvConfig) -> dict[str, list[Any]]:
    """Field -> `[here, in training]` of everything in which a task differs from the one of training."""
    here, there = asdict(env), asdict(trained)
    return {name: [here[name], there[name]] for name in here if here[name] != there[name]}


def episode_rows(records: Mapping[str, Sequence[EpisodeRecord]], *, task: str) -> list[dict[str, Any]]:
    """A row for each episode of each policy."""
    return [
        {"task": task, "policy": policy} | record.row()
        for policy, of_policy in records.items()
        for record in of_policy
    ]


def summary(
    rows: Sequence[Mapping[str, Any]], *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> dict[str, Any]:
    """Means over the episodes of each policy, with bootstrap intervals that resample episodes.

    Args:
        rows: as `episode_rows` gives them.
        resamples: bootstrap resamples.
        confidence: coverage of the intervals.
        seed: of the resampling.

    Returns:
        For each policy `episodes`, `episode_steps` (mean) and, for `score` and `success_rate`, `mean`, `low` and `high`;
        a single episode has no interval.
    """
    found: dict[str, Any] = {}
    for policy in dict.fromkeys(row["policy"] for row in rows):
        played = [row for row in rows if row["policy"] == policy]
        columns = np.array([[row[name] for name in SUMMARISED] for row in played], np.float64)
        ends = {}
        if len(played) > 1:
            low, high = bootstrap_interval(columns, resamples=resamples, confidence=confidence, seed=seed)
            ends = {"low": low, "high": high}
        steps = float(np.mean([row["episode_steps"] for row in played]))
        found[policy] = {"episodes": len(played), "episode_steps": steps}
        for at, name in enumerate(SUMMARISED.values()):
            bounds = {end: float(values[at]) for end, values in ends.items()}
            found[policy][name] = {"mean": float(columns[:, at].mean())} | bounds
    return found
