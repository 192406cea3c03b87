"""What was logged beside the frames: plain npz members that move, cut and count like the frames; 1.0 sets stay as they were."""

import dataclasses
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from synthetic_shards import logged_rows, numbered_frames, write_shards

from cwm_hub.shards.arrays import decode_arrays, encode_arrays
from cwm_hub.shards.codecs import ShardError
from cwm_hub.shards.index import INDEX, ClipRow, index_bytes, read_index
from cwm_hub.shards.manifest import MANIFEST, Manifest
from cwm_hub.shards.storage import Root
from cwm_hub.shards.writer import EncodedClip, ShardWriter
from dataprep.__main__ import main
from dataprep.curation.stats import as_text, measure
from dataprep.curation.verify import verify


def test_rows_come_back_and_numpy_reads_them() -> None:
    rows = logged_rows(4, 0, 50)
    data = encode_arrays(rows)
    assert data == encode_arrays(dict(reversed(rows.items())))
    with np.load(io.BytesIO(data), allow_pickle=False) as plain:
        assert {name: plain[name].dtype for name in plain} == {
            "action": np.float32,
            "reward": np.float32,
            "is_terminal": np.bool_,
        }
        for name, values in rows.items():
            assert np.array_equal(plain[name], values)
    part = decode_arrays(data, 38, 41)
    assert part["action"].tolist() == [[5, 38], [5, 39], [5, 40]]
    assert part["reward"].tolist() == [38, 39, 40]
    assert part["is_terminal"].tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({}, "a row for every frame, got none"),
        (
            {"action": np.zeros((3, 2), np.float32), "reward": np.zeros(4, np.float32)},
            "every frame, got action",
        ),
        ({"torque": np.zeros(3, np.float32)}, "unknown array 'torque', expected some of action, state"),
        ({"action": np.zeros(3, np.float32)}, r"action is float32 \[rows, columns\], got float32 \[3\]"),
        ({"reward": np.zeros(3)}, r"reward is float32 \[rows\], got float64 \[3\]"),
        ({"action": np.full((3, 1), np.nan, np.float32)}, "action holds a number that is not finite"),
    ],
)
def test_what_cannot_be_kept_is_a_sentence(arrays: dict[str, np.ndarray], sentence: str) -> None:
    with pytest.raises(ShardError, match=sentence):
        encode_arrays(arrays)


def test_damage_is_a_sentence() -> None:
    data = encode_arrays(logged_rows(0, 0, 9))
    for cut in range(0, data.index(b"PK\x01\x02") + 4, 7):
        with pytest.raises(ShardError, match="damaged arrays"):
            decode_arrays(data[:cut])
    with pytest.raises(ShardError, match="have 9 rows, asked for 8 to 10"):
        decode_arrays(data, 8, 10)
    packed = io.BytesIO()
    np.savez_compressed(packed, **logged_rows(0, 0, 9))
    with pytest.raises(ShardError, match="not stored plainly"):
        decode_arrays(packed.getvalue())


def test_a_member_lies_between_clip_and_json_and_the_index_finds_it(tmp_path: Path) -> None:
    root = write_shards(tmp_path, [30, 40], logged=True)
    for row in read_index(root):
        data = (root / row.shard).read_bytes()
        with tarfile.open(root / row.shard) as tar:
            assert [member.name for member in tar] == [f"{row.key}.{end}" for end in ("u8", "npz", "json")]
        rows = decode_arrays(data[row.arrays_offset : row.arrays_offset + row.arrays_size])
        assert row.arrays == " ".join(rows) == "action reward is_terminal"
        for name, values in logged_rows(int(row.key[1:4]), 0, row.num_frames).items():
            assert np.array_equal(rows[name], values)


def test_means_count_every_frame_once_and_no_frame_that_nothing_led_to(tmp_path: Path) -> None:
    """Actions (1, t) for t = 1 to 59 of a video in pieces that overlap: the mean of t is 30, its variance 59² - 1 over 12."""
    root = write_shards(tmp_path, [60], pieces={0: [(0, 40), (16, 56), (32, 60)]}, shards=1, logged=True)
    facts = Manifest.load(root).arrays
    assert list(facts) == ["action", "reward", "is_terminal"]
    assert (facts["action"].shape, facts["reward"].shape) == ((2,), ())
    assert facts["action"].names == ("action_0", "action_1")
    assert facts["action"].mean == (1, 30)
    assert facts["action"].std == pytest.approx((0, ((59**2 - 1) / 12) ** 0.5), abs=1e-6)
    assert facts["is_terminal"].mean == pytest.approx((1 / 59,), abs=1e-6)


