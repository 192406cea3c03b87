"""Fine-tuning runs as their folders tell of them: task, agent, seed, evaluations, work done. No torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from cwm_hub.config import merged
from cwm_hub.evaluation.agent_comparison import QUANTITIES, RunCurve
from recipes.run.finetune_settings import COSTS_TIME, FinetuneConfig
from recipes.run.folder import RecipeError, read_rows

APART = {"run", "device", "seed", "name", "fallback_env"} | COSTS_TIME
"""Settings in which runs of one agent may differ."""
DESIGN = ("init", "load", "model", "agent", "context_augmentation")
"""Settings, with all their parts, that make one agent another."""


@dataclass(frozen=True)
class AgentRun:
    """One run, finished or running."""

    folder: Path
    task: str
    agent: str
    seed: int
    config: Mapping[str, Any]
    evaluations: Sequence[Mapping[str, Any]]
    """A row for each evaluation of a policy: `policy`, `env_frames`, `updates`, `episodes`, means of `score`, `success`."""
    env_frames: int
    updates: int
    hours: float
    finished: bool

    def of(self, policy: str) -> list[Mapping[str, Any]]:
        """Evaluations of one policy, in the order of the run."""
        return [row for row in self.evaluations if row["policy"] == policy]

    def curve(self, policy: str = "mode") -> RunCurve | None:
        """Evaluations of a policy as a curve, None where there is none yet."""
        rows = self.of(policy)
        if not rows:
            return None
        values = {quantity: tuple(row[quantity] for row in rows) for quantity in QUANTITIES}
        return RunCurve(self.task, self.agent, self.seed, tuple(row["env_frames"] for row in rows), values)

    @property
    def film(self) -> Path | None:
        """The last film of the agent itself."""
        films = sorted((self.folder / "films").glob("step-*.mp4"))
        return films[-1] if films and self.of("mode") else None


def find_runs(places: Sequence[str], named: Mapping[str, Sequence[str]]) -> tuple[list[AgentRun], list[str]]:
    """The runs in folders and in the trees below them, by task, agent and seed, and a sentence on each that is damaged.

    Args:
        places: runs, or folders with runs anywhere below, whose agents have the names that they recorded.
        named: name of an agent -> such folders, whatever they recorded.

    Raises:
        RecipeError: a folder without a run, two runs of one task, agent and seed, or none that is whole.
    """
    found: dict[Path, AgentRun] = {}
    damaged: dict[Path, str] = {}
    for name, folders in [*((None, [place]) for place in places), *named.items()]:
        for folder in folders:
            below = sorted(path.parent for path in Path(folder).rglob("config.yaml"))
            for path in below:
                try:
                    run = read_run(path, name)
                except RecipeError as error:
                    damaged[path.resolve()] = str(error)
                else:
                    found |= {} if run is None else {path.resolve(): run}
            if not any(path.resolve() in found or path.resolve() in damaged for path in below):
                raise RecipeError(f"{folder} holds no fine-tuning run")
    if not found:
        raise RecipeError(f"no run is whole: {'; '.join(damaged.values())}")
    runs = sorted(found.values(), key=lambda run: run.seed)
    taken: dict[tuple[str, str, int], AgentRun] = {}
    for run in runs:
        other = taken.setdefault((run.task, run.agent, run.seed), run)
        if other is not run:
            raise RecipeError(
                f"{other.folder} and {run.folder} are both {run.agent} on {run.task} with seed {run.seed}: leave one out, or "
                "name them with --agents.NAME FOLDER"
            )
    return runs, list(damaged.values())


def read_run(folder: Path, name: str | None = None) -> AgentRun | None:
    """The run in a folder, None where it holds something else.

    Raises:
        RecipeError: what the run left there is damaged.
    """
    path = folder / "config.yaml"
    try:
        config = yaml.safe_load(path.read_text())
        if (
            not isinstance(config, dict)
            or not isinstance(config.get("env"), dict)
            or "prefill_steps" not in config
        ):
            return None
        evaluations = _evaluations(read_rows(folder / "eval.jsonl"))
        rows = {file: read_rows(folder / f"{file}.jsonl") for file in ("metrics", "episodes")}
        train = folder / "agent" / "train.json"
        result = json.loads(train.read_text()) if train.is_file() else {}
        return _run(folder, name, config, evaluations, rows, result)
    except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError, OSError) as error:
        told = f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise RecipeError(f"{folder}: what the run left there cannot be read ({told})") from error


def _run(
    folder: Path,
    name: str | None,
    config: Mapping[str, Any],
    evaluations: Sequence[Mapping[str, Any]],
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    result: Mapping[str, Any],
) -> AgentRun:
    """What the files say, put together."""
    finished = result.get("agent_steps", 0) >= config["agent_steps"] + config["prefill_steps"]
    evaluated = max((one["agent_steps"] for one in evaluations), default=-1)
    if finished and evaluated < result["agent_steps"]:
        raise RecipeError("it is finished, and its eval.jsonl does not reach its last step")
    last = [*(of_file[-1] for of_file in rows.values() if of_file), *evaluations[-1:], result]
    return AgentRun(
        folder,
        config["env"]["name"],
        name or agent_name(config),
        config["seed"],
        config,
        evaluations,
        env_frames=max(row.get("env_frames", 0) for row in last),
        updates=max(row.get("updates", 0) for row in last),
        hours=max(row.get("seconds", 0.0) for row in last) / 3600,
        finished=finished,
    )


def agent_name(config: Mapping[str, Any]) -> str:
    """The name that the run recorded; else its preset, or `ssv2 (pre-trained)` where it began with runs/ssv2/model."""
    if config.get("name"):
        return config["name"]
    if config.get("model"):
        return config["model"]
    parts = [part for part in str(config["init"]).rstrip("/").split("/") if part]
    checkpoint = parts[-2] if parts[-1] == "model" and len(parts) > 1 else parts[-1]
    return f"{checkpoint} (pre-trained)"


def differing(runs: Sequence[AgentRun], *, designs: bool) -> list[str]:
    """Settings in which runs differ that ought to be alike.

    Args:
        runs: of one task.
        designs: whether the runs are of one agent, so that what makes an agent is to be alike too.
    """
    new = asdict(FinetuneConfig())  # a run from before a setting was there had what is now its default
    flat = [merged(new, run.config) for run in runs]
    names = dict.fromkeys(name for one in flat for name in one)
    return [
        name
        for name in names
        if (head := name.partition(".")[0]) not in APART
        and (designs or head not in DESIGN)
        and len({json.dumps(one.get(name)) for one in flat}) > 1
    ]


def _evaluations(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of eval.jsonl, one an episode, as means, one an evaluation of a policy."""
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["policy"], row["agent_steps"]), []).append(row)
    return [
        {
            "policy": policy,
            "agent_steps": agent_steps,
            "env_frames": played[0]["env_frames"],
            "updates": played[0]["updates"],
            "episodes": len(played),
            **{name: sum(row[name] for row in played) / len(played) for name in QUANTITIES},
        }
        for (policy, agent_steps), played in groups.items()
    ]
