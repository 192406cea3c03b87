"""Scoring saved agents: those of a run, of a folder and of the Hub; the task of training and another; refusals."""

import csv
import json
import shutil
from pathlib import Path

import av
import pytest
import torch
from test_finetune import arguments, main, rows

from cwm_hub import create_model, save_pretrained
from cwm_hub.agents.rollout import EpisodeRecord, RandomPolicy, evaluate, evaluation_seeds
from cwm_hub.envs import make_env
from cwm_hub.evaluation import play_progress
from cwm_hub.hub.agents import find_agent
from recipes import evaluate_agent
from recipes.evaluate_agent import EvaluateAgentConfig
from recipes.run.command_line import parse_config


def score(agent: Path | str, out: Path, *options: str) -> dict:
    words = ["--agent", str(agent), "--out", str(out), "--device", "cpu", *options]
    assert evaluate_agent.main(parse_config(EvaluateAgentConfig, words)) == 0
    return json.loads((out / "summary.json").read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, whose result and whose only checkpoint are of step 120."""
    run = tmp_path_factory.mktemp("agents") / "run"
    assert main(arguments(run, agent_steps=60)) == 0
    return run


def test_a_finished_run_scores_as_in_its_last_evaluation(run: Path, tmp_path: Path) -> None:
    told = score(run, tmp_path, "--sampled", "--film", str(tmp_path / "film.mp4"))
    last = [row for row in rows(run / "eval.jsonl") if row["agent_steps"] == 120]
    where = ("agent_steps", "env_frames", "updates")
    expected = [{name: value for name, value in row.items() if name not in where} for row in last]
    assert [row["policy"] for row in expected] == ["mode"] * 2 + ["sampled"] * 2
    played = rows(tmp_path / "episodes.jsonl")
    assert [row for row in played if row["policy"] != "random"] == expected
    with (tmp_path / "episodes.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{k: str(v) for k, v in row.items()} for row in played]
    assert {row["task"] for row in expected} == {"dummy"}
    assert told["agent"]["agent_steps"] == 120 and told["other_than_in_training"] == {}
    assert told["seeds"] == evaluation_seeds(2)
    mean = sum(row["score"] for row in expected[:2]) / 2
    assert told["policies"]["mode"]["score"]["mean"] == pytest.approx(mean)
    with av.open(str(tmp_path / "film.mp4")) as film:
        assert film.streams.video[0].width == 2 * 128 + 4


def test_a_random_policy_plays_the_same_seeds(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    told = score(run, tmp_path, "--episodes", "3")
    expected = evaluate(
        make_env("dummy", image_size=32), RandomPolicy(1), seeds=evaluation_seeds(3), explore=True
    )
    random = [row for row in rows(tmp_path / "episodes.jsonl") if row["policy"] == "random"]
    assert [(row["seed"], row["score"]) for row in random] == [(one.seed, one.score) for one in expected]
    mean = sum(one.score for one in expected) / 3
    assert told["policies"]["random"]["score"]["mean"] == pytest.approx(mean)
    printed = capsys.readouterr().out
    assert f"dummy, random: return {mean:.2f} [" in printed
    assert "6 / 6 episodes  120 steps" in printed
    assert (
        f"  random, seed {expected[2].seed}: return {expected[2].score:.2f}, success {expected[2].success:.0f}"
        in printed
    )
    assert score(run, tmp_path, "--random", "false")["policies"].keys() == {"mode"}


def test_progress_is_told_between_episodes_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """By a clock that gains four seconds at every look: lines of the steps are ten seconds apart at least."""
    now = iter(range(0, 1000, 4))
    monkeypatch.setattr(play_progress.time, "monotonic", lambda: float(next(now)))
    progress = play_progress.PlayProgress(2, most_steps=20)
    for _ in range(4):
        progress.step(2)
    progress.episode("mode", EpisodeRecord(5, 1.0, 1.0, 8, False))
    assert capsys.readouterr().out.splitlines() == [
        "0 / 2 episodes  6 steps  0.4 steps/s  left 1.5 min",
        "1 / 2 episodes  8 steps  0.3 steps/s  left 0.4 min  mode, seed 5: return 1.00, success 1",
    ]


def test_episodes_at_once_score_as_one_by_one(run: Path, tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    score(run, alone, "--episodes", "3")
    score(run, together, "--episodes", "3", "--episodes_at_once", "2")
    for one, other in zip(*(rows(out / "episodes.jsonl") for out in (alone, together)), strict=True):
        assert one.pop("score") == pytest.approx(other.pop("score"), abs=1e-3)
        assert one == other


def test_a_running_run_is_scored_by_its_newest_checkpoint(run: Path, tmp_path: Path) -> None:
    running = tmp_path / "running"
    shutil.copytree(run, running)
    checkpoints = running / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["step-00000120"]
    for at in (9, 130):  # it goes on beyond its result
        shutil.copytree(checkpoints / "step-00000120", checkpoints / f"step-{at:08d}")
    assert score(running, tmp_path / "out")["agent"]["agent_steps"] == 130
    shutil.rmtree(running / "agent")
    shutil.rmtree(checkpoints / "step-00000130")
    assert score(running, tmp_path / "out")["agent"]["agent_steps"] == 120


def test_an_agent_folder_brings_its_task_along(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "agent", tmp_path / "agent")
    told = score(tmp_path / "agent", tmp_path / "out", "--seeds", "5", "6", "7")
    assert [row["seed"] for row in rows(tmp_path / "out" / "episodes.jsonl")] == [5, 6, 7] * 2
    assert told["env"]["name"] == "dummy" and told["policies"].keys() == {"mode", "random"}


@pytest.mark.parametrize("name", ["my_lab:lamp", "gym:my_lab:Lamp-v0"])
def test_code_that_an_agent_from_elsewhere_names_is_not_run(run: Path, tmp_path: Path, name: str) -> None:
    """Of a folder with an agent, wherever it came from; the record of a run folder is the user's own."""
    elsewhere, own = tmp_path / "agent", tmp_path / "run"
    shutil.copytree(run / "agent", elsewhere)
    train = json.loads((elsewhere / "train.json").read_text())
    train["config"]["env"]["name"] = name
    (elsewhere / "train.json").write_text(json.dumps(train))
    with pytest.raises(
        ValueError, match=f"was trained on {name}, which is code of its own: --task {name} says to run it"
    ):
        score(elsewhere, tmp_path / "out")
    for words in (("--task", "dummy"), ("--env.name", "dummy")):
        assert score(elsewhere, tmp_path / "out", *words, "--episodes", "1")["env"]["name"] == "dummy"
    shutil.copytree(run, own)
    (own / "config.yaml").write_text(
        (own / "config.yaml").read_text().replace("name: dummy", f"name: '{name}'")
    )
    assert find_agent(own).environment(image_size=32).name == name


def test_another_task_is_said(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    told = score(run, tmp_path, "--task", "scenes", "--episodes", "1", "--env", "{episode_frames: 5}")
    printed = capsys.readouterr().out
    assert "other than in training: env.name is 'scenes', was 'dummy'" in printed
    assert "scenes, mode: return" in printed and "over 1 episode\n" in printed
    assert told["other_than_in_training"] == {"name": ["scenes", "dummy"], "episode_frames": [5, None]}
    for row in rows(tmp_path / "episodes.jsonl"):
        assert (row["task"], row["episode_steps"]) == ("scenes", 5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--task", "gym:Reacher-v5"), "the agent's actions have 1 numbers and gym:Reacher-v5 takes 2"),
        (("--env.image_size", "16"), "the agent sees 32 pixels a side and dummy draws 16"),
        (("--env.image_sise", "16"), "did you mean 'image_size'"),
        (("--task", "dumy"), "unknown environment 'dumy'; did you mean 'dummy'"),
        (("--episodes", "0"), "episodes is at least 1, got 0"),
        (("--episodes_at_once", "0"), "episodes_at_once is at least 1, got 0"),
        (("--episodes", "2", "--seeds", "1"), "give --seeds or --episodes"),
        (("--seeds", "-1"), r"--seeds are numbers from 0 to 4294967295, none twice, got \[-1\]"),
        (("--seeds", "1", "1"), r"none twice, got \[1, 1\]"),
        (("--seeds", "4294967296"), r"numbers from 0 to 4294967295"),
        (("--device", "cuda"), "torch sees no GPU here: take auto or cpu"),
        (("--task", "string:digits"), "digits of string is no function but a str"),
        (("--task", "os:getcwd"), "what makes it is called as maker"),
        (("--film", "film.gif"), "--film is an mp4 file to write, got film.gif"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_leaves_nothing(
    run: Path, tmp_path: Path, options: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match=sentence) as error:
        score(run, tmp_path / "out", *options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_what_is_no_agent_is_one_sentence(run: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = save_pretrained(create_model("contextwm-debug").eval(), tmp_path / "model")
    with pytest.raises(ValueError, match="holds a VideoWorldModel, which is no agent"):
        score(model, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty is no checkpoint and no run with an agent"):
        score(tmp_path / "empty", tmp_path / "out")
    shutil.copytree(run / "agent", tmp_path / "bare")
    (tmp_path / "bare" / "train.json").unlink()
    with pytest.raises(ValueError, match="does not say what it was trained on: give --task"):
        score(tmp_path / "bare", tmp_path / "out")
    assert score(tmp_path / "bare", tmp_path / "out", "--task", "dummy")["env"]["image_size"] == 32


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("agent/train.json", "{}", r"agent/train.json cannot be read \('agent_steps'\)"),
        ("agent/train.json", "{", "agent/train.json cannot be read"),
        ("config.yaml", "env: [", "config.yaml cannot be read"),
        ("config.yaml", "env: 3", r"environment expects a mapping \(EnvConfig\), got 3"),
    ],
)
def test_a_damaged_record_of_a_run_is_one_sentence(
    run: Path, tmp_path: Path, file: str, text: str, sentence: str
) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / file).write_text(text)
    with pytest.raises(ValueError, match=sentence):
        score(tmp_path / "run", tmp_path / "out")


def test_what_cannot_be_written_is_refused_before_the_work(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(ValueError, match=r"--out is a folder to write to, .*file is none"):
        score(run, tmp_path / "file")
    with pytest.raises(ValueError, match=r"--film is an mp4 file to write, got .*folder.mp4"):
        score(run, tmp_path / "out", "--film", str(tmp_path / "folder.mp4"))
    with pytest.raises(OSError, match="file"):
        score(run, tmp_path / "file" / "out")
