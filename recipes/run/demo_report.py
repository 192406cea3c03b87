"""The report on the demo's run folder: data, pre-training, predictions, scores, the agent, the card and the stages. No torch.

Computes nothing again but the comparison of scorecards. A stage that did not run is a sentence.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from cwm_hub.command_line import how_many
from cwm_hub.evaluation import words
from cwm_hub.evaluation.comparison import compare_designs
from cwm_hub.evaluation.protocol import ProtocolError
from cwm_hub.figures.curves import horizon_curves, loss_curves, score_curves
from cwm_hub.shards.index import read_index
from cwm_hub.shards.manifest import Manifest
from dataprep.curation.preview import preview_png
from recipes.run.finetuning_section import finetuning_section
from recipes.run.folder import read_rows
from recipes.run.report_page import (
    duration,
    image_file,
    image_of,
    machine_section,
    picture,
    read_json,
    render,
)

SHEET_CLIPS = 12
"""Clips of a contact sheet."""
EMBEDDED = "real"
"""Folder of the shards of dataprep/samples."""
SAME_RECORDINGS = (
    "The held-out clips are later stretches of recordings that training has too: they say how well a model knows these places, "
    "and not how it does in others."
)


def demo_page(run: Path, *, title: str) -> str:
    """The HTML of the report on a run folder."""
    runs = pretraining_runs(run)
    cards = {path.name: card for path in runs if (card := read_json(path / "evaluation" / "scorecard.json"))}
    data, data_missing = data_section(run)
    scores = score_section(cards, {path.name: beginning(path) for path in runs})
    finetuning, finetuning_missing = finetuning_section(run)
    return render(
        "demo_report.html",
        title=title,
        run=run,
        lead=lead(runs, data, finetuning),
        findings=findings(scores, finetuning),
        data=data,
        data_missing=data_missing,
        training=training_section(runs),
        prediction=[prediction_section(path) for path in runs if (path / "evaluation").is_dir()],
        scores=scores,
        finetuning=finetuning,
        finetuning_missing=finetuning_missing,
        card=card_section(run),
        stages=stage_section(run),
        machine=machine_section(),
    )


def pretraining_runs(run: Path) -> list[Path]:
    """Folders of pre-training runs, those of context models first."""
    folders = [
        path.parent
        for path in run.glob("*/metrics.jsonl")
        if path.parent.name != "finetune" and any("image_loss" in row for row in read_rows(path))
    ]
    return sorted(folders, key=lambda path: (not path.name.startswith("context"), path.name))


def data_section(run: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """A contact sheet and a sentence for every shard directory, and sentences for what is missing."""
    sets, missing = [], []
    for root in sorted(
        (path.parent.parent for path in run.glob("shards/*/meta/manifest.json")),
        key=lambda root: (root.name == "metaworld", root.name),
    ):
        manifest, rows = Manifest.load(root), read_index(root)
        count = min(SHEET_CLIPS, len(rows))
        chosen = [rows[at * len(rows) // count] for at in range(count)]
        frames, size = sum(row.num_frames for row in rows), sum(record.bytes for record in manifest.shards)
        counts = ", ".join(f"{sum(row.split == split for row in rows)} {split}" for split in manifest.splits)
        sentence = (
            f"{how_many(len(rows), 'clip')} ({counts}) of "
            f"{how_many(len({row.source for row in rows}), 'source video')}, {how_many(frames, 'frame')} of "
            f"{manifest.image_size} x {manifest.image_size} pixels, {size / 1e6:.2f} MB as {manifest.codec}; "
            f"manifest {manifest.hash[:12]}. Licence of the videos: {manifest.licence.replace('unknown', 'not recorded')}."
        )
        shown = f"{len(chosen)} of {how_many(len(rows), 'clip')}" if len(chosen) < len(rows) else "every clip"
        caption = f"Evenly spaced frames of {shown}, as stored in the shards."
        if root.name == EMBEDDED:
            sentence += f" {SAME_RECORDINGS}"
        sheet = picture(preview_png(root, chosen), ".png", kind="", caption=caption)
        sets.append({"name": root.name, "sentence": sentence, "sheet": sheet})
    if sets and not any(entry["name"] == "metaworld" for entry in sets):
        missing.append(
            "There are no clips rendered from Meta-world: without headless GL that stage is left out, and the models "
            "were trained on the real clips alone."
        )
    return sets, missing


def training_section(runs: Sequence[Path]) -> dict[str, Any] | None:
    """Loss curves of all runs and a line of facts for each."""
    if not runs:
        return None
    logs = {path.name: read_rows(path / "metrics.jsonl") for path in runs}
    rows, of_data = [], dict[tuple[str, ...], list[str]]()
    for path in runs:
        train, last = read_json(path / "model" / "train.json") or {}, logs[path.name][-1]
        init = train.get("parents", {}).get("init")
        start = f"checkpoint {init.get('name', 'unknown')}" if init else "new weights"
        shards = [Path(source["root"]).name for source in train.get("parents", {}).get("shards", [])]
        of_data.setdefault(tuple(shards), []).append(path.name)
        rows.append(
            {
                "name": path.name,
                "cells": [
                    f"{last['updates']:,}",
                    duration(last["seconds"]),
                    f"{last['updates'] / last['seconds']:.1f}",
                    *("-" if last[name] is None else f"{last[name]:.2f}" for name in ("image_loss", "kl")),
                    last.get("skipped_updates", "-"),
                ],
                "data": words.listed(list(shards)),
                "start": start if train else "not finished",
            }
        )
    columns = ["updates", "wall time", "updates/s", "image loss (nats)", "KL (nats)", "skipped updates"]
    caption = "Training loss in nats a frame, means over each log interval: half the squared error summed over a frame, and KL."
    if len(of_data) > 1:
        alike = [
            f"{words.listed(names)} on {words.listed(list(shards))}"
            for shards, names in of_data.items()
            if shards
        ]
        caption += f" Curves compare on the same clips only: {'; '.join(alike)}."
    curves = [image_of(loss_curves(logs), kind="curve", caption=caption)]
    scored = {path.name: [found] for path in runs if (found := read_rows(path / "scores.jsonl"))}
    if scored:
        caption = "Open-loop PSNR on held-out windows during training."
        curves.append(image_of(score_curves(scored), kind="curve", caption=caption))
    return {"columns": columns, "rows": rows, "curves": curves}


def prediction_section(path: Path) -> dict[str, Any]:
    """Pictures of one evaluation."""
    folder = path / "evaluation"

    def there(files: Sequence[str]) -> list[dict[str, str]]:
        kinds = {"prediction.mp4": "video", "embedding.png": "small"}
        return [
            image_file(folder / file, words.PICTURES[file], kind=kinds.get(file, ""))
            for file in files
            if (folder / file).is_file()
        ]

    return {
        "name": path.name,
        "pictures": there(("prediction.mp4", "prediction.png")),
        "extras": there(("attention.png", "composition.png", "embedding.png")),
        "missing": missing_composition(path),
    }


def missing_composition(path: Path) -> str:
    """Why a model with context has no picture of one clip's dynamics in another's context, or nothing."""
    checkpoint = read_json(path / "model" / "config.json") or {}
    card = read_json(path / "evaluation" / "scorecard.json")
    context = checkpoint.get("config", {}).get("frame", {}).get("context")
    if context is None or card is None or card["together"]["videos"] > 1:
        return ""
    return "There is no picture of its dynamics in another video's context: that takes held-out windows of two videos."


def beginning(path: Path) -> str:
    """How a run began and how long it trained, in words: what two designs must share to be compared."""
    train = read_json(path / "model" / "train.json") or {}
    init = train.get("parents", {}).get("init")
    start = f"the checkpoint {init['name']}" if init else "new weights"
    updates = train.get("updates")
    counted = "an unknown number of updates" if updates is None else how_many(updates, "update")
    return f"{counted} from {start}"


def score_section(
    cards: Mapping[str, Mapping[str, Any]], beginnings: Mapping[str, str]
) -> dict[str, Any] | None:
    """Curves, tables and sentences per data set and together."""
    if not cards:
        return None
    protocol = next(iter(cards.values()))["protocol"]
    of_part: dict[str, dict[str, Any]] = {}
    for model, card in cards.items():
        for part, scores in words.parts(card).items():
            of_part.setdefault(part, {})[model] = scores
    parts = [score_part(part, scores, cards, beginnings) for part, scores in of_part.items()]
    return {"protocol": words.protocol_sentences(protocol), "parts": parts}


def score_part(
    name: str,
    scores: Mapping[str, Mapping[str, Any]],
    cards: Mapping[str, Mapping[str, Any]],
    beginnings: Mapping[str, str],
) -> dict[str, Any]:
    """One data set, or all: who is ahead, curves, and a table with the baselines."""
    first = next(iter(scores.values()))
    caption = (
        f"Mean over windows at every predicted step, {words.intervals_over(first)}; the baselines beside it."
    )
    lines = [
        *([leader(name, cards, beginnings)] if len(scores) > 1 else []),
        *(f"{model}: {words.standing(part)}." for model, part in scores.items()),
    ]
    counted = words.counted(first, next(iter(cards.values()))["protocol"])
    return {
        "title": f"{name} ({counted})",
        "lines": lines,
        "models": list(scores),
        "table": words.score_table(scores),
        "curves": image_of(horizon_curves(scores), kind="curve", caption=caption),
    }


def leader(part: str, cards: Mapping[str, Mapping[str, Any]], beginnings: Mapping[str, str]) -> str:
    """Which of a context model and a plain one is ahead, whatever the answer, of two that began alike."""
    designs = [
        (a, b) for a, b in combinations(cards, 2) if a.startswith("context") != b.startswith("context")
    ]
    alike = [pair for pair in designs or combinations(cards, 2) if beginnings[pair[0]] == beginnings[pair[1]]]
    if not alike:
        had = words.listed([f"{name} had {beginnings[name]}" for name in cards])
        return f"No two designs can be compared: {had}."
    a, b = alike[0]
    try:
        compared = compare_designs({name: [cards[name]] for name in (b, a)})
    except ProtocolError as error:
        return f"{a} and {b}: {error}."
    difference = words.parts(compared)[part]["designs"][a]["psnr_db"]["minus_first"]
    verdict = words.verdict(a, b, difference, confidence=compared["protocol"]["confidence"])
    return f"{verdict}. Both had {beginnings[a]}, one seed each: how far another seed would be off is not in the interval."


def card_section(run: Path) -> dict[str, str] | None:
    """The first published model card as HTML, without its pictures."""
    places = sorted(
        run.glob("hub/*/README.md"), key=lambda path: (not path.parent.name.startswith("context"), path)
    )
    if not places:
        return None
    return {"place": str(places[0].parent), "html": card_html(places[0].read_text(encoding="utf-8"))}


def card_html(text: str) -> Any:
    """Markdown of a card as HTML: tables, no front matter, no pictures, no HTML but `details`, `summary` and `code`."""

    def harmless(renderer: Any, tokens: Sequence[Any], index: int, options: Any, env: Any) -> str:
        return re.sub(r"&lt;(/?(?:details|summary|code))&gt;", r"<\1>", str(escape(tokens[index].content)))

    markdown = MarkdownIt("commonmark", {"html": True}).enable("table")
    markdown.add_render_rule("html_block", harmless)
    markdown.add_render_rule("html_inline", harmless)
    markdown.add_render_rule("image", lambda *_: "")
    body = re.sub(r"\A---\n.*?\n---\n|<!--.*?-->", "", text, flags=re.DOTALL)
    body = re.sub(r"^## A look\n.*?(?=^## |\Z)", "", body, flags=re.DOTALL | re.MULTILINE)
    return Markup(markdown.render(body))


def stage_section(run: Path) -> dict[str, Any] | None:
    """Wall and CPU time of every stage; of a stage that ran again, the last time."""
    latest = {row["stage"]: row for row in read_rows(run / "stages.jsonl")}
    if not latest:
        return None
    rows = [
        {
            "stage": name,
            "time": duration(row["seconds"]),
            "cpu": duration(row["cpu_seconds"]),
            "status": row["status"],
            "command": row["command"],
        }
        for name, row in latest.items()
    ]
    wall, cpu = (sum(row[key] for row in latest.values()) for key in ("seconds", "cpu_seconds"))
    return {"rows": rows, "total": duration(wall), "cpu": duration(cpu)}


def lead(
    runs: Sequence[Path], data: Sequence[Mapping[str, Any]], finetuning: Mapping[str, Any] | None
) -> str:
    """What was run, in one sentence."""
    did = [
        *([f"sharded {words.listed([entry['name'] for entry in data])} clips"] if data else []),
        *([f"pre-trained {words.listed([path.name for path in runs])}"] if runs else []),
        *(["fine-tuned an agent with model-based RL"] if finetuning else []),
    ]
    return f"This run {words.listed(did)}." if did else "This run has not done anything yet."


def findings(scores: Mapping[str, Any] | None, finetuning: Mapping[str, Any] | None) -> list[str]:
    """The sentences that a reader in a hurry needs: who is ahead, how far from the baselines, what the agent does."""
    lines = []
    if scores:
        last = scores["parts"][-1]
        lines += [f"{last['title']}: {line}" for line in last["lines"][:2]]
    return lines + (finetuning["lines"][1:] if finetuning else [])
