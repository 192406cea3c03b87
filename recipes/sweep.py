"""Fine-tune several agents on several tasks with several seeds: one YAML, one folder, the same command again to go on.

    python recipes/sweep.py --config recipes/configs/sweep/scenes.yaml --parallel 2
    python recipes/report.py --runs runs/scenes-sweep --out runs/scenes-sweep/report.html

Every combination is a run of recipes/finetune.py in OUT/task/agent/seed, with what it prints in its log.txt. Finished runs
are skipped and interrupted ones go on where they saved; a run that fails is named with its last line and the others go
on, and the exit code is then 1. SIGTERM and Ctrl-C let every run save. --ray places the runs on a Ray cluster. --slurm runs nothing
and prints the commands:

    python recipes/sweep.py --config recipes/configs/sweep/metaworld.yaml --slurm > lines.txt
    sbatch --array=1-$(wc -l < lines.txt) --wrap 'eval "$(sed -n ${SLURM_ARRAY_TASK_ID}p lines.txt)"'
"""

import contextlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

import yaml

from cwm_hub.command_line import progress_line
from cwm_hub.config import to_dict
from cwm_hub.provenance import usable_cores
from cwm_hub.shards.storage import lock
from recipes.run.command_line import parse_config
from recipes.run.folder import RecipeError, StopSignal, one_sentence_errors, write_text
from recipes.run.sweep_plan import PlannedRun, SweepConfig, plan
from recipes.run.sweep_ray import Cluster
from recipes.run.world import end_with_parent

POLL_SECONDS, PROGRESS_SECONDS = 0.2, 10.0


def main(config: SweepConfig) -> int:
    """Run what is not finished; 0 where everything is then, 1 where a run failed."""
    runs, out = plan(config), Path(config.out)
    write_text(out / "sweep.yaml", yaml.safe_dump(to_dict(config), sort_keys=False))
    if config.slurm:  # for machines that may draw what this one cannot
        to_do = [run for run in runs if not run.is_finished]
        check_agents(to_do)
        for run in to_do:
            run.write_settings()
            print(shlex.join(run.command))
        return 0
    held = hold(out)
    cluster = (
        Cluster(config.parallel) if config.ray else None
    )  # before our handlers of signals: it has its own

    waiting, finished, failed = sorted_out(runs)
    print(
        f"{len(runs)} runs: {len(finished)} finished before, {len(waiting)} to do, {config.parallel} at once"
    )
    stop, slots, running = StopSignal(), list(range(config.parallel)), list[Started]()
    progress = Progress(waiting)
    while running or (waiting and not stop.received):
        while waiting and slots and not stop.received:
            running.append(start(waiting.pop(0), slots.pop(0), config, held, cluster))
        time.sleep(POLL_SECONDS)
        if stop.received:
            for one in running:
                one.process.terminate()  # which makes a run save; a second time changes nothing
        for one in [one for one in running if one.process.poll() is not None]:
            running.remove(one)
            slots.append(one.slot)
            if one.process.returncode == 0 or one.run.is_finished:  # a signal, or a driver, at the very end
                finished.append(one.run)
                say(f"finished {one.run.title}")
            elif not stop.received:
                failed[one.run.title] = f"exit code {one.process.returncode}: {last_line(one.run)}"
                say(f"failed {one.run.title}, {failed[one.run.title]}")
                progress.leave_out(one.run)
        progress.tell(f"{len(finished)} / {len(runs)} runs finished, {len(failed)} failed", last=not running)

    if stop.received:
        print("stopped by a signal, and every run with it; the same command goes on from there")
        return 128 + stop.received
    print(
        f"{len(finished)} of {len(runs)} runs are finished; for a page: recipes/report.py --runs {out} --out PAGE.html"
    )
    return refusals(failed)


def sorted_out(runs: Sequence[PlannedRun]) -> tuple[list[PlannedRun], list[PlannedRun], dict[str, str]]:
    """The runs to do, those that are finished, and the sentence of each that cannot go on."""
    waiting: list[PlannedRun] = []
    finished: list[PlannedRun] = []
    failed: dict[str, str] = {}
    for run in runs:
        try:
            run.check()
            (finished if run.is_finished else waiting).append(run)
        except ValueError as error:
            failed[run.title] = " ".join(str(error).split())
    return waiting, finished, failed


