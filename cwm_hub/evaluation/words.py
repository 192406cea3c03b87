"""The one vocabulary of a scorecard: how its scores, intervals, baselines and verdicts are worded wherever they are shown.

The report, the curves, the model card, the comparison's tables and what recipes print all take their words from here. No
torch. A part below is `together`, or one of `sources`, of a scorecard.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cwm_hub.command_line import how_many
from cwm_hub.evaluation.protocol import resampled

TOGETHER = "all data sets"
"""Of a scorecard or a comparison of several."""

BASELINES = {
    "copy_last_frame": "copy-last-frame",
    "mean_frame": "mean-frame",
    "source_mean_frame": "mean-frame of its own data set",
}
"""Series of a scorecard that need no model; the third is there where several data sets are."""


CONTROLS = {"shuffled_actions": "the same model under the actions of another window"}
"""Series that are made by the model itself, with something taken from it: what that was worth is the difference."""


class Metric(NamedTuple):
    """How a metric is shown."""

    name: str
    unit: str
    """Empty where it has none."""
    decimals: int
    heading: str
    """Of a table's column or a curve's axis."""


METRICS = {
    "psnr_db": Metric("PSNR", "dB", 2, "PSNR (dB)"),
    "ssim": Metric("SSIM", "", 3, "SSIM"),
    "lpips": Metric("LPIPS", "", 3, "LPIPS (AlexNet, lower is better)"),
}
"""Metrics of a scorecard; LPIPS is there where it was asked for."""

PICTURES = {
    "prediction.mp4": "Held-out windows: truth beside the open-loop prediction. Grey bar: the model sees the frame; "
    "orange bar: it does not.",
    "prediction.png": "Held-out windows: truth, prediction and absolute error. Grey columns are reconstructions of frames "
    "that the model has seen, orange ones are predicted without seeing.",
    "horizon.png": "Scores at every predicted step, with the baselines.",
    "attention.png": "Cross-attention of four fixed positions of a reconstructed frame over the context frame.",
    "composition.png": "The latents of one clip decoded with the context frame of another: what follows the context frame is "
    "appearance, what stays is dynamics.",
    "embedding.png": "Time-averaged latents by label, a point for each held-out video.",
}
"""Captions of what an evaluation draws, in the order of a page."""


def parts(card: Mapping[str, Any]) -> dict[str, Any]:
    """Every data set of a scorecard or a comparison by its name and, where there are several, all of them last."""
    sources = card["sources"]
    return {**sources, TOGETHER: card["together"]} if len(sources) > 1 else dict(sources)


def counted(part: Mapping[str, Any], protocol: Mapping[str, Any]) -> str:
    """`16 validation windows of 7 videos`, and of how many recordings where several videos may be of one."""
    windows = how_many(part["windows"], f"{protocol['split']} window")
    recordings = f" of {how_many(part['recordings'], 'recording')}" if "recordings" in part else ""
    return f"{windows} of {how_many(part['videos'], 'video')}{recordings}"


def intervals_over(part: Mapping[str, Any]) -> str:
    """What the part's intervals resample: recordings or source videos; where all windows are of one, there is none."""
    many, one = ("recordings", "recording") if "recordings" in part else ("source videos", "video")
    return (
        f"intervals over {many}" if _has_intervals(part) else f"no interval, as all windows are of one {one}"
    )


def _has_intervals(part: Mapping[str, Any]) -> bool:
    """Whether its windows are of several recordings or, where none are named, source videos."""
    return part.get("recordings", part["videos"]) > 1


def number(score: Mapping[str, float], metric: str, *, unit: bool = False, signed: bool = False) -> str:
    """`24.32 [20.48, 27.75]`, the mean and its interval, if any; with its unit, `24.32 dB [20.48, 27.75]`."""
    form = f"{'+' if signed else ''}.{METRICS[metric].decimals}f"
    after = f" {METRICS[metric].unit}" if unit and METRICS[metric].unit else ""
    return f"{score['mean']:{form}}{after}{ends(score, form)}"


def ends(score: Mapping[str, Any], form: str) -> str:
    """` [20.48, 27.75]`, or nothing where there is no interval: of one video there is none."""
    return f" [{score['low']:{form}}, {score['high']:{form}}]" if "low" in score else ""


