"""The whole loop on the embedded clips: shard, pre-train, evaluate, publish, load, fine-tune, report.

    python recipes/demo.py                 # what `make demo` runs
    python recipes/demo.py --scratch       # pre-training starts from nothing instead of the embedded checkpoint

Every stage is one of the commands of the README, run as a process of its own; `runs/demo/stages.jsonl` has each
command, its wall and CPU time and how it ended. Run again, finished stages are reused and the first unfinished one resumes.
Without headless GL everything but the clips of Meta-world still runs. The agent learns `scenes`, on a small model of its
own that is pre-trained on clips of other scenes: of the larger ones an update takes too long.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cwm_hub.provenance import ROOT
from recipes.run.command_line import parse_config
from recipes.run.folder import append_row, one_sentence_errors, read_rows
from recipes.run.world import end_with_parent

NO_GL = 3
"""Exit code of recipes/render_clips.py where there is no headless GL."""
MINI = "contextwm-mini"
"""Model of the agent."""
LOAD = "import sys; from cwm_hub import from_pretrained; print(from_pretrained(sys.argv[1]).config)"


@dataclass(frozen=True)
class Stage:
    """One command of the loop."""

    name: str
    command: Sequence[str | Path]
    result: Path | None = None
    """What the command leaves behind; a finished stage whose result is gone runs again."""


@dataclass(frozen=True)
class DemoConfig:
    """Where the loop runs, and how far."""

    out: str = "runs/demo"
    """Run folder."""
    scratch: bool = False
    """Start pre-training from new weights."""
    updates: int | None = None
    """Pre-training updates of each model; null takes those of configs/pretrain/demo.yaml and scenes.yaml."""


def main(config: DemoConfig) -> int:
    """Run what is not done yet; the exit code is that of the first stage that failed."""
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()

    loop, real, metaworld = Loop(out), out / "shards" / "real", out / "shards" / "metaworld"
    data = [real]
    if code := loop.run(shard_real(real)):
        return code
    if code := loop.run(render(out)):
        if code != NO_GL:
            return code
    else:
        if code := loop.run(shard_rendered("Meta-world", out / "rendered", metaworld)):
            return code
        data.append(metaworld)
    for stage in learn(out, data, scratch=config.scratch, updates=config.updates):
        if code := loop.run(stage):
            return code
    print(f"\nThe whole loop took {time.perf_counter() - began:.0f} s. Open {out / 'report.html'}")
    return 0


def shard_real(shards: Path) -> Stage:
    """Shards of the embedded clips."""
    samples = ROOT / "dataprep" / "samples"
    options: list[str | Path] = ["--labels", samples / "labels.csv", "--size", "32", "--out", shards]
    options += ["--name", shards.name, "--licence", "Apache-2.0 and BSD-3-Clause", "--redistributable"]
    return Stage(
        "shard the real clips",
        ["-m", "dataprep", "folder", samples, *options],
        shards / "meta" / "manifest.json",
    )


def render(out: Path) -> Stage:
    """Clips of scripted Meta-world policies."""
    rendered = out / "rendered"
    return Stage(
        "render Meta-world clips", [ROOT / "recipes" / "render_clips.py", "--out", rendered], rendered
    )


def shard_rendered(what: str, videos: Path, shards: Path) -> Stage:
    """Shards of rendered clips, a fifth of them held out."""
    options = ["--name", shards.name, "--size", "32", "--validation-share", "0.2", "--licence", "MIT"]
    return Stage(
        f"shard the {what} clips",
        ["-m", "dataprep", "folder", videos, *options, "--redistributable", "--out", shards],
        shards / "meta" / "manifest.json",
    )


def learn(out: Path, data: list[Path], *, scratch: bool, updates: int | None) -> list[Stage]:
    """From shards to the report.

    The embedded checkpoint has a head start over plainwm-tiny, so contextwm-tiny is also trained from new weights:
    those two are the comparison of the designs.
    """
    runs = {"contextwm-tiny": "contextwm-tiny", "plainwm-tiny": "plainwm-tiny"}
    if not scratch:
        runs["contextwm-tiny-scratch"] = "contextwm-tiny"
    stages = []
    for name, model in runs.items():
        embedded = name == "contextwm-tiny" and not scratch
        stages.append(pretrain(out / name, model, data, embedded=embedded, updates=updates))
        stages.append(evaluate(out / name, data))
    stages += [publish(out, name) for name in ("contextwm-tiny", "plainwm-tiny")]
    return [
        *stages,
        Stage("load it back in a fresh process", ["-c", LOAD, out / "hub" / "contextwm-tiny"]),
        *act(out, updates=updates),
        Stage(
            "report",
            [ROOT / "recipes" / "report.py", "--run", out, "--out", out / "report.html"],
            out / "report.html",
        ),
    ]


def act(out: Path, *, updates: int | None) -> list[Stage]:
    """An agent on a model of the scenes that others acted in: clips without actions, pre-training, fine-tuning."""
    recipes, videos, shards, run = ROOT / "recipes", out / "scenes", out / "shards" / "scenes", out / MINI
    settings = recipes / "configs" / "finetune" / "scenes.yaml"
    return [
        Stage(
            "render scenes",
            [recipes / "render_clips.py", "--env", "scenes", "--image_size", "32", "--out", videos],
            videos,
        ),
        shard_rendered("scenes", videos, shards),
        pretrain(run, MINI, [shards], embedded=False, updates=updates, settings="scenes.yaml"),
        Stage(
            "fine-tune on scenes",
            [
                recipes / "finetune.py",
                "--config",
                settings,
                "--init",
                run / "model",
                "--run",
                out / "finetune",
            ],
            out / "finetune" / "agent",
        ),
    ]


def pretrain(
    run: Path,
    model: str,
    data: list[Path],
    *,
    embedded: bool,
    updates: int | None,
    settings: str = "demo.yaml",
) -> Stage:
    """A few hundred updates through accelerate, from the embedded checkpoint or from new weights."""
    sources = json.dumps([{"root": str(root), "weight": 2 if root.name == "real" else 1} for root in data])
    command: list[str | Path] = [
        *("-m", "accelerate.commands.launch", "--quiet", "--num_processes", "1", "--num_machines", "1"),
        *("--mixed_precision", "no", "--dynamo_backend", "no"),
        ROOT / "recipes" / "pretrain.py",
        *("--config", ROOT / "recipes" / "configs" / "pretrain" / settings),
        *("--model", model, "--data", sources, "--run", run),
    ]
    if embedded:
        command += ["--init", model]
    if updates is not None:
        command += ["--updates", str(updates)]
    start = "the embedded checkpoint" if embedded else "new weights"
    return Stage(f"pre-train {run.name} from {start}", command, run / "model")


def evaluate(run: Path, data: list[Path]) -> Stage:
    """Open-loop prediction on held-out windows."""
    command: list[str | Path] = [
        ROOT / "recipes" / "evaluate.py",
        *("--checkpoint", run / "model", "--data", json.dumps([str(root) for root in data])),
        *("--name", run.name, "--out", run / "evaluation"),
    ]
    return Stage(f"evaluate {run.name}", command, run / "evaluation" / "scorecard.json")


def publish(out: Path, model: str) -> Stage:
    """Checkpoint, card and evaluation to a local hub folder."""
    target = out / "hub" / model
    return Stage(
        f"publish {model}",
        [ROOT / "recipes" / "publish.py", "--run", out / model, "--to", target],
        target / "README.md",
    )


class Loop:
    """Runs stages one after another and remembers what earlier runs finished."""

    def __init__(self, out: Path) -> None:
        self.log = out / "stages.jsonl"
        self.stale = False
        """Whether a stage ran anew, so that the results of the later ones are out of date."""

    def run(self, stage: Stage) -> int:
        """Run or reuse a stage; its exit code."""
        command = [sys.executable, *map(str, stage.command)]
        if not self.stale and self._finished(stage, shlex.join(command)):
            print(f"\n== {stage.name}: done in an earlier run, reused", flush=True)
            return 0
        print(f"\n== {stage.name}\n$ {shlex.join(command)}", flush=True)
        self.stale |= stage.result is not None
        began, cpu_before = time.perf_counter(), cpu_seconds()
        code = subprocess.run(
            command, check=False, env=os.environ | {"PYTHONUNBUFFERED": "1"}, preexec_fn=end_with_parent
        ).returncode
        status = {0: "done", NO_GL: "skipped"}.get(code, "failed")
        append_row(
            self.log,
            {
                "stage": stage.name,
                "status": status,
                "seconds": round(time.perf_counter() - began, 1),
                "cpu_seconds": round(cpu_seconds() - cpu_before, 1),
                "command": shlex.join(command),
            },
        )
        if status == "failed":
            print(
                f"\nerror: '{stage.name}' ended with exit code {code}; the same command resumes there",
                file=sys.stderr,
            )
        return code

    def _finished(self, stage: Stage, command: str) -> bool:
        if stage.result is None or not stage.result.exists():
            return False
        newest = {row["stage"]: row for row in read_rows(self.log)}.get(stage.name)
        return newest is not None and newest["status"] == "done" and newest["command"] == command


def cpu_seconds() -> float:
    """CPU time of all stages so far, their own processes' with it; wall time says little where other work runs.

    Without the workers of data preparation, which are a forkserver's.
    """
    times = os.times()
    return times.children_user + times.children_system


if __name__ == "__main__":
    with one_sentence_errors():
        sys.exit(main(parse_config(DemoConfig, description=__doc__)))
