"""What goes wrong between here and the Hub, with the real client: one sentence, nothing half done, nothing stale."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_process import checkpoint, load, push, run_python
from hub_server import READER, Fault, Repo

from cwm_hub.hub.pretrained import from_pretrained
from cwm_hub.hub.saving import save_pretrained

CARD = "README.md"


def tree(server, branch: str = "main") -> dict:
    """Files of the branch by name."""
    repo = server.repos["model", "someone/wm"]
    return repo.commits[repo.resolve(branch)]


@pytest.mark.slow
def test_evidence_of_other_weights_does_not_stay(server, client, tmp_path):
    """The second upload has no scorecard and no pictures; what people put beside and into ours stays."""
    first = checkpoint(tmp_path / "first", 1.0)
    (tmp_path / "x.mp4").write_bytes(b"film")
    assets = dict.fromkeys(("prediction.mp4", "my own.png", "prediction.png"), tmp_path / "x.mp4")
    scorecard = {"protocol": {"horizon": 3}}
    save_pretrained(from_pretrained(first), first, name="someone/wm", scorecard=scorecard, assets=assets)
    assert client(push(first, "someone/wm")) == [f"{server.url}/someone/wm"]
    assert {"scorecard.json", "prediction.mp4", "my own.png", "prediction.png"} < tree(server).keys()

    repo, files = server.repos["model", "someone/wm"], dict(tree(server))
    edited = files[CARD].content.decode().replace("# wm\n", "# wm\n\nBy hand.\n")
    by_hand = type(files[CARD])(edited.encode(), lfs=False)
    repo.commit(
        "main", files | {CARD: by_hand, "LICENSE": by_hand, "notes.md": by_hand, "teaser.png": by_hand}
    )
    before = len(repo.commits)
    client(push(checkpoint(tmp_path / "second", 2.0), "someone/wm"))
    assert tree(server).keys() == {
        "config.json",
        "model.safetensors",
        CARD,
        "LICENSE",
        "notes.md",
        "teaser.png",
    }
    assert len(repo.commits) == before + 1
    assert "By hand." in tree(server)[CARD].content.decode()
    assert "prediction.png" not in tree(server)[CARD].content.decode()

    client(push(checkpoint(tmp_path / "second", 2.0), "someone/wm", replace_card=True))
    assert "By hand." not in tree(server)[CARD].content.decode()


@pytest.mark.slow
def test_a_tag_names_the_commit_of_its_upload_and_one_in_use_is_refused_before_it(server, client, tmp_path):
    first, second = checkpoint(tmp_path / "first", 1.0), checkpoint(tmp_path / "second", 2.0)
    client(push(first, "someone/wm", tag="v1"))
    repo = server.repos["model", "someone/wm"]
    tagged = repo.tags["v1"]

    def push_meanwhile(line: str) -> None:
        if line == "POST /api/models/someone/wm/tag/" + repo.branches["main"]:
            repo.commit("main", {})

    server.before = push_meanwhile
    (refused, _) = client(push(second, "someone/wm", tag="v1"), push(second, "someone/wm", tag="v2"))
    assert "has a tag 'v1' already, of commit " + tagged[:12] in refused
    assert "hf repos tag delete someone/wm v1" in refused
    assert repo.tags["v1"] == tagged and tree(server) == {}
    assert (
        repo.commits[repo.tags["v2"]]["model.safetensors"].content
        == (second / "model.safetensors").read_bytes()
    )


@pytest.mark.slow
def test_a_damaged_download_is_fetched_once_more_and_it_says_so(server, client, tmp_path):
    client(push(checkpoint(tmp_path / "wm", 1.0), "someone/wm"))
    server.faults.append(Fault(r"GET /someone/wm/resolve/.*/model\.safetensors", "flip"))
    cut = tree(server)["model.safetensors"].content
    (line,) = client(load("someone/wm"))
    (cached,) = (tmp_path / "home").glob("hub/**/snapshots/*/model.safetensors")
    assert line.startswith("weight ")  # a flipped bit is a number like others
    cached.write_bytes(cut[:-100])
    assert client(load("someone/wm"), load("someone/wm")) == [
        "weight 1.0; someone/wm/model.safetensors was damaged in the cache and is fetched anew",
        "weight 1.0",
    ]
    cached.write_bytes(cut[:-100])
    (offline,) = client(load("someone/wm", local_files_only=True))
    assert "is not a whole safetensors file" in offline


@pytest.mark.slow
def test_flipped_bytes_are_noticed_on_request(server, client, tmp_path):
    client(push(checkpoint(tmp_path / "wm", 1.0), "someone/wm"), load("someone/wm"))
    (cached,) = (tmp_path / "home").glob("hub/**/snapshots/*/model.safetensors")
    content = bytearray(cached.read_bytes())
    content[-2] ^= 1
    cached.write_bytes(content)
    code = "import sys; from cwm_hub.hub import verify; print(verify('someone/wm', **eval(sys.argv[1])))"
    assert run_python(server, tmp_path, "-c", code, {}) == ["['model.safetensors']"]
    assert client(load("someone/wm", force_download=True)) == ["weight 1.0"]
    server.repos["model", "someone/none"] = Repo(private=False)
    code += "\ntry: verify('someone/none')\nexcept ValueError as error: print(error)"
    sentence = "someone/none has no config.json: it is not a cwm_hub checkpoint"
    assert run_python(server, tmp_path, "-c", code, {}) == ["[]", sentence]


@pytest.mark.slow
def test_what_the_server_the_net_and_the_disk_do_is_one_sentence(server, client, tmp_path):
    directory = checkpoint(tmp_path / "wm", 1.0)
    client(push(directory, "someone/wm"))
    cases = [
        (
            Fault("GET /api/models/someone/wm", 500, 99),
            load("someone/wm"),
            "the Hub answered 500 for someone/wm",
        ),
        (Fault("GET /someone/wm/resolve/.*config.json", "short", 99), load("someone/wm"), "broke off"),
        (
            Fault("HEAD /someone/wm/resolve", 503, 99),
            load("someone/wm"),
            "the Hub answered 503 for someone/wm",
        ),
        (Fault("someone/wm", "drop", 99), load("someone/wm"), "broke off"),
        (
            Fault("POST .*/commit/main", 507, 99),
            push(checkpoint(tmp_path / "b", 2.0), "someone/wm"),
            "the Hub answered 507",
        ),
        (
            Fault("PUT /lfs", 500, 99),
            push(checkpoint(tmp_path / "c", 3.0), "someone/wm"),
            "the Hub answered 500",
        ),
    ]
    for fault, step, sentence in cases:
        server.faults[:] = [fault]
        (line,) = client(step)
        assert line.startswith("refused: ") and sentence in line and len(line) < 500, (fault, line)
        if isinstance(fault.how, int):
            assert "not reached" not in line
    server.faults.clear()
    assert tree(server)["model.safetensors"].content == (directory / "model.safetensors").read_bytes()

    (tmp_path / "home").rename(tmp_path / "old home")
    (tmp_path / "home").write_text("")  # HF_HOME that is a file
    (line,) = client(load("someone/wm"))
    assert line.startswith("refused: someone/wm: the disk or the Hub's cache"), line


DISK_FULL = """
import resource, signal, sys
from cwm_hub import from_pretrained
from cwm_hub.hub import CheckpointError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    from_pretrained("someone/wm")
except CheckpointError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_on_download_too(server, client, tmp_path):
    client(push(checkpoint(tmp_path / "wm", 1.0), "someone/wm"))
    (line,) = run_python(server, tmp_path, "-c", DISK_FULL)
    assert line.startswith("someone/wm: the disk or the Hub's cache")


