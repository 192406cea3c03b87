"""What a user can do wrong to a fine-tuning run, or to its process: one sentence early, and nothing lost."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import test_finetune
import torch
import yaml
from test_finetune import assert_same_run, main, rows

from cwm_hub.agents import rollout
from cwm_hub.agents.batched_state import to_plain
from cwm_hub.agents.dreamer import DreamerAgent
from cwm_hub.agents.rollout import RandomPolicy, evaluate, evaluation_seeds
from cwm_hub.envs.table import make_env
from cwm_hub.models.action_world_model import ActionWorldModel
from recipes import finetune
from recipes.run import folder
from recipes.run.agent_checkpoint import Progress
from recipes.run.finetune_settings import FinetuneConfig, check_same_config


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def arguments(run: Path, **changes: Any) -> list[str]:
    """With 60 steps after the prefill: evaluations at 0, 60 and 120, eight updates."""
    return test_finetune.arguments(run, **{"agent_steps": 60} | changes)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    assert main(arguments(run)) == 0
    return run


def signal_at_call(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int) -> None:
    """SIGTERM comes while a function runs for the n-th time."""
    real: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def wrapped(*positional: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*positional, **named)

    monkeypatch.setattr(owner, name, wrapped)


@pytest.mark.parametrize(
    "name",
    [
        "update_every_steps",
        "evaluate_every_steps",
        "evaluation_episodes",
        "evaluation_episodes_at_once",
        "log_every_updates",
        "prefill_steps",
    ],
)
def test_zero_is_refused_before_the_work(tmp_path: Path, capfd: pytest.CaptureFixture, name: str) -> None:
    with pytest.raises((ValueError, SystemExit)) as error:
        main(arguments(tmp_path / "run", **{name: 0}))
    told = f"{error.value} {capfd.readouterr().err}"
    assert re.search(rf"{name} \S+.* at least 1, got 0", told)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seed": -1}, "seed .*at least 0 .*got -1"),
        ({"seed": 2**63}, "seed .*at most 9223372036854775807, got 9223372036854775808"),
        ({"env.image_size": 5000}, "image_size is at most 4096, got 5000"),
        ({"fallback_env": "dumy"}, "unknown environment 'dumy'; did you mean 'dummy'"),
        (
            {"env.name": "carla:highway", "env.options.port": 3, "evaluation_options.port": 3},
            r"carla:highway plays one episode .* a server of its own, such as evaluation_options=\{port: 2010\}",
        ),
        (
            {
                "env.name": "carla:highway",
                "evaluation_options.port": 3,
                "evaluation_episodes_at_once": 2,
            },
            "carla:highway plays one episode at a time on its server: set evaluation_episodes_at_once to 1",
        ),
        ({"collect_envs": 0}, "collect_envs .*at least 1, got 0"),
        ({"collect_while_updating": True}, "collect_while_updating needs collect_processes"),
    ],
)
def test_what_cannot_be_is_refused_with_the_settings(
    tmp_path: Path, capfd: pytest.CaptureFixture, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises((ValueError, SystemExit)) as error:
        main(arguments(tmp_path / "run", **changes))
    assert re.search(sentence, f"{error.value} {capfd.readouterr().err}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"agent.sequence_steps": 22},
            "learns from 22 at once: lower agent.sequence_steps or env.action_repeat, or set agent.repeat_short",
        ),
        ({"env.action_repeat": 10}, "have 3 frames and the agent learns from 8 at once"),
        (
            {"collect_envs": 4},
            "no episode of dummy is over when the prefill ends, after 60 steps where the first take 80: raise prefill_steps "
            "or lower collect_envs",
        ),
        ({"replay_steps": 20}, "have 21 frames and the replay has room for 20: raise replay_steps"),
    ],
)
def test_episodes_that_do_not_fit_are_refused_before_the_prefill(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence) as error:
        main(arguments(tmp_path / "run", **changes))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_task_that_terminates_is_refused_before_the_prefill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_cliff(**options: Any) -> Any:
        env = make_env(**options)
        step = env.step
        env.step = lambda action: (*step(action)[:2], True, False, {})
        return env

    monkeypatch.setattr("recipes.finetune.make_env", make_cliff)
    with pytest.raises(
        ValueError, match=r"dummy ended an episode by itself .* --agent.world.continue_head true"
    ):
        main(arguments(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": None, "init": "nonesuch"}, "no directory, no embedded model"),
        ({"env.name": "gym:Nonesuch-v0"}, "doesn't exist"),
        ({"env.image_size": 16}, "the model sees 32 pixels a side"),
        ({"env.name": "string:digits"}, "digits of string is no function but a str"),
        ({"env.name": "os.path:join"}, "is called as maker.*which it does not take"),
        ({"env.name": "my_lab:nothing"}, "the maker returned a list, expected a gymnasium environment"),
        ({"env.name": "my_lab:undrawable"}, "cannot be drawn: no pygame"),
        ({"device": "cuda"}, "torch sees no GPU here"),
        (
            {"replay_steps": 10**12, "agent_steps": 10**9},
            r"a replay of 1,000,000,000,000 steps takes [\d.]+ GiB in this run, and this machine has [\d.]+ GiB of memory",
        ),
        (
            {"replay_steps": 10**12, "agent_steps": 10**9, "replay_on_disk": True},
            r"takes [\d.]+ GiB in this run, and this machine has [\d.]+ GiB for .*run/replay: lower replay_steps or agent_steps$",
        ),
    ],
)
def test_a_start_that_fails_leaves_nothing_but_what_was_there(
    tmp_path: Path, changes: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match=sentence):
        main(arguments(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.yaml").write_text("of a sweep")
    with pytest.raises(ValueError, match=sentence):
        main(arguments(tmp_path / "run", **changes))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["settings.yaml"]


def test_ctrl_c_and_a_package_that_is_missing_are_a_line(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped, folder.one_sentence_errors():
        raise KeyboardInterrupt
    assert stopped.value.code == 130 and capsys.readouterr().err == "\ninterrupted\n"
    sentence = r"error: metaworld is not installed: pip install 'cwm-hub\[envs\]'"
    with pytest.raises(SystemExit, match=sentence), folder.one_sentence_errors():
        raise ModuleNotFoundError("No module named 'metaworld'", name="metaworld")


def test_a_start_that_is_sent_sigterm_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signal_at_call(monkeypatch, finetune, "new_agent", 1)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        main(arguments(tmp_path / "run"))
    assert signal.getsignal(signal.SIGTERM) is handler
    assert stopped.value.code == 128 + signal.SIGTERM and not (tmp_path / "run").exists()


def test_a_start_that_finds_another_process_at_work_takes_nothing_away(tmp_path: Path) -> None:
    with folder.begun_or_untouched(tmp_path / "run", played="eval.jsonl"):
        (tmp_path / "run" / "replay").mkdir()
        code = (
            "import sys; from pathlib import Path; from recipes.run import folder\n"
            "with folder.begun_or_untouched(Path(sys.argv[1]), played='eval.jsonl'): pass"
        )
        told = subprocess.run([sys.executable, "-c", code, tmp_path / "run"], capture_output=True, text=True)
        assert "another process is training in" in told.stderr
        assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".lock", "replay"]


def test_a_run_that_fails_after_its_first_evaluation_keeps_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(DreamerAgent, "update", broken)
    with pytest.raises(OSError, match="no space left"):
        main(arguments(tmp_path / "run"))
    assert len(rows(tmp_path / "run" / "episodes.jsonl")) == 3


def test_episodes_too_short_to_be_learned_from_are_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Every third episode ends after six steps: seven frames, where the agent learns from eight at once."""

    def make_uneven(**options: Any) -> Any:
        env = make_env(**options)
        reset, step, episodes, steps = env.reset, env.step, 0, 0

        def counting_reset(**named: Any) -> Any:
            nonlocal episodes, steps
            episodes, steps = episodes + 1, 0
            return reset(**named)

        def shorter_step(action: Any) -> Any:
            nonlocal steps
            steps += 1
            frame, reward, terminated, truncated, info = step(action)
            return frame, reward, terminated, truncated or (episodes % 3 == 0 and steps == 6), info

        env.reset, env.step = counting_reset, shorter_step
        return env

    monkeypatch.setattr("recipes.finetune.make_env", make_uneven)
    few = {"agent_steps": 40, "evaluate_sampled": False, "evaluation_episodes": 1}
    assert main(arguments(tmp_path / "run", **few)) == 0
    lengths = [row["episode_steps"] for row in rows(tmp_path / "run" / "episodes.jsonl")]
    assert lengths == [20, 20, 6, 20, 20, 6]
    told = capsys.readouterr().out
    assert (
        told.count("1 episode of 6 steps is shorter than the 8 frames that the agent learns from at once")
        == 1
    )
    left_out = [row["left_out_steps"] for row in rows(tmp_path / "run" / "metrics.jsonl")]
    assert left_out == [6, 12] and "too short 2 episodes" in told
    assert "at the end 2 episodes of 12 steps were too short" in told
    train = json.loads((tmp_path / "run" / "agent" / "train.json").read_text())
    assert (train["left_out_episodes"], train["left_out_steps"]) == (2, 12)
    assert main(arguments(tmp_path / "run", **few | {"agent_steps": 42})) == 0
    assert capsys.readouterr().out.count("2 episodes of 12 steps are shorter than the 8 frames") == 1


