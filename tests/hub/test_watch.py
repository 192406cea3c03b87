"""`cwm-hub watch`: a film of an agent in its task and in another, and what is refused."""

import shutil
import sys
from pathlib import Path

import av
import pytest
import torch
import yaml
from hub_process import push, run_python

from cwm_hub import save_pretrained
from cwm_hub.agents.drqv2 import DrQV2Agent
from cwm_hub.agents.presets import agent_preset
from cwm_hub.agents.rollout import evaluate, evaluation_seeds
from cwm_hub.cli import main
from cwm_hub.envs import make_env
from cwm_hub.hub.pretrained import from_pretrained


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A running run, whose newest checkpoint is of step 1,200."""
    torch.manual_seed(0)
    run = tmp_path / "run"
    for steps in (900, 1200):
        agent = DrQV2Agent(agent_preset("drqv2-tiny", action_size=1))
        save_pretrained(agent, run / "checkpoints" / f"step-{steps:08d}" / "agent", card=False)
    (run / "config.yaml").write_text(yaml.safe_dump({"env": {"name": "dummy", "image_size": 32}}))
    return run


def frames(path: Path) -> tuple[int, int]:
    """Frames and width of a film."""
    with av.open(str(path)) as film:
        return sum(1 for _ in film.decode(video=0)), film.streams.video[0].width


def test_the_newest_agent_of_a_run_is_filmed_in_its_task(run: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["watch", str(run), "--device", "cpu", "--episodes", "2"]) == 0
    film = run / "films" / "watch-000001200.mp4"
    env = make_env("dummy", image_size=32)
    assert frames(film) == (21 + int(env.metadata["render_fps"] / 2), 2 * 128 + 4)
    agent = from_pretrained(run / "checkpoints" / "step-00001200" / "agent")
    returns = ", ".join(f"{one.score:.1f}" for one in evaluate(env, agent, seeds=evaluation_seeds(2)))
    told = capsys.readouterr().out
    assert told == f"loading {run}\n{film}: dummy, mode after 1,200 agent steps, returns {returns}\n"
    sampled = evaluate(env, agent, seeds=evaluation_seeds(2), explore=True)
    assert main(["watch", str(run), "--device", "cpu", "--episodes", "2", "--sampled"]) == 0
    told = capsys.readouterr().out
    assert told.endswith(
        f"sampled after 1,200 agent steps, returns {', '.join(f'{r.score:.1f}' for r in sampled)}\n"
    )


def test_episodes_are_acted_in_batches(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Ten episodes, eight of them at once."""
    batches = []
    real = DrQV2Agent.act
    monkeypatch.setattr(
        DrQV2Agent,
        "act",
        lambda self, image, *rest, **named: (batches.append(len(image)), real(self, image, *rest, **named))[
            1
        ],
    )
    assert main(["watch", str(run), "--device", "cpu", "--episodes", "10"]) == 0
    assert batches == [8] * 20 + [2] * 20
    returns = capsys.readouterr().out.strip().rpartition("returns ")[2].split(", ")
    agent = from_pretrained(run / "checkpoints" / "step-00001200" / "agent")
    alone = evaluate(make_env("dummy", image_size=32), agent, seeds=evaluation_seeds(10))
    assert [float(one) for one in returns] == pytest.approx([one.score for one in alone], abs=0.1)


def test_another_task_and_place(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    film = tmp_path / "film.mp4"
    assert main(["watch", str(run), "--device", "cpu", "--task", "scenes", "--out", str(film)]) == 0
    assert frames(film)[1] == 4 * 128 + 3 * 4
    assert "scenes, mode after 1,200 agent steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--episodes", "0"), "error: --episodes is at least 1, got 0"),
        (("--out", "film.gif"), "error: --out is an mp4 file to write, got film.gif"),
        (
            ("--task", "gym:Reacher-v5"),
            "error: the agent's actions have 1 numbers and gym:Reacher-v5 takes 2",
        ),
        (("--task", "dumy"), "error: unknown environment 'dumy'; did you mean 'dummy'?"),
    ],
)
def test_what_cannot_be_filmed_is_one_sentence(
    run: Path, options: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["watch", str(run), "--device", "cpu", *options]) == 1
    told = capsys.readouterr().err
    assert told.startswith(sentence) and told.count("\n") == 1
    assert not (run / "films").exists()


def test_an_agent_without_a_record_needs_a_task(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run / "checkpoints" / "step-00001200" / "agent", "agent")
    assert main(["watch", "agent", "--device", "cpu"]) == 1
    assert "agent does not say what it was trained on: give --task" in capsys.readouterr().err
    assert main(["watch", "agent", "--device", "cpu", "--task", "dummy"]) == 0
    assert "watch.mp4: dummy, mode, returns" in capsys.readouterr().out and Path("watch.mp4").exists()


def test_code_that_an_agent_from_elsewhere_names_is_not_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`antigravity` would open a browser: it is not even imported."""
    monkeypatch.chdir(tmp_path)
    agent = from_pretrained(run / "checkpoints" / "step-00001200" / "agent")
    save_pretrained(agent, "agent", train={"config": {"env": {"name": "antigravity:fly"}}}, card=False)
    assert main(["watch", "agent", "--device", "cpu"]) == 1
    told = capsys.readouterr().err
    assert told == (
        "error: agent was trained on antigravity:fly, which is code of its own: --task antigravity:fly says to run it\n"
    )
    assert "antigravity" not in sys.modules


@pytest.mark.slow
def test_an_agent_of_the_hub_brings_its_task_along(run: Path, tmp_path: Path, server, client) -> None:
    agent = from_pretrained(run / "checkpoints" / "step-00001200" / "agent")
    train = {"agent_steps": 70, "config": {"env": {"name": "scenes", "image_size": 32}}}
    save_pretrained(agent, tmp_path / "agent", train=train)
    client(push(tmp_path / "agent", "someone/agent"))
    film = tmp_path / "film.mp4"
    words = ["watch", "hf://someone/agent", "--episodes", "1", "--device", "cpu", "--out", film]
    _, told = run_python(server, tmp_path, "-m", "cwm_hub.cli", *words)
    assert told.startswith(f"{film}: scenes, mode after 70 agent steps, returns ") and film.exists()
