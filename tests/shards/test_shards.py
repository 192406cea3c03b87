"""Clips survive their codecs, shards are plain deterministic tars, manifest and index read back or say why not."""

import dataclasses
import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from cwm_hub.shards.codecs import CODECS, ShardError, decode_clip, encode_clip, raw_byte_range
from cwm_hub.shards.index import INDEX, ClipRow, index_bytes, read_index
from cwm_hub.shards.manifest import MANIFEST, Manifest, ShardRecord, shard_name
from cwm_hub.shards.measures import measure_clip
from cwm_hub.shards.storage import Root
from cwm_hub.shards.writer import EncodedClip, ShardWriter

LOSSY_DB = {"h264": 33.0, "jpeg": 38.0}


def moving_picture(count: int = 40, size: int = 64) -> np.ndarray:
    """A smooth coloured wave that drifts: no frame equals another, and codecs can follow it."""
    time, row, column = np.meshgrid(np.arange(count), np.arange(size), np.arange(size), indexing="ij")
    waves = [
        128 + 100 * np.sin((row * a + column * b) / size * 6 + time / 7 + c)
        for a, b, c in ((1, 0, 0), (0, 1, 1), (1, 1, 2))
    ]
    return np.stack(waves, -1).astype(np.uint8)


def psnr(truth: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((truth.astype(float) - other) ** 2)))


def add(writer: ShardWriter, key: str, frames: np.ndarray | None = None) -> None:
    clip = EncodedClip.encode(moving_picture(3, 8) if frames is None else frames, codec=writer.codec, fps=12)
    writer.add(clip, key=key, split="train", source=key)


@pytest.mark.parametrize("codec", CODECS)
def test_a_clip_comes_back(codec: str) -> None:
    frames = moving_picture()
    data = encode_clip(frames, codec, 12)
    assert data == encode_clip(frames, codec, 12)
    decoded = decode_clip(data, codec)
    assert decoded.shape == frames.shape
    assert decoded.dtype == np.uint8
    if codec == "raw":
        assert (decoded == frames).all()
    else:
        assert psnr(frames, decoded) > LOSSY_DB[codec]


@pytest.mark.parametrize("codec", CODECS)
def test_any_window_equals_that_part_of_the_whole(codec: str) -> None:
    data = encode_clip(moving_picture(), codec, 12)
    whole = decode_clip(data, codec)
    for start in range(40):
        for stop in {start + 1, min(start + 7, 40), 40}:
            assert (decode_clip(data, codec, start, stop) == whole[start:stop]).all(), (start, stop)


@pytest.mark.parametrize("fps", [0.5, 12.0, 23.976, 29.97, 59.94, 14.985014985, 120.0, 1000.0])
def test_h264_windows_are_exact_at_any_rate(fps: float) -> None:
    data = encode_clip(moving_picture(30, 16), "h264", fps)
    whole = decode_clip(data, "h264")
    assert len(whole) == 30
    assert (decode_clip(data, "h264", 17, 25) == whole[17:25]).all()


def test_a_clip_is_the_same_bytes_whatever_was_encoded_before_it() -> None:
    clips = [(moving_picture(n, size), fps) for n, size, fps in
             ((40, 64, 12), (1, 64, 12), (13, 64, 12), (3, 16, 12), (30, 64, 29.97), (40, 64, 29.97))]  # fmt: skip
    forward = [encode_clip(frames, "h264", fps) for frames, fps in clips]
    backward = [encode_clip(frames, "h264", fps) for frames, fps in reversed(clips)]
    assert forward == backward[::-1]
    for (frames, _), data in zip(clips, forward, strict=True):
        whole = decode_clip(data, "h264")
        assert len(whole) == len(frames)
        for start in range(len(frames)):
            assert (decode_clip(data, "h264", start, start + 1) == whole[start]).all()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("start", "stop"), [(0, 41), (40, 41), (5, 5), (-1, 3)])
def test_frames_outside_the_clip_are_an_error(codec: str, start: int, stop: int) -> None:
    data = encode_clip(moving_picture(40, 16), codec, 12)
    with pytest.raises(ShardError, match=f"holds 40 frames, asked for {start} to {stop}"):
        decode_clip(data, codec, start, stop)


@pytest.mark.parametrize("codec", CODECS)
def test_a_cut_payload_is_an_error(codec: str) -> None:
    data = encode_clip(moving_picture(40, 16), codec, 12)
    for share in (0.0, 0.01, 0.3, 0.6, 0.9):
        with pytest.raises(ShardError, match=r"damaged|not a JPEG film strip"):
            decode_clip(data[: int(share * len(data))], codec)


def test_a_raw_window_is_one_slice_of_the_payload() -> None:
    frames = moving_picture(9, 8)
    offset, size = raw_byte_range(8, 8, 4, 7)
    data = encode_clip(frames, "raw", 12)[offset : offset + size]
    assert (np.frombuffer(data, np.uint8).reshape(3, 8, 8, 3) == frames[4:7]).all()


