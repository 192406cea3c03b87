"""The report on many fine-tuning runs: agents beside each other on every task and on all of them. No torch."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cwm_hub.command_line import how_many
from cwm_hub.evaluation.agent_comparison import (
    QUANTITIES,
    RunCurve,
    compare_agents,
    compared_at,
    scores_by_agent,
    shared_tasks,
    together,
)
from cwm_hub.evaluation.released_scores import released_success
from cwm_hub.evaluation.words import listed
from cwm_hub.figures.agent_curves import Style, interval_chart, learning_curves, styles
from recipes.run.agent_runs import AgentRun, differing
from recipes.run.folder import RecipeError
from recipes.run.report_page import image_file, image_of, machine_section, mean, render
from recipes.run.runs_tables import (
    FORMATS,
    HEADINGS,
    evaluation_rows,
    interval,
    run_rows,
    table_row,
    task_results,
    work_rows,
)

FILM_BYTES = 20_000_000
"""Of films inside the page; those beyond are links to the runs' own files."""
CURVE_CAPTION = (
    "IQM over the runs of each agent at every evaluation of the policy's mode; bands: 95 % bootstrap intervals over runs. "
    "A line is thin where not all of its runs have come so far."
)


@dataclass(frozen=True)
class RunsPage:
    """A page and the tables beside it."""

    html: str
    evaluations: list[dict[str, Any]]
    """A row for each evaluation of a policy in every run."""
    results: list[dict[str, Any]]
    """A row for each agent, task and quantity at the point of comparison."""


def runs_page(
    runs: Sequence[AgentRun],
    *,
    out: Path,
    title: str,
    at_frames: int | None = None,
    damaged: Sequence[str] = (),
) -> RunsPage:
    """The report on runs that `find_runs` found.

    Args:
        runs: of any tasks, agents and seeds.
        out: the page's file, from whose folder films are linked.
        title: its heading.
        at_frames: environment frames at which runs are compared; as far as all runs of a task have come by default.
        damaged: a sentence on each run that could not be read.

    Raises:
        RecipeError: no run has an evaluation there.
    """
    curves = [curve for run in runs if (curve := run.curve()) is not None]
    compared = [run for run in runs if (curve := run.curve()) and curve.env_frames[-1] >= (at_frames or 0)]
    if not compared:
        there = "" if at_frames is None else f" at {at_frames:,} environment frames or later"
        raise RecipeError(f"there is no evaluation of an agent{there} yet in {how_many(len(runs), 'run')}")
    agents = list(dict.fromkeys(run.agent for run in runs))
    agents = [agent for agent in agents if any(curve.agent == agent for curve in curves)]
    compared_curves = [curve for run in compared if (curve := run.curve())]
    at, style = compared_at(compared_curves, at_frames), styles(agents)
    tasks = list(dict.fromkeys(curve.task for curve in curves))
    with_success = [task for task in tasks if counts_success(task, runs)]
    results = [row for task in at for row in task_results(compared, task, agents, at=at[task])]
    films = Films(out.parent)
    html = render(
        "runs_report.html",
        title=title,
        lead=lead(runs, tasks, agents),
        notes=[*notes(runs, compared, at), *(f"Left out: {sentence}." for sentence in damaged)],
        overall=overall(compared_curves, agents, at, style, with_success),
        tasks=[task_section(task, runs, curves, results, style, films) for task in tasks],
        work=work_rows(runs, tasks, agents),
        runs=run_rows(runs),
        machine=machine_section(),
    )
    return RunsPage(html, evaluation_rows(runs), results)


def lead(runs: Sequence[AgentRun], tasks: Sequence[str], agents: Sequence[str]) -> str:
    """What is shown, in one sentence."""
    finished, seeds = (
        sum(run.finished for run in runs),
        [str(seed) for seed in sorted({run.seed for run in runs})],
    )
    return (
        f"{listed(list(agents))} on {listed(list(tasks))}: {how_many(len(runs), 'run')}, {finished} finished, with "
        f"{'seed' if len(seeds) == 1 else 'seeds'} {listed(seeds)}."
    )


def notes(runs: Sequence[AgentRun], compared: Sequence[AgentRun], at: Mapping[str, int]) -> list[str]:
    """Where runs are compared, and what keeps them from being alike."""
    lines = [
        f"{task} is compared at {frames:,} environment frames, by the last evaluation of each run up to there."
        for task, frames in at.items()
    ]
    left_out = [run for run in runs if run not in compared]
    if left_out:
        names = listed([f"{run.agent} on {run.task}, seed {run.seed}" for run in left_out])
        lines.append(f"Not compared, since there is no evaluation that far yet: {names}.")
    for task in dict.fromkeys(run.task for run in runs):
        of_task = [run for run in runs if run.task == task]
        if other := differing(of_task, designs=False):
            lines.append(f"The runs on {task} differ in more than the agent: {', '.join(other)}.")
        for agent in dict.fromkeys(run.agent for run in of_task):
            of_agent = [run for run in of_task if run.agent == agent]
            if other := differing(of_agent, designs=True):
                lines.append(
                    f"The runs of {agent} on {task} are not the same agent: {', '.join(other)} differ."
                )
    return lines


def counts_success(task: str, runs: Sequence[AgentRun]) -> bool:
    """Whether an episode of any evaluation succeeded, or others released a rate: a task without success has zeros only."""
    seen = any(row["success"] > 0 for run in runs if run.task == task for row in run.evaluations)
    return seen or bool(released_success(task))