@pytest.mark.slow
def test_secrets_links_and_bad_front_matter_are_refused_before_anything_is_uploaded(server, client, tmp_path):
    spoilt = [checkpoint(tmp_path / name, 1.0) for name in ("secret", "link", "yaml")]
    (spoilt[0] / "train.json").write_text(json.dumps({"command": "--token hf_" + "a1B2" * 9}))
    (tmp_path / "private.json").write_text("{}")
    (spoilt[1] / "train.json").symlink_to(tmp_path / "private.json")
    card = spoilt[2] / CARD
    card.write_text(card.read_text().replace("license: mit", "license: my-own"))
    secret, link, yaml = client(*(push(directory, "someone/wm") for directory in spoilt))
    assert "holds what looks like a Hugging Face token" in secret
    assert "private.json, out of the published directory" in link
    assert "Invalid metadata in README.md" in yaml and '"license" must be one of' in yaml
    assert tree(server) == {} and not server.store


@pytest.mark.slow
def test_gated_private_and_proposed(server, client, tmp_path):
    first, second = checkpoint(tmp_path / "first", 1.0), checkpoint(tmp_path / "second", 2.0)
    client(push(first, "someone/wm", private=False))
    server.repos["model", "someone/wm"].gated = True
    (line,) = client(load("someone/wm"), token=READER)
    assert line.startswith("refused: someone/wm is gated: ask for access on its page")
    server.repos["model", "someone/wm"].gated = False
    pulled, proposed, tagged = client(
        push(second, "someone/wm", pull_request=True),
        load("someone/wm", revision="refs/pr/1"),
        push(second, "someone/wm", pull_request=True, tag="v1"),
        token=READER,
    )
    assert pulled == f"{server.url}/someone/wm/discussions/1" and proposed == "weight 2.0"
    assert "a pull request has neither a tag nor a branch of its own" in tagged
    assert client(load("someone/wm")) == ["weight 1.0"]


