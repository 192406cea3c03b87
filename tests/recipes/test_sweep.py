"""Many runs from one YAML: what each is given, which are skipped, and what becomes of those that fail or are stopped.

Where only the sweep is looked at, `STAND_IN` plays fine-tuning's part: a process without torch.
"""

import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from test_finetune import SMALL, rows

from recipes import sweep
from recipes.run.command_line import parse_config
from recipes.run.finetune_settings import FinetuneConfig
from recipes.run.folder import one_sentence_errors
from recipes.run.sweep_plan import PlannedRun, SweepConfig, plan
from recipes.run.sweep_ray import Cluster, run_here

STAND_IN = """
import json, os, pathlib, signal, sys, yaml
config = yaml.safe_load(open(sys.argv[-1]))
run, kind = pathlib.Path(config["run"]), config["model"]

def save(*_):
    (run / "saved").touch()
    print("saved")
    sys.exit(143)

signal.signal(signal.SIGTERM, save)
if kind == "broken":
    print("something\\n\\nerror: it broke  \\n\\n")
    sys.exit(7)
if kind in ("stops", "kills"):
    os.kill(os.getppid(), signal.SIGTERM if kind == "stops" else signal.SIGKILL)
    while True:
        signal.pause()
if kind == "waits":
    (run / "began").touch()
    while True:
        signal.pause()
(run / "config.yaml").write_text(yaml.safe_dump(config))
(run / "agent").mkdir()
(run / "agent" / "train.json").write_text(json.dumps({"agent_steps": config["prefill_steps"] + config["agent_steps"]}))
if kind == "late":
    os.kill(os.getpid(), signal.SIGKILL)
print("threads", os.environ["OMP_NUM_THREADS"], os.environ["LP_NUM_THREADS"], os.environ.get("CUDA_VISIBLE_DEVICES"))
"""


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    words = [sys.executable, str(tmp_path / "stand_in.py")]
    command = property(lambda run: [*words, str(run.folder / "settings.yaml")])
    monkeypatch.setattr(PlannedRun, "command", command)


def parse(tmp_path: Path, *options: str, **settings: Any) -> SweepConfig:
    """The settings in a YAML file, as a user gives them."""
    given = {"out": str(tmp_path / "out"), "tasks": ["dummy"], "seeds": [0]} | settings
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    return parse_config(SweepConfig, ["--config", str(tmp_path / "sweep.yaml"), *options])


def test_every_run_has_the_shared_settings_then_its_tasks_then_its_agents(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "{init: 'base-{seed}', agent_steps: 1, agent: {batch_sequences: 1, favour_ends: false}}"
    )
    runs = plan(
        parse(
            tmp_path,
            base=str(tmp_path / "base.yaml"),
            tasks=["metaworld:drawer-open", "dummy"],
            seeds=[3, 5],
            settings={"agent_steps": 2, "prefill_steps": 2, "evaluation_episodes": 2, "env.image_size": 32},
            of_task={"metaworld:drawer-open": {"prefill_steps": 3, "evaluation_episodes": 3}},
            agents={
                "from-init": {"agent.batch_sequences": 9},
                "new": {"model": "plainwm", "evaluation_episodes": 4},
            },
        )
    )
    assert [(run.config.seed, run.config.env.name, run.config.name) for run in runs] == [
        (seed, task, agent)
        for seed in (3, 5)
        for task in ("metaworld:drawer-open", "dummy")
        for agent in ("from-init", "new")
    ]
    told = [
        (c.init, c.model, c.agent_steps, c.prefill_steps, c.evaluation_episodes, c.agent["batch_sequences"])
        for c in (run.config for run in runs[:4])
    ]
    assert told == [
        ("base-3", None, 2, 3, 3, 9),
        (None, "plainwm", 2, 3, 4, 1),
        ("base-3", None, 2, 2, 2, 9),
        (None, "plainwm", 2, 2, 4, 1),
    ]
    assert runs[0].folder == tmp_path / "out" / "metaworld-drawer-open" / "from-init" / "3"
    assert all(run.config.env.image_size == 32 and run.config.agent["favour_ends"] is False for run in runs)
    assert len({run.folder for run in runs}) == 8


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"tasks": ["dumy"]}, "unknown environment 'dumy'; did you mean 'dummy'"),
        ({"agents": {"a": {"modle": "x"}}}, "agent a on dummy: unknown key 'modle' .* did you mean 'model'"),
        ({"agents": {"a": {}}}, "agent a on dummy: give either init .* or model"),
        ({"agents": {"a": {"model": "x", "seed": 1}}}, "agents.a sets seed, which the sweep gives"),
        ({"settings": {"env": {"name": "x"}}}, "settings sets env.name, which the sweep gives"),
        ({"of_task": {"dumy": {}}}, "of_task has settings of 'dumy', .* did you mean 'dummy'"),
    ],
)
def test_a_wrong_setting_is_one_sentence_before_any_run(
    tmp_path: Path, settings: dict, sentence: str
) -> None:
    given: dict[str, Any] = {"agents": {"a": {"model": "x"}}} | settings
    with pytest.raises(ValueError, match=sentence):
        sweep.main(parse(tmp_path, **given))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"seeds": [1, 1]},
        {"tasks": []},
        {"parallel": 0},
        {"ray": True, "slurm": True},
        {"ray": True, "gpus": [0]},
        {"gpus": [-1]},
    ],
)
def test_nothing_to_run_or_something_twice_is_refused(tmp_path: Path, settings: dict) -> None:
    with pytest.raises(SystemExit):
        parse(tmp_path, agents={"a": {"model": "x"}}, **settings)


