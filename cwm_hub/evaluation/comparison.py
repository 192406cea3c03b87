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

from cwm_hub.evaluation import words
from cwm_hub.evaluation.intervals import BOOTSTRAP_FIELDS, mean_interval
from cwm_hub.evaluation.protocol import METRICS, check_same_protocol, check_scorecard, resampled


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
        check_scorecard(card, where=str(path))
    except (json.JSONDecodeError, AttributeError) as error:
        raise ValueError(f"{path} is not a scorecard, or damaged: {error!r}") from error
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
    groups = resampled(videos, first["protocol"].get("recordings", {}))
    bootstrap = {field: first["protocol"][field] for field in BOOTSTRAP_FIELDS} | {"videos": groups}
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
        for name in words.BASELINES
        if f"{name}_psnr_db" in first["windows"][0]
    }
    return {
        "windows": int(chosen.sum()),
        "videos": len(set(videos)),
        **({"recordings": len(set(groups))} if groups != videos else {}),
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


def markdown_tables(comparison: Mapping[str, Any]) -> str:
    """A table for every data set, and for all of them where there are several, each under a heading that says its windows."""
    protocol = comparison["protocol"]
    seen = f"{protocol['observed_frames']} frames seen, {protocol['horizon']} predicted"
    return "\n".join(
        f"## {name}: {words.counted(part, protocol)}, {seen}\n\n{_markdown_table(part)}\n"
        for name, part in words.parts(comparison).items()
    )


def _markdown_table(part: Mapping[str, Any]) -> str:
    """Brackets: interval over source videos; after them the mean of each seed."""
    reference = next(iter(part["designs"]))
    lines = [
        f"| design | {words.METRICS['psnr_db'].heading} | each seed | SSIM | PSNR minus {reference} |",
        "|---|---|---|---|---|",
    ]
    for design, scores in part["designs"].items():
        psnr = scores["psnr_db"]
        cells = [
            design,
            words.number(psnr, "psnr_db"),
            ", ".join(f"{value:.2f}" for value in psnr["seeds"]),
            words.number(scores["ssim"], "ssim"),
            _signed(psnr["minus_first"]) if "minus_first" in psnr else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    for name, value in part["baselines_psnr_db"].items():
        lines.append(f"| *{words.BASELINES[name]}* | {value:.2f} | | | |")
    return "\n".join(lines)


def _signed(difference: Mapping[str, Any]) -> str:
    seeds = ", ".join(f"{value:+.2f}" for value in difference["seeds"])
    mean = words.number(difference, "psnr_db", signed=True)
    return f"{mean}; each seed {seeds}" if seeds else mean
