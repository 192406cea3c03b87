"""A published evaluation done again: the same windows or episodes, by what was recorded, and how far apart the numbers are."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cwm_hub.config import to_dict
from cwm_hub.evaluation.protocol import ScoringConfig, check_same_protocol, check_scorecard
from cwm_hub.hub.checkpoint import SCORECARD, TRAIN, Checkpoint
from cwm_hub.hub.description import SCORED
from cwm_hub.hub_client.errors import HubError
from cwm_hub.shards.codecs import ShardError


@dataclass(frozen=True)
class Number:
    """One published number and the same measured now."""

    what: str
    """Data set and metric, or policy and metric."""
    unit: str
    published: float
    measured: float


@dataclass(frozen=True)
class Reproduction:
    """What came out."""

    numbers: tuple[Number, ...]
    """Means, in the order of the card."""
    largest: Number | None
    """The window whose published and measured scores are furthest apart; None of an agent, whose episodes are not published."""


def reproduce_scorecard(checkpoint: Checkpoint, roots: Sequence[str] = ()) -> Reproduction:
    """Predicts and scores the windows of the published scorecard again.

    Args:
        checkpoint: of a video world model.
        roots: shard directories in any order, found out by their hashes; where training recorded them by default.

    Raises:
        HubError: no scorecard, or a shard directory that is not one of those that it was measured on.
        ProtocolError: the same settings give other windows or another mean frame.
    """
    from cwm_hub.evaluation import perceptual
    from cwm_hub.evaluation.held_out import make_protocol, read_held_out
    from cwm_hub.evaluation.predict import score

    card = checkpoint.read(SCORECARD)
    if card is None:
        raise HubError(f"{checkpoint} has no {SCORECARD}: there is nothing to reproduce")
    check_scorecard(card, where=f"{checkpoint}/{SCORECARD}", parts=SCORED)
    protocol = card["protocol"]
    lpips, fvd = "lpips" in card["together"]["model"], "fvd" in card
    if lpips:
        perceptual.check_lpips()
    if fvd:
        perceptual.check_fvd(protocol["observed_frames"] + protocol["horizon"])
    places = _places(checkpoint, protocol["data"], roots)
    settings = _settings(protocol)
    held_out = read_held_out(
        settings, list(places.values()), image_size=protocol["image_size"], names=list(places)
    )
    now = make_protocol(settings, held_out)
    check_same_protocol(to_dict(now), protocol)
    again, *_ = score(checkpoint.load(), held_out, now, lpips=lpips, fvd=fvd)  # type: ignore[arg-type]
    return _scores(card, again)


def reproduce_episodes(checkpoint: Checkpoint, *, env_name: str | None = None) -> Reproduction:
    """Plays the evaluation episodes of a published agent again, on the same seeds.

    Args:
        checkpoint: of an agent.
        env_name: the task in place of the recorded one, which is refused where it would run code that the checkpoint
            names (`module:factory`).

    Raises:
        HubError: no evaluation recorded, or a task that is not one of this library's.
    """
    from cwm_hub.agents.rollout import evaluate, evaluation_seeds
    from cwm_hub.envs.table import SUITES, make_env

    train = checkpoint.read(TRAIN) or {}
    published, env = train.get("evaluation") or {}, (train.get("config") or {}).get("env")
    if not isinstance(env, Mapping) or not {"score", "episodes"} <= published.keys():
        raise HubError(f"{checkpoint} records no evaluation in an environment: there is nothing to reproduce")
    name = env_name or str(env.get("name"))
    if env_name is None and name.partition(":")[0] not in SUITES:
        raise HubError(
            f"{checkpoint} was evaluated on {name}, which is code of its own: --env {name} says to run it"
        )
    played = make_env(**{**env, "name": name})
    try:
        records = evaluate(played, checkpoint.load(), seeds=evaluation_seeds(published["episodes"]))  # type: ignore[arg-type]
    finally:
        played.close()
    measured = {
        "score": sum(record.score for record in records) / len(records),
        "success_rate": sum(record.success for record in records) / len(records),
    }
    numbers = tuple(
        Number(f"{name}, {metric.replace('_', ' ')}", "", float(published[metric]), value)
        for metric, value in measured.items()
        if metric in published
    )
    return Reproduction(numbers, None)


def _settings(protocol: Mapping[str, Any]) -> ScoringConfig:
    """What draws the recorded windows. How many frames are behind the mean frame is not recorded: the default, or the
    hash of the mean frame will differ."""
    names = [window[0] for window in protocol["windows"]]
    official = protocol["context"] == "official"
    return ScoringConfig(
        split=protocol["split"],
        windows=max(names.count(name) for name in protocol["data"]),
        observed_frames=protocol["observed_frames"],
        horizon=protocol["horizon"],
        protocol="official" if official else "observed",
        context="last" if official else protocol["context"],
        latents=protocol["latents"],
        samples=protocol["samples"],
        seed=protocol["seed"],
    )


def _places(checkpoint: Checkpoint, data: Mapping[str, str], roots: Sequence[str]) -> dict[str, str]:
    """Data set of the scorecard -> the shard directory with its manifest's hash."""
    from cwm_hub.shards.manifest import Manifest

    if roots:
        known = {Manifest.load(root).hash: root for root in roots}
        said = "none of the directories given is"
    else:
        shards = ((checkpoint.read(TRAIN) or {}).get("parents") or {}).get("shards") or []
        known = {}
        for root in dict.fromkeys(str(shard.get("root")) for shard in shards):
            with contextlib.suppress(ShardError, OSError):  # moved, or another machine's
                known[Manifest.load(root).hash] = root
        said = "where training had them there is not, or no more,"
    missing = [f"{name} (manifest {digest[:12]})" for name, digest in data.items() if digest not in known]
    if missing:
        raise HubError(f"{said} {', '.join(missing)}, which the scorecard was measured on: give it by --data")
    return {name: known[digest] for name, digest in data.items()}


def _scores(card: Mapping[str, Any], again: Mapping[str, Any]) -> Reproduction:
    from cwm_hub.evaluation import words

    measured = words.parts(again)
    numbers = tuple(
        Number(
            f"{part}, {metric.name}",
            metric.unit,
            scores["model"][key]["mean"],
            measured[part]["model"][key]["mean"],
        )
        for part, scores in words.parts(card).items()
        for key, metric in words.METRICS.items()
        if key in scores["model"]
    )
    windows = [
        Number(f"{old['key']}, from frame {old['start']}, PSNR", "dB", old["psnr_db"], new["psnr_db"])
        for old, new in zip(card["windows"], again["windows"], strict=True)
    ]
    return Reproduction(numbers, max(windows, key=lambda one: abs(one.measured - one.published)))
