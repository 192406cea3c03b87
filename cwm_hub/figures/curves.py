"""Curves over updates, over the horizon and over environment frames; every function returns a matplotlib `Figure`."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cwm_hub.evaluation import words
from cwm_hub.evaluation.protocol import METRICS
from cwm_hub.figures.sheet import FAINT, STYLE

SERIES_COLOURS = ("#0b62a8", "#bc4c00", "#2f7d4f", "#7a4aa0")
BASELINE_STYLES = {
    "copy_last_frame": ("#57606a", (0, (5, 2))),
    "mean_frame": ("#8c959f", (0, (1, 1.5))),
    "source_mean_frame": ("#8c959f", (0, (4, 1.5, 1, 1.5))),
}


def loss_curves(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Image loss and KL over updates, from the rows of every run's metrics.jsonl.

    A row whose every update was skipped holds null in their place: the line has a gap there.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 2.7), dpi=150, layout="constrained")
        for axes, (key, title) in zip(
            figure.subplots(1, 2),
            {"image_loss": "Image loss", "kl": "KL of posterior and prior"}.items(),
            strict=True,
        ):
            for (name, rows), colour in zip(runs.items(), itertools.cycle(SERIES_COLOURS)):
                logged = [row for row in rows if key in row]
                points = [(row["updates"], math.nan if row[key] is None else row[key]) for row in logged]
                axes.plot(*_columns(points), color=colour, lw=1.3, label=name)
            axes.set(title=title, xlabel="update", ylabel="nats per frame")
        figure.axes[0].set(yscale="log")
        figure.axes[0].legend()
    return figure


def score_curves(designs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], *, title: str = "") -> Figure:
    """PSNR of scored windows over the updates: a thin line a seed, a thick one for their mean.

    Args:
        designs: Design -> the rows of scores.jsonl of each of its runs.
        title: What the windows are.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 3.4), dpi=150, layout="constrained")
        axes = figure.subplots()
        for (name, runs), colour in zip(designs.items(), itertools.cycle(SERIES_COLOURS)):
            lines = [{row["updates"]: row["psnr_db"] for row in rows} for rows in runs]
            for line in lines:
                axes.plot(list(line), list(line.values()), color=colour, lw=0.8, alpha=0.45)
            shared = sorted(set.intersection(*map(set, lines)))
            mean = [float(np.mean([line[update] for line in lines])) for update in shared]
            label = f"{name} ({len(runs)} seeds)" if len(runs) > 1 else name
            axes.plot(shared, mean, color=colour, lw=2, label=label)
        axes.set(xlabel="update", ylabel=f"{words.METRICS['psnr_db'].heading}, open loop")
        axes.legend(fontsize=8)
        figure.suptitle(title, x=0.008, ha="left", fontsize=8, color=FAINT)
    return figure


def horizon_curves(scores: Mapping[str, Mapping[str, Any]], *, title: str = "") -> Figure:
    """PSNR and SSIM at every open-loop step with their intervals, where there are some, beside the baselines.

    Args:
        scores: Model name -> `together` or one of `sources` of its scorecard; baselines come from the first.
        title: What the windows are.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 3.4), dpi=150, layout="constrained")
        first = next(iter(scores.values()))
        for axes, metric in zip(figure.subplots(1, 2), METRICS, strict=True):
            for baseline, (colour, dashes) in BASELINE_STYLES.items():
                if baseline not in first:
                    continue
                steps, name = first[baseline][metric]["per_step"], words.BASELINES[baseline]
                axes.plot(_steps(steps), steps["mean"], color=colour, ls=dashes, lw=1.4, label=name)
            for (name, card), colour in zip(scores.items(), itertools.cycle(SERIES_COLOURS)):
                steps = card["model"][metric]["per_step"]
                axes.plot(_steps(steps), steps["mean"], color=colour, lw=1.8, label=name)
                if "low" in steps:
                    band = (steps["low"], steps["high"])
                    axes.fill_between(_steps(steps), *band, color=colour, alpha=0.15, lw=0)
            axes.set(title=words.METRICS[metric].heading, xlabel="frames after the last one seen")
            axes.xaxis.get_major_locator().set_params(integer=True)
        _legend_below(figure, figure.axes[0])
        over = words.intervals_over(first)
        note = "; ".join([*([title] if title else []), f"bands: {over}" if first["videos"] > 1 else over])
        figure.suptitle(note, x=0.008, ha="left", fontsize=8, color=FAINT)
    return figure


def finetuning_curve(
    evaluations: Mapping[str, Sequence[tuple[int, Sequence[float]]]],
    *,
    sampled: Mapping[str, Sequence[tuple[int, float]]] | None = None,
    training: Mapping[str, Sequence[tuple[int, float]]] | None = None,
    random_policy: Mapping[str, float] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """Results of a policy over environment frames: evaluations with their episodes, training episodes in grey.

    Args:
        evaluations: Quantity (`success`, `score`) -> (environment frames, a value per episode) of every evaluation of
            the policy's mode.
        sampled: Quantity -> (environment frames, mean over the episodes) of every evaluation of the policy's samples.
        training: Quantity -> (environment frames, value) of every training episode.
        random_policy: Mean of a random policy for any of these quantities.
        labels: Quantity -> axis title with its unit.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.2 * len(evaluations), 3.3), dpi=150, layout="constrained")
        panels = figure.subplots(1, len(evaluations), squeeze=False)[0]
        for axes, (quantity, rows) in zip(panels, evaluations.items(), strict=True):
            colour = SERIES_COLOURS[0]
            means = [(frames, float(np.mean(values))) for frames, values in rows]
            axes.plot(*_columns(means), "-o", color=colour, lw=1.6, ms=5, label="mode, mean")
            dots = [(frames, value) for frames, values in rows for value in values]
            axes.plot(*_columns(dots), "o", ms=3.5, color=colour, alpha=0.3, mew=0, label="mode, episode")
            if sampled and sampled.get(quantity):
                points = _columns(sampled[quantity])
                axes.plot(
                    *points, "--s", color=SERIES_COLOURS[1], lw=1.2, ms=3, label="samples, mean", zorder=4
                )
            if training and training.get(quantity):
                points = _columns(training[quantity])
                axes.plot(*points, "o", ms=3, color=FAINT, alpha=0.6, mew=0, label="training episode")
            if random_policy and quantity in random_policy:
                level = random_policy[quantity]
                axes.axhline(level, color=FAINT, ls=(0, (5, 2)), lw=1.2, label="random policy, mean")
            axes.set(title=(labels or {}).get(quantity, quantity), xlabel="environment frames")
            if quantity == "success":
                axes.set(ylim=(-0.05, 1.05))
        _legend_below(figure, figure.axes[-1])
    return figure


def _legend_below(figure: Figure, axes: Axes) -> None:
    """The legend of one panel under all of them, where it hides no line."""
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, fontsize=8, loc="outside lower center", ncols=3)


def _columns(points: Sequence[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    return [x for x, _ in points], [y for _, y in points]


def _steps(per_step: Mapping[str, Sequence[float]]) -> range:
    return range(1, len(per_step["mean"]) + 1)