def test_an_interval_of_skipped_updates_has_no_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """From the fourth update on every loss is infinite: the second interval of three has no number to tell."""
    real, calls = ActionWorldModel.loss, 0

    def sometimes_infinite(self: ActionWorldModel, *positional: Any) -> Any:
        nonlocal calls
        calls += 1
        loss, metrics = real(self, *positional)
        return (loss * torch.inf if calls > 3 else loss), metrics

    monkeypatch.setattr(ActionWorldModel, "loss", sometimes_infinite)
    assert main(arguments(tmp_path / "run")) == 0
    metrics = rows(tmp_path / "run" / "metrics.jsonl")
    assert [row["skipped_updates"] for row in metrics] == [0, 3]
    assert metrics[0]["loss"] > 0 and metrics[0]["imagined_return"] is not None
    assert metrics[1]["loss"] is None and metrics[1]["imagined_return"] is None
    assert "loss       -  imagined return       -" in capsys.readouterr().out
    assert folder.saved_steps(tmp_path / "run" / "checkpoints") == [
        50
    ]  # none is of a run that may have to be given up


@pytest.mark.parametrize("changes", [{"seed": 3}, {"model": "plainwm-debug"}, {"agent.sequence_steps": 7}])
def test_a_finished_folder_given_other_settings_is_refused(whole_run: Path, changes: dict[str, Any]) -> None:
    name = next(iter(changes)).partition(".")[0]
    with pytest.raises(ValueError, match=f"begun with other values of {name}"):
        main(arguments(whole_run, **changes))


