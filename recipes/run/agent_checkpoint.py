"""Checkpoints of a fine-tuning run: exact continuation at any step.

A checkpoint holds the agent in hub format, the optimisers, random states and episodes under way (`training.pt`, a local file that
is loaded with `weights_only` and never published) and the counters with the replay's high-water mark (`state.json`).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from cwm_hub.agents.agent import Agent
from cwm_hub.agents.replay import DamagedEpisodeError, Replay
from cwm_hub.agents.rollout import Collector, KeptEpisode, RandomPolicy, kept_episodes
from cwm_hub.config import check_range, from_dict
from cwm_hub.hub.pretrained import from_pretrained
from cwm_hub.hub.saving import save_pretrained
from cwm_hub.shards.storage import commit_folder
from recipes.run.folder import RecipeError, keep_newest, step_directory, writing

INTERVAL = {"first", "skipped", "sums"}
"""What a meter stores."""


@dataclass
class Progress:
    """Counters of a run, and what is due."""

    agent_steps: int = 0
    episodes: int = 0
    updates: int = 0
    due_updates: int = 0
    """Updates to make before the next agent step."""
    evaluated_at: int = -1
    """Agent steps at the last evaluation; -1 before that of the random policy."""
    given_up_steps: int = 0
    """Agent steps of episodes that a resume could not go on with, which the replay never got."""
    skipped: int = 0
    seconds: float = 0.0
    interval: dict[str, Any] = field(default_factory=dict)
    """What the meter has summed since the last row of metrics.jsonl."""

    def __post_init__(self) -> None:
        """Raises ValueError for counters that no run has, and for sums of another form."""
        check_range(self, "agent_steps", "episodes", "updates", "due_updates", at_least=0)
        check_range(self, "given_up_steps", "skipped", "seconds", at_least=0)
        check_range(self, "evaluated_at", at_least=-1)
        if self.interval and set(self.interval) != INTERVAL:
            raise ValueError(f"interval has {', '.join(sorted(INTERVAL))}, got {', '.join(self.interval)}")


def save_checkpoint(
    checkpoints: Path,
    agent: Agent,
    parent: dict[str, Any] | None,
    replay: Replay,
    collector: Collector,
    progress: Progress,
) -> None:
    """Writes everything beside its place and renames it.

    The checkpoint before it goes afterwards, and so do the files of episodes that the replay no longer holds.
    """
    target = step_directory(checkpoints, progress.agent_steps)
    temporary = target.with_suffix(".tmp")
    temporary.mkdir(parents=True, exist_ok=True)
    save_pretrained(cast(torch.nn.Module, agent), temporary / "agent", card=False)
    random = {"cpu": torch.get_rng_state()}
    if agent.device.type == "cuda":
        random["cuda"] = torch.cuda.get_rng_state(agent.device)
    training = {"agent": agent.training_state(), "random": random, "under_way": collector.state()}
    with writing(temporary):
        torch.save(training, temporary / "training.pt")
    state = {"progress": asdict(progress), "parent": parent, "replay": replay.state()}
    (temporary / "state.json").write_text(json.dumps(state))
    commit_folder(temporary, target)
    keep_newest(checkpoints, 1)
    replay.forget_evicted()


def load_checkpoint(
    place: Path, replay: Replay, device: torch.device, *, random: RandomPolicy
) -> tuple[Agent, dict[str, Any] | None, Progress, list[KeptEpisode]]:
    """`(agent, parent, progress, under_way)` as they were saved; replay and random states are set to theirs.

    Of the episodes under way those that the agent did not begin are `random`'s.

    Raises:
        ValueError: names the file that is missing or damaged.
    """
    with damage_named(place / "state.json"):
        state = json.loads((place / "state.json").read_text())
        progress, parent = from_dict(Progress, state["progress"], where="progress"), state["parent"]
        replay.restore(state["replay"])
    agent = from_pretrained(place / "agent", device=device)
    assert isinstance(agent, Agent)
    with damage_named(place / "training.pt"):
        training = torch.load(place / "training.pt", map_location=device, weights_only=True)
        agent.load_training_state(training["agent"])
        torch.set_rng_state(training["random"]["cpu"].cpu())
        if "cuda" in training["random"] and device.type == "cuda":
            torch.cuda.set_rng_state(training["random"]["cuda"].cpu(), device)
        under_way = kept_episodes(training.get("under_way", []), agent=agent, random=random)  # once none
    return agent, parent, progress, under_way


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turns what a damaged file raises into one sentence that names it; a damaged episode names its own."""
    try:
        yield
    except (DamagedEpisodeError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # zip, pickle, torch and each part of a state have their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RecipeError(
            f"{path} is missing or damaged ({reason}): put back a copy of it, or begin a new run with another --run"
        ) from error