def test_frames_need_not_be_square() -> None:
    frames = moving_picture(5, 32)[:, :16]
    for codec in CODECS:
        assert decode_clip(encode_clip(frames, codec, 12), codec).shape == (5, 16, 32, 3)


@pytest.mark.parametrize(
    ("frames", "codec", "fps", "sentence"),
    [
        (np.zeros((3, 8, 8), np.uint8), "raw", 12, r"a clip is uint8 \[T, H, W, 3\], got uint8 \[3, 8, 8\]"),
        (np.zeros((3, 8, 8, 3), np.float32), "raw", 12, "got float32"),
        (np.zeros((0, 8, 8, 3), np.uint8), "raw", 12, r"\[0, 8, 8, 3\]"),
        (np.zeros((3, 7, 8, 3), np.uint8), "h264", 12, "even height and width, got 7x8"),
        (np.zeros((3, 8, 8, 3), np.uint8), "h264", 0, "positive frame rate"),
        (np.zeros((257, 256, 8, 3), np.uint8), "jpeg", 12, "at most 65535 rows"),
        (np.zeros((3, 8, 8, 3), np.uint8), "av1", 12, "unknown codec 'av1', expected one of h264, jpeg, raw"),
    ],
)
def test_what_cannot_be_encoded_is_a_sentence(
    frames: np.ndarray, codec: str, fps: float, sentence: str
) -> None:
    with pytest.raises(ShardError, match=sentence):
        encode_clip(frames, codec, fps)


def test_motion_and_luma_by_hand() -> None:
    frames = np.zeros((3, 2, 2, 3), np.uint8)
    frames[1, 0, 0, 0] = 12  # one of 12 values changes by 12, then back: mean |difference| 1 both times
    measures = measure_clip(frames, 25)
    assert (measures.motion, measures.luma) == (1.0, round(12 / 36, 4))
    assert measure_clip(frames[:1], 25)[:2] == (0.0, 0.0)


def test_frozen_and_black_by_hand() -> None:
    """At 12 frames a second a stretch of four repetitions is a third of a second."""
    levels = [30, 31, 32, 33, 33, 33, 33, 33, 34, 34, 35, 35, 35, 35, 36, 10, 23, 24, 9, 50, 51]  # 20 steps
    frames = np.full((len(levels), 32, 32, 3), np.array(levels, np.uint8)[:, None, None, None])
    measures = measure_clip(frames, 12)
    assert measures.frozen == 4 / 20  # the five frames of 33; those of 34 and 35 are too few
    assert measure_clip(frames, 9).frozen == (4 + 3) / 20
    assert measures.black == round(3 / 21, 4)  # 10, 23 and 9 are below 24
    frames[15, 4:6, 4:6] = 255  # a lamp fills one cell
    assert measure_clip(frames, 12).black == round(2 / 21, 4)
    assert measure_clip(frames[3:8], 12).frozen == 1.0
    frames[5, ::10, ::10] = (
        34  # 16 of 1,024 pixels a level brighter, and back: what a re-encoded repetition has
    )
    assert measure_clip(frames[3:8], 12).frozen == 1.0
    frames[5, ::4, ::4] = 34  # 64 of them
    assert measure_clip(frames[3:8], 12).frozen == 0.0
    assert measure_clip(frames[:1], 12).frozen == 0.0


def test_a_shard_is_a_plain_tar_and_its_index_finds_every_clip(tmp_path: Path) -> None:
    clips = {f"clip_{number}": moving_picture(5 + number, 8) for number in range(3)}
    path = tmp_path / shard_name("train", 0, 1)
    with ShardWriter(path, codec="raw") as writer:
        for key, frames in clips.items():
            add(writer, key, frames)
    data = path.read_bytes()
    assert writer.record == ShardRecord(
        "data/train-00000-of-00001.tar", 3, 18, len(data), hashlib.sha256(data).hexdigest()
    )
    with tarfile.open(path) as tar:
        members = tar.getmembers()
        assert [m.name for m in members] == [
            f"clip_{n}.{suffix}" for n in range(3) for suffix in ("u8", "json")
        ]
        assert {(m.mtime, m.uid, m.uname) for m in members} == {(0, 0, "")}
        described = [json.load(tar.extractfile(m)) for m in members if m.name.endswith("json")]  # type: ignore[arg-type]
    place = {"shard", "offset", "size", "cuts", "frozen", "black", "moving"} | {
        "camera",
        "arrays",
        "arrays_offset",
        "arrays_size",
        "recording",
    }
    fields = [field.name for field in dataclasses.fields(ClipRow) if field.name not in place]
    assert all(list(d) == fields and None not in d.values() for d in described)
    for row, described_row in zip(writer.rows, described, strict=True):
        assert (decode_clip(data[row.offset : row.offset + row.size], "raw") == clips[row.key]).all()
        assert {k: getattr(row, k) for k in described_row} == described_row
    assert not list(tmp_path.rglob(".tmp-*"))


