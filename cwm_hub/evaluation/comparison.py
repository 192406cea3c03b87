"""Designs beside each other: scorecards of several seeds each, all under one protocol, paired window by window. No torch.

Shape key: S seeds, B windows.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cwm_hub.evaluation.intervals import BOOTSTRAP_FIELDS, mean_interval
from cwm_hub.evaluation.protocol import BASELINES, METRICS, SCORECARD_VERSION, check_same_protocol


def compare_runs(designs: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """`compare_designs` of the folders of every design's runs, which are named under `runs`.

    Raises:
        ValueError: a folder without a scorecard that this code reads, or runs scored after different numbers of updates.
        ProtocolError: as `compare_designs`.
    """
    cards = {design: [read_scorecard(folder) for folder in folders] for design, folders in designs.items()}
    after = {
        card["updates"]: folder
        for design, folders in designs.items()
        for folder, card in zip(folders, cards[design], strict=True)
        if card.get("updates") is not None
    }
    if len(after) > 1:
        found = ", ".join(f"{folder} was scored after {updates:,}" for updates, folder in after.items())
        raise ValueError(f"the runs have different numbers of updates and do not compare: {found}")
    runs = {design: [str(folder) for folder in folders] for design, folders in designs.items()}
    return compare_designs(cards) | {"runs": runs}


def read_scorecard(folder: Path) -> dict[str, Any]:
    """The scorecard of an evaluation, or of a run: the one after most updates.

    Raises:
        ValueError: there is none, or one that is damaged or older than this code.
    """
    during = sorted(folder.glob("evaluations/step-*/scorecard.json"))
    places = [*during[-1:], folder / "evaluation" / "scorecard.json", folder / "scorecard.json"]
    cards = [_read(path) for path in places if path.is_file()]
    if not cards:
        raise ValueError(
            f"{folder} has no scorecard.json: run recipes/evaluate.py, or pre-train with --evaluate_every"
        )
    return max(reversed(cards), key=lambda card: card.get("updates") or 0)


def _read(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text())
        version = card["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a scorecard, or damaged: {error!r}") from error
    if version != SCORECARD_VERSION:
        raise ValueError(
            f"{path} has format {version} and this code reads {SCORECARD_VERSION}: run recipes/evaluate.py again"
        )
    return card


def compare_designs(cards: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Scores of every design, averaged over its seeds, and its distance to the first design.

    An interval resamples source videos, with the seeds held: it says how far the result depends on the videos at hand,
    and `seeds` beside it how far on the seed. Few seeds carry no interval of their own.

    Args:
        cards: Design -> its scorecards, one a seed, in the same order of seeds for every design.

    Returns:
        `together` and, per data set, `sources`: Design -> metric -> `mean`, `low`, `high`, `seeds` (the mean of each) and,
        for all but the first, `minus_first` with the same numbers of the paired differences (no `seeds` where the two
        designs have different numbers of them); `baselines_psnr_db` beside them.

    Raises:
        ProtocolError: two scorecards were measured in different ways; names the differing fields.
        ValueError: no scorecards of a design.
    """
    for design, runs in cards.items():
        if not runs:
            raise ValueError(f"{design} has no scorecard")
    first, *others = chain.from_iterable(cards.values())
    for other in others:
        check_same_protocol(first["protocol"], other["protocol"])
    names = np.array([row["source"] for row in first["windows"]])
    parts = {"together": np.full(len(names), True)} | {name: names == name for name in dict.fromkeys(names)}
    results = {part: _part(cards, first, chosen) for part, chosen in parts.items()}
    return {
        "protocol": first["protocol"],
        "together": results.pop("together"),
        "sources": {str(name): result for name, result in results.items()},
    }


