"""Figures of agents beside each other, checked for what they show."""

import numpy as np

from cwm_hub.evaluation.agent_comparison import AgentCurve
from cwm_hub.figures.agent_curves import interval_chart, learning_curves, styles


def test_every_agent_of_many_has_a_style_of_its_own():
    names = [f"agent {number}" for number in range(24)]
    assert len(set(styles(names).values())) == 24
    eight = list(styles(names[:8]).values())
    assert len({style.colour for style in eight}) == len({style.marker for style in eight}) == 8


def test_learning_curves_show_iqm_band_and_where_runs_are_missing():
    points = np.array([100, 200, 300])
    one = AgentCurve(points, np.array([0.1, 0.2, 0.3]), np.zeros(3), np.ones(3), np.array([2, 2, 1]))
    other = AgentCurve(points, np.array([0.5, 0.5, 0.5]), np.zeros(3), np.ones(3), np.array([3, 3, 3]))
    style = styles(["one", "other"])
    figure = learning_curves(
        {"success": {"one": one, "other": other}, "score": {"other": other}},
        style,
        references={"success": {"random policy": 0.05}},
    )
    success, score = figure.axes
    assert (success.get_title(loc="left"), score.get_title(loc="left")) == (
        "Success rate",
        "Return of an episode (sum of rewards)",
    )
    thick, thin, *rest = success.lines
    assert thick.get_xydata().tolist() == [[100, 0.1], [200, 0.2]]
    assert (
        thin.get_xydata().tolist() == [[200, 0.2], [300, 0.3]]
        and thin.get_linewidth() < thick.get_linewidth()
    )
    assert rest[0].get_xydata().tolist() == [[100, 0.5], [200, 0.5], [300, 0.5]]
    assert list(rest[-1].get_ydata()) == [0.05, 0.05]
    assert thick.get_color() == thin.get_color() == style["one"].colour
    assert score.lines[0].get_color() == rest[0].get_color() == style["other"].colour
    assert len(success.collections) == 2
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one", "other", "random policy"]


def test_an_interval_chart_has_a_bar_where_there_is_an_interval():
    rows = {"one": {"iqm": 0.5, "low": 0.25, "high": 0.75}, "alone": {"iqm": 0.9}}
    figure = interval_chart(rows, styles(list(rows)), value="iqm", title="Success", middle=0.5)
    (axes,) = figure.axes
    bar, point, lone, middle = axes.lines
    assert list(bar.get_xdata()) == [0.25, 0.75] and point.get_xydata().tolist() == [[0.5, 0]]
    assert lone.get_xydata().tolist() == [[0.9, 1]] and list(middle.get_xdata()) == [0.5, 0.5]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "alone"]