@pytest.mark.parametrize("name", ["", "a/b"])
def test_an_agents_name_is_a_folders(tmp_path: Path, name: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        parse(tmp_path, agents={name: {"model": "x"}})
    assert f"agents have names that a folder can have, got {name!r}" in capsys.readouterr().err


def test_finished_runs_are_skipped_and_a_failed_one_stops_no_other(
    tmp_path: Path, stand_in: None, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = {name: {"model": name} for name in ("broken", "late")}  # the second is killed when all is done
    config = parse(tmp_path, agents=agents, seeds=[0, 1])
    assert sweep.main(config) == 1
    told = capfd.readouterr()
    assert "4 runs: 0 finished before, 4 to do, 1 at once" in told.out
    assert "2 / 4 runs finished, 2 failed  510,000 / 510,000 steps" in told.out
    failures = [f"failed dummy/broken/{seed}, exit code 7: error: it broke" for seed in (0, 1)]
    assert told.err.splitlines() == failures and all(line in told.out for line in failures)
    assert yaml.safe_load((tmp_path / "out" / "sweep.yaml").read_text())["agents"] == agents

    monkeypatch.setattr(sweep, "check_agents", lambda runs: None)  # no agents by name
    assert sweep.main(parse(tmp_path, "--slurm", agents=agents, seeds=[0, 1])) == 0
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 2 and all(line.endswith("settings.yaml") and "/broken/" in line for line in lines)

    assert sweep.main(config) == 1
    assert "4 runs: 2 finished before, 2 to do, 1 at once" in capfd.readouterr().out


def test_other_settings_of_a_finished_run_are_named_and_not_skipped(
    tmp_path: Path, stand_in: None, capfd: pytest.CaptureFixture
) -> None:
    assert sweep.main(parse(tmp_path, agents={"a": {"model": "good"}})) == 0
    assert sweep.main(parse(tmp_path, agents={"a": {"model": "other"}, "b": {"model": "good"}})) == 1
    told = capfd.readouterr()
    assert "failed dummy/a/0, " in told.err and "begun with other values of model" in told.err
    assert "finished dummy/b/0" in told.out


def test_runs_at_once_share_cores_and_gpus(
    tmp_path: Path, stand_in: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "usable_cores", lambda: 7)
    config = parse(tmp_path, agents={"a": {"model": "good"}}, seeds=[0, 1, 2], parallel=3, gpus=[4, 6])
    assert [sweep.shares(config, slot)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["4", "6", "4"]
    assert sweep.main(config) == 0
    logs = sorted((tmp_path / "out" / "dummy" / "a" / str(seed) / "log.txt").read_text() for seed in range(3))
    assert logs == ["threads 2 2 4\n", "threads 2 2 4\n", "threads 2 2 6\n"]
    assert sweep.shares(parse(tmp_path, agents={"a": {"model": "x"}}, parallel=9), 0) == {
        "OMP_NUM_THREADS": "1",
        "LP_NUM_THREADS": "1",
    }


def test_a_signal_stops_every_run_and_starts_no_other(
    tmp_path: Path, stand_in: None, capfd: pytest.CaptureFixture
) -> None:
    agents = {name: {"model": name} for name in ("stops", "good")}
    assert sweep.main(parse(tmp_path, agents=agents)) == 128 + signal.SIGTERM
    told = capfd.readouterr()
    assert "the same command goes on from there" in told.out and "failed" not in told.err
    assert (tmp_path / "out" / "dummy" / "stops" / "0" / "saved").exists()
    assert not (tmp_path / "out" / "dummy" / "good").exists()


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    # A shell has it ignored in the background; Ray's workers, started so, would not hear that a run is cancelled.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ray.init(num_cpus=4, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


@pytest.mark.slow
def test_runs_on_a_ray_cluster_share_its_cores_and_hear_a_signal(
    cluster: None, tmp_path: Path, stand_in: None, capfd: pytest.CaptureFixture
) -> None:
    agents = {name: {"model": name} for name in ("broken", "good")}
    assert sweep.main(parse(tmp_path, "--ray", agents=agents, parallel=2)) == 1
    told = capfd.readouterr()
    assert told.err.splitlines()[-1] == "failed dummy/broken/0, exit code 7: error: it broke"
    assert "1 of 2 runs are finished" in told.out
    log = tmp_path / "out" / "dummy" / "good" / "0" / "log.txt"
    assert log.read_text().startswith("threads 2 2 ")

    began = tmp_path / "out" / "dummy" / "waits" / "0" / "began"

    def send_once_begun() -> None:
        while not began.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=send_once_begun, daemon=True).start()
    waiting = {"waits": {"model": "waits"}, "good": {"model": "good"}}
    assert sweep.main(parse(tmp_path, "--ray", agents=waiting, seeds=[0, 1])) == 128 + signal.SIGTERM
    assert began.with_name("saved").exists() and "failed" not in capfd.readouterr().err
    assert not (tmp_path / "out" / "dummy" / "good" / "1").exists()


def test_without_ray_it_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"--ray needs Ray: pip install 'cwm-hub\[ray\]'"):
        sweep.main(parse(tmp_path, "--ray", agents={"a": {"model": "good"}}))


def test_a_run_on_a_cluster_is_given_no_more_than_a_node_has(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": cores, "GPU": 1}} for cores in (4.0, 2.0)]
    nodes.append({"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8}})
    ray = SimpleNamespace(is_initialized=lambda: True, nodes=lambda: nodes)
    monkeypatch.setitem(sys.modules, "ray", ray)
    shares = {parallel: Cluster(parallel) for parallel in (1, 2, 4, 9)}
    assert {at: (each.cores, each.gpus) for at, each in shares.items()} == {
        1: (4, 1.0),
        2: (3, 1.0),
        4: (1, 0.5),
        9: (1, 2 / 9),
    }


def test_on_a_node_a_run_has_the_sweeps_threads_and_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    code = "import os, sys; print(os.environ['OMP_NUM_THREADS'], os.getcwd()); sys.exit(3)"
    (tmp_path / "log.txt").write_text("before\n")
    given = (
        [sys.executable, "-Sc", code],
        str(tmp_path / "log.txt"),
        {"OMP_NUM_THREADS": "2"},
        str(tmp_path),
    )
    assert run_here(*given) == 3
    assert (tmp_path / "log.txt").read_text() == f"before\n2 {tmp_path}\n"


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_sweep_that_is_killed_takes_its_runs_along(tmp_path: Path) -> None:
    parse(tmp_path, agents={"a": {"model": "kills"}})
    code = (
        "import sys; from recipes import sweep; from recipes.run.sweep_plan import *\n"
        "stand_in, file = sys.argv[1:]\n"
        "PlannedRun.command = property(lambda run: [sys.executable, '-c', stand_in, str(run.folder / 'settings.yaml')])\n"
        "sweep.main(parse_config(SweepConfig, ['--config', file]))"
    )
    killed = subprocess.run([sys.executable, "-c", code, STAND_IN, tmp_path / "sweep.yaml"], check=False)
    assert killed.returncode == -signal.SIGKILL
    with (tmp_path / "out" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # held by the run until it has ended
    assert (tmp_path / "out" / "dummy" / "a" / "0" / "saved").exists()


def test_an_array_line_reads_the_settings_that_were_planned(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = parse(tmp_path, "--slurm", agents={"a b": {"init": "x", "agent": {"intrinsic": None}}})
    (run,) = plan(config)
    assert sweep.main(config) == 0
    words = shlex.split(capsys.readouterr().out.strip())
    assert words[:2] == [sys.executable, str(Path(sweep.__file__).with_name("finetune.py"))]
    assert Path(words[3]).is_absolute() and parse_config(FinetuneConfig, words[2:]) == run.config


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"model": "contextwm-minni"}, "dummy/a/0: no agent named .*did you mean 'contextwm-mini'"),
        ({"model": "drqv2", "agent": {"frame_stak": 2}}, "dummy/a/0: .*'frame_stak'.*'frame_stack'"),
    ],
)
def test_an_agent_that_no_job_could_make_is_no_array_line(
    tmp_path: Path, capsys: pytest.CaptureFixture, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        sweep.main(parse(tmp_path, "--slurm", agents={"a": settings}))
    assert capsys.readouterr().out == ""


def test_array_lines_are_for_machines_that_may_draw_what_this_one_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("recipes.run.finetune_settings.gl_problem", lambda: "MuJoCo cannot render here.")
    given: dict[str, Any] = {"tasks": ["metaworld:reach"], "agents": {"a": {"model": "contextwm"}}}
    assert sweep.main(parse(tmp_path, "--slurm", **given)) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert sweep.main(parse(tmp_path, **given)) == 1
    assert capsys.readouterr().err == "failed metaworld:reach/a/0, MuJoCo cannot render here.\n"


def test_the_sweeps_that_come_along_can_be_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(sweep.__file__).parents[1]
    monkeypatch.chdir(root)
    runs = {
        path.stem: plan(parse_config(SweepConfig, ["--config", str(path)]))
        for path in (root / "recipes" / "configs" / "sweep").glob("*.yaml")
    }
    assert {name: len(planned) for name, planned in runs.items()} == {
        "control_a": 12,
        "control_gate": 12,
        "metaworld": 72,
        "scenes": 6,
    }
    for run in (one.config for one in runs["metaworld"]):
        drawer = run.env.name == "metaworld:drawer-open"
        assert run.context_augmentation == ("none" if drawer else "erasing")
        assert ("intrinsic" in run.agent and run.agent["intrinsic"] is None) == (run.name == "no-bonus")


@pytest.mark.slow
def test_a_sweep_of_real_runs_goes_on_where_a_smaller_budget_ended(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    agents = {
        "no-bonus": {"agent.intrinsic": None},
        "misspelt": {"agent.batch_sequence": 3},
    }
    shared: dict[str, Any] = {
        k: v for k, v in SMALL.items() if k not in ("env.name", "agent.intrinsic.queue_size")
    }
    for steps, updates in ((60, 8), (140, 16)):
        config = parse(tmp_path, settings=shared | {"agent_steps": steps}, agents=agents, parallel=2)
        with one_sentence_errors():
            assert sweep.main(config) == 1
        told = capfd.readouterr().err
        assert told.count("failed ") == 1 and "did you mean 'batch_sequences'?" in told
        run = tmp_path / "out" / "dummy" / "no-bonus" / "0"
        train = json.loads((run / "agent" / "train.json").read_text())
        assert (train["agent_steps"], train["updates"]) == (60 + steps, updates)
        assert [row["agent_steps"] for row in rows(run / "episodes.jsonl")] == list(range(20, 61 + steps, 20))
        assert run.samefile(train["config"]["run"]) and train["config"]["name"] == "no-bonus"
