"""What a sweep is: settings for every combination of a task, an agent and a seed, worked out before anything runs. No torch."""

import sys
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from cwm_hub.config import check_range, from_dict, merged, nearest, to_dict
from cwm_hub.envs.table import find_suite
from cwm_hub.provenance import ROOT
from recipes.run.command_line import parse_config, structured
from recipes.run.finetune_settings import FinetuneConfig, check_same_config, is_finished, with_fallback
from recipes.run.folder import RecipeError, read_rows, write_text

OWN = ("run", "name", "seed", "env.name")
"""Settings of a run that the sweep gives."""


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """Tasks, agents and seeds, each combination of which is a run of recipes/finetune.py."""

    out: str
    """Folder of the sweep; a run's is task/agent/seed in it."""
    tasks: list[str]
    """Environments by name."""
    agents: dict[str, dict[str, Any]]
    """Name -> its settings of recipes/finetune.py, such as `{contextwm: {init: runs/ssv2/model}}`; `{seed}` in an init is the
    run's seed, where each has a model of its own."""
    seeds: list[int]
    """Seeds of every agent on every task."""
    base: str | None = None
    """YAML file of recipes/finetune.py's settings that all runs share."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings that all runs share, in place of those of `base`."""
    of_task: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Task -> settings of its runs; an agent's own come before them."""
    parallel: int = 1
    """Runs at once, each with its share of this machine's cores."""
    gpus: list[int] = field(default_factory=list)
    """GPUs dealt out among the runs at once; with none named, every run takes what it sees."""
    slurm: bool = False
    """Run nothing: print a command for every run that is not finished, a line each, for a job array."""
    ray: bool = False
    """Place the runs on the Ray cluster at RAY_ADDRESS, or on one started here, `parallel` at once, each with its share of the
    cluster's cores and GPUs. Every node must see `out`, and this Python and repository, at the same paths."""

    def __post_init__(self) -> None:
        """Raises ValueError where there is nothing to run, or something twice."""
        check_range(self, "parallel", at_least=1)
        if any(gpu < 0 for gpu in self.gpus):
            raise ValueError(f"gpus are numbers from 0, got {self.gpus}")
        for name in self.agents:
            if not name or "/" in name:
                raise ValueError(f"agents have names that a folder can have, got {name!r}")
        if self.ray and (self.slurm or self.gpus):
            raise ValueError(
                f"ray goes without {'slurm' if self.slurm else 'gpus: Ray deals out the GPUs of its nodes'}"
            )
        for name in ("tasks", "agents", "seeds"):
            given = getattr(self, name)
            if not given or len(set(given)) < len(given):
                raise ValueError(f"{name} are at least one and none twice, got {list(given)}")


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep."""

    config: FinetuneConfig

    @property
    def folder(self) -> Path:
        """Of the run."""
        return Path(self.config.run)

    @property
    def title(self) -> str:
        """`task/agent/seed`."""
        return f"{self.config.env.name}/{self.config.name}/{self.config.seed}"

    @property
    def command(self) -> list[str]:
        """What runs it, from any folder of this machine."""
        recipe, settings = ROOT / "recipes" / "finetune.py", self.folder / "settings.yaml"
        return [sys.executable, str(recipe), "--config", str(settings.absolute())]

    def write_settings(self) -> None:
        """Put the settings where the command reads them."""
        text = yaml.safe_dump(asdict(self.config), sort_keys=False)
        write_text(self.folder / "settings.yaml", text)

    @property
    def is_finished(self) -> bool:
        """Whether its folder holds the result."""
        return is_finished(self.folder, self.config)

    def check(self) -> None:
        """Refuse what fine-tuning would refuse here.

        Raises:
            ValueError: the folder holds a run of other settings, or this machine cannot draw the task.
        """
        check_same_config(self.folder, with_fallback(self.config))

    def agent_steps(self) -> int:
        """Where it stands, as its result or else its rows tell."""
        if self.is_finished:
            return self.config.last_step
        rows = [
            row for name in ("metrics", "episodes") for row in read_rows(self.folder / f"{name}.jsonl")[-1:]
        ]
        return max((row["agent_steps"] for row in rows), default=0)


def plan(config: SweepConfig) -> list[PlannedRun]:
    """Every run, seeds first so that a sweep that is cut short has whole comparisons.

    Raises:
        ValueError: no such task, a setting that fine-tuning does not have, one that the sweep itself gives, or settings of a task that
            is not among the tasks.
    """
    for task in config.tasks:
        find_suite(task)
    for task in config.of_task:
        if task not in config.tasks:
            raise RecipeError(
                f"of_task has settings of {task!r}, which is none of the tasks{nearest(task, config.tasks)}"
            )
    base = to_dict(parse_config(FinetuneConfig, ["--config", config.base])) if config.base else {}
    runs = []
    for seed, task, name in product(config.seeds, config.tasks, config.agents):
        given = [
            ("settings", config.settings),
            ("of_task", config.of_task.get(task, {})),
            (f"agents.{name}", config.agents[name]),
        ]
        runs.append(_planned(config, base, given, task=task, name=name, seed=seed))
    return runs


def _planned(
    config: SweepConfig,
    base: dict[str, Any],
    given: list[tuple[str, dict[str, Any]]],
    *,
    task: str,
    name: str,
    seed: int,
) -> PlannedRun:
    flat = merged(base)
    for where, settings in given:
        changes = merged(settings)
        for own in OWN:
            if own in changes:
                raise RecipeError(f"{where} sets {own}, which the sweep gives: leave it out")
        for chosen, other in (("init", "model"), ("model", "init")):  # the one replaces the other
            if changes.get(chosen) is not None:
                flat[other] = None
        flat = merged(flat, changes)
    if flat.get("init") is not None:
        flat["init"] = str(flat["init"]).replace("{seed}", str(seed))
    folder = Path(config.out) / task.replace(":", "-") / name / str(seed)
    flat = merged(flat, {"run": str(folder), "name": name, "seed": seed, "env.name": task})
    where = f"agent {name} on {task}"
    run = from_dict(FinetuneConfig, structured(FinetuneConfig, flat), where=where)
    if (run.init is None) == (run.model is None):
        raise RecipeError(f"{where}: give either init (a pre-trained checkpoint) or model (new weights)")
    return PlannedRun(run)
