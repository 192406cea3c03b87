"""Publishing: what may go out, what the card says, and the real client against a loopback Hub."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer
from huggingface_hub import DatasetCard
from markdown_it import MarkdownIt
from test_stats import blinking, still, write_set

from cwm_hub.hub_client.errors import HubError
from cwm_hub.shards.manifest import Manifest
from cwm_hub.shards.storage import Root
from dataprep.__main__ import main
from dataprep.curation.push import METADATA as PUBLISHED
from dataprep.curation.push import PREVIEW, shard_bytes

FREE = "CC-BY-4.0"
METADATA = set(PUBLISHED) - {"meta/steering.parquet"}


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A loopback Hub for client processes."""
    with HubServer() as server:
        yield server


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A set that may be published."""
    root = write_set(tmp_path / "set", [(still(30, 90), 4), (blinking(60), -1)])
    relicense(root, FREE, redistributable=True)
    return root


def relicense(root: Path, licence: str, *, redistributable: bool) -> None:
    dataclasses.replace(Manifest.load(root), licence=licence, redistributable=redistributable).save(root)


def push(
    hub: HubServer, home: Path, *arguments: object, token: str | None = "hf_writer"
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, for which `hub` is the Hub."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-m", "dataprep", "push", *map(str, arguments)],
        env=clean | hub.environment(home, token),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_dry_run_renders_the_card_and_publishes_nothing(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(root), "me/clips", "--dry-run"]) == 0
    assert "would publish 7 files" in capsys.readouterr().out
    card = DatasetCard.load(root / "README.md")
    header = card.data.to_dict()
    assert header["license"] == "cc-by-4.0"
    assert header["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.tar"}]}
    ]
    assert header["size_categories"] == "n<1K"
    assert "extra_gated_prompt" not in header
    assert "| train | 2 | 90 |" in card.text
    assert Manifest.load(root).hash in card.text
    assert "crash (1)" in card.text
    assert (root / PREVIEW).read_bytes().startswith(b"\xff\xd8")
    assert json.loads((root / "meta" / "stats.json").read_text())["splits"]["train"]["videos"] == 2


def test_official_counts_and_gating_are_on_the_card_of_a_closed_set(tmp_path: Path) -> None:
    root = write_set(tmp_path / "ssv2", [(still(30, 90), 4)], name="ssv2")
    relicense(root, "no redistribution (Qualcomm)", redistributable=False)
    assert main(["push", str(root), "me/ssv2", "--dry-run"]) == 0
    card = DatasetCard.load(root / "README.md")
    header = card.data.to_dict()
    assert (header["license"], header["license_name"]) == ("other", "no-redistribution-qualcomm")
    assert "you hold that licence yourself" in header["extra_gated_prompt"]
    assert "| train videos | 1 | 168,913 |" in card.text


def test_texts_of_a_set_are_inert_on_its_card(tmp_path: Path) -> None:
    hostile = "<script>x</script>\n\n# Big\n\n| a | b |"
    root = write_set(tmp_path / "set", [(still(30, 90), 4)])
    manifest = Manifest.load(root)
    versions = manifest.versions | {"x": hostile}
    dataclasses.replace(manifest, name=hostile, licence=hostile, versions=versions).save(root)
    pages = []
    for title in ("plain", hostile):
        assert main(["push", str(root), "me/clips", "--dry-run", "--title", title, "--card", "replace"]) == 0
        pages.append(
            MarkdownIt("commonmark").enable("table").render(DatasetCard.load(root / "README.md").text)
        )
    assert not any("<script" in page for page in pages)
    assert len({(page.count("<h1>"), page.count("<h2>"), page.count("<table>")) for page in pages}) == 1
    assert pages[0].count("<h1>") == 1


def test_shards_that_may_not_be_published_need_a_claim(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    relicense(root, "unknown", redistributable=False)
    assert main(["push", str(root), "me/clips"]) == 1
    error = capsys.readouterr().err
    assert "--i-have-redistribution-rights" in error
    assert error.count("\n") == 1
    assert not (root / "README.md").exists()


def test_the_real_client_publishes_privately_and_once(hub: HubServer, root: Path, tmp_path: Path) -> None:
    result = push(hub, tmp_path / "home", root, "me/clips")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == f"{hub.url}/datasets/me/clips"
    repo = hub.repos["dataset", "me/clips"]
    assert repo.private
    files = repo.commits[repo.branches["main"]]
    expected = {*METADATA, PREVIEW, "data/train-00000-of-00001.tar"}
    assert set(files) - {".gitattributes"} == expected
    assert files["data/train-00000-of-00001.tar"].sha256 == Manifest.load(root).shards[0].sha256
    assert set(repo.tags) == {f"manifest-{Manifest.load(root).hash[:12]}"}
    again = push(hub, tmp_path / "home", root, "me/clips")
    assert again.stdout == f"nothing to commit: {hub.url}/datasets/me/clips holds just that already\n"

    (root / "meta" / "failures.jsonl").unlink()  # an update: what is gone here goes there too
    result = push(hub, tmp_path / "home", root, "me/clips", "--tag", "second")
    assert result.returncode == 0, result.stderr
    assert set(repo.commits[repo.branches["main"]]) - {".gitattributes"} == expected - {"meta/failures.jsonl"}
    assert "second" in repo.tags


def test_a_tag_in_use_is_refused_and_what_people_wrote_stays(
    hub: HubServer, root: Path, tmp_path: Path
) -> None:
    assert push(hub, tmp_path / "home", root, "me/clips", "--tag", "v1").returncode == 0
    repo = hub.repos["dataset", "me/clips"]
    files = dict(repo.commits[repo.branches["main"]])
    card = files["README.md"].content.decode().replace("# clips\n", "# clips\n\nBy hand.\n")
    by_hand = dataclasses.replace(files["README.md"], content=card.encode())
    repo.commit("main", files | {"README.md": by_hand, "LICENSE": by_hand})
    tagged, before = repo.tags["v1"], dict(repo.branches)
    refused = push(hub, tmp_path / "home", root, "me/clips", "--tag", "v1")
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1
    assert "has a tag 'v1' already" in refused.stderr and "--repo-type dataset" in refused.stderr
    assert repo.branches == before and repo.tags == {"v1": tagged}

    relicense(root, "CC0-1.0", redistributable=True)  # another card, and another manifest
    assert push(hub, tmp_path / "home", root, "me/clips").returncode == 0
    files = repo.commits[repo.branches["main"]]
    card = files["README.md"].content.decode()
    assert "By hand." in card and "license: cc0-1.0" in card and "CC-BY" not in card and "LICENSE" in files


@pytest.mark.slow
def test_a_published_set_verifies_from_afar_and_its_card_reads_it(hub: HubServer, tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", [(still(30, 90), 4), (blinking(60), -1)], codec="h264")
    relicense(root, FREE, redistributable=True)
    assert push(hub, tmp_path / "home", root, "me/clips").returncode == 0
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}

    def verify(level: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dataprep", "verify", "hf://datasets/me/clips", "--level", level],
            env=clean | hub.environment(tmp_path / "home"),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    for level in ("quick", "full"):
        result = verify(level)
        assert result.returncode == 0, result.stdout + result.stderr
    repo = hub.repos["dataset", "me/clips"]
    files = repo.commits[repo.branches["main"]]
    _, snippet = files["README.md"].content.decode().split("```python\nfrom datasets import")
    code = "from datasets import" + snippet.partition("```")[0] + "print(clip['mp4']['bytes'][4:8])"
    environment = clean | hub.environment(tmp_path / "home")
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert shown.stdout == b"b'ftyp'\n", shown.stderr
    tar = files["data/train-00000-of-00001.tar"]
    spoiled = bytearray(tar.content)
    spoiled[1000] ^= 1
    repo.commit(
        "main", files | {"data/train-00000-of-00001.tar": dataclasses.replace(tar, content=bytes(spoiled))}
    )
    result = verify("quick")
    assert result.returncode == 3
    assert "another sha256" in result.stdout


def test_metadata_only_publishes_no_frame(hub: HubServer, root: Path, tmp_path: Path) -> None:
    relicense(root, "closed", redistributable=False)
    result = push(hub, tmp_path / "home", root, "me/facts", "--metadata-only", "--public")
    assert result.returncode == 0, result.stderr
    repo = hub.repos["dataset", "me/facts"]
    assert not repo.private
    files = repo.commits[repo.branches["main"]]
    assert set(files) - {".gitattributes"} == set(METADATA)
    card = files["README.md"].content.decode()
    assert "The clips themselves are not here" in card
    assert "configs:" not in card
    assert "preview.jpg" not in card


def test_refusals_are_one_sentence(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, sentence in (
        ((root, "no-owner"), "owner/name"),
        ((tmp_path / "none", "me/clips"), "not a finished shard directory"),
        (("memory://none", "me/clips"), "not a finished shard directory"),
    ):
        assert main(["push", *map(str, arguments)]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert sentence in error
        assert error.count("\n") == 1


def test_a_token_that_may_not_write(hub: HubServer, root: Path, tmp_path: Path) -> None:
    result = push(hub, tmp_path / "home", root, "me/clips", token="hf_reader")
    assert result.returncode == 1
    assert result.stderr.startswith("error: the Hub answered 403 for me/clips: log in with `hf auth login`")
    assert result.stderr.count("\n") == 1
    assert not hub.repos


def test_a_damaged_set_is_not_published(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tar = root / "data" / "train-00000-of-00001.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[:-512])
    assert main(["push", str(root), "me/clips"]) == 3
    assert "bytes, the manifest says" in capsys.readouterr().out
    damaged = bytes([whole[0] ^ 1]) + whole[1:]  # of the same size
    tar.write_bytes(damaged)
    assert main(["push", str(root), "me/clips"]) == 3
    assert f"data/{tar.name}: another sha256 than the manifest's" in capsys.readouterr().out
    there, (record,) = Root.parse("memory://damaged"), Manifest.load(root).shards
    for content, sentence in ((damaged, "another sha256"), (None, "cannot be read")):
        there.write(record.file, content) if content else there.locate(record.file)[0].rm(
            f"/damaged/{record.file}"
        )
        with pytest.raises(HubError, match=sentence):
            shard_bytes(there, record)
