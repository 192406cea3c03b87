"""Checkpoints of a fine-tuning run: exact continuation at the start of an episode.

A checkpoint holds the agent in hub format, the optimisers and random states (`training.pt`, a local file that is
loaded with `weights_only` and never published) and the counters with the replay's high-water mark (`state.json`).
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwm_hub.shards.storage import commit_folder
from recipes.run.folder import keep_newest, step_directory

if TYPE_CHECKING:
    from torch import Tensor

    from cwm_hub.agents.dreamer import DreamerAgent
    from cwm_hub.agents.replay import Replay


@dataclass
class Progress:
    """Counters of a run."""

    agent_steps: int = 0
    episodes: int = 0
    seconds: float = 0.0
    bad_in_a_row: int = 0
    logged_updates: int = 0
    """The agent's updates at the last row of metrics.jsonl."""
    summed_updates: int = 0
    """Updates whose metrics wait for the next row."""


def save_checkpoint(
    checkpoints: Path,
    agent: "DreamerAgent",
    parent: dict[str, Any] | None,
    replay: "Replay",
    progress: Progress,
    sums: dict[str, "Tensor"],
) -> None:
    """Writes everything beside its place and renames it.

    The checkpoint before it goes afterwards, and so do the files of episodes that the replay no longer holds.
    """
    import torch

    from cwm_hub.hub.checkpoint import save_pretrained

    target = step_directory(checkpoints, progress.agent_steps)
    temporary = target.with_suffix(".tmp")
    temporary.mkdir(parents=True, exist_ok=True)
    save_pretrained(agent, temporary / "agent", card=False)
    random = {"cpu": torch.get_rng_state()}
    if agent.device.type == "cuda":
        random["cuda"] = torch.cuda.get_rng_state(agent.device)
    training = {"agent": agent.training_state(), "random": random, "sums": sums}
    torch.save(training, temporary / "training.pt")
    state = {"progress": asdict(progress), "parent": parent, "replay": replay.state()}
    (temporary / "state.json").write_text(json.dumps(state))
    commit_folder(temporary, target)
    keep_newest(checkpoints, 1)
    replay.forget_evicted()


def load_checkpoint(
    place: Path, replay: "Replay", *, device: str
) -> tuple["DreamerAgent", dict[str, Any] | None, Progress, dict[str, "Tensor"]]:
    """`(agent, parent, progress, sums)` as they were saved; replay and random states are set to theirs."""
    import torch

    from cwm_hub.agents.dreamer import DreamerAgent
    from cwm_hub.hub.pretrained import from_pretrained

    state = json.loads((place / "state.json").read_text())
    agent = from_pretrained(place / "agent", device=device, expect=DreamerAgent)
    training = torch.load(place / "training.pt", map_location=device, weights_only=True)
    agent.load_training_state(training["agent"])
    replay.restore(state["replay"])
    torch.set_rng_state(training["random"]["cpu"].cpu())
    if "cuda" in training["random"] and agent.device.type == "cuda":
        torch.cuda.set_rng_state(training["random"]["cuda"].cpu(), agent.device)
    return agent, state["parent"], Progress(**state["progress"]), training["sums"]
