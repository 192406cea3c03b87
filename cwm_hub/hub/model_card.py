"""The model card of a checkpoint directory: what its own files say, laid out by `cards/model_card.md`.

Only measured numbers appear: a card without a scorecard says that nothing was measured.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import ModelCard, ModelCardData

from cwm_hub.evaluation import words
from cwm_hub.hub.card_results import episode_facts, episode_results, scorecard_facts, scorecard_results
from cwm_hub.hub.files import form_of
from cwm_hub.hub.model_kinds import USAGE
from cwm_hub.hub_client.cards import BEGIN, END, code, inert, template
from cwm_hub.hub_client.names import HUB_ID

FILM = {"replay.mp4": "Evaluation episodes as the agent's camera sees them."}
"""Caption of the film that an agent's run leaves."""

TRAINING_FACTS = {
    "recipe": "recipe",
    "preset": "preset",
    "task": "task",
    "agent_steps": "agent steps",
    "env_frames": "environment frames",
    "updates": "updates",
    "batch_clips": "clips a batch",
    "window_frames": "frames a clip",
    "logged": "learned from beside the frames",
    "learning_rate": "learning rate",
    "skipped_updates": "updates skipped (not finite)",
    "seed": "seed",
    "seconds": "wall time (s)",
    "device": "device",
    "processes": "processes",
    "precision": "precision",
    "git_commit": "commit",
}
"""Entries of `train.json`, or of the `config` in it, shown in the training table where they are there."""


def model_card(directory: Path, *, name: str, parameters: int, licence: str | None = None) -> str:
    """README.md of a checkpoint directory, from its `config.json`, `train.json`, `scorecard.json` and pictures.

    Whatever those files say is shown as text: no markup in them takes effect.

    Args:
        directory: the checkpoint.
        name: what the reader gives to `from_pretrained`.
        parameters: how many the model has.
        licence: of the weights, as the Hub names licences; by default `mit`, and `other` where a shard set behind
            them is recorded as one that may not be passed on.

    Raises:
        HubError: `train.json` or `scorecard.json` does not have the form that recipes write.
    """
    header = _read(directory / "config.json")
    usage = USAGE[header["model_type"]]
    title = " ".join(name.rstrip("/").rsplit("/", 1)[-1].split())
    with form_of("train.json"):
        train = _read(directory / "train.json")
        shards = [_shard_row(shard) for shard in train.get("parents", {}).get("shards", [])]
        init = train.get("parents", {}).get("init") or {}
        licence = licence or ("mit" if all(shard["redistributable"] for shard in shards) else "other")
        facts: dict[str, Any] = {
            "shards": inert(shards),
            "init": init.get("name") and _parent(init),
            "origin": _origin(train.get("converted_from") or {}),
            "assumed": _assumed(train.get("converted_from") or {}),
            "training": inert(training_facts(train)),
            "command": inert(_short_paths(str(train.get("command") or ""))),
            "versions": inert(dict(train.get("versions", {}))),
            "machine": inert(dict(train.get("machine", {}))),
            **episode_facts(train),
        }
        results = episode_results(train, usage)
    with form_of("scorecard.json"):
        scorecard = _read(directory / "scorecard.json")
        facts |= scorecard_facts(inert(scorecard))
        results = [*scorecard_results(scorecard, usage), *results]
        data = ModelCardData(
            library_name="cwm-hub",
            license=licence,
            pipeline_tag=usage.pipeline_tag,
            tags=["cwm-hub", *usage.tags],
            datasets=[shard["hub_id"] for shard in shards if shard["hub_id"]] or None,
            base_model=init["name"]
            if HUB_ID.fullmatch(str(init.get("name", ""))) and init.get("revision")
            else None,
            model_name=title,
            eval_results=results or None,
        )
        return ModelCard.from_template(
            data,
            template_path=str(template("model_card.md")),
            begin=BEGIN,
            end=END,
            title=inert(title),
            usage=usage,
            snippet=usage.snippet.replace('"NAME"', json.dumps(name)),
            header=inert({key: header[key] for key in ("model_type", "format_version", "cwm_hub_version")}),
            config_json=json.dumps(header["config"], indent=2),
            parameters=parameters,
            licence=licence,
            pictures=_captions(directory),
            **facts,
        ).content


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise TypeError(f"a {type(content).__name__} and not a mapping")
    return content


def _parent(init: Mapping[str, Any]) -> str:
    """The checkpoint that the weights began with, and which of its versions."""
    revision, digest = init.get("revision"), init.get("weights_sha256")
    return (
        code(init["name"])
        + (f" at {code(revision)}" if revision else "")
        + (f", sha256 {code(digest)}" if digest else "")
    )


def _origin(converted: Mapping[str, Any]) -> str | None:
    """Whose files a converted model was, with their hashes; None for one that was trained here."""
    if not converted:
        return None
    files = ", ".join(f"{code(name)} (sha256 {code(digest)})" for name, digest in converted["files"].items())
    source = f" They come from: {inert(converted['source'])}." if converted.get("source") else ""
    return f"{files}.{source}"


def _assumed(converted: Mapping[str, Any]) -> str:
    """Settings of a converted model that its files do not tell, with their values."""
    return ", ".join(
        f"{code(name)} {inert(str(value))}" for name, value in (converted.get("not_in_files") or {}).items()
    )


def _short_paths(command: str) -> str:
    """The command with the last name of every absolute path: the folders above it are this machine's business."""
    return re.sub(r"(?<![\w:/.~-])~?/(?:[^\s/'\"\]},:]+/)+", ".../", command)


def training_facts(train: Mapping[str, Any]) -> dict[str, str]:
    """What `train.json` says, in words."""
    entries = {**train.get("config", {}), **train}
    known = {name: entries.get(key) for key, name in TRAINING_FACTS.items()}
    return {name: str(value) for name, value in known.items() if value is not None}


def _shard_row(shard: Mapping[str, Any]) -> dict[str, Any]:
    root = str(shard.get("root", ""))
    on_hub = re.fullmatch(rf"hf://datasets/({HUB_ID.pattern})(?:[@/].*)?", root)
    return {
        "name": shard.get("name") or Path(root).name,
        "clips": shard.get("clips", "not recorded"),
        "frames": shard.get("frames", "not recorded"),
        "licence": shard.get("licence") or "see the manifest",
        "manifest_hash": shard.get("manifest_hash", "not recorded"),
        "commit": shard.get("commit") or "",
        "redistributable": shard.get("redistributable") is not False,
        "hub_id": on_hub[1] if on_hub else None,
    }


def _captions(directory: Path) -> dict[str, str]:
    """Captions by file name: of an evaluation's pictures, then of others, whose name is all that is known."""
    names = {path.name for path in directory.iterdir() if path.suffix in (".gif", ".mp4", ".png")}
    known = {name: caption for name, caption in (words.PICTURES | FILM).items() if name in names}
    others = {name: inert(Path(name).stem.replace("_", " ")) for name in sorted(names - known.keys())}
    return {quote(name): caption for name, caption in (known | others).items()}