def overall(
    compared: Sequence[RunCurve],
    agents: Sequence[str],
    at: Mapping[str, int],
    style: Mapping[str, Style],
    with_success: Sequence[str],
) -> dict[str, Any] | None:
    """All tasks together: IQM of the success rates, and who improves on whom; None with a single agent."""
    quantity = {task: "success" if task in with_success else "score" for task in at}
    scores = scores_by_agent(compared, at, quantity)
    scores = {agent: scores[agent] for agent in agents if agent in scores}
    if len(scores) < 2:
        return None
    tasks = shared_tasks(scores)
    if not tasks:
        sentence = "No task was run by every agent: there is nothing to put together."
        return {"sentence": sentence, "charts": [], "rows": []}
    told = compare_agents(scores, tasks, [task for task in tasks if task in with_success])
    missing = [task for task in at if task not in tasks]
    left_out = f" Not every agent has a run on {listed(missing)}." if missing else ""
    rows = [
        [agent, *("" if other == agent else interval(row[other], "probability", ".2f") for other in scores)]
        for agent, row in told["improvement"].items()
    ]
    return {
        "sentence": f"Put together over {listed(tasks)}.{left_out}",
        "charts": overall_charts(told, style),
        "rows": rows,
        "columns": list(scores),
    }


def overall_charts(told: Mapping[str, Any], style: Mapping[str, Style]) -> list[dict[str, str]]:
    """IQM of the success rates, where there are any, and the probability of improving on the first agent."""
    charts = []
    if told["iqm"]:
        heading = "Success rate, IQM over runs and tasks"
        caption = (
            "95 % intervals; runs are resampled within their tasks. Tasks that count no success are left out."
        )
        chart = interval_chart(told["iqm"], style, value="iqm", title=heading)
        charts.append(image_of(chart, kind="small", caption=caption))
    first, *others = told["improvement"]
    chart = interval_chart(
        {agent: told["improvement"][agent][first] for agent in others},
        style,
        value="probability",
        title=f"Probability that a run beats one of {first}",
        middle=0.5,
    )
    caption = "95 % intervals. On a task drawn at random, by success where the task counts it, else by return; a tie is half a win."
    return [*charts, image_of(chart, kind="small", caption=caption)]


def task_section(
    task: str,
    runs: Sequence[AgentRun],
    curves: Sequence[RunCurve],
    results: Sequence[Mapping[str, Any]],
    style: Mapping[str, Style],
    films: "Films",
) -> dict[str, Any]:
    """Curves, table and films of one task; success only where the task counts it."""
    quantities = QUANTITIES if counts_success(task, runs) else QUANTITIES[1:]
    by_agent = {
        agent: found
        for agent in style
        if (found := [curve for curve in curves if (curve.task, curve.agent) == (task, agent)])
    }
    panels = {
        quantity: {agent: together(found, quantity) for agent, found in by_agent.items()}
        for quantity in quantities
    }
    references = reference_levels(task, runs, quantities)
    rows = [table_row(agent, task, results, quantities) for agent in by_agent]
    for name in dict.fromkeys(name for levels in references.values() for name in levels):
        levels = [references[q].get(name) for q in quantities]
        cells = [
            "" if level is None else f"{level:{FORMATS[q]}}"
            for q, level in zip(quantities, levels, strict=True)
        ]
        rows.append([name, "", *cells, *[""] * len(quantities)])
    figure = learning_curves(panels, style, references=references)
    return {
        "name": task,
        "curves": image_of(figure, kind="curve" if len(panels) > 1 else "small", caption=CURVE_CAPTION),
        "columns": [
            "runs",
            *(HEADINGS[q] for q in quantities),
            *(f"{HEADINGS[q]}, samples" for q in quantities),
        ],
        "rows": rows,
        "films": [film for agent in by_agent if (film := films.of(agent, task, runs)) is not None],
    }


def reference_levels(
    task: str, runs: Sequence[AgentRun], quantities: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Quantity -> what a level is -> level: a random policy on the evaluation seeds, and what others released."""
    random = [row for run in runs if run.task == task for row in run.of("random")]
    levels: dict[str, dict[str, float]] = {quantity: {} for quantity in quantities}
    for quantity, named in levels.items():
        if random:
            named["random policy"] = mean(row[quantity] for row in random)
        if quantity == "success":
            named |= released_success(task)
    return levels


class Films:
    """The last film of the first run of an agent on a task, inside the page while there is room, else linked."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._room = folder, FILM_BYTES

    def of(self, agent: str, task: str, runs: Sequence[AgentRun]) -> dict[str, str] | None:
        """A picture of the page, None where there is no film."""
        filmed = [run for run in runs if (run.task, run.agent) == (task, agent) and run.film is not None]
        if not filmed:
            return None
        run = filmed[0]
        path, last = run.film, run.of("mode")[-1]
        assert path is not None
        caption = (
            f"{agent}, seed {run.seed}, after {how_many(last['updates'], 'update')}: the policy's mode, return {last['score']:.1f} and "
            f"success {100 * last['success']:.0f} % over {how_many(last['episodes'], 'episode')}; the film has the first."
        )
        self._room -= path.stat().st_size
        if self._room >= 0:
            return image_file(path, caption, kind="video")
        place = quote(os.path.relpath(path.resolve(), self._folder.resolve()))
        return {"data": place, "kind": "video", "caption": caption, "alt": caption}
