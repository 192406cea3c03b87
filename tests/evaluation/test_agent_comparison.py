"""Agents beside each other, from the curves of their runs: worked out by hand."""

import numpy as np
import pytest

from cwm_hub.evaluation.agent_comparison import (
    RunCurve,
    compare_agents,
    compared_at,
    scores_by_agent,
    shared_tasks,
    together,
)


def run(task: str, agent: str, seed: int, points: dict[int, float]) -> RunCurve:
    values = tuple(points.values())
    return RunCurve(
        task, agent, seed, tuple(points), {"success": values, "score": tuple(10 * v for v in values)}
    )


def test_a_run_has_the_value_of_its_last_evaluation_up_to_a_point():
    one = run("reach", "a", 0, {10: 0.1, 20: 0.2, 40: 0.4})
    assert [one.at(at, "success") for at in (9, 10, 39, 40, 99)] == [None, 0.1, 0.2, 0.4, 0.4]
    assert one.at(20, "score") == 2.0


def test_a_curve_is_over_the_runs_that_have_come_so_far():
    runs = [run("reach", "a", 0, {10: 0.0, 20: 0.2, 30: 0.4}), run("reach", "a", 1, {10: 1.0, 25: 0.6})]
    curve = together(runs, "success")
    assert curve.env_frames.tolist() == [10, 20, 25, 30]
    assert curve.runs.tolist() == [2, 2, 2, 1]
    np.testing.assert_allclose(curve.iqm, [0.5, 0.6, 0.4, 0.4])
    np.testing.assert_allclose(curve.low, [0.0, 0.2, 0.2, np.nan])
    np.testing.assert_allclose(curve.high, [1.0, 1.0, 0.6, np.nan])


def test_runs_are_compared_as_far_as_all_of_a_task_have_come():
    runs = [
        run("reach", "a", 0, {10: 0.0, 30: 1.0}),
        run("reach", "b", 0, {10: 0.5, 20: 0.75}),
        run("push", "a", 0, {40: 0.25}),
    ]
    at = compared_at(runs)
    assert at == {"reach": 20, "push": 40}
    quantity = {"reach": "success", "push": "score"}
    scores = scores_by_agent(runs, at, quantity)
    assert scores == {"a": {"reach": [0.0], "push": [2.5]}, "b": {"reach": [0.75]}}
    assert shared_tasks(scores) == ["reach"]
    assert compared_at(runs, 30) == {"reach": 30, "push": 30}


def test_returns_enter_the_improvement_but_no_iqm():
    scores = {
        "a": {"reach": [0.0, 1.0], "run": [700.0, 800.0]},
        "b": {"reach": [1.0, 1.0], "run": [100.0, 900.0]},
    }
    told = compare_agents(scores, ["reach", "run"], ["reach"])
    assert {agent: one["iqm"] for agent, one in told["iqm"].items()} == {"a": 0.5, "b": 1.0}
    # On reach a loses two pairs and ties two: 1/4. On run it wins two of four: 1/2.
    assert told["improvement"]["a"]["b"]["probability"] == pytest.approx(0.375)
    assert told["improvement"]["b"]["a"]["probability"] == pytest.approx(0.625)
    assert compare_agents(scores, ["run"], [])["iqm"] == {}