def standing(part: Mapping[str, Any]) -> str:
    """How good a model is and how far from the baselines; no full stop.

    `PSNR 24.32 dB [20.48, 27.75], SSIM 0.821 [0.776, 0.889], 0.78 dB below copy-last-frame [-1.30, -0.20], ...`; where all
    windows are of one video, the numbers alone, and why.
    """
    model = part["model"]
    said = [
        f"{metric.name} {number(model[key], key, unit=True)}"
        for key, metric in METRICS.items()
        if key in model
    ]
    for baseline, name in (BASELINES | CONTROLS).items():
        if f"model_minus_{baseline}" in part:
            margin = part[f"model_minus_{baseline}"]["psnr_db"]
            side = "above" if margin["mean"] >= 0 else "below"
            said.append(f"{abs(margin['mean']):.2f} dB {side} {name}{ends(margin, '+.2f')}")
    return ", ".join(said) + ("" if _has_intervals(part) else f" ({intervals_over(part)})")


def verdict(a: str, b: str, difference: Mapping[str, float], *, confidence: float) -> str:
    """One sentence on who is ahead by how much, from a PSNR difference a minus b with its interval, if any; no full stop."""
    ahead = f"{abs(difference['mean']):.2f} dB ahead"
    first, second = (a, b) if difference["mean"] >= 0 else (b, a)
    if "low" not in difference:
        return f"{first} is {ahead} of {second} on one video, which says nothing of others"
    low, high = difference["low"], difference["high"]
    interval = f"{100 * confidence:g} % interval {low:+.2f} to {high:+.2f} dB"
    if low <= 0 <= high:
        return f"{a} and {b} are not told apart: {first} is {ahead}, {a} minus {b} has the {interval}"
    return f"{first} is {ahead} of {second} ({a} minus {b}: {interval})"


def protocol_sentences(protocol: Mapping[str, Any]) -> str:
    """What was predicted, how, beside which baselines, and what the intervals are."""
    seen, horizon = protocol["observed_frames"], protocol["horizon"]
    official = protocol["context"] == "official"
    context = "drawn from the whole window" if official else f"the {protocol['context']} of them"
    own = " (and, harder to beat, that of the data set's own shards)" if len(protocol["data"]) > 1 else ""
    times = f", {protocol['samples']} predictions a window" if protocol["samples"] > 1 else ""
    return (
        f"Windows of {seen + horizon} frames of the {protocol['split']} split: {seen} are seen, the other {horizon} are "
        f"predicted open loop with {protocol['latents']} latents{times}; the context frame, where there is one, is "
        f"{context}. Baselines: {BASELINES['copy_last_frame']} repeats the last frame seen, {BASELINES['mean_frame']} is "
        f"the average frame of all training shards, one constant picture{own}. Scores are means over windows and "
        f"predicted frames; PSNR and SSIM: higher is better. {_brackets(protocol)}"
    )


def _brackets(protocol: Mapping[str, Any]) -> str:
    """What stands in brackets behind a score, and where nothing does."""
    recordings = protocol.get("recordings", {})
    groups = set(resampled(((data_set, video) for data_set, video, *_ in protocol["windows"]), recordings))
    many, one = (
        ("recordings (cameras and parts of one go together)", "recording")
        if recordings
        else ("source videos", "video")
    )
    if len(groups) == 1:
        return f"There are no intervals, since all windows are of one {one}."
    alone = 1 in Counter(data_set for data_set, _ in groups).values()
    return (
        f"In brackets: {100 * protocol['confidence']:g} % bootstrap intervals, which resample {many}"
        f"{f'; of one {one} there is none' if alone else ''}."
    )


def context_sentence(gap: Mapping[str, Mapping[str, float]]) -> str:
    """What a foreign context costs, from `predict.context_gap`; no full stop."""
    difference = gap["difference"]
    return (
        f"context: PSNR {gap['own']['mean']:.2f} dB with a window's own, {gap['foreign']['mean']:.2f} dB with another video's, "
        f"{difference['mean']:+.2f}{ends(difference, '+.2f')}"
    )


def fvd_sentence(fvd: Mapping[str, Any]) -> str:
    """The distance with what it takes to compare it; no full stop."""
    return (
        f"FVD of {how_many(fvd['clips'], 'window')}, {how_many(fvd['observed_frames'], 'true frame')} followed by "
        f"{fvd['predicted_frames']} predicted ones: {fvd['model']:.1f}; lower is better, and {fvd['note']}"
    )


