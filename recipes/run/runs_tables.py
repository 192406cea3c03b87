"""The tables of the report on many runs: results by task and agent, work done, and every run. No torch."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from cwm_hub.evaluation.agent_comparison import QUANTITIES
from cwm_hub.evaluation.intervals import interquartile_mean
from cwm_hub.evaluation.words import ends
from recipes.run.agent_runs import AgentRun

HEADINGS = {"success": "success", "score": "return"}
"""Of a column, by what it holds."""
FORMATS = {"success": ".2f", "score": ".1f"}
"""Of a number, by what it is."""


def task_results(
    compared: Sequence[AgentRun], task: str, agents: Sequence[str], *, at: int
) -> list[dict[str, Any]]:
    """IQM and interval of every agent, of its mode and of its samples, in both quantities."""
    rows = []
    for agent, policy in product(agents, ("mode", "sampled")):
        runs = [run for run in compared if (run.task, run.agent) == (task, agent)]
        curves = [curve for run in runs if (curve := run.curve(policy)) is not None]
        for quantity in QUANTITIES:
            values = [value for curve in curves if (value := curve.at(at, quantity)) is not None]
            if values:
                where = {
                    "task": task,
                    "agent": agent,
                    "policy": policy,
                    "quantity": quantity,
                    "env_frames": at,
                }
                rows.append(where | interquartile_mean({task: values}))
    return rows


def table_row(
    agent: str, task: str, results: Sequence[Mapping[str, Any]], quantities: Sequence[str]
) -> list[str]:
    """Agent, runs, IQM of the mode in each quantity, and the same of samples of the policy."""
    told = {
        (row["policy"], row["quantity"]): row
        for row in results
        if (row["task"], row["agent"]) == (task, agent)
    }
    cells = [
        interval(told[policy, quantity], "iqm", FORMATS[quantity]) if (policy, quantity) in told else ""
        for policy, quantity in product(("mode", "sampled"), quantities)
    ]
    return [agent, str(told["mode", "score"]["runs"]) if told else "0", *cells]


def interval(numbers: Mapping[str, float], value: str, form: str) -> str:
    """`0.83 [0.61, 1.00]`, or the number alone where there is no interval."""
    return f"{numbers[value]:{form}}{ends(numbers, form)}"


def work_rows(runs: Sequence[AgentRun], tasks: Sequence[str], agents: Sequence[str]) -> list[list[str]]:
    """Updates and hours spent, by task and agent."""
    rows = []
    for task in tasks:
        for agent in agents:
            of_both = [run for run in runs if (run.task, run.agent) == (task, agent)]
            if not of_both:
                continue
            hours, updates = sum(run.hours for run in of_both), sum(run.updates for run in of_both)
            frames = sorted(run.env_frames for run in of_both)
            reached = f"{frames[0]:,}" if frames[0] == frames[-1] else f"{frames[0]:,} to {frames[-1]:,}"
            finished = sum(run.finished for run in of_both)
            rate = f"{updates / hours / 3600:.2f}" if hours else ""
            rows.append(
                [task, agent, f"{finished} of {len(of_both)}", reached, f"{updates:,}", f"{hours:.2f}", rate]
            )
    return rows


def run_rows(runs: Sequence[AgentRun]) -> list[list[str]]:
    """Every run with its folder."""
    return [
        [
            run.task,
            run.agent,
            str(run.seed),
            f"{run.env_frames:,}",
            f"{run.updates:,}",
            f"{run.hours:.2f}",
            "finished" if run.finished else "not finished",
            str(run.folder),
        ]
        for run in sorted(runs, key=lambda run: (run.task, run.agent, run.seed))
    ]


def evaluation_rows(runs: Sequence[AgentRun]) -> list[dict[str, Any]]:
    """The numbers behind the curves."""
    return [
        {"task": run.task, "agent": run.agent, "seed": run.seed} | dict(row) | {"run": str(run.folder)}
        for run in runs
        for row in run.evaluations
    ]
