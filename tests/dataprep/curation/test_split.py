"""A set divided anew holds the same clips; what shows one scene stays in one split."""

from pathlib import Path

import numpy as np
import pytest
from synthetic_shards import numbered_frames, write_data_set
from test_filter import payloads

from cwm_hub.shards.index import read_index
from cwm_hub.shards.manifest import Manifest
from cwm_hub.shards.storage import Root
from dataprep.__main__ import main
from dataprep.curation.verify import verify


def clip(number: int, path: str, part: int = 0) -> tuple[np.ndarray, dict[str, str | int]]:
    facts = {
        "key": f"v{number}_c{part}",
        "source": f"v{number}",
        "source_path": path,
        "start_frame": 20 * part,
    }
    return numbered_frames(number, 20 * part, 20 * part + 20), {**facts, "source_frames": 40}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten recordings of two cameras each, 40 frames in two clips, all for training; and one for the test."""
    videos = [f"ep{number // 2}/cam{number % 2}.mp4" for number in range(20)]
    train = [clip(number, path, part) for number, path in enumerate(videos) for part in range(2)]
    splits = {"train": train, "test": [clip(20, "ep10/cam0.mp4")]}
    root = write_data_set(tmp_path / "set", splits, shards=1, name="tiny")
    Root.parse(root).write("meta/failures.jsonl", b'{"source_path": "a", "reason": "crash", "detail": ""}\n')
    return root


def test_a_finished_set_is_divided_without_decoding(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["split", str(root), "--validation-share", "0.3", "--out", str(out)]) == 0
    assert payloads(out) == payloads(root)
    assert verify(out, "full") == []
    before, after = Manifest.load(root), Manifest.load(out)
    rows = read_index(out)
    held_out = {row.source_path.partition("/")[0] for row in rows if row.split == "validation"}
    trained = {row.source_path.partition("/")[0] for row in rows if row.split == "train"}
    assert not held_out & trained and len(held_out | trained) == 10
    assert 1 <= len(held_out) <= 6
    assert [row.source for row in rows if row.split == "test"] == ["v20"]
    assert after.config["divided"][0]["parent"] == before.hash
    assert {row.shard for row in rows if row.split == "validation"} == {"data/validation-00000-of-00001.tar"}
    assert (out / "meta/failures.jsonl").read_bytes() == (root / "meta/failures.jsonl").read_bytes()
    counts = {split: sum(record.samples for record in records) for split, records in after.splits.items()}
    assert capsys.readouterr().out.startswith(
        f"{out}: train: {counts['train']} clips, validation: {counts['validation']} clips, test: 1 clip; "
    )


def test_recordings_that_the_index_names_stay_together(tmp_path: Path) -> None:
    clips = [clip(number, f"{number}.mp4") for number in range(20)]
    for number, (_, facts) in enumerate(clips):
        facts["recording"] = f"take {number % 10}"
    root = write_data_set(tmp_path / "set", {"train": clips}, shards=2, name="tiny")
    assert main(["split", str(root), "--validation-share", "0.5", "--out", str(tmp_path / "out")]) == 0
    split = {row.source: (row.split, row.recording) for row in read_index(tmp_path / "out")}
    assert {where for where, _ in split.values()} == {"train", "validation"}
    assert all(split[f"v{number}"] == split[f"v{number + 10}"] for number in range(10))
    command = [
        "split",
        str(root),
        "--validation-share",
        "0.5",
        "--out",
        str(tmp_path / "asked"),
        "--group-by",
        ".",
    ]
    assert main(command) == 0  # by the first letter: 0, 1, ... 9 and 1
    split = {row.source: row.split for row in read_index(tmp_path / "asked")}
    assert len({split[f"v{number}"] for number in (1, *range(10, 20))}) == 1


def test_videos_of_equal_clips_stay_together(tmp_path: Path) -> None:
    clips = [clip(number % 10, f"{number}.mp4") for number in range(20)]
    for number, (_, facts) in enumerate(clips):
        facts |= {"source": f"v{number}", "key": f"v{number}"}
    root = write_data_set(tmp_path / "set", {"train": clips}, shards=2, name="tiny")
    assert main(["split", str(root), "--validation-share", "0.5", "--out", str(tmp_path / "out")]) == 0
    split = {row.source: row.split for row in read_index(tmp_path / "out")}
    assert set(split.values()) == {"train", "validation"}
    assert all(split[f"v{number}"] == split[f"v{number + 10}"] for number in range(10))


def test_what_cannot_be_divided_is_one_sentence(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = write_data_set(tmp_path / "alone", {"train": [clip(0, "a.mp4")]}, name="alone")
    for arguments, sentence in (
        ([str(alone), "--out", str(tmp_path / "out")], "no validation split: there is 1 recording"),
        ([str(root), "--out", str(tmp_path / "out"), "--group-by", "ep"], "there is 1 recording"),
        ([str(root), "--out", str(tmp_path / "out"), "--group-by", "("], "is no regular expression"),
        ([str(root), "--out", str(tmp_path / "out"), "--validation-share", "1"], "below 1, got 1.0"),
        ([str(root), "--out", str(root)], "already holds a data set: choose another --out"),
        ([str(root), "--out", "memory://x"], "is written to a local directory, got memory://x"),
    ):
        assert main(["split", *arguments]) == 1
        told = capsys.readouterr().err
        assert sentence in told and told.count("\n") == 1
        assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".tmp-*"))
