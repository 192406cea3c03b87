"""A published evaluation done again: the same windows or episodes, by what was recorded, and how far apart the numbers are."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from cwm_hub.config import to_dict
from cwm_hub.evaluation.protocol import Protocol, ScoringConfig, check_same_protocol, check_scorecard
from cwm_hub.hub.checkpoint import SCORECARD, TRAIN, Checkpoint
from cwm_hub.hub.description import SCORED
from cwm_hub.hub.files import form_of
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
    remade: tuple[str, ...] = ()
    """A sentence for each data set whose shards are other files than those of the scorecard, with the same windows."""


def reproduce_scorecard(checkpoint: Checkpoint, roots: Sequence[str] = ()) -> Reproduction:
    """Predicts and scores the windows of the published scorecard again, and measures again what else it has.

    The manifest of shards that somebody made from the same videos has another hash, for it names the versions that made
    them: such a set is taken where it is called as in the scorecard and has the same windows, and it is said.

    Args:
        checkpoint: of a world model, of video or with actions.
        roots: shard directories in any order, found out by their hashes, or else by their folders' names; where training
            recorded them by default.

    Raises:
        HubError: no scorecard, or a shard directory that is not one of those that it was measured on.
        ProtocolError: the same settings give other windows or, of the same shards, another mean frame.
    """
    from cwm_hub.evaluation import perceptual
    from cwm_hub.evaluation.held_out import make_protocol, read_held_out
    from cwm_hub.evaluation.linear_probe import probe_scores, read_probe_data
    from cwm_hub.evaluation.planning import planning_error
    from cwm_hub.evaluation.predict import WorldModel, score
    from cwm_hub.models.action_world_model import ActionWorldModel

    card = checkpoint.read(SCORECARD)
    if card is None:
        raise HubError(f"{checkpoint} has no {SCORECARD}: there is nothing to reproduce")
    where = checkpoint.where(SCORECARD)
    check_scorecard(card, where=where, parts=SCORED)
    with form_of(where):
        protocol, settings, published = card["protocol"], _settings(card["protocol"]), _numbers(card)
        probes = _probe_windows(card)
        lpips, fvd = "lpips" in card["together"]["model"], "fvd" in card
        names = dict(protocol["data"])
    if lpips:
        perceptual.check_lpips()
    if fvd:
        perceptual.check_fvd(protocol["observed_frames"] + protocol["horizon"])
    places = _places(checkpoint, names, roots)
    model = checkpoint.load()
    assert isinstance(model, WorldModel)
    with_actions = isinstance(model, ActionWorldModel)
    held_out = read_held_out(
        settings,
        list(places.values()),
        image_size=protocol["image_size"],
        names=list(places),
        with_actions=with_actions,
    )
    now = make_protocol(settings, held_out)
    with form_of(where):
        remade = _remade(now, protocol)
    of_the_shards = ("data", "mean_frames", "recordings") if remade else ()
    check_same_protocol(to_dict(now) | {key: protocol.get(key, {}) for key in of_the_shards}, protocol)
    probed = {
        data_set: read_probe_data(settings, places[data_set], train_windows=asked, with_actions=with_actions)
        for data_set, asked in probes.items()
    }
    again, *_ = score(model, held_out, now, lpips=lpips, fvd=fvd)
    again |= probe_scores(model, probed, now)
    if "planning_error" in card and isinstance(model, ActionWorldModel):
        again["planning_error"] = planning_error(model, held_out, now)
    return replace(_compared(published, _numbers(again)), remade=remade)


def _remade(now: Protocol, published: Mapping[str, Any]) -> tuple[str, ...]:
    """A sentence for each data set with another manifest than the published one."""
    same = {name: now.mean_frames[name] == published["mean_frames"].get(name) for name in now.data}
    return tuple(
        f"{name}: shards made again (manifest {digest[:12]}, published of {published['data'][name][:12]}), "
        + (
            "with the same mean frame"
            if same[name]
            else "with another mean frame: the pictures are not quite the same"
        )
        for name, digest in now.data.items()
        if digest != published["data"][name]
    )


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
    from cwm_hub.envs.table import make_env, names_code
    from cwm_hub.evaluation.episodes import check_fits
    from cwm_hub.hub.agents import recorded_env

    train, where = checkpoint.read(TRAIN) or {}, f"{checkpoint}/{TRAIN}"
    with form_of(where):
        published, settings = train.get("evaluation") or {}, train.get("config")
        env = recorded_env(settings, where=where) if isinstance(settings, Mapping) else None
        if env is None or not {"score", "episodes"} <= published.keys():
            raise HubError(
                f"{checkpoint} records no evaluation in an environment: there is nothing to reproduce"
            )
        scores = {key: float(published[key]) for key in ("score", "success_rate") if key in published}
        seeds = evaluation_seeds(published["episodes"])
    recorded = env.name
    name = env_name or recorded
    if env_name is None and names_code(name):
        raise HubError(
            f"{checkpoint} was evaluated on {name}, which is code of its own: --env {name} says to run it"
        )
    played = make_env(**vars(replace(env, name=name)))
    try:
        agent: Any = checkpoint.load()
        check_fits(agent, played, task=name)
        records = evaluate(played, agent, seeds=seeds)
    finally:
        played.close()
    measured = {
        "score": sum(record.score for record in records) / len(records),
        "success_rate": sum(record.success for record in records) / len(records),
    }
    what = name if name == recorded else f"{name} (published of {recorded})"
    numbers = tuple(
        Number(f"{what}, {metric.replace('_', ' ')}", "", value, measured[metric])
        for metric, value in scores.items()
    )
    return Reproduction(numbers, None)


def _settings(protocol: Mapping[str, Any]) -> ScoringConfig:
    """What draws the recorded windows. How many frames are behind the mean frame is not recorded: the default, or the
    hash of the mean frame will differ."""
    names = [window[0] for window in protocol["windows"]]
    counts = {names.count(name) for name in protocol["data"]}
    official = protocol["context"] == "official"
    return ScoringConfig(
        split=protocol["split"],
        windows=counts.pop() if len(counts) == 1 else None,  # a set that has fewer gave all
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
    named = {root.rstrip("/").rpartition("/")[2]: root for root in known.values()}
    found = {name: known.get(digest, named.get(name)) for name, digest in data.items()}
    missing = [f"{name} (manifest {data[name][:12]})" for name, root in found.items() if root is None]
    if missing:
        raise HubError(
            f"{said} {', '.join(missing)}, which the scorecard was measured on: give it by --data, made again in a folder of that name where the shards are gone"
        )
    return {name: root for name, root in found.items() if root is not None}


def _probe_windows(card: Mapping[str, Any]) -> dict[str, int]:
    """Data set -> how many train windows a probe of it was to be fitted on."""
    from cwm_hub.evaluation.words import PROBES

    return {
        data_set: found.get("train_windows_asked", found["train_windows"])
        for key in PROBES
        for data_set, found in card.get(key, {}).items()
    }


class _Numbers(NamedTuple):
    """Of a scorecard."""

    means: dict[tuple[str, str], float]
    """(what it is, unit) -> value, in the order of the card."""
    windows: list[tuple[str, float]]
    """What it is and its PSNR in dB, for every window of the protocol."""


def _numbers(card: Mapping[str, Any]) -> _Numbers:
    from cwm_hub.evaluation import words

    means = {
        (f"{part}, {metric.name}", metric.unit): float(scores["model"][key]["mean"])
        for part, scores in words.parts(card).items()
        for key, metric in words.METRICS.items()
        if key in scores["model"]
    }
    if "context_gap_psnr_db" in card:
        gap = card["context_gap_psnr_db"]["difference"]
        means["PSNR that another video's context costs", "dB"] = float(gap["mean"])
    if "frechet_encoder_distance" in card:
        means["Fréchet distance in its own encoder", ""] = float(card["frechet_encoder_distance"]["model"])
    if "fvd" in card:
        means["FVD", ""] = float(card["fvd"]["model"])
    means |= {
        (f"{data_set}, {name}", ""): float(found["mean"])
        for key, name in words.APART.items()
        for data_set, found in card.get(key, {}).items()
    }
    rows = zip(card["windows"], card["protocol"]["windows"], strict=True)
    windows = [(f"{row['key']}, from frame {row['start']}, PSNR", float(row["psnr_db"])) for row, _ in rows]
    return _Numbers(means, windows)


def _compared(published: _Numbers, measured: _Numbers) -> Reproduction:
    """Whatever was published beside the same measured now.

    Raises:
        HubError: something was published that is not measured of such a model.
    """
    absent = [what for what, _ in published.means.keys() - measured.means.keys()]
    if absent:
        raise HubError(f"{', '.join(sorted(absent))}: published, and not measured of such a model")
    means = tuple(Number(*what, value, measured.means[what]) for what, value in published.means.items())
    windows = [
        Number(what, "dB", before, after)
        for (what, before), (_, after) in zip(published.windows, measured.windows, strict=True)
    ]
    return Reproduction(means, max(windows, key=lambda one: abs(one.measured - one.published)))
