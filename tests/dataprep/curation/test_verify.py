"""Whatever is cut, flipped, lost or added, verify says so; what is intact passes at every level, here and afar."""

import dataclasses
import importlib.util
import shutil
from pathlib import Path

import fsspec
import pytest
from flaky_server import FlakyServer
from synthetic_shards import write_shards

from cwm_hub.shards.index import INDEX, index_bytes, read_index
from cwm_hub.shards.manifest import Manifest
from cwm_hub.shards.storage import Root
from dataprep.__main__ import main
from dataprep.curation.verify import Level, verify

LEVELS: tuple[Level, ...] = ("quick", "index", "full")
LENGTHS = (3, 3, 3, 3)
"""Frames of the clips, two in each of two shards."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "shards", LENGTHS)


@pytest.mark.parametrize("codec", ["raw", "h264", "jpeg"])
def test_an_intact_set_passes_at_every_level(
    tmp_path: Path, codec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_shards(tmp_path / codec, LENGTHS, codec=codec)
    for level in LEVELS:
        assert verify(str(root), level) == []
    assert main(["verify", str(root), "--level", "full"]) == 0
    assert "2 shards, 4 clips" in capsys.readouterr().out


def test_a_cut_at_any_block_is_found_by_every_level(root: Path) -> None:
    victim = root / "data" / "train-00001-of-00002.tar"
    whole = victim.read_bytes()
    for end in range(0, len(whole), 512):
        victim.write_bytes(whole[:end])
        for level in LEVELS:
            assert verify(str(root), level), f"cut at {end} passes {level}"


def test_a_cut_is_found_from_the_tar_alone(root: Path) -> None:
    """Even where the manifest was rewritten to the size that is there."""
    victim = root / "data" / "train-00001-of-00002.tar"
    whole = victim.read_bytes()
    manifest = Manifest.load(root)
    for end in range(0, len(whole), 512):
        victim.write_bytes(whole[:end])
        first, second = manifest.splits["train"]
        lying = dataclasses.replace(
            manifest, splits={"train": (first, dataclasses.replace(second, bytes=end))}
        )
        lying.save(root)
        assert verify(str(root), "quick") == []
        assert len(verify(str(root), "index")) == 1, f"cut at {end} passes"


def test_one_flipped_bit_in_a_clip_is_found_by_its_checksum(root: Path) -> None:
    row = read_index(root)[0]
    victim = root / row.shard
    data = bytearray(victim.read_bytes())
    data[row.offset + row.size // 2] ^= 1
    victim.write_bytes(data)
    assert verify(str(root), "index") == []
    assert [problem.what for problem in verify(str(root), "full")] == ["another sha256 than the manifest's"]


def test_a_changed_json_is_found_by_the_index_level(root: Path) -> None:
    row = read_index(root)[0]
    victim = root / row.shard
    victim.write_bytes(victim.read_bytes().replace(b'"label": 0', b'"label": 7', 1))
    (problem,) = verify(str(root), "index")
    assert problem.what == f"{row.key}.json and the index differ"


def test_missing_extra_and_unfinished_files(root: Path) -> None:
    (root / "data" / "train-00000-of-00002.tar").rename(root / "data" / ".tmp-train-00000-of-00002.tar.17")
    problems = {problem.where: problem.what for problem in verify(str(root))}
    assert problems == {
        "data/train-00000-of-00002.tar": "missing",
        "data/.tmp-train-00000-of-00002.tar.17": "not in the manifest",
    }


def test_index_rows_that_lie(root: Path) -> None:
    rows = read_index(root)

    def complaints(changed: list) -> str:
        Root.parse(root).write(INDEX, index_bytes(changed))
        return " ".join(problem.what for problem in verify(str(root)))

    assert "occurs twice" in complaints([rows[1], *rows[1:]])
    assert "lists 1 clip with 3 frames, the manifest 2 with 6" in complaints(rows[1:])
    shared = dataclasses.replace(rows[0], source=rows[1].source, split="validation")
    assert "is in validation and in train" in complaints([shared, *rows[1:]])
    stray = dataclasses.replace(rows[0], shard="data/other.tar")
    assert "a shard that the manifest does not list" in complaints([stray, *rows[1:]])
    moved = dataclasses.replace(rows[0], offset=rows[0].offset + 1)
    Root.parse(root).write(INDEX, index_bytes([moved, *rows[1:]]))
    assert "the index says otherwise" in verify(str(root), "index")[0].what


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b'{"source_path": "a.mp4", "reason": "crash"}', "line 1 is not source_path, reason and detail"),
        (b"{not json", "line 1 is not source_path, reason and detail"),
        (b"5", "line 1 is not source_path, reason and detail"),
        (b'{"source_path": "a", "reason": ["b"], "detail": ""}', "line 1 holds what is no text"),
    ],
)
def test_a_damaged_failures_file(
    line: bytes, what: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Root.parse(root).write("meta/failures.jsonl", line + b"\n")
    assert [(problem.where, problem.what) for problem in verify(str(root))] == [("meta/failures.jsonl", what)]
    assert main(["stats", str(root)]) == 1
    assert capsys.readouterr().err == f"error: meta/failures.jsonl: {what}\n"


def test_a_remote_set(root: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(f"{root}/", "/afar", recursive=True)
    for level in LEVELS:
        assert verify("memory://afar", level) == []
    memory.pipe_file("/afar/data/train-00001-of-00002.tar", b"")
    assert [problem.what[:7] for problem in verify("memory://afar", "full")] == ["0 bytes"]
    memory.rm("/afar", recursive=True)


def test_exit_codes(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path / "nothing")]) == 1
    assert "is not a finished shard directory" in capsys.readouterr().err
    shutil.rmtree(root / "data")
    assert main(["verify", str(root), "--level", "quick"]) == 3
    output = capsys.readouterr()
    assert output.out.splitlines()[0] == "data/train-00000-of-00002.tar: missing"
    assert "2 problems" in output.err


@pytest.mark.skipif(
    importlib.util.find_spec("aiohttp") is None,
    reason="fsspec reads https through aiohttp (pip install aiohttp)",
)
def test_a_set_on_a_plain_web_server(root: Path) -> None:
    with FlakyServer(root) as server:
        for level in LEVELS:
            assert verify(server.url, level) == []
        server.always["train-00001-of-00002.tar"] = "500"
        problems = verify(server.url, "index")
        assert [problem.where for problem in problems] == ["data/train-00001-of-00002.tar"]
        assert problems[0].what == "missing"  # fsspec tells every refusal so
        del server.always["train-00001-of-00002.tar"]
        (root / "data" / "train-00001-of-00002.tar").unlink()
        assert [problem.what for problem in verify(server.url)] == ["missing"]
