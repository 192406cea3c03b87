"""What a checkpoint says of itself, as facts with names: what `cwm-hub info` shows and `cwm-hub compare` puts side by side."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cwm_hub.evaluation import words
from cwm_hub.evaluation.protocol import check_scorecard
from cwm_hub.hub.checkpoint import SCORECARD, TRAIN, Checkpoint
from cwm_hub.hub.files import form_of
from cwm_hub.hub.model_card import training_facts
from cwm_hub.hub_client.cards import CARD, front_matter

SCORED = ("protocol", "windows", "sources", "together")
"""Parts of a scorecard that are told of."""


@dataclass(frozen=True)
class Description:
    """One checkpoint in words."""

    name: str
    """With its commit, where it has one."""
    facts: dict[str, str]
    """Type, sizes, who wrote it, licence."""
    parents: dict[str, str]
    """What it was made from, by what that is."""
    training: dict[str, str]
    """How it came to be."""
    config: dict[str, str]
    """Every value of the model's configuration by its dotted name."""
    scorecard: Mapping[str, Any] | None
    """How well it predicts; None where that was not measured."""
    scores: list[str]
    """The same, a sentence for each data set and for each further measure."""
    episodes: Mapping[str, Any] | None
    """Scores of an agent's last evaluation; None where there was none."""


def describe(checkpoint: Checkpoint) -> Description:
    """Reads everything but the weights' numbers.

    Raises:
        CheckpointError: a file that is not what the format says.
        ValueError: a scorecard of another format.
    """
    train, scorecard = checkpoint.read(TRAIN) or {}, checkpoint.read(SCORECARD)
    scores = []
    if scorecard is not None:
        where = checkpoint.where(SCORECARD)
        check_scorecard(scorecard, where=where, parts=SCORED)
        with form_of(where):
            scores = _scores(scorecard)
    facts = {
        "type": str(checkpoint.header["model_type"]),
        "parameters": f"{checkpoint.parameters():,}",
        "weights": f"{checkpoint.weights_bytes() / 1e6:.1f} MB",
        "format": f"{checkpoint.header['format_version']}, written by cwm_hub {checkpoint.header.get('cwm_hub_version')}",
        "licence": _licence(checkpoint),
    }
    with form_of(f"{checkpoint}/{TRAIN}"):
        evaluation, parents, training = train.get("evaluation"), _parents(train), training_facts(train)
    return Description(
        name=str(checkpoint),
        facts=facts,
        parents=parents,
        training=training,
        config=flattened(checkpoint.header["config"]),
        scorecard=scorecard,
        scores=scores,
        episodes=evaluation if isinstance(evaluation, Mapping) and "score" in evaluation else None,
    )


def flattened(config: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """`{"rssm": {"deter": 8}}` as `{"rssm.deter": "8"}`; an absent part is `none`."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{above}{key}.")
        else:
            flat[f"{above}{key}"] = "none" if value is None else str(value)
    return flat


def _scores(scorecard: Mapping[str, Any]) -> list[str]:
    protocol = scorecard["protocol"]
    parts = [
        f"{name}: {words.standing(part)}, on {words.counted(part, protocol)}"
        for name, part in words.parts(scorecard).items()
    ]
    return parts + words.further_sentences(scorecard)


def _licence(checkpoint: Checkpoint) -> str:
    try:
        card = checkpoint.fetch(CARD).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return "no card says"
    return str(front_matter(card).get("license") or "the card does not say")


def _parents(train: Mapping[str, Any]) -> dict[str, str]:
    parents = train.get("parents") or {}
    found = {}
    for number, shard in enumerate(parents.get("shards") or [], 1):
        commit = f"@{shard['commit'][:12]}" if shard.get("commit") else ""
        found[f"shards {number}"] = (
            f"{shard.get('root')}{commit}, manifest {str(shard.get('manifest_hash'))[:12]}"
        )
    init = parents.get("init")
    if init:
        revision = f"@{init['revision'][:12]}" if init.get("revision") else ""
        found["initial weights"] = (
            f"{init.get('name')}{revision}, sha256 {str(init.get('weights_sha256'))[:12]}"
        )
    for name, digest in (train.get("converted_from") or {}).get("files", {}).items():
        found[f"official {name}"] = f"sha256 {digest[:12]}"
    return found
