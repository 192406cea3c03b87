"""One self-contained HTML page about a run: what was done, how long it took, what it shows.

    python recipes/report.py --run runs/demo --out runs/demo/report.html

Reads what the stages left in the run folder (shards/*, pre-training runs with their evaluation/, hub/*, finetune/,
stages.jsonl) and computes nothing again but the comparison of scorecards. A stage that did not run is a sentence.
Pictures and videos are inside the file; it needs no network. A few seconds.
"""

import base64
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from pathlib import Path
from typing import Any

from recipes.run.command_line import parse_config


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What is reported on, and where to."""

    run: str
    """Run folder of the demo."""
    out: str
    """HTML file to write."""
    title: str = "cwm-hub: from raw video to a fine-tuned agent"
    """Heading of the page."""


if __name__ == "__main__":  # before torch is imported, so that --help and a typo answer at once
    CONFIG = parse_config(ReportConfig, description=__doc__)

import jinja2
import yaml
from markdown_it import MarkdownIt
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from cwm_hub.evaluation import words
from cwm_hub.evaluation.comparison import compare_designs
from cwm_hub.evaluation.protocol import ProtocolError
from cwm_hub.figures.curves import finetuning_curve, horizon_curves, loss_curves, score_curves
from cwm_hub.figures.sheet import png
from cwm_hub.provenance import provenance
from cwm_hub.shards.index import read_index
from cwm_hub.shards.manifest import Manifest
from dataprep.curation.preview import preview_png
from recipes.run.folder import RecipeError, one_sentence_errors, read_rows, write_text

TEMPLATE = Path(__file__).with_name("report.html")
MIME = {".png": "image/png", ".mp4": "video/mp4"}
SHEET_CLIPS = 12
"""Clips of a contact sheet."""


def main(config: ReportConfig) -> int:
    """Write the page and print where it is."""
    run, out = Path(config.run), Path(config.out)
    if not run.is_dir():
        raise RecipeError(f"no such run folder: {run}")
    if out.suffix != ".html":
        raise RecipeError(f"--out is the HTML file to write, such as {run}/report.html, got {out}")
    write_text(out, page(run, title=config.title))
    print(f"{out}  {out.stat().st_size / 1e6:.1f} MB")
    return 0


def page(run: Path, *, title: str) -> str:
    """The HTML of the report on a run folder."""
    runs = pretraining_runs(run)
    cards = {path.name: card for path in runs if (card := read_json(path / "evaluation" / "scorecard.json"))}
    data, data_missing = data_section(run)
    scores = score_section(cards, {path.name: beginning(path) for path in runs})
    finetuning, finetuning_missing = finetuning_section(run)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(TEMPLATE.name).render(
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


# --- sections


def pretraining_runs(run: Path) -> list[Path]:
    """Folders of pre-training runs, those of context models first."""
    folders = [
        path.parent for path in run.glob("*/metrics.jsonl") if not (path.parent / "eval.jsonl").exists()
    ]
    folders = [
        path for path in folders if any("image_loss" in row for row in read_rows(path / "metrics.jsonl"))
    ]
    return sorted(
        (path for path in folders if path.name != "finetune"),
        key=lambda path: (not path.name.startswith("context"), path.name),
    )


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
            f"{len(rows)} clips ({counts}) of {len({row.source for row in rows})} source videos, {frames:,} frames of "
            f"{manifest.image_size} x {manifest.image_size} pixels, {size / 1e6:.2f} MB as {manifest.codec}; "
            f"manifest {manifest.hash[:12]}. Licence of the videos: {manifest.licence.replace('unknown', 'not recorded')}."
        )
        shown = f"{len(chosen)} of {len(rows)} clips" if len(chosen) < len(rows) else "every clip"
        caption = f"Evenly spaced frames of {shown}, as stored in the shards."
        sheet = _image(preview_png(root, chosen), ".png", kind="", caption=caption)
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
    rows = []
    for path in runs:
        train, last = read_json(path / "model" / "train.json") or {}, logs[path.name][-1]
        init = train.get("parents", {}).get("init")
        start = f"checkpoint {init.get('name', 'unknown')}" if init else "new weights"
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
                "start": start if train else "not finished",
            }
        )
    columns = ["updates", "wall time", "updates/s", "image loss (nats)", "KL (nats)", "skipped updates"]
    caption = "Training loss in nats a frame, means over each log interval: half the squared error summed over a frame, and KL."
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
    }


def beginning(path: Path) -> str:
    """How a run began and how long it trained, in words: what two designs must share to be compared."""
    train = read_json(path / "model" / "train.json") or {}
    init = train.get("parents", {}).get("init")
    start = f"the checkpoint {init['name']}" if init else "new weights"
    return f"{train.get('updates', 'an unknown number of')} updates from {start}"


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
    return f"{verdict}. Both had {beginnings[a]}."


def finetuning_section(run: Path) -> tuple[dict[str, Any] | None, str]:
    """Curves and sentences of the fine-tuning run, or the sentence that says why there are none."""
    folder = run / "finetune"
    played, episodes = read_rows(folder / "eval.jsonl"), read_rows(folder / "episodes.jsonl")
    if not played and not episodes:
        stage = next((row for row in read_rows(run / "stages.jsonl") if "fine-tune" in row["stage"]), None)
        reason = f"its stage ended with status {stage['status']!r}" if stage else "the stage did not run"
        return None, f"There is no fine-tuning result: {reason}."
    config = read_config(folder / "config.yaml")
    evaluations, sampled, random = (
        [row for row in played if row["policy"] == policy] for policy in ("mode", "sampled", "random")
    )
    labels = {"score": "Return of an episode (sum of rewards)", "success": "Success rate"}
    at_frames = sorted({row["env_frames"] for row in evaluations})
    results = {
        name: [(at, [row[name] for row in evaluations if row["env_frames"] == at]) for at in at_frames]
        for name in ("success", "score")
    }
    curve = finetuning_curve(
        results,
        sampled={name: means_over_frames(sampled, name) for name in results},
        training={name: [(row["env_frames"], row[name]) for row in episodes] for name in results},
        random_policy={name: mean(row[name] for row in random) for name in results} if random else None,
        labels=labels,
    )
    caption = (
        "Evaluations of the policy's mode and of its samples, on the fixed seeds of the random policy's; training episodes "
        "explore, and those before the first update are random."
    )
    last_sampled = [row for row in sampled if row["env_frames"] == at_frames[-1]]
    lines = finetuning_lines(config, results, last_sampled, random, episodes)
    curves = image_of(curve, kind="curve", caption=caption)
    return {"lines": lines, "curves": curves, "films": finetuning_films(folder, [*random, *evaluations])}, ""


def finetuning_films(folder: Path, evaluations: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The first film, of the random policy, and the agent's last, with the result of the whole evaluation of each."""
    films = sorted((folder / "films").glob("step-*.mp4"))
    shown: list[dict[str, str]] = []
    for path in films[:1] + films[1:][-1:]:
        at = int(path.stem.removeprefix("step-"))
        rows = [row for row in evaluations if row["agent_steps"] == at]
        if not rows:
            continue
        who = (
            "Before learning: a random policy"
            if rows[0]["policy"] == "random"
            else f"The policy's mode after {rows[0]['updates']:,} updates"
        )
        caption = (
            f"{who}. First episodes of an evaluation with return {mean(row['score'] for row in rows):.1f} and success "
            f"{100 * mean(row['success'] for row in rows):.0f} %."
        )
        shown.append(image_file(path, caption, kind="video"))
    return shown


