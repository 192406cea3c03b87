"""`recipes/publish.py` to a directory: what a run folder holds arrives, and mistakes are one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
from checkpoint_facts import SCORECARD
from hub_process import run_python
from hub_server import Repo
from huggingface_hub import ModelCard
from make_checkpoint_fixture import small_models

from cwm_hub import cli
from cwm_hub.hub.checkpoint import CheckpointError
from cwm_hub.hub.names import find_checkpoint
from cwm_hub.hub.pretrained import from_pretrained, push_to_hub
from cwm_hub.hub.publish import redistributable
from cwm_hub.hub.saving import save_pretrained
from cwm_hub.hub.space.folder import write_space
from cwm_hub.models.registry import create_model
from recipes import publish
from recipes.run.command_line import parse_config
from recipes.run.folder import one_sentence_errors

ROOT = Path(__file__).parents[2]
SCORES = SCORECARD | {"format_version": 2, "windows": []}
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
        publish.main(parse_config(publish.PublishConfig))


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
    said = capsys.readouterr().out
    assert f'from_pretrained("{target}")' in said and "app.py" not in said
    assert f'from_pretrained("{target}")' in (target / "README.md").read_text()


def test_publishing_again_takes_the_new_scorecard(run, tmp_path, monkeypatch):
    call(monkeypatch, "--run", run, "--to", tmp_path / "out", "--name", "plainwm-debug")
    (run / "scorecard.json").write_text(json.dumps(SCORES))
    again = ("--run", run, "--to", tmp_path / "out", "--name", "plainwm-debug", "--space", tmp_path / "space")
    call(monkeypatch, *again)
    assert (tmp_path / "space" / "app.py").is_file()
    assert json.loads((tmp_path / "out" / "scorecard.json").read_text()) == SCORES
    assert 'from_pretrained("plainwm-debug")' in (tmp_path / "out" / "README.md").read_text()


def test_what_is_no_repository_that_exists_is_a_directory(server, tmp_path):
    """One process asks for all: a misspelt folder must not become a repository, one that is there may be meant."""
    (tmp_path / "runs").mkdir()
    server.repos["model", "someone/model"] = Repo(private=True)
    targets = [
        "hf://new/model@trial",
        "someone/model",
        "outputs/model",
        "runs/model",
        "./someone/model",
        "model",
    ]
    code = "import sys; from cwm_hub.hub.publish import hub_target; print([hub_target(to) for to in sys.argv[1:]])"
    (line,) = run_python(server, tmp_path, "-c", code, *targets)
    hub = [
        "HubName(repo_id='new/model', revision='trial')",
        "HubName(repo_id='someone/model', revision=None)",
    ]
    assert line == f"[{', '.join(hub)}, None, None, None, None]"


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
    assert redistributable(train) is allowed


def files_of(run: Path, *arguments: object, to: object, capsys, monkeypatch) -> set[str]:
    """What a dry run says would go."""
    capsys.readouterr()
    call(monkeypatch, "--run", run, "--to", to, "--dry-run", *arguments)
    listed = capsys.readouterr().out.split("bytes would go to")[0]
    return {line.split()[1] for line in listed.splitlines()[:-1]}


def test_pictures_stay_here_unless_allowed(run, tmp_path, capsys, monkeypatch):
    """A dry run needs neither a token nor a Hub; frames of videos that may not be passed on do not leave by themselves."""
    (run / "train.json").write_text('{"updates": 3}')
    bare, films = (
        {"README.md", "config.json", "model.safetensors", "train.json"},
        {"prediction.mp4", "prediction.png"},
    )
    say = {"capsys": capsys, "monkeypatch": monkeypatch}
    assert files_of(run, to="hf://someone/model", **say) == bare
    assert files_of(run, "--pictures", "all", to="hf://someone/model", **say) == bare | films
    assert files_of(run, to=tmp_path / "out", **say) == bare | films
    assert files_of(run, "--pictures", "none", to=tmp_path / "out", **say) == bare
    assert not (tmp_path / "out").exists()


def test_a_dry_run_shows_the_card(run, capsys, monkeypatch):
    call(monkeypatch, "--run", run, "--to", "hf://someone/model", "--dry-run", "--license", "cc-by-4.0")
    shown = capsys.readouterr().out
    assert "would go to hf://someone/model, with this card:" in shown and "license: cc-by-4.0" in shown
    assert 'from_pretrained("someone/model")' in shown


def test_a_dry_run_refuses_what_the_real_one_would(run, tmp_path, capsys):
    assert cli.main(["publish", str(run), str(tmp_path), "--dry-run"]) == 1
    assert "holds files that are not a checkpoint's (run)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("train.json", '{"parents": []}'),
        ("train.json", '{"parents": {"shards": 3}}'),
        ("eval.jsonl", "{}\n"),
        ("eval.jsonl", "no json\n"),
        ("eval.jsonl", '{"agent_steps": 1, "score": "high", "success": 1}\n' * 2),
    ],
)
def test_records_of_another_form_are_one_sentence(file, content, run, capsys):
    (run / "train.json").write_text('{"task": "x", "evaluation": {"score": 1.0, "episodes": 2}}')
    (run / file).write_text(content)
    assert cli.main(["publish", str(run), "hf://someone/model", "--dry-run"]) == 1
    assert capsys.readouterr().err.startswith(f"error: {file} does not have the form that the recipes write")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"protocol": 3}, "it has no format_version, windows, sources, together"),
        (
            {"format_version": 2, "protocol": 3, "windows": [], "sources": {}, "together": {}},
            "protocol is of type int",
        ),
        (
            {"format_version": 2, "protocol": {}, "windows": 3, "sources": [], "together": {}},
            "windows is of type int, sources is of type list",
        ),
    ],
)
def test_what_is_no_scorecard_is_not_published(content, said, run, capsys):
    (run / "scorecard.json").write_text(json.dumps(content))
    assert cli.main(["publish", str(run), "hf://someone/model", "--dry-run"]) == 1
    whole = f"error: {run / 'scorecard.json'} is not a scorecard, or damaged: {said}\n"
    assert capsys.readouterr().err == whole


def test_the_librarys_command_publishes_the_same(run, tmp_path, capsys):
    assert cli.main(["publish", str(run), str(tmp_path / "by command"), "--name", "x"]) == 0
    assert 'load it with cwm_hub.from_pretrained("x")' in capsys.readouterr().out
    assert cli.main(["publish", str(tmp_path / "absent"), "hf://a/b", "--dry-run"]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'absent'}: no such run folder\n"


def test_what_lies_here_is_verified_by_what_it_says_of_itself(run, capsys):
    place = run / "model"
    assert cli.main(["verify", "contextwm-tiny"]) == 0
    assert capsys.readouterr().out == (
        "contextwm-tiny: whole, with the weights that its scorecard.json was measured on\n"
    )
    assert cli.main(["verify", str(place)]) == 0
    assert capsys.readouterr().out == f"{place}: whole; no scorecard.json says which weights it had\n"
    (place / "scorecard.json").write_text('{"checkpoint": {"weights_sha256": "00"}}')
    assert cli.main(["verify", str(place)]) == 1
    said = f"error: {place}: model.safetensors is other than what its scorecard.json was measured on\n"
    assert capsys.readouterr().err == said
    (place / "model.safetensors").write_bytes(b"short")
    assert cli.main(["verify", str(place)]) == 1
    assert "is not a whole safetensors file" in capsys.readouterr().err


def test_a_run_folder_stands_for_its_model_and_the_scorecard_beside_it(run, tmp_path, capsys):
    model = run / "model"
    assert cli.main(["verify", str(run)]) == 0
    assert capsys.readouterr().out == f"{model}: whole; no scorecard.json says which weights it had\n"
    identity = find_checkpoint(model).identity()
    (run / "evaluation" / "scorecard.json").write_text(json.dumps({"checkpoint": identity}))
    assert cli.main(["verify", str(run)]) == 0
    assert capsys.readouterr().out.startswith(f"{model}: whole, with the weights that its scorecard.json")
    assert find_checkpoint(run).identity() == identity and from_pretrained(run).source == str(model)
    (run / "evaluation" / "scorecard.json").unlink()
    assert cli.main(["info", str(run)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == str(model)
    assert cli.main(["compare", str(run), str(model)]) == 0
    write_space(str(run), tmp_path / "space")
    assert (tmp_path / "space" / "model" / "config.json").is_file()
    assert "title='run'" in (tmp_path / "space" / "app.py").read_text()
    with pytest.raises(CheckpointError, match=r"has no config\.json.* cwm-hub publish makes one"):
        push_to_hub(run, "someone/model")

    model.rename(run / "checkpoints")
    for command in ("info", "verify"):
        capsys.readouterr()
        assert cli.main([command, str(run)]) == 1
        assert (
            f"error: {run} is a run that has not ended: training leaves its model in {model}"
            in capsys.readouterr().err
        )


def test_a_run_that_nobody_evaluated_is_published_and_it_says_so(run, tmp_path, capsys):
    assert cli.main(["publish", str(run), str(tmp_path / "out")]) == 0
    (_, line) = capsys.readouterr().out.splitlines()
    assert line.startswith("without an evaluation: the card has no score")
    (run / "scorecard.json").write_text(json.dumps(SCORES))
    assert cli.main(["publish", str(run), str(tmp_path / "out")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize("to", ["s3://bucket/model", "hf:/owner/name"])
def test_another_kind_of_address_is_no_directory(to, run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["publish", str(run), to]) == 1
    assert (
        capsys.readouterr().err == f"error: a publish goes to a directory or to hf://owner/name, got {to}\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_malformed_tag_is_refused_before_the_work(run, capsys):
    """A dry run too, which never asks the Hub."""
    assert cli.main(["publish", str(run), "hf://someone/model", "--dry-run", "--tag", "a b"]) == 1
    assert "'a b' cannot be the name of a tag" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["evaluation/look.png", "train.json", "evaluation/scorecard.json"])
def test_a_file_that_leads_out_of_the_run_is_refused(name, run, tmp_path, monkeypatch):
    (tmp_path / "private").write_text("{}")
    (run / name).symlink_to(tmp_path / "private")
    with pytest.raises(SystemExit, match=rf"{name} is a link out of the run folder"):
        call(monkeypatch, "--run", run, "--to", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_agent_goes_with_its_episode_and_its_parent(server, tmp_path):
    """To the Hub and back, with the parent by name and revision, and the scores with what they were measured on."""
    run = tmp_path / "run"
    evaluation = {
        "score": 5.0,
        "success_rate": 1.0,
        "episodes": 2,
        "random": {"score": 1.0, "success_rate": 0.0},
    }
    init = {"name": "someone/wm", "revision": "c" * 40, "weights_sha256": "ab" * 32}
    train = {"task": "dummy", "evaluation": evaluation, "parents": {"init": init}}
    save_pretrained(small_models()["dreamer_agent"], run / "agent", train=train, card=False)
    (run / "replay.mp4").write_bytes(b"film")
    rows = [
        {"agent_steps": steps, "score": score, "success": True}
        for steps, score in ((1, 0.0), (2, 5.0), (2, 5.0))
    ]
    (run / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("--run", run, "--to", "hf://someone/agent", "--pictures", "all", "--tag", "v1")
    run_python(server, tmp_path, ROOT / "recipes" / "publish.py", *options)
    repo = server.repos["model", "someone/agent"]
    files = repo.commits[repo.tags["v1"]]
    assert files["replay.mp4"].content == b"film"
    card = ModelCard(files["README.md"].content.decode())
    assert card.data.base_model == "someone/wm" and {r.dataset_name for r in card.data.eval_results} == {
        "dummy"
    }
    assert f"Initial weights: `someone/wm` at `{'c' * 40}`" in card.text
    assert (
        '<video src="replay.mp4"' in card.text
        and "| this agent | 5.00 [5.00, 5.00] | 1.00 [1.00, 1.00] |" in card.text
    )
    assert "| a random policy | 1.00 | 0.00 |" in card.text


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
    with pytest.raises(SystemExit, match="--revision, --tag, --pr and --public are for the Hub"):
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
    scorecard = SCORES | {"checkpoint": {"weights_sha256": "0" * 64}}
    (run / "evaluation" / "scorecard.json").write_text(json.dumps(scorecard))
    with pytest.raises(SystemExit, match="measured on other weights than"):
        call(monkeypatch, "--run", run, "--to", tmp_path / "out")
    scorecard["checkpoint"] = find_checkpoint(run / "model").identity()
    (run / "evaluation" / "scorecard.json").write_text(json.dumps(scorecard))
    call(monkeypatch, "--run", run, "--to", tmp_path / "out")
    assert find_checkpoint(tmp_path / "out").read("scorecard.json") == scorecard
    assert from_pretrained(tmp_path / "out") is not None


@pytest.fixture
def with_steps(run) -> Path:
    """The run with two checkpoints on the way, as accelerate leaves them, the second of them scored."""
    for updates, weight in ((100, 1.0), (200, 2.0)):
        model = create_model("plainwm-debug")
        next(model.parameters()).data.fill_(weight)
        step = run / "checkpoints" / f"step-{updates:08d}"
        step.mkdir(parents=True)
        wrapped = {f"module.{key}": tensor.clone() for key, tensor in model.state_dict().items()}
        safetensors.torch.save_file(wrapped, step / "model.safetensors")
        (step / "optimizer.bin").write_bytes(b"a pickle")
    (run / "checkpoints" / "step-00000300.tmp").mkdir()
    scored = run / "evaluations" / "step-00000200"
    scored.mkdir(parents=True)
    (scored / "scorecard.json").write_text(json.dumps(SCORES))
    return run


@pytest.mark.slow
def test_checkpoints_on_the_way_are_branches_of_the_repository(with_steps, server, tmp_path):
    command = ["-m", "cwm_hub.cli", "publish", with_steps, "hf://someone/wm", "--steps", "--tag", "v1"]
    lines = run_python(server, tmp_path, *command, "--space", tmp_path / "space")  # once, of the branch
    assert [line.rpartition("(")[2] for line in lines if "load it with" in line] == [
        '"someone/wm@v1")',
        '"someone/wm@step-00000100")',
        '"someone/wm@step-00000200")',
    ]
    repo = server.repos["model", "someone/wm"]
    assert repo.branches.keys() == {"main", "step-00000100", "step-00000200"}
    assert repo.tags == {"v1": repo.branches["main"]}
    trees = {name: repo.commits[commit] for name, commit in repo.branches.items()}
    assert json.loads(trees["step-00000100"]["train.json"].content)["updates"] == 100
    assert "scorecard.json" in trees["step-00000200"] and "scorecard.json" not in trees["step-00000100"]
    assert not any(name.endswith(".bin") for tree in trees.values() for name in tree)
    assert (
        'from_pretrained("someone/wm@step-00000100")' in trees["step-00000100"]["README.md"].content.decode()
    )
    code = "from cwm_hub import from_pretrained as f; print(*(next(f('someone/wm', revision=f'step-00000{n}').parameters()).flatten()[0].item() for n in (100, 200)))"
    assert run_python(server, tmp_path, "-c", code) == ["1.0 2.0"]


def test_steps_that_cannot_be_published_are_refused_before_anything_is(with_steps, run, tmp_path, capsys):
    assert cli.main(["publish", str(run), str(tmp_path / "out"), "--steps"]) == 1
    assert "--steps are revisions of a Hub repository" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert cli.main(["publish", str(run), "hf://someone/wm", "--steps", "--pr", "--dry-run"]) == 1
    assert "a pull request has none" in capsys.readouterr().err
    assert cli.main(["publish", str(run), "hf://someone/wm", "--steps", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "and to hf://someone/wm@step-00000200"
    (run / "checkpoints" / "step-00000100" / "model.safetensors").write_bytes(b"cut")
    assert cli.main(["publish", str(run), "hf://someone/wm", "--steps", "--dry-run"]) == 1
    assert "is not a checkpoint of" in capsys.readouterr().err
