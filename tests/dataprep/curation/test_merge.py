"""Sets that are put together hold the clips of all, and a licence can be changed without touching one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic_shards import logged_rows, numbered_frames, write_data_set, write_shards
from test_filter import payloads

from cwm_hub.shards.arrays import decode_arrays
from cwm_hub.shards.extra_columns import add_columns
from cwm_hub.shards.index import INDEX, index_bytes, read_index, read_index_table
from cwm_hub.shards.manifest import Manifest, read_failures
from cwm_hub.shards.storage import Root
from dataprep.__main__ import main
from dataprep.curation.verify import verify


def make(root: Path, train: dict[str, int], validation: dict[str, int], *, size: int = 8) -> Path:
    """A set of a clip for each (key, number that its pixels show)."""
    splits = {
        split: [
            (
                numbered_frames(number, 0, 20, size),
                {"key": key, "source": key, "source_path": f"{root.name}/{key}.mp4"},
            )
            for key, number in clips.items()
        ]
        for split, clips in (("train", train), ("validation", validation))
        if clips
    }
    Root.parse(root).write("meta/failures.jsonl", b'{"source_path": "x", "reason": "crash", "detail": ""}\n')
    return write_data_set(root, splits, name=root.name)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    root = make(tmp_path / "here", {"a": 1, "b": 2}, {"c": 3})
    (root / INDEX).write_bytes(index_bytes(add_columns(read_index_table(root), {"speed": {"a": 4.0}})))
    return root


def test_a_merged_set_holds_the_clips_of_both(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there, out = make(tmp_path / "there", {"d": 4}, {"e": 5, "f": 1}), tmp_path / "out"
    assert main(["merge", str(here), str(there), "--out", str(out)]) == 0
    assert "train: 2 clips, validation: 3 clips" in capsys.readouterr().out
    # f, held out there, shows what a shows here: a is left out, and said
    assert payloads(out) == {
        key: data for key, data in (payloads(here) | payloads(there)).items() if key != "a"
    }
    assert verify(out, "full") == []
    (_, _, leak) = read_failures(out)
    assert leak == {
        "source_path": "here/a.mp4",
        "reason": "duplicate",
        "detail": "the same clips as there/f.mp4, of another split",
    }
    manifest = Manifest.load(out)
    assert manifest.name == "here-there"
    assert [one["versions"] for one in manifest.config["merged"]] == [manifest.versions] * 2
    assert [one["manifest"] for one in manifest.config["merged"]] == [
        Manifest.load(root).hash for root in (here, there)
    ]


def test_what_a_killed_one_left_beside_the_new_set_goes(here: Path, tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    kept = tmp_path / f".tmp-out.{os.getppid()}", tmp_path / ".tmp-out.tar", tmp_path / ".tmp-other.1"
    for folder in (tmp_path / f".tmp-out.{process.pid}/data", *kept):
        folder.mkdir(parents=True)
    there = make(tmp_path / "there", {"d": 4}, {})
    assert main(["merge", str(here), str(there), "--out", str(tmp_path / "out")]) == 0
    assert {*tmp_path.iterdir()} == {here, there, tmp_path / "out", *kept}


def test_videos_of_one_name_are_told_apart_by_their_set(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there, out = make(tmp_path / "there", {"a": 7}, {}), tmp_path / "out"
    assert main(["merge", str(here), str(there), "--out", str(out)]) == 1
    assert "1 clip key is in two sets, such as a: --number tells them apart" in capsys.readouterr().err
    assert main(["merge", str(here), str(there), "--out", str(out), "--number", "--name", "both"]) == 0
    assert sorted(row.key for row in read_index(out)) == ["1-a", "1-b", "1-c", "2-a"]
    table = read_index_table(out)
    speeds = dict(zip(table["source"].to_pylist(), table["speed"].to_pylist(), strict=True))
    assert speeds["1-a"] == 4.0 and speeds["2-a"] != speeds["2-a"]
    assert Manifest.load(out).name == "both" and verify(out, "full") == []


def test_recordings_of_two_sets_that_bear_one_name_are_two(tmp_path: Path) -> None:
    roots = []
    for name, number in (("one", 1), ("two", 5)):
        clips = [
            (
                numbered_frames(number + n, 0, 20, 8),
                {"key": f"{name}{n}", "source": f"{name}{n}", "recording": "ep0"},
            )
            for n in range(2)
        ]
        roots.append(write_data_set(tmp_path / name, {"train": clips}, name=name))
    assert main(["merge", *map(str, roots), "--out", str(tmp_path / "out")]) == 0
    assert [row.recording for row in read_index(tmp_path / "out")] == ["1-ep0", "1-ep0", "2-ep0", "2-ep0"]


def test_sets_that_do_not_fit_are_one_sentence(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = make(tmp_path / "large", {"x": 1}, {}, size=16)
    for roots, sentence in (([here], "two sets or more, got 1"), ([here, large], "8 px raw clips and")):
        assert main(["merge", *map(str, roots), "--out", str(tmp_path / "out")]) == 1
        told = capsys.readouterr().err
        assert sentence in told and told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_another_licence_leaves_the_clips_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, clips = Manifest.load(here), payloads(here)
    assert main(["describe", str(here), "--licence", "cc-by-4.0", "--redistributable"]) == 0
    after = Manifest.load(here)
    assert (after.licence, after.redistributable) == ("cc-by-4.0", True)
    assert after.splits == before.splits and payloads(here) == clips and verify(here, "full") == []
    assert f"manifest {before.hash[:12]} is {after.hash[:12]} now" in capsys.readouterr().out
    assert main(["describe", str(here), "--not-redistributable"]) == 0
    assert (Manifest.load(here).licence, Manifest.load(here).redistributable) == ("cc-by-4.0", False)
    capsys.readouterr()
    assert main(["describe", str(here)]) == 1
    assert capsys.readouterr().err.startswith("error: nothing to change: give --licence")


def test_copies_keep_what_was_logged_beside_the_frames(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    roots = [write_shards(tmp_path / name, [20, 30], logged=True) for name in ("one", "two")]
    (tmp_path / "two").rename(tmp_path / "moved")
    merged, divided = tmp_path / "merged", tmp_path / "divided"
    main(["merge", str(roots[0]), str(tmp_path / "moved"), "--out", str(merged), "--number"])
    main(["split", str(merged), "--validation-share", "0.5", "--out", str(divided)])
    for out in (merged, divided):
        assert verify(out, "full") == []
        rows = read_index(out)
        assert {row.arrays for row in rows} == {"action reward is_terminal"}
        (row,) = [row for row in rows if row.key.startswith("1-s001")]
        logged = decode_arrays(Root.parse(out).read_range(row.shard, row.arrays_offset, row.arrays_size))
        assert logged["action"].tolist() == logged_rows(1, 0, 30)["action"].tolist()
    # Both sets have 19 rows of action (1, t) and 29 of (2, t): the mean of the first column is (19 + 2 x 29) / 48.
    assert Manifest.load(merged).arrays["action"].mean[0] == pytest.approx(77 / 48, abs=1e-5)
    capsys.readouterr()
    assert main(["merge", str(roots[0]), str(here), "--out", str(tmp_path / "no")]) == 1
    assert "action (action_0, action_1), reward (reward)" in (told := capsys.readouterr().err)
    assert "here nothing: one set logs the same for every clip" in told
