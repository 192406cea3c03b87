"""One shard set, three readers: plain webdataset, `datasets` (streaming and not), and ours; all see the same frames."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from made_videos import counting_frames, read_clips, read_numbers, write_video

from cwm_hub.shards.index import read_index
from dataprep.__main__ import main

LENGTHS = {"a one.mp4": 40, "b/two.webm": 30, "c.v3.mp4": 55}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos, the longest in two pieces, one of them for validation; with its card."""
    base = tmp_path_factory.mktemp("readers")
    for name, length in LENGTHS.items():
        codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
        write_video(base / "in" / name, counting_frames(length), codec=codec)
    (base / "labels.csv").write_text("path,label,label_text,split\nb/two.webm,5,waving,validation\n")
    out = base / "out"
    arguments = ["--out", str(out), "--workers", "1", "--max-clip-frames", "40"]
    assert main(["folder", str(base / "in"), "--labels", str(base / "labels.csv"), *arguments]) == 0
    assert main(["push", str(out), "me/clips", "--dry-run"]) == 0
    return out


def expected(root: Path, split: str) -> dict[str, list[int]]:
    """Numbers of the frames of each clip, from the index and our own decoder."""
    clips = read_clips(root)
    return {row.key: read_numbers(clips[row.key]) for row in read_index(root) if row.split == split}


def decoded(payload: bytes) -> list[int]:
    """With PyAV alone, as a stranger would."""
    import av

    with av.open(io.BytesIO(payload)) as container:
        return read_numbers(
            np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        )


def test_what_is_expected(root: Path) -> None:
    train = expected(root, "train")
    assert sorted(map(len, train.values())) == [
        39,
        40,
        40,
    ]  # 55 frames: 0 to 39 and, overlapping by 24, 16 to 54
    assert list(range(16, 55)) in train.values()
    assert list(expected(root, "validation").values()) == [list(range(30))]


def test_plain_webdataset(root: Path) -> None:
    import webdataset as wds

    tars = sorted(map(str, (root / "data").glob("train-*.tar")))
    samples = list(wds.WebDataset(tars, shardshuffle=False, empty_check=False))
    assert {sample["__key__"]: decoded(sample["mp4"]) for sample in samples} == expected(root, "train")
    facts = json.loads(samples[0]["json"])
    assert facts["split"] == "train"
    assert None not in facts.values()


@pytest.mark.parametrize("streaming", [True, False])
def test_datasets_sees_videos_and_both_splits(root: Path, tmp_path: Path, streaming: bool) -> None:
    import datasets

    loaded = datasets.load_dataset(str(root), cache_dir=str(tmp_path), streaming=streaming)
    assert set(loaded) == {"train", "validation"}
    for split, clips in loaded.items():
        assert isinstance(clips.features["mp4"], datasets.Video)
        encoded = clips.cast_column("mp4", datasets.Video(decode=False))
        found = {
            clip["__key__"]: decoded(clip["mp4"]["bytes"] or Path(clip["mp4"]["path"]).read_bytes())
            for clip in encoded
        }
        assert found == expected(root, split)
        if split == "validation":
            assert next(iter(encoded))["json"]["label_text"] == "waving"


def test_ours(root: Path) -> None:
    from cwm_hub.clips.clip_index import ClipSource
    from cwm_hub.clips.loader import ClipLoader

    loader = ClipLoader([ClipSource(str(root))], batch_clips=2, window_frames=25, seed=0)
    batches = iter(loader)
    seen = set()
    for _ in range(20):
        batch = next(batches)
        assert batch.video.dtype == torch.uint8
        assert batch.video.shape == (2, 25, 3, 64, 64)
        for video, start in zip(batch.video, batch.start, strict=True):
            assert read_numbers(video.permute(0, 2, 3, 1).numpy()) == list(range(start, start + 25))
            seen.add(start)
    assert max(seen) > 16  # windows from the second piece of the long video too