def test_a_setting_that_is_newer_than_a_run_had_its_default(tmp_path: Path) -> None:
    (tmp_path / "agent").mkdir()
    begun = asdict(FinetuneConfig())
    del begun["collect_envs"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(begun))
    check_same_config(tmp_path, FinetuneConfig())
    with pytest.raises(ValueError, match="begun with other values of collect_envs:"):
        check_same_config(tmp_path, FinetuneConfig(collect_envs=2))


def test_a_signal_between_the_warm_up_updates_loses_nothing(
    whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        signal_at_call(patch, DreamerAgent, "update", 1)
        patch.setattr("recipes.run.meter.LOG_SECONDS", 0.0)  # a line of progress whenever there may be one
        assert main(arguments(run)) == 128 + signal.SIGTERM
    state = json.loads((run / "checkpoints" / "step-00000060" / "state.json").read_text())
    assert (state["progress"]["updates"], state["progress"]["due_updates"]) == (1, 1)
    told = capsys.readouterr().out
    assert "saved at step 60; the same command goes on" in told
    assert re.search(r"\n +30 / 120 steps  [\d.]+ steps/s \(.*\)  prefill left 0.0 min\n", told)
    assert re.search(r"\n +60 / 120 steps  [\d.]+ steps/s \(.*\)  left \d+.\d min\n", told)
    assert main(arguments(run)) == 0
    assert_same_run(whole_run, run)


def test_a_signal_during_an_update_that_collection_goes_on_beside_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the update after step 70, whose turn has begun step 71 with the weights from before it."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    settings = {"agent_steps": 20, "evaluation_episodes": 1, "evaluate_sampled": False}
    settings |= {"collect_processes": True, "collect_while_updating": True}
    assert main(arguments(whole, **settings)) == 0
    with monkeypatch.context() as patch:
        signal_at_call(patch, DreamerAgent, "update", 3)
        assert main(arguments(run, **settings)) == 128 + signal.SIGTERM
    (place,) = (run / "checkpoints").iterdir()
    (under_way,) = torch.load(place / "training.pt", weights_only=True)["under_way"]
    assert place.name == "step-00000070" and under_way["chosen"] is not None
    assert main(arguments(run, **settings)) == 0
    assert_same_run(whole, run)


@pytest.mark.parametrize("call", [1, 7, 15])
def test_a_signal_between_evaluation_episodes_loses_nothing(
    whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """In the random policy's evaluation, in the mode's and in the samples' of step 120."""
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        signal_at_call(
            patch, rollout, "_begin", call
        )  # of training episodes too: three before each evaluation
        assert main(arguments(run)) == 128 + signal.SIGTERM
    assert len(rows(run / "eval.jsonl") if call > 1 else []) == {1: 0, 7: 2, 15: 6}[call]
    assert main(arguments(run)) == 0
    assert_same_run(whole_run, run)


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_signal_is_heard_within_a_step_of_an_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    steps = []
    real = rollout._advance
    monkeypatch.setattr(rollout, "_advance", lambda *of_step: (steps.append(of_step), real(*of_step))[1])
    signal_at_call(monkeypatch, rollout, "_choose", 3)
    run = tmp_path / "run"
    assert main(arguments(run, evaluation_episodes_at_once=at_once)) == 128 + signal.SIGTERM
    assert len(steps) == 3 * at_once
    assert not (run / "eval.jsonl").exists() and not (run / "films").exists()


@pytest.mark.parametrize(("envs", "call", "step"), [(1, 7, 67), (3, 4, 72)])
def test_a_signal_inside_an_episode_loses_nothing(
    whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, envs: int, call: int, step: int
) -> None:
    """In the n-th step after the prefill, which the evaluations of steps 0 and 60 follow."""
    run, whole = tmp_path / "run", whole_run
    if envs > 1:
        whole = tmp_path / "whole"
        assert main(arguments(whole, collect_envs=envs)) == 0
    with monkeypatch.context() as patch:
        signal_at_call(patch, rollout, "_choose", 20 * (2 + 3 // envs + 4) + call)
        assert main(arguments(run, collect_envs=envs)) == 128 + signal.SIGTERM
    assert (
        json.loads((run / f"checkpoints/step-{step:08d}/state.json").read_text())["progress"]["agent_steps"]
        == step
    )
    assert main(arguments(run, collect_envs=envs)) == 0
    assert_same_run(whole, run)
    assert json.loads((run / "agent" / "train.json").read_text())["given_up_steps"] == 0


def test_an_episode_that_an_environment_does_not_repeat_is_given_up_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        signal_at_call(patch, rollout, "_choose", 20 * (2 + 3 + 4) + 7)
        assert main(arguments(run)) == 128 + signal.SIGTERM

    def make_other(**options: Any) -> Any:
        env = make_env(**options)
        step = env.step
        env.step = lambda action: (*step(action)[:1], 0.125, *step(action)[2:])
        return env

    monkeypatch.setattr("recipes.finetune.make_env", make_other)
    assert main(arguments(run)) == 0
    assert (
        "dummy did not repeat itself: 7 steps of what was under way are given up" in capsys.readouterr().out
    )
    train = json.loads((run / "agent" / "train.json").read_text())
    assert (train["agent_steps"], train["given_up_steps"]) == (120, 7)
    assert [row["agent_steps"] for row in rows(run / "episodes.jsonl")][:4] == [20, 40, 60, 77]


@pytest.mark.parametrize("file", ["training.pt", "state.json", "agent/model.safetensors", "replay"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_file_of_a_run_is_named_in_one_sentence(
    whole_run: Path, tmp_path: Path, file: str, damage: str
) -> None:
    run = shutil.copytree(whole_run, tmp_path / "run")
    if file == "replay":
        path = min((run / "replay").iterdir())
    else:
        path = next((run / "checkpoints").iterdir()) / file
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=path.name) as error:
        main(arguments(run, agent_steps=70))
    assert "\n" not in str(error.value) and str(error.value).startswith(str(path.parent))


@pytest.mark.parametrize(
    ("file", "line", "sentence"),
    [
        ("agent/train.json", b"{junk", "delete .*agent and the run goes on"),
        ("eval.jsonl", b"{junk", "eval.jsonl: line 11 is no row"),
        (
            "eval.jsonl",
            b'{"agent_steps": 0, "policy": "random"}',
            "line 11 is no row .expected agent_steps, score",
        ),
        ("episodes.jsonl", b"[1]", "episodes.jsonl: line 7 is no row .expected agent_steps by name"),
        ("metrics.jsonl", b'{"updates": "a"}', "metrics.jsonl: line 3 is no row .expected updates by name"),
        ("metrics.jsonl", b"\xff\xfe", "metrics.jsonl: line 3 is no row"),
        ("eval.jsonl", None, "eval.jsonl lacks the random policy's evaluation"),
        ("metrics.jsonl", None, "metrics.jsonl is missing: put back a copy"),
        ("episodes.jsonl", None, "episodes.jsonl is missing: put back a copy"),
    ],
)
def test_a_damaged_record_is_named_in_one_sentence(
    whole_run: Path, tmp_path: Path, file: str, line: bytes | None, sentence: str
) -> None:
    shutil.copytree(whole_run, tmp_path / "run")
    path = tmp_path / "run" / file
    if line is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(ValueError, match=sentence) as error:
        main(arguments(tmp_path / "run", agent_steps=70))
    assert "\n" not in str(error.value)


def test_the_random_policys_evaluation_is_missed_before_the_first_step_too(tmp_path: Path) -> None:
    config = FinetuneConfig(run=str(tmp_path))
    finetune.cut_records(config, Progress())  # it is not due yet
    with pytest.raises(folder.RecipeError, match=r"eval.jsonl lacks the random policy's evaluation"):
        finetune.cut_records(config, Progress(evaluated_at=0))


MALFORMED: dict[str, dict[str, Any]] = {
    **{key: {} for key in ("number", "empty", "state", "rows", "actions", "seed")},
    "mark": {"replay": {"slots": 5}},
    "words": {"progress": {"agent_steps": "two"}},
    "negative": {"progress": {"due_updates": -1}},
    "sums": {"progress": {"interval": {"first": 1, "sum": {}}}},
}
"""What is damaged in training.pt, an episode under way that is none, or what in state.json is otherwise."""


@pytest.mark.parametrize("damage", list(MALFORMED))
def test_a_malformed_state_is_named_in_one_sentence(whole_run: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(whole_run, tmp_path / "run")
    (place,) = (tmp_path / "run" / "checkpoints").iterdir()
    training = torch.load(place / "training.pt", weights_only=True)
    state = json.loads((place / "state.json").read_text())
    episode: dict[str, Any] = {"number": 6, "seed": 1, "random": True}
    episode |= {"state": to_plain(RandomPolicy(1).initial_state(1, seed=1)), "reward": torch.zeros(2)}
    episode |= {"image": torch.zeros(2, 3, 32, 32, dtype=torch.uint8), "action": torch.zeros(2, 1)}
    damages: dict[str, Any] = {
        "number": 5,
        "empty": [{}],
        "state": [episode | {"state": None}],
        "rows": [episode | {"reward": torch.zeros(3)}],
        "actions": [episode | {"action": torch.zeros(2, 4)}],
        "seed": [episode | {"seed": -1}],
    }
    training["under_way"] = damages.get(damage, [])
    for part, changes in MALFORMED[damage].items():
        state[part] |= changes
    torch.save(training, place / "training.pt")
    (place / "state.json").write_text(json.dumps(state))
    file = "training.pt" if damage in damages else "state.json"
    with pytest.raises(ValueError, match=f"{place / file} is missing or damaged") as error:
        main(arguments(tmp_path / "run", agent_steps=70))
    assert "\n" not in str(error.value)


def test_a_random_policy_is_evaluated_once_on_the_evaluation_seeds(whole_run: Path) -> None:
    env = make_env("dummy", image_size=32)
    expected = evaluate(env, RandomPolicy(1), seeds=evaluation_seeds(2))
    first = rows(whole_run / "episodes.jsonl")[0]  # of the prefill, which is its too
    assert evaluate(env, RandomPolicy(1), seeds=[first["seed"]])[0].score == pytest.approx(first["score"])
    evaluation = rows(whole_run / "eval.jsonl")
    random = [row for row in evaluation if row["policy"] == "random"]
    assert [(row["agent_steps"], row["seed"], row["score"]) for row in random] == [
        (0, record.seed, record.score) for record in expected
    ]
    told = json.loads((whole_run / "agent" / "train.json").read_text())["evaluation"]
    assert told["random"]["score"] == pytest.approx(sum(record.score for record in expected) / 2)
    last = {name: [row for row in evaluation if row["policy"] == name][-2:] for name in ("mode", "sampled")}
    assert told["score"] == pytest.approx(sum(row["score"] for row in last["mode"]) / 2)
    assert told["sampled"]["score"] == pytest.approx(sum(row["score"] for row in last["sampled"]) / 2)
    assert told["score"] != told["sampled"]["score"]


def test_samples_need_not_be_evaluated(tmp_path: Path) -> None:
    assert main(arguments(tmp_path / "run", agent_steps=1, evaluate_sampled=False)) == 0
    assert {row["policy"] for row in rows(tmp_path / "run" / "eval.jsonl")} == {"random", "mode"}


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    """torch tells of it by a RuntimeError about the positions in its zip file."""
    said = r"cannot write .*/step-1.tmp: its disk has [\d,.]+ MB left"
    with pytest.raises(OSError, match=said), folder.writing(tmp_path / "step-1.tmp"):
        torch.save(torch.zeros(100_000), "/dev/full")
    with pytest.raises(RuntimeError, match="another"), folder.writing(tmp_path):
        raise RuntimeError("another")
