"""A filtered copy holds the same bytes of fewer clips, and says what was done to it."""

from pathlib import Path

import numpy as np
import pytest
from test_stats import blinking, crossing, still, write_set

from cwm_hub.shards.index import INDEX, ClipRow, index_bytes, read_index, read_index_table
from cwm_hub.shards.manifest import Manifest
from cwm_hub.shards.storage import Root
from dataprep.__main__ import main
from dataprep.curation.filter import Condition
from dataprep.curation.verify import verify


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set", [(still(30, 90), 1), (blinking(60), 2), (still(20, 200), 2)])


def payloads(root: Path) -> dict[str, bytes]:
    return {
        row.key: (root / row.shard).read_bytes()[row.offset : row.offset + row.size]
        for row in read_index(root)
    }


def test_moving_clips_are_kept_byte_for_byte(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "moving"
    assert main(["filter", str(root), "--where", "motion>=1.5", "--out", str(out)]) == 0
    assert "2 of 4 clips" in capsys.readouterr().out
    assert payloads(out) == {key: data for key, data in payloads(root).items() if key.startswith("v1")}
    assert verify(str(out), "full") == []
    before, after = Manifest.load(root), Manifest.load(out)
    assert after.config["filters"] == [{"parent": before.hash, "where": ["motion>=1.5"]}]
    assert after.hash != before.hash
    assert (out / "meta" / "failures.jsonl").read_bytes() == (root / "meta" / "failures.jsonl").read_bytes()


def test_conditions_are_joined_by_and(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    where = ["--where", "label=2", "--where", "num_frames < 30", "--where", "label_text~ass 2"]
    assert main(["filter", str(root), *where, "--out", str(out)]) == 0
    assert sorted(payloads(out)) == ["v1_0040", "v2_0000"]
    again = tmp_path / "again"
    assert main(["filter", str(out), "--where", "luma>100", "--out", str(again), "--name", "bright"]) == 0
    assert list(payloads(again)) == ["v2_0000"]
    assert [len(step["where"]) for step in Manifest.load(again).config["filters"]] == [3, 1]
    assert Manifest.load(again).name == "bright"


def test_min_motion_is_a_share_of_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_set(tmp_path / "moving", [(blinking(30), 1), (crossing(20), 2)])
    out = tmp_path / "out"
    assert main(["filter", str(root), "--min-motion", "0.015", "--out", str(out)]) == 0
    assert [row.source for row in read_index(out)] == ["v1"]
    assert Manifest.load(out).config["filters"][0]["where"] == ["moving>=0.015"]
    assert main(["filter", str(root), "--min-motion", "0.5", "--out", str(tmp_path / "none")]) == 1
    assert main(["filter", str(root), "--out", str(tmp_path / "none")]) == 1
    assert "Give --where or --min-motion" in capsys.readouterr().err


def test_frozen_black_and_cut_clips_are_left_out(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """v0 and v2 stand still, v1 blinks between black and nearly black."""
    for number, (where, left) in enumerate(
        (("frozen<=0.5", "v1"), ("black<1", "v0 v2"), ("cuts=0", "v0 v1 v2"))
    ):
        out = tmp_path / str(number)
        assert main(["filter", str(root), "--where", where, "--out", str(out)]) == 0
        assert sorted({row.source for row in read_index(out)}) == left.split()
    assert main(["filter", str(root), "--where", "cuts>0", "--out", str(tmp_path / "none")]) == 1
    Root.parse(root).write(INDEX, index_bytes(read_index_table(root).drop_columns(["frozen"])))
    assert main(["filter", str(root), "--where", "frozen<=0.5", "--out", str(tmp_path / "none")]) == 1
    assert "frozen was not measured when" in capsys.readouterr().err


def test_every_comparison(root: Path) -> None:
    row: ClipRow = read_index(root)[0]
    assert row.num_frames == 30
    for text, holds in {
        "num_frames>=30": True, "num_frames<=29": False, "num_frames!=30": False, "num_frames=30": True,
        "num_frames>30": False, "num_frames>29.5": True, "num_frames>30.5": False, "num_frames<31": True, "label_text~lass": True, "label_text~x": False,
    }.items():  # fmt: skip
        assert Condition.parse(text).holds(row) is holds, text
    assert np.isclose(float(Condition.parse(" motion >= 1.5 ").value), 1.5)


def test_bad_input_is_one_sentence(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for where, sentence in (
        ("motion", "expected a condition"),
        ("speed>3", "no column 'speed'"),
        ("label>left", "label is compared with a number, got 'left'"),
        ("motion>=nan", "motion is compared with a number, got 'nan'"),
        ("label~1", "is a number"),
        ("motion>200", "no clip of"),
    ):
        assert main(["filter", str(root), "--where", where, "--out", str(tmp_path / "out")]) == 1
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count("\n") == 1
    assert main(["filter", str(root), "--where", "label=1", "--out", str(root)]) == 1
    assert "already holds a data set" in capsys.readouterr().err