def check_agents(runs: Sequence[PlannedRun]) -> None:
    """Refuse an agent that none of the jobs could make, for what can be known without its task and its checkpoint.

    Raises:
        ValueError: no such model, or a setting that it does not have.
    """
    from recipes.run.agent_setup import new_settings  # imports torch, which a sweep does not need

    for run in runs:
        if run.config.model is not None:
            with contextlib.redirect_stdout(sys.stderr):  # what is left out is no line of the array
                try:
                    new_settings(run.config, action_size=1)
                except ValueError as error:
                    raise RecipeError(f"{run.title}: {error}") from error


def refusals(failed: dict[str, str]) -> int:
    """Name what failed, once more at the end; the exit code."""
    for title, words in failed.items():
        print(f"failed {title}, {words}", file=sys.stderr)
    return 1 if failed else 0


def hold(out: Path) -> TextIO:
    """Wait for the runs that a killed sweep left behind, and for another sweep in this folder.

    The lock is handed on to the runs: it is free when all of them have ended.
    """
    file = (out / ".lock").open("w")
    try:
        lock(file)
    except BlockingIOError:
        print(f"a sweep, or a run that one left behind, is at work in {out}: waiting for its end", flush=True)
        lock(file, wait=True)
    return file


class Process(Protocol):
    """A run's, here or on a node of a cluster."""

    returncode: Any
    """None while it runs."""

    def poll(self) -> int | None:
        """The exit code, None while it runs."""

    def terminate(self) -> None:
        """Send it SIGTERM."""


@dataclass(frozen=True)
class Started:
    """A run under way."""

    run: PlannedRun
    slot: int
    process: Process


def start(run: PlannedRun, slot: int, config: SweepConfig, held: TextIO, cluster: Cluster | None) -> Started:
    """Start one process of recipes/finetune.py, here or on a node, its words to the run's log.txt."""
    run.write_settings()
    path = run.folder / "log.txt"
    if cluster is not None:
        given = threads(cluster.cores) | {"PYTHONUNBUFFERED": "1"}
        return Started(run, slot, cluster.start(run.command, path, given))
    with path.open("ab") as log:
        process = subprocess.Popen(
            run.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | shares(config, slot) | {"PYTHONUNBUFFERED": "1"},
            pass_fds=(held.fileno(),),
            preexec_fn=end_with_parent,
        )
    return Started(run, slot, process)


def threads(cores: int) -> dict[str, str]:
    """Environment variables of a run that computes and draws on so many cores."""
    return {"OMP_NUM_THREADS": str(cores), "LP_NUM_THREADS": str(cores)}


def shares(config: SweepConfig, slot: int) -> dict[str, str]:
    """What a run gets of this machine, as environment variables: threads to compute and to draw, and a GPU."""
    gpu = {"CUDA_VISIBLE_DEVICES": str(config.gpus[slot % len(config.gpus)])} if config.gpus else {}
    return threads(max(1, usable_cores() // config.parallel)) | gpu


def last_line(run: PlannedRun) -> str:
    """Of what a run printed."""
    lines = (run.folder / "log.txt").read_text(errors="backslashreplace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")


def say(words: str) -> None:
    """A line of its own, on a terminal below the one of the progress."""
    print(f"\n{words}" if sys.stdout.isatty() else words, flush=True)


class Progress:
    """Agent steps of all runs to do: how far, how fast, how long."""

    def __init__(self, runs: Sequence[PlannedRun]) -> None:
        self._runs = list(runs)
        self._began = self._told = time.monotonic()
        self._first = {run.title: run.agent_steps() for run in runs}

    def leave_out(self, run: PlannedRun) -> None:
        """Of a run that failed nothing more is to come."""
        self._runs.remove(run)

    def tell(self, words: str, *, last: bool) -> None:
        """Print the line, every ten seconds and at the end."""
        now = time.monotonic()
        if not last and now - self._told < PROGRESS_SECONDS:
            return
        self._told = now
        steps = {run.title: run.agent_steps() for run in self._runs}
        done, total = sum(steps.values()), sum(run.config.last_step for run in self._runs)
        rate = (done - sum(self._first[title] for title in steps)) / (now - self._began)
        left = f"{(total - done) / rate / 60:.1f} min" if rate else "?"
        progress_line(f"{words}  {done:,} / {total:,} steps  {rate:.1f} steps/s  left {left}", last=last)


if __name__ == "__main__":
    with one_sentence_errors():
        sys.exit(main(parse_config(SweepConfig, description=__doc__)))
