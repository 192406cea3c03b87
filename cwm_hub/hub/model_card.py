"""The model card of a checkpoint directory: what its own files say, laid out by `cards/model_card.md`.

Only measured numbers appear: a card without a scorecard says that nothing was measured.
"""

import contextlib
import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from cwm_hub.evaluation import words
from cwm_hub.hub_client.cards import BEGIN, END, code, inert, template
from cwm_hub.hub_client.errors import HubError
from cwm_hub.hub_client.names import HUB_ID

PAPER = "arXiv 2305.18499"


@dataclasses.dataclass(frozen=True)
class Usage:
    """What a card says of a kind of model: the same for every checkpoint of that kind."""

    pipeline_tag: str
    """Task under which the Hub lists it."""
    tags: tuple[str, ...]
    """Further words to find it by."""
    summary: str
    """What it is, one sentence."""
    inputs: str
    """Names, types and shapes of what goes in."""
    outputs: str
    """The same of what comes out."""
    snippet: str
    """Python that loads and runs it; `NAME` stands for the checkpoint."""


USAGE = {
    "video_world_model": Usage(
        pipeline_tag="video-to-video",
        tags=("world-model", "video-prediction"),
        summary="An action-free video world model: it sees a few frames and imagines how they go on.",
        inputs="`video`: uint8, RGB, `[batch, time, 3, height, width]`; frames seen: the first `observed_frames`.",
        outputs="uint8 of the same shape: the frames seen as the model reconstructs them, then its open-loop prediction.",
        snippet="""\
import torch
from cwm_hub import from_pretrained

model = from_pretrained("NAME")
side = model.image_size
video = torch.randint(0, 256, (1, 12, 3, side, side), dtype=torch.uint8)  # your clip here
prediction = model.predict(video, observed_frames=5)
assert prediction.shape == video.shape and prediction.dtype == torch.uint8
""",
    ),
    "action_world_model": Usage(
        pipeline_tag="reinforcement-learning",
        tags=("world-model", "model-based-rl"),
        summary="An action-conditional world model: it follows images and actions and predicts rewards from its state.",
        inputs="`image`: uint8, RGB, `[batch, 3, height, width]`; `action`: float, the one that led to the image, in "
        "the units in which it was learned ([-1, 1] of an environment).",
        outputs="A state after every image, and the reward that the model expects there, where it learned from rewards.",
        snippet="""\
import torch
from cwm_hub import from_pretrained

model = from_pretrained("NAME")
side, actions = model.image_size, model.config.action_size
image = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8)  # your camera here
with torch.no_grad():
    state = model.obs_step(model.initial(1), image, torch.zeros(1, actions), torch.tensor([True]))
    reward = model.behavioural_reward(model.feature(state))
assert reward.shape == (1,)
""",
    ),
    "dreamer_agent": Usage(
        pipeline_tag="reinforcement-learning",
        tags=("world-model", "model-based-rl", "deep-reinforcement-learning"),
        summary="A model-based agent: a world model and an actor trained in its imagination.",
        inputs="`image`: uint8 array, RGB, `[batch, 3, height, width]`, and the agent's own state.",
        outputs="`action`: float32 array in [-1, 1], `[batch, action_size]`, and the next state.",
        snippet="""\
import numpy as np
from cwm_hub import from_pretrained

agent = from_pretrained("NAME")
side = agent.world_model.image_size
image = np.zeros((1, 3, side, side), dtype=np.uint8)  # your camera here
action, state = agent.act(image, agent.initial_state(1), explore=False)
assert action.shape == (1, agent.config.world.action_size)
""",
    ),
    "drqv2_agent": Usage(
        pipeline_tag="reinforcement-learning",
        tags=("model-free-rl", "deep-reinforcement-learning"),
        summary="A model-free agent (DrQ-v2): an actor-critic on stacked frames.",
        inputs="`image`: uint8 array, RGB, `[batch, 3, height, width]`, and the agent's own state.",
        outputs="`action`: float32 array in [-1, 1], `[batch, action_size]`, and the next state.",
        snippet="""\
import numpy as np
from cwm_hub import from_pretrained

agent = from_pretrained("NAME")
side = agent.config.image_size
image = np.zeros((1, 3, side, side), dtype=np.uint8)  # your camera here
action, state = agent.act(image, agent.initial_state(1), explore=False)
assert action.shape == (1, agent.config.action_size)
""",
    ),
}
"""By `model_type`."""

FILM = {"replay.mp4": "Evaluation episodes as the agent's camera sees them."}
"""Caption of the film that an agent's run leaves."""