def means_over_frames(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    """(environment frames, mean over the episodes) of every evaluation."""
    return [
        (at, mean(row[name] for row in rows if row["env_frames"] == at))
        for at in sorted({row["env_frames"] for row in rows})
    ]


def finetuning_lines(
    config: Mapping[str, Any],
    results: Mapping[str, Sequence[tuple[int, Sequence[float]]]],
    sampled: Sequence[Mapping[str, Any]],
    random: Sequence[Mapping[str, Any]],
    episodes: Sequence[Mapping[str, Any]],
) -> list[str]:
    """What was fine-tuned, for how long, and how it ended beside a random policy."""
    task = config.get("env", {}).get("name", "an environment")
    lines = [
        f"{config.get('init') or config.get('model') or 'A model'} on {task}, {config.get('agent_steps', 0):,} agent steps, {len(episodes)} training episodes."
    ]
    if results["score"]:
        frames, scores = results["score"][-1]
        success = mean(results["success"][-1][1])
        lines.append(
            f"Last evaluation, after {frames:,} environment frames: return {mean(scores):.1f} and success {100 * success:.0f} % over "
            f"{len(scores)} episodes of the policy's mode."
        )
    for name, rows in (("Samples of that policy", sampled), ("A random policy", random)):
        if rows:
            lines.append(
                f"{name} on the same seeds: return {mean(row['score'] for row in rows):.1f} and success "
                f"{100 * mean(row['success'] for row in rows):.0f} %."
            )
    if config.get("init"):
        lines.append(
            "How far pre-training mattered was not measured in this run: that takes runs from new weights beside it, and "
            "several seeds of both."
        )
    return lines


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
    body = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    body = re.sub(r"^## A look\n.*?(?=^## |\Z)", "", body, flags=re.DOTALL | re.MULTILINE)
    return Markup(markdown.render(body))


def stage_section(run: Path) -> dict[str, Any] | None:
    """Wall time of every stage; of a stage that ran again, the last time."""
    latest = {row["stage"]: row for row in read_rows(run / "stages.jsonl")}
    if not latest:
        return None
    rows = [
        {
            "stage": name,
            "time": duration(row["seconds"]),
            "status": row.get("status", ""),
            "command": row.get("command", ""),
        }
        for name, row in latest.items()
    ]
    return {"rows": rows, "total": duration(sum(row["seconds"] for row in latest.values()))}


def machine_section() -> dict[str, str]:
    """Commit, versions and machine of this report; every checkpoint names its own."""
    facts = provenance()
    return {
        "report written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "commit": facts["git_commit"] or "not a git checkout",
        "versions": ", ".join(f"{name} {version}" for name, version in facts["versions"].items()),
        "machine": f"{facts['machine']['platform']}, {facts['machine']['cpus']} CPU cores",
    }


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


# --- small things


def image_of(figure: Figure, *, kind: str = "", caption: str = "") -> dict[str, str]:
    """A figure as a picture inside the page."""
    return _image(png(figure), ".png", kind=kind, caption=caption)


def image_file(path: Path, caption: str, *, kind: str = "") -> dict[str, str]:
    """A picture or video file inside the page."""
    return _image(path.read_bytes(), path.suffix, kind=kind, caption=caption)


def _image(data: bytes, suffix: str, *, kind: str, caption: str) -> dict[str, str]:
    uri = f"data:{MIME[suffix]};base64,{base64.b64encode(data).decode()}"
    return {"data": uri, "kind": kind, "caption": caption, "alt": caption}


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON file, or None where there is none."""
    return json.loads(path.read_text()) if path.is_file() else None


def read_config(path: Path) -> dict[str, Any]:
    """A run's config.yaml, empty where there is none."""
    return yaml.safe_load(path.read_text()) if path.is_file() else {}


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean."""
    numbers = list(values)
    return sum(numbers) / len(numbers)


def duration(seconds: float) -> str:
    """`7.3 s`, `3 min 05 s` or `2 h 10 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds) // 60
    return (
        f"{minutes} min {round(seconds) % 60:02d} s"
        if minutes < 60
        else f"{minutes // 60} h {minutes % 60:02d} min"
    )


if __name__ == "__main__":
    with one_sentence_errors():
        sys.exit(main(CONFIG))