def encoder_distance_sentence(distance: Mapping[str, float]) -> str:
    """That of `predict.encoder_distance`, a ruler of this model's own; no full stop."""
    return (
        f"Fréchet distance of {how_many(int(distance['frames']), 'open-loop frame')} from the true ones in this model's own "
        f"encoder: {distance['model']:.2f}, of copy-last-frame {distance['copy_last_frame']:.2f}; lower is better, and it "
        "compares with no other model's"
    )


PROBES = {"probe_r2_state": "the state", "probe_r2_action": "the next action"}
"""Linear probes of a scorecard, there where they were asked for -> what they read off the latents."""

APART = {key: f"R2 of a linear probe for {what}" for key, what in PROBES.items()} | {
    "planning_error": "open-loop planning error"
}
"""What a scorecard has of each data set beside `METRICS`, with counts of its own, there where it was asked for -> its name. Of
R2 more is better, of an error less."""
COUNTS = ("train_windows", "train_videos", "windows", "videos", "plans")
"""What must be the same of two numbers of `APART`, beside the protocol, for them to compare."""


def probe_sentences(card: Mapping[str, Any]) -> list[str]:
    """What a linear probe reads off the latents of every data set; no full stop."""
    return [
        f"{data_set}: R2 {interval(found)} of a linear probe for {what}, fitted on "
        f"{how_many(found['train_windows'], 'window')} of {found['train_videos']} training videos, scored on "
        f"{found['windows']} of {how_many(found['videos'], 'other')}"
        for key, what in PROBES.items()
        for data_set, found in card.get(key, {}).items()
    ]


def planning_sentences(card: Mapping[str, Any]) -> list[str]:
    """The open-loop planning error of every data set; no full stop."""
    return [
        f"{data_set}: planning error {interval(found)} among {found['plans']} plans "
        f"for each of {found['windows']} windows of {how_many(found['videos'], 'video')}; 0 is best and 0.5 is chance"
        for data_set, found in card.get("planning_error", {}).items()
    ]


OWN = "frechet_encoder_distance"


def further_sentences(card: Mapping[str, Any]) -> list[str]:
    """What a scorecard has beside the scores of its parts: context, Fréchet distances, probes, planning, those that were measured."""
    context = [context_sentence(card["context_gap_psnr_db"])] if "context_gap_psnr_db" in card else []
    own = [encoder_distance_sentence(card[OWN])] if OWN in card else []
    fvd = [fvd_sentence(card["fvd"])] if "fvd" in card else []
    return context + own + fvd + probe_sentences(card) + planning_sentences(card)


def interval(score: Mapping[str, float]) -> str:
    """`0.812 [0.745, 0.868]`, the mean of a number without a unit and its interval, if any."""
    return f"{score['mean']:.3f}{ends(score, '.3f')}"


class Table(NamedTuple):
    """Scores of a part as text."""

    columns: list[str]
    """Metrics."""
    rows: dict[str, list[str]]
    """Series in words -> a cell for every metric, `-` where it was not measured."""


def score_table(models: Mapping[str, Mapping[str, Any]]) -> Table:
    """Models, the baselines (which are the same for all) and the models' distances to them.

    Args:
        models: Name -> the same part of its scorecard.
    """
    keys = [key for key in METRICS if any(key in part["model"] for part in models.values())]
    return Table(
        columns=[METRICS[key].heading for key in keys],
        rows={
            name: [number(series[key], key, signed=signed) if key in series else "-" for key in keys]
            for name, series, signed in _series(models)
        },
    )


def _series(models: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """(words, metric -> score, whether it is a difference) of every row."""
    for model, part in models.items():
        yield model, part["model"], False
        if "best_of_n" in part:
            yield f"{model}, best of N samples", part["best_of_n"], False
    first = next(iter(models.values()))
    for baseline, name in BASELINES.items():
        if baseline in first:
            yield name, first[baseline], False
    for model, part in models.items():
        for baseline, name in (BASELINES | CONTROLS).items():
            if f"model_minus_{baseline}" in part:
                yield f"{model} minus {name}", part[f"model_minus_{baseline}"], True


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