def _part(
    cards: Mapping[str, Sequence[Mapping[str, Any]]], first: Mapping[str, Any], chosen: np.ndarray
) -> dict[str, Any]:
    """Every design on the chosen windows."""
    videos = _videos(first, chosen)
    bootstrap = {field: first["protocol"][field] for field in BOOTSTRAP_FIELDS} | {"videos": videos}
    designs: dict[str, Any] = {}
    reference: dict[str, np.ndarray] = {}
    for design, runs in cards.items():
        designs[design] = {}
        for metric in METRICS:
            values = np.stack([_window_column(card, metric)[chosen] for card in runs])
            reference.setdefault(metric, values)
            scores = _over_seeds(values, bootstrap)
            if values is not reference[metric]:
                scores["minus_first"] = _difference(values, reference[metric], bootstrap)
            designs[design][metric] = scores
    baselines = {
        name: float(_window_column(first, f"{name}_psnr_db")[chosen].mean())
        for name in BASELINES
        if f"{name}_psnr_db" in first["windows"][0]
    }
    return {
        "windows": int(chosen.sum()),
        "videos": len(set(videos)),
        "designs": designs,
        "baselines_psnr_db": baselines,
    }


def _videos(card: Mapping[str, Any], chosen: np.ndarray) -> list[tuple[str, str]]:
    """Data set and source video of each chosen window."""
    rows = card["windows"]
    return [(row["source"], row["video"]) for row, taken in zip(rows, chosen, strict=True) if taken]


def _over_seeds(values: Float[np.ndarray, "S B"], bootstrap: Mapping[str, Any]) -> dict[str, Any]:
    """Mean over seeds and windows, its interval over videos, and the mean of each seed."""
    return mean_interval(values.mean(0), bootstrap) | {"seeds": values.mean(1).tolist()}


def _difference(
    values: Float[np.ndarray, "S B"], reference: Float[np.ndarray, "R B"], bootstrap: Mapping[str, Any]
) -> dict[str, Any]:
    """The same of values minus reference; as many seeds as both have are paired."""
    if len(values) == len(reference):
        return _over_seeds(values - reference, bootstrap)
    return mean_interval(values.mean(0) - reference.mean(0), bootstrap) | {"seeds": []}


def _window_column(card: Mapping[str, Any], metric: str) -> Float[np.ndarray, " B"]:
    """One number of every window of a scorecard, in the order of its protocol."""
    return np.array([row[metric] for row in card["windows"]], dtype=float)


def verdict(a: str, b: str, difference: Mapping[str, float], *, unit: str = "dB") -> str:
    """One sentence on who is ahead by how much, from a difference a minus b with its interval; no full stop."""
    low, high = difference["low"], difference["high"]
    mean, interval = abs(difference["mean"]), f"95 % interval {low:+.2f} to {high:+.2f} {unit}"
    first, second = (a, b) if difference["mean"] >= 0 else (b, a)
    if low <= 0 <= high:
        return f"{a} and {b} are not told apart: {first} is {mean:.2f} {unit} ahead, {a} minus {b} has the {interval}"
    return f"{first} is {mean:.2f} {unit} ahead of {second} ({a} minus {b}: {interval})"


def markdown_table(comparison: Mapping[str, Any], *, part: str = "together") -> str:
    """The comparison of one part (`together`, or a data set) as a table: PSNR in dB, and SSIM.

    Brackets: interval over source videos; after them the mean of each seed.
    """
    result = comparison["together"] if part == "together" else comparison["sources"][part]
    reference = next(iter(result["designs"]))
    lines = [
        f"| design | PSNR, dB | each seed | SSIM | PSNR minus {reference} |",
        "|---|---|---|---|---|",
    ]
    for design, scores in result["designs"].items():
        psnr, ssim = scores["psnr_db"], scores["ssim"]
        difference = psnr.get("minus_first")
        cells = [
            design,
            f"{psnr['mean']:.2f} [{psnr['low']:.2f}, {psnr['high']:.2f}]",
            ", ".join(f"{value:.2f}" for value in psnr["seeds"]),
            f"{ssim['mean']:.3f}",
            "" if difference is None else _signed(difference),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    for name, value in result["baselines_psnr_db"].items():
        lines.append(f"| *{name.replace('_', '-')}* | {value:.2f} | | | |")
    return "\n".join(lines)


def _signed(difference: Mapping[str, Any]) -> str:
    seeds = ", ".join(f"{value:+.2f}" for value in difference["seeds"])
    told = f"{difference['mean']:+.2f} [{difference['low']:+.2f}, {difference['high']:+.2f}]"
    return f"{told}; each seed {seeds}" if seeds else told