POLICIES = {"mode": "this agent", "sampled": "samples of its policy", "random": "a random policy"}
"""Policies that an evaluation plays, in words."""

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
    with _form_of(directory / "train.json"):
        train = _read(directory / "train.json")
        shards = [_shard_row(shard) for shard in train.get("parents", {}).get("shards", [])]
        init = train.get("parents", {}).get("init") or {}
        licence = licence or ("mit" if all(shard["redistributable"] for shard in shards) else "other")
        facts: dict[str, Any] = {
            "shards": inert(shards),
            "init": init.get("name") and _parent(init),
            "origin": _origin(train.get("converted_from") or {}),
            "training": inert(training_facts(train)),
            "command": inert(_short_paths(str(train.get("command") or ""))),
            "versions": inert(train.get("versions", {})),
            "machine": inert(train.get("machine", {})),
            "episodes": _episodes(train),
            "episode_rows": _episode_rows(train),
        }
        results = _episode_results(train, usage)
    with _form_of(directory / "scorecard.json"):
        scorecard = _read(directory / "scorecard.json")
        shown = inert(scorecard)
        facts |= {
            "protocol": inert(_protocol_facts(scorecard.get("protocol", {}))),
            "measured": words.protocol_sentences(shown["protocol"]) if "sources" in shown else None,
            "scores": _score_tables(shown) if "sources" in shown else [],
            "fvd": words.fvd_sentence(shown["fvd"]) if "fvd" in shown else None,
        }
        results = [*_eval_results(scorecard, usage), *results]
        data = ModelCardData(
            library_name="cwm-hub",
            license=licence,
            pipeline_tag=usage.pipeline_tag,
            tags=["cwm-hub", "contextwm", "arxiv:2305.18499", *usage.tags],
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


@contextlib.contextmanager
def _form_of(path: Path) -> Iterator[None]:
    """Says which file is not what its recipe writes, in place of where the reading of it failed."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise HubError(f"{path.name} does not have the form that the recipes write ({reason})") from error


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


def _protocol_facts(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """What fits in a sentence: the single values, and how many windows there are."""
    single = {key: value for key, value in protocol.items() if not isinstance(value, dict | list)}
    return single | ({"windows": len(protocol["windows"])} if "windows" in protocol else {})


def _score_tables(scorecard: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A table for each data set, and one for all where there are several."""
    return [
        {
            "title": f"**{name}** ({words.counted(part, scorecard['protocol'])})",
            "table": words.score_table({"this model": part}),
        }
        for name, part in words.parts(scorecard).items()
    ]


def _eval_results(scorecard: Mapping[str, Any], usage: Usage) -> list[EvalResult]:
    """The model's own scores as the Hub's `model-index` wants them, a finite one for each data set and metric."""
    return [
        EvalResult(
            task_type=usage.pipeline_tag,
            dataset_type=" ".join(name.split()),
            dataset_name=" ".join(name.split()),
            metric_type=key,
            metric_name=f"{metric.heading}, open loop",
            metric_value=round(part["model"][key]["mean"], 4),
        )
        for name, part in scorecard.get("sources", {}).items()
        for key, metric in words.METRICS.items()
        if key in part["model"] and math.isfinite(part["model"][key]["mean"])
    ]


def _captions(directory: Path) -> dict[str, str]:
    """Captions by file name: of an evaluation's pictures, then of others, whose name is all that is known."""
    names = {path.name for path in directory.iterdir() if path.suffix in (".gif", ".mp4", ".png")}
    known = {name: caption for name, caption in (words.PICTURES | FILM).items() if name in names}
    others = {name: inert(Path(name).stem.replace("_", " ")) for name in sorted(names - known.keys())}
    return {quote(name): caption for name, caption in (known | others).items()}


def _episodes(train: Mapping[str, Any]) -> dict[str, Any] | None:
    """The last evaluation of a fine-tuning run, or None when there was none."""
    evaluation = train.get("evaluation", {})
    return evaluation if "score" in evaluation else None


def _episode_rows(train: Mapping[str, Any]) -> dict[str, list[str]]:
    """Cells of score and success rate for every policy that was played at the end."""
    episodes = _episodes(train) or {}
    played = {words: episodes if key == "mode" else episodes.get(key) for key, words in POLICIES.items()}
    return {
        words: [_interval(scores, "score"), _interval(scores, "success_rate")]
        for words, scores in played.items()
        if isinstance(scores, Mapping) and "score" in scores
    }


def _interval(scores: Mapping[str, Any], metric: str) -> str:
    """Mean, and the interval where there is one."""
    if metric not in scores:
        return "-"
    bounds = [f"{scores[f'{metric}_{end}']:.2f}" for end in ("low", "high") if f"{metric}_{end}" in scores]
    return f"{scores[metric]:.2f}" + (f" [{', '.join(bounds)}]" if bounds else "")


def _episode_results(train: Mapping[str, Any], usage: Usage) -> list[EvalResult]:
    """The same as the Hub's `model-index` wants it."""
    episodes = _episodes(train)
    if episodes is None:
        return []
    return [
        EvalResult(
            task_type=usage.pipeline_tag,
            dataset_type=train["task"],
            dataset_name=train["task"],
            metric_type=metric,
            metric_name=f"{name}, {episodes['episodes']} episodes, one seed",
            metric_value=round(episodes[metric], 4),
        )
        for metric, name in (("score", "mean score"), ("success_rate", "success rate"))
        if metric in episodes
    ]
