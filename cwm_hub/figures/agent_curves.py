"""Agents beside each other: learning curves with their bands, and intervals. Every function returns a matplotlib `Figure`.

An agent keeps its colour, marker and dashes on every figure of a page: `styles`.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from cwm_hub.evaluation.agent_comparison import AgentCurve
from cwm_hub.figures.sheet import FAINT, STYLE

COLOURS = ("#0b62a8", "#d1570a", "#2f7d4f", "#b5179e", "#0fa3b1", "#8a5a2b", "#6a4fc4", "#c79100")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", (0, (6, 1.5)), (0, (1.5, 1)))
"""Of the first eight agents, of the next eight, and of the eight after."""
REFERENCE_DASHES = ((0, (1, 2)), (0, (4, 2, 1, 2)), (0, (7, 3)))
LABELS = {"success": "Success rate", "score": "Return of an episode (sum of rewards)"}
"""Of a panel, by what its curves are of."""
BAND_ALPHA = 0.12
MARKS = 8
"""Markers on a curve, about."""


class Style(NamedTuple):
    """How an agent is drawn."""

    colour: str
    marker: str
    dashes: Any


def styles(agents: Sequence[str]) -> dict[str, Style]:
    """A style for each agent, in their order: eight colours with a marker each, then the same dashed."""
    return {
        agent: Style(
            COLOURS[at % len(COLOURS)], MARKERS[at % len(MARKERS)], DASHES[at // len(COLOURS) % len(DASHES)]
        )
        for at, agent in enumerate(agents)
    }


def learning_curves(
    panels: Mapping[str, Mapping[str, AgentCurve]],
    style: Mapping[str, Style],
    *,
    references: Mapping[str, Mapping[str, float]] | None = None,
) -> Figure:
    """IQM over the runs of every agent with its band, over environment frames; one legend for all panels.

    From the last point that all runs of an agent have reached, its line is thin.

    Args:
        panels: `success` or `score` -> agent -> curve.
        style: Of the agents.
        references: `success` or `score` -> what a level is -> level.
    """
    agents = list(dict.fromkeys(agent for curves in panels.values() for agent in curves))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * len(panels), 3.4), dpi=150, layout="constrained")
        columns = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (quantity, curves) in zip(columns, panels.items(), strict=True):
            for agent, curve in curves.items():
                _draw(axes, curve, style[agent], agent)
            levels = (references or {}).get(quantity, {})
            for dashes, (name, level) in zip(itertools.cycle(REFERENCE_DASHES), levels.items()):
                axes.axhline(level, color=FAINT, ls=dashes, lw=1.2, label=name)
            axes.set(title=LABELS[quantity], xlabel="environment frames")
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            if quantity == "success":
                axes.set(ylim=(-0.04, 1.04))
        _legend(figure, agents)
    return figure


def _draw(axes: Axes, curve: AgentCurve, style: Style, agent: str) -> None:
    whole = int(np.flatnonzero(curve.runs == curve.runs.max())[-1]) + 1
    line: dict[str, Any] = {
        "color": style.colour,
        "ls": style.dashes,
        "marker": style.marker,
        "ms": 4.5,
        "mew": 0,
    }
    line["markevery"] = max(1, len(curve.env_frames) // MARKS)
    axes.plot(curve.env_frames[:whole], curve.iqm[:whole], lw=1.8, label=agent, **line)
    axes.plot(curve.env_frames[whole - 1 :], curve.iqm[whole - 1 :], lw=0.8, **line)
    axes.fill_between(curve.env_frames, curve.low, curve.high, color=style.colour, alpha=BAND_ALPHA, lw=0)


def _legend(figure: Figure, agents: Sequence[str]) -> None:
    """Below all panels, the agents first."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    labels = [*agents, *(label for label in handles if label not in agents)]
    figure.legend(
        [handles[label] for label in labels],
        labels,
        loc="outside lower left",
        ncols=2 * len(figure.axes),
        fontsize=8,
        handlelength=3,
    )


def interval_chart(
    rows: Mapping[str, Mapping[str, float]],
    style: Mapping[str, Style],
    *,
    value: str,
    title: str,
    middle: float | None = None,
) -> Figure:
    """A point with its interval for every agent, the first on top.

    Args:
        rows: Agent -> its numbers: `value`, and `low` and `high` where there is an interval.
        style: Of the agents.
        value: Name of the number.
        title: What it is.
        middle: Where to draw a line that says nothing is better or worse.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 0.9 + 0.32 * len(rows)), dpi=150, layout="constrained")
        axes = figure.subplots()
        for height, (agent, numbers) in enumerate(rows.items()):
            if "low" in numbers:
                axes.plot(
                    [numbers["low"], numbers["high"]],
                    [height] * 2,
                    color=style[agent].colour,
                    lw=5,
                    alpha=0.3,
                    solid_capstyle="butt",
                )
            axes.plot(numbers[value], height, style[agent].marker, color=style[agent].colour, ms=7, mew=0)
        if middle is not None:
            axes.axvline(middle, color=FAINT, lw=1)
        axes.set(
            title=title,
            yticks=range(len(rows)),
            yticklabels=list(rows),
            xlim=(-0.03, 1.03),
            ylim=(len(rows) - 0.5, -0.5),
        )
        axes.grid(axis="y", visible=False)
    return figure