@pytest.mark.slow
def test_every_way_to_write_a_repository_finds_it(server, client, tmp_path):
    printed = client(
        push(checkpoint(tmp_path / "first", 1.0), "hf://someone/wm", tag="v1"),
        push(checkpoint(tmp_path / "second", 2.0), f"{server.url}/someone/wm"),
        push(tmp_path / "first", "someone/wm@v1"),
        push(tmp_path / "first", "someone/wm", tag="main"),
        load("hf://someone/wm"),
        load("someone/wm@v1"),
        load("hf://someone/wm@v1"),
        load(f"{server.url}/someone/wm/tree/v1"),
        load("someone/wm@v1", revision="v2"),
        load("hf://datasets/someone/wm"),
        load("https://example.org/someone/wm"),
    )
    for line, words in zip(printed[2:4], ("'v1' is a tag of", "'main' is a branch of"), strict=True):
        assert line.startswith("refused: ") and words in line
    assert printed[4:8] == ["weight 2.0", "weight 1.0", "weight 1.0", "weight 1.0"]
    for line, words in zip(printed[8:], ("contradict", "names a dataset", "no page of the Hub"), strict=True):
        assert line.startswith("refused: ") and words in line


KILL = """
import sys
from cwm_hub import push_to_hub
push_to_hub(sys.argv[1], "someone/wm")
"""


@pytest.mark.slow
def test_a_client_killed_in_the_middle_of_an_upload_goes_on_where_it_was(server, tmp_path):
    """Three LFS files; it is killed at the third, and the second time sends only what had not arrived."""
    directory = checkpoint(tmp_path / "wm", 1.0)
    for name in ("a.png", "b.mp4"):
        (directory / name).write_bytes(os.urandom(1000))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= server.environment(tmp_path / "home")
    sent = []

    def kill_at_the_last(line: str) -> None:
        if line.startswith("PUT /lfs/") and len(server.store) == 2:
            process.kill()
            process.wait()
            raise ConnectionError("the client is gone")

    server.before = kill_at_the_last
    server.handle_error = lambda *_: None  # quiet about it
    process = subprocess.Popen([sys.executable, "-c", KILL, directory], env=environment)
    process.wait(timeout=120)
    assert process.returncode == -9 and tree(server) == {}
    server.before = lambda line: sent.append(line)
    run_python(server, tmp_path, "-c", KILL, directory)
    assert len([line for line in sent if line.startswith("PUT /lfs/")]) == 1
    assert tree(server).keys() == {path.name for path in Path(directory).iterdir()}