def test_a_set_without_arrays_is_of_format_1_0(tmp_path: Path) -> None:
    """No new column, no new key: whoever reads 1.0 reads it, and what 1.0 wrote is read."""
    root = write_shards(tmp_path, [30, 40])
    columns = pq.read_table(root / INDEX).column_names
    assert columns == [field.name for field in dataclasses.fields(ClipRow)][: len(columns)]
    assert not {"camera", "arrays", "arrays_offset", "arrays_size"} & set(columns)
    assert b"arrays" not in (root / MANIFEST).read_bytes()
    row = read_index(root)[0]
    assert (row.camera, row.arrays, row.arrays_size) == ("", "", 0)
    assert Manifest.load(root).arrays == {}


def test_what_a_reader_of_1_0_looks_at_is_where_it_was(tmp_path: Path) -> None:
    """The manifest has no key that it does not know, and the index every column that it asks for."""
    plain, logged = (write_shards(tmp_path / str(flag), [30], logged=flag) for flag in (False, True))
    before, after = (json.loads((root / MANIFEST).read_bytes()) for root in (plain, logged))
    assert before.keys() == after.keys()
    assert before["format_version"] == after["format_version"] == 1
    assert set(after["config"]) - set(before["config"]) == {"arrays"}
    columns = [set(pq.read_table(root / INDEX).column_names) for root in (plain, logged)]
    assert columns[1] - columns[0] == {"arrays", "arrays_offset", "arrays_size"}


def test_clips_of_a_shard_agree(tmp_path: Path) -> None:
    clip = EncodedClip.encode(numbered_frames(0, 0, 5), codec="raw", fps=10)
    facts = {"split": "train", "source": "a"}
    with ShardWriter(tmp_path / "x.tar", codec="raw") as writer:
        writer.add(clip, key="a", arrays=logged_rows(0, 0, 5), **facts)
        with pytest.raises(
            ShardError, match="clip b has no arrays where the clips before it have action reward"
        ):
            writer.add(clip, key="b", **facts)
        with pytest.raises(ShardError, match="clip c has 5 frames and 6 rows of action"):
            writer.add(clip, key="c", arrays=logged_rows(0, 0, 6), **facts)
        wider = logged_rows(0, 0, 5) | {"action": np.zeros((5, 3), np.float32)}
        with pytest.raises(ShardError, match="action has 2 columns in one clip and 3 in another"):
            writer.add(clip, key="d", arrays=wider, **facts)


def test_verify_sees_what_is_wrong_beside_a_clip(tmp_path: Path) -> None:
    root = write_shards(tmp_path, [30, 40], logged=True)
    assert verify(root, "full") == []
    rows = read_index(root)
    first = rows[0]
    whole = (root / first.shard).read_bytes()

    other = [dataclasses.replace(first, arrays="action"), *rows[1:]]
    Root.parse(root).write(INDEX, index_bytes(other))
    (problem,) = verify(root, "quick")
    assert problem.what == f"clip {first.key} has action, the manifest says action reward is_terminal"

    moved = [dataclasses.replace(first, arrays_offset=first.arrays_offset + 512), *rows[1:]]
    Root.parse(root).write(INDEX, index_bytes(moved))
    (problem,) = verify(root, "index")
    assert f"{first.key}.npz has {first.arrays_size} bytes at {first.arrays_offset}" in problem.what

    Root.parse(root).write(INDEX, index_bytes(rows))
    (root / first.shard).write_bytes(whole.replace(b"PK\x03\x04", b"PK\x03\x05", 1))
    assert [problem.what for problem in verify(root, "full")] == [
        "another sha256 than the manifest's",
        f"clip {first.key}: damaged arrays: no whole npz",
    ]


def test_filter_keeps_them_and_counts_anew(tmp_path: Path) -> None:
    root = write_shards(tmp_path / "in", [30, 40], logged=True)
    assert main(["filter", str(root), "--where", "num_frames>30", "--out", str(tmp_path / "out")]) == 0
    (row,) = read_index(tmp_path / "out")
    data = (tmp_path / "out" / row.shard).read_bytes()
    rows = decode_arrays(data[row.arrays_offset : row.arrays_offset + row.arrays_size])
    assert np.array_equal(rows["action"], logged_rows(1, 0, 40)["action"])
    assert verify(tmp_path / "out", "full") == []
    assert Manifest.load(tmp_path / "out").arrays["action"].mean == (2, 20)  # 1 to 39, of source 1 alone


def test_stats_and_card_tell_of_them(tmp_path: Path) -> None:
    root = write_shards(tmp_path, [40], logged=True, shards=1, codec="jpeg", size=64)
    stats = measure(root)
    assert stats["arrays"]["action"]["mean"] == [1, 20]
    assert "action_0 1 (0), action_1 20 (11.2546): mean (std)" in as_text(stats)
    assert main(["push", str(root), "me/logged", "--dry-run"]) == 0
    card = (root / "README.md").read_text()
    assert "| action | action_0, action_1 | 1.0, 20.0 |" in card
    assert "with_actions=True" in card
    plain = write_shards(tmp_path / "plain", [40], codec="jpeg", size=64)
    assert main(["push", str(plain), "me/plain", "--dry-run"]) == 0
    assert "action" not in (plain / "README.md").read_text().replace("action-free", "")