@pytest.mark.parametrize("codec", CODECS)
def test_the_same_clips_give_the_same_bytes(tmp_path: Path, codec: str) -> None:
    for folder in ("a", "b"):
        with ShardWriter(tmp_path / folder / "x.tar", codec=codec, name="data/x.tar") as writer:
            add(writer, "one", moving_picture(20, 16))
    assert (tmp_path / "a/x.tar").read_bytes() == (tmp_path / "b/x.tar").read_bytes()


def test_a_broken_off_shard_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), ShardWriter(tmp_path / "x.tar", codec="raw") as writer:
        add(writer, "one")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_shard_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(b"of an earlier run")
    with ShardWriter(path, codec="raw") as writer:
        add(writer, "one")
        assert path.read_bytes() == b"of an earlier run"
    assert path.read_bytes() != b"of an earlier run"


@pytest.mark.parametrize("key", ["", "with.dot", "Upper", "a b", "x" * 91, "é", "a/b"])
def test_a_key_that_readers_would_mangle_is_refused(tmp_path: Path, key: str) -> None:
    with (
        ShardWriter(tmp_path / "x.tar", codec="raw") as writer,
        pytest.raises(ShardError, match="sample key"),
    ):
        add(writer, key)


def test_a_key_may_occur_once(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "x.tar", codec="raw") as writer:
        add(writer, "one")
        with pytest.raises(ShardError, match="'one' occurs twice"):
            add(writer, "one")


def test_one_codec_a_shard(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "x.tar", codec="jpeg") as writer, pytest.raises(ShardError, match="raw clip"):
        writer.add(
            EncodedClip.encode(moving_picture(2, 8), codec="raw", fps=1), key="a", split="train", source="a"
        )
    with pytest.raises(ShardError, match="unknown codec 'gif'"):
        ShardWriter(tmp_path / "y.tar", codec="gif")


def a_manifest(**changes: object) -> Manifest:
    record = ShardRecord("data/train-00000-of-00001.tar", 3, 75, 10240, "ab" * 32)
    fields = {
        "name": "tiny",
        "codec": "raw",
        "image_size": 8,
        "splits": {"train": (record,)},
        "config": {"seed": 0},
    }
    return Manifest(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("place", ["local", "memory"])
def test_manifest_and_index_read_back_from_any_root(tmp_path: Path, place: str) -> None:
    root = str(tmp_path) if place == "local" else f"memory:/{tmp_path}"
    with ShardWriter(tmp_path / shard_name("train", 0, 1), codec="raw") as writer:
        add(writer, "one")
        add(writer, "two")
    manifest = a_manifest()
    manifest.save(root)
    Root.parse(root).write(INDEX, index_bytes(writer.rows))
    assert Manifest.load(root) == manifest
    assert Manifest.load(root).hash == manifest.hash
    assert read_index(root) == writer.rows


def test_the_hash_names_the_content() -> None:
    assert a_manifest().hash == a_manifest().hash
    assert len({a_manifest().hash, a_manifest(name="other").hash, a_manifest(config={"seed": 1}).hash}) == 3


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "is not a finished shard directory: it has no meta/manifest.json"),
        ("{", "damaged json"),
        ("[1]", "not a shard manifest"),
        ('{"format_version": 2}', r"format 2 is newer than this cwm-hub reads \(1\)"),
        ('{"format_version": 1, "name": "x"}', "codec"),
        ('{"format_version": 1, "name": "x", "codecs": "raw"}', "unknown key 'codecs'"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_a_sentence(
    tmp_path: Path, text: str | None, sentence: str
) -> None:
    if text is not None:
        Root.parse(tmp_path).write(MANIFEST, text.encode())
    with pytest.raises(ShardError, match=sentence):
        Manifest.load(tmp_path)


def test_an_index_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"it has no meta/index.parquet"):
        read_index(tmp_path)
    Root.parse(tmp_path).write(INDEX, b"PAR1 nonsense")
    with pytest.raises(ShardError, match="damaged parquet"):
        read_index(tmp_path)


def test_plain_webdataset_reads_a_shard(tmp_path: Path) -> None:
    import webdataset

    clips = {f"clip_{number}": moving_picture(5 + number, 16) for number in range(3)}
    path = tmp_path / shard_name("train", 0, 1)
    with ShardWriter(path, codec="h264") as writer:
        for key, frames in clips.items():
            add(writer, key, frames)
    samples = list(webdataset.WebDataset(str(path), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == list(clips)
    for sample in samples:
        assert decode_clip(sample["mp4"], "h264").shape == clips[sample["__key__"]].shape
        assert json.load(io.BytesIO(sample["json"]))["num_frames"] == len(clips[sample["__key__"]])
