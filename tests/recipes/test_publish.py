"""`recipes/publish.py` to a directory: what a run folder holds arrives, and mistakes are one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cwm_hub.hub.checkpoint import save_pretrained
from cwm_hub.hub.names import find_checkpoint
from cwm_hub.hub.pretrained import from_pretrained
from cwm_hub.models.registry import create_model
from recipes import publish
from recipes.run.folder import one_sentence_errors

ROOT = Path(__file__).parents[2]
TRAIN = {
    "recipe": "recipes/pretrain.py",
    "updates": 3,
    "parents": {"shards": [{"root": "a", "redistributable": True}]},
}


@pytest.fixture
def run(tmp_path) -> Path:
    """A run folder as `pretrain.py` and `evaluate.py` leave it."""
    folder = tmp_path / "run"
    folder.mkdir()
    save_pretrained(create_model("plainwm-debug"), folder / "model", train=TRAIN, card=False)
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "prediction.mp4").write_bytes(b"film")
    (folder / "evaluation" / "prediction.png").write_bytes(b"picture")
    (folder / "metrics.jsonl").write_text("{}\n")
    return folder


def call(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["publish.py", *map(str, arguments)])
    with one_sentence_errors():
        publish.main()


def test_a_run_becomes_a_checkpoint_that_loads(run, tmp_path, monkeypatch, capsys):
    target = tmp_path / "hub" / "plainwm"
    call(monkeypatch, "--run", run, "--to", target)
    assert sorted(path.name for path in target.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "prediction.mp4",
        "prediction.png",
        "train.json",
    ]
    assert json.loads((target / "train.json").read_text()) == TRAIN
    hashes = [find_checkpoint(place).identity()["weights_sha256"] for place in (run / "model", target)]
    assert hashes[0] == hashes[1]
    assert f'from_pretrained("{target}")' in capsys.readouterr().out
    assert f'from_pretrained("{target}")' in (target / "README.md").read_text()


def test_publishing_again_takes_the_new_scorecard(run, tmp_path, monkeypatch):
    call(monkeypatch, "--run", run, "--to", tmp_path / "out", "--name", "plainwm-debug")
    (run / "scorecard.json").write_text('{"protocol": {"horizon": 3}}')
    call(monkeypatch, "--run", run, "--to", tmp_path / "out", "--name", "plainwm-debug")
    assert json.loads((tmp_path / "out" / "scorecard.json").read_text()) == {"protocol": {"horizon": 3}}
    assert 'from_pretrained("plainwm-debug")' in (tmp_path / "out" / "README.md").read_text()


def test_which_targets_are_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    targets = [
        "someone/model",
        "hf://someone/model",
        "runs/model",
        "./someone/model",
        "model",
        "a/b/c",
        "/a/b",
    ]
    assert [publish.hub_id(to) for to in targets] == [
        "someone/model",
        "someone/model",
        None,
        None,
        None,
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("train", "allowed"),
    [
        (TRAIN, True),
        (None, False),
        ({"parents": {"shards": []}}, False),
        ({"parents": {"shards": [{"redistributable": True}, {"root": "unknown"}]}}, False),
    ],
)
def test_frames_go_to_the_hub_only_where_every_licence_allows_it(train, allowed):
    assert publish.redistributable(train) is allowed


@pytest.mark.parametrize("to_hub", [True, False])
def test_pictures_stay_here_unless_allowed(to_hub, run, tmp_path, monkeypatch):
    (run / "train.json").write_text('{"updates": 3}')
    pushed = []

    def push(directory, repo_id, **_):
        pushed.extend(path.name for path in directory.iterdir())
        return f"https://hub/{repo_id}"

    monkeypatch.setattr(publish, "push_to_hub", push)
    if to_hub:
        call(monkeypatch, "--run", run, "--to", "hf://someone/model")
        assert (
            "model.safetensors" in pushed
            and "prediction.png" not in pushed
            and "prediction.mp4" not in pushed
        )
        call(monkeypatch, "--run", run, "--to", "hf://someone/model", "--pictures", "all")
        assert "prediction.mp4" in pushed
    else:
        call(monkeypatch, "--run", run, "--to", tmp_path / "out")
        assert (tmp_path / "out" / "prediction.mp4").exists() and not pushed
        call(monkeypatch, "--run", run, "--to", tmp_path / "out", "--pictures", "none")
        assert not (tmp_path / "out" / "prediction.mp4").exists()


def test_a_mistake_is_one_line_and_exit_code_1(run, tmp_path):
    (run / "model" / "model.safetensors").write_bytes(b"")
    (tmp_path / "early").mkdir()
    cases = {
        (tmp_path / "absent", tmp_path / "out"): "no such run folder",
        (tmp_path / "early", tmp_path / "out"): "the run has no model/ or agent/ yet",
        (run, tmp_path / "out"): "is not a whole safetensors file",
    }
    for (folder, target), sentence in cases.items():
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as exit_:
            call(patch, "--run", folder, "--to", target)
        assert sentence in str(exit_.value) and "\n" not in str(exit_.value)
        assert not target.exists()


def test_tags_are_refused_for_a_directory(run, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="--revision, --tag and --public are for the Hub"):
        call(monkeypatch, "--run", run, "--to", tmp_path / "out", "--tag", "v1")


def test_the_command_line_as_documented(run, tmp_path):
    command = [
        sys.executable,
        ROOT / "recipes" / "publish.py",
        "--run",
        tmp_path / "absent",
        "--to",
        tmp_path / "out",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == f"error: {tmp_path / 'absent'}: no such run folder\n" and not result.stdout


def test_a_scorecard_of_other_weights_is_refused(run, tmp_path, monkeypatch):
    scorecard = {"protocol": {}, "checkpoint": {"weights_sha256": "0" * 64}}
    (run / "evaluation" / "scorecard.json").write_text(json.dumps(scorecard))
    with pytest.raises(SystemExit, match="measured on other weights than"):
        call(monkeypatch, "--run", run, "--to", tmp_path / "out")
    scorecard["checkpoint"] = find_checkpoint(run / "model").identity()
    (run / "evaluation" / "scorecard.json").write_text(json.dumps(scorecard))
    call(monkeypatch, "--run", run, "--to", tmp_path / "out")
    assert find_checkpoint(tmp_path / "out").read("scorecard.json") == scorecard
    assert from_pretrained(tmp_path / "out") is not None
