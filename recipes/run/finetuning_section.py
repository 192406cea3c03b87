"""The report's part on one fine-tuning run: its curve, the agent before and after, and how it ended. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cwm_hub.command_line import how_many
from cwm_hub.evaluation.words import listed
from cwm_hub.figures.curves import finetuning_curve
from recipes.run.folder import read_rows
from recipes.run.report_page import image_file, image_of, mean, read_config


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
            else f"The policy's mode after {how_many(rows[0]['updates'], 'update')}"
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
    steps = [
        f"{config[name]:,} {what}"
        for name, what in (
            ("prefill_steps", "random steps"),
            ("warmup_updates", "updates on them"),
            ("agent_steps", "steps of the agent"),
        )
        if config.get(name)
    ]
    start = config.get("init") or config.get("model") or "A model"
    lines = [
        f"{start} on {task}: {listed(steps)}, {how_many(len(episodes), 'training episode')} in all."
        if steps
        else f"{start} on {task}: {how_many(len(episodes), 'training episode')}."
    ]
    if results["score"]:
        frames, scores = results["score"][-1]
        success = mean(results["success"][-1][1])
        lines.append(
            f"Last evaluation on {task}, after {frames:,} environment frames: return {mean(scores):.1f} and success {100 * success:.0f} % over "
            f"{how_many(len(scores), 'episode')} of the policy's mode."
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
