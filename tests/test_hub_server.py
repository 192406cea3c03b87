"""The real `huggingface_hub` client against a loopback Hub: push, tag, load, and everything that is refused.

The client reads its environment when it is imported, so each test runs it in a process of its own.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_process import STEPS, checkpoint, load, push, run_python
from hub_server import READER, File, Repo, complaints


def test_push_tag_load_and_load_again_from_the_cache(server, client, tmp_path):
    first, second = checkpoint(tmp_path / "first", 1.0), checkpoint(tmp_path / "second", 2.0)
    printed = client(
        push(first, "someone/wm", tag="v1"),
        push(second, "someone/wm"),
        load("someone/wm", revision="v1"),
        load("someone/wm"),
    )
    assert printed == [f"{server.url}/someone/wm"] * 2 + ["weight 1.0", "weight 2.0"]
    repo = server.repos["model", "someone/wm"]
    assert repo.private
    assert repo.commits[repo.tags["v1"]].keys() == {"config.json", "model.safetensors", "README.md"}

    server.requests.clear()
    again = client(
        load("someone/wm", revision="v1"), load("someone/wm", revision="v1", local_files_only=True)
    )
    assert again == ["weight 1.0"] * 2
    assert server.requests == ["GET /api/models/someone/wm/revision/v1"]


@pytest.mark.slow
def test_config_and_weights_come_from_one_commit_while_somebody_pushes(server, client, tmp_path):
    client(push(checkpoint(tmp_path / "wm", 1.0), "someone/wm"))
    repo = server.repos["model", "someone/wm"]
    pushed = repo.branches["main"]

    def push_between(line: str) -> None:
        if line.startswith("HEAD") and line.endswith("config.json"):
            repo.commit(
                "main", dict.fromkeys(("config.json", "model.safetensors"), File(b"other", lfs=False))
            )

    server.before = push_between
    assert client(load("someone/wm")) == ["weight 1.0"]
    assert repo.branches["main"] != pushed


@pytest.mark.slow
def test_an_unchanged_push_makes_no_commit_and_a_branch_is_made(server, client, tmp_path):
    directory = checkpoint(tmp_path / "wm", 1.0)
    client(push(directory, "someone/wm"))
    repo = server.repos["model", "someone/wm"]
    before = len(repo.commits)
    printed = client(
        push(directory, "someone/wm"),
        push(checkpoint(tmp_path / "other", 3.0), "someone/wm", revision="trial"),
        load("someone/wm", revision="trial"),
        load("someone/wm"),
    )
    assert printed[1:] == [f"{server.url}/someone/wm/tree/trial", "weight 3.0", "weight 1.0"]
    assert len(repo.commits) == before + 1


@pytest.mark.slow
def test_hidden_files_are_not_uploaded(server, client, tmp_path):
    directory = checkpoint(tmp_path / "wm", 1.0)
    (directory / ".env").write_text("secret")
    (directory / ".cache").mkdir()
    (directory / ".cache" / "x.json").write_text("{}")
    client(push(directory, "someone/wm"))
    repo = server.repos["model", "someone/wm"]
    assert repo.commits[repo.branches["main"]].keys() == {"config.json", "model.safetensors", "README.md"}


@pytest.mark.slow
def test_what_the_hub_refuses_is_one_sentence(server, client, tmp_path):
    directory = checkpoint(tmp_path / "wm", 1.0)
    server.repos["model", "someone/other"] = Repo(private=False)
    writer = client(
        push(directory, "someone/wm"),
        load("someone/absent"),
        load("someone/wm", revision="v9"),
        load("someone/wm", revision="f" * 40),
        load("someone/other"),
    )
    neither = "neither a directory nor a Hub repository that you may see"
    sentences = (
        neither,
        "someone/wm has no revision 'v9'",
        "has no revision",
        "it is not a cwm_hub checkpoint",
    )
    for line, sentence in zip(writer[1:], sentences, strict=True):
        assert line.startswith("refused: someone/") and sentence in line
    reader = client(load("someone/wm"), push(directory, "someone/new"), token=READER)
    assert reader[0] == "weight 1.0" and "refused: the Hub answered 403 for someone/new: log in" in reader[1]
    outsider = client(load("someone/wm"), push(directory, "someone/new"), token=None)
    assert neither in outsider[0] and outsider[1].startswith("refused: ") and "hf auth login" in outsider[1]


@pytest.mark.slow
def test_no_server_and_no_copy_is_one_sentence(server, client, tmp_path):
    server.shutdown()
    server.server_close()
    directory = checkpoint(tmp_path / "wm", 1.0)
    *loads, pushed = client(
        load("someone/wm"), load("someone/wm", local_files_only=True), push(directory, "someone/wm")
    )
    assert pushed == "refused: someone/wm was not pushed: the Hub or its storage was not reached"
    for line in loads:
        assert "someone/wm is not a directory, the Hub was not reached, and the local cache" in line


@pytest.mark.slow
def test_the_publish_recipe_takes_the_hub_for_a_target(server, client, tmp_path):
    checkpoint(tmp_path / "run" / "model", 4.0)
    recipe = Path(__file__).parents[1] / "recipes" / "publish.py"
    options = ("--run", tmp_path / "run", "--to", "hf://someone/wm", "--tag", "v1", "--public")
    line, unevaluated = run_python(server, tmp_path, recipe, *options)
    assert "scorecard" in unevaluated or "evaluat" in unevaluated
    assert line.startswith(f"published to {server.url}/someone/wm; load it with")
    repo = server.repos["model", "someone/wm"]
    assert not repo.private
    assert b'from_pretrained("someone/wm")' in repo.commits[repo.tags["v1"]]["README.md"].content
    assert client(load("someone/wm", revision="v1"), token=None) == ["weight 4.0"]


@pytest.mark.slow
def test_the_default_upload_through_xet_commits_every_file(server, tmp_path):
    """Without HF_HUB_DISABLE_XET the client takes another path through its code, the one that users take."""
    directory = checkpoint(tmp_path / "wm", 1.0)
    step = push(directory, "someone/wm", revision="trial", tag="v1")
    environment = {"HF_HUB_DISABLE_XET": "0"}
    lines = run_python(server, tmp_path, "-c", STEPS, json.dumps([step]), environment=environment)
    assert lines == [f"{server.url}/someone/wm/tree/trial"]
    repo = server.repos["model", "someone/wm"]
    assert repo.commits[repo.tags["v1"]].keys() == {"config.json", "model.safetensors", "README.md"}
    assert any("/xet-write-token/" in line for line in server.requests) and not server.store


@pytest.mark.slow
def test_run_by_hand_it_keeps_what_was_published(tmp_path):
    """As the docstring says: a server of its own process, killed, and another one in its folder."""

    @contextlib.contextmanager
    def by_hand() -> Iterator[dict[str, str]]:
        command = [sys.executable, "-m", "tests.hub_server", str(tmp_path / "hub")]
        process = subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True)
        try:
            lines = [process.stdout.readline().strip() for _ in range(7)]
            yield dict(line.removeprefix("export ").split("=", 1) for line in lines)
        finally:
            process.kill()
            process.wait()

    def steps(environment: dict[str, str], *taken: tuple) -> list[str]:
        command = [sys.executable, "-c", STEPS, json.dumps(taken)]
        result = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
        return result.stdout.splitlines()

    with by_hand() as environment:
        steps(environment, push(checkpoint(tmp_path / "wm", 1.0), "someone/wm", tag="v1"))
    with by_hand() as environment:
        again = environment | {"HF_HOME": str(tmp_path / "empty")}
        assert steps(again, load("someone/wm@v1")) == ["weight 1.0"]


def test_a_card_with_a_front_matter_that_the_hub_refuses():
    assert complaints("# no front matter") == []
    assert complaints("---\nlicense: mit\ntags: [a]\n---\n") == []
    for front in (
        "license: my-own",
        "tags: a",
        "a: [",
        "- a",
        "datasets: [1]",
        "model-index: [{results: [{}]}]",
    ):
        assert len(complaints(f"---\n{front}\n---\n")) == 1, front


DATASET = """
import sys
from pathlib import Path
import fsspec
from huggingface_hub import HfApi, snapshot_download
folder = Path(sys.argv[1])
api = HfApi()
api.create_repo("someone/clips", repo_type="dataset")
api.upload_folder(repo_id="someone/clips", repo_type="dataset", folder_path=folder)
assert sorted(api.list_repo_files("someone/clips", repo_type="dataset")) == ["data/train-0.tar", "meta/manifest.json"]
api.create_tag("someone/clips", tag="v1", repo_type="dataset")
assert [tag.name for tag in api.list_repo_refs("someone/clips", repo_type="dataset").tags] == ["v1"]
with fsspec.open("hf://datasets/someone/clips@v1/data/train-0.tar", "rb", block_size=4096) as tar:
    tar.seek(60_000)
    assert tar.read(100) == (folder / "data/train-0.tar").read_bytes()[60_000:60_100]
assert fsspec.filesystem("hf").ls("datasets/someone/clips/data", detail=False) == ["datasets/someone/clips/data/train-0.tar"]
copy = Path(snapshot_download("someone/clips", repo_type="dataset", revision="v1"))
for file in ("data/train-0.tar", "meta/manifest.json"):
    assert (copy / file).read_bytes() == (folder / file).read_bytes()
"""


@pytest.mark.slow
def test_the_server_holds_data_sets_too(server, tmp_path):
    folder = tmp_path / "clips"
    for name in ("data", "meta"):
        (folder / name).mkdir(parents=True)
    (folder / "data" / "train-0.tar").write_bytes(os.urandom(100_000))
    (folder / "meta" / "manifest.json").write_text("{}")
    run_python(server, tmp_path, "-c", DATASET, folder)
