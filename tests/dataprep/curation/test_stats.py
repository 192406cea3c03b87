"""Figures that can be worked out by hand from a set made here."""

import json
from pathlib import Path

import numpy as np
import pytest
from synthetic_shards import write_data_set

from cwm_hub.shards.index import INDEX, index_bytes, read_index_table
from cwm_hub.shards.storage import Root
from dataprep.__main__ import main
from dataprep.curation.stats import as_text, measure, near_duplicates


def write_set(
    root: Path,
    videos: list[tuple[np.ndarray, int]],
    *,
    name: str = "tiny",
    clip_frames: int = 40,
    codec: str = "raw",
) -> Path:
    """One source per (frames, label), cut into clips without overlap; 10 frames a second, and one failure."""
    clips = []
    for number, (frames, label) in enumerate(videos):
        for start in range(0, len(frames), clip_frames):
            facts = {
                "key": f"v{number}_{start:04d}",
                "source": f"v{number}",
                "source_frames": len(frames),
                "start_frame": start,
                "label": label,
                "label_text": "" if label < 0 else f"class {label}",
            }
            clips.append((frames[start : start + clip_frames], facts))
    Root.parse(root).write("meta/failures.jsonl", b'{"source_path": "a", "reason": "crash", "detail": ""}\n')
    return write_data_set(root, {"train": clips}, name=name, codec=codec)


def still(length: int, level: int) -> np.ndarray:
    return np.full((length, 16, 16, 3), level, np.uint8)


def blinking(length: int) -> np.ndarray:
    """0, 10, 0, 10, ...: motion 10, luma 5 for an even length."""
    return np.repeat(np.arange(length) % 2 * 10, 16 * 16 * 3).reshape(length, 16, 16, 3).astype(np.uint8)


def crossing(length: int) -> np.ndarray:
    """A square of 4x4 pixels crosses the picture by a pixel a frame."""
    frames = still(length, 60)
    for number in range(length):
        frames[number, 4:8, number % 12 : number % 12 + 4] = 200
    return frames


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set", [(still(20, 100), 3), (still(60, 200), 3), (blinking(40), -1)])


def test_counts_are_of_videos_and_not_of_clips(root: Path) -> None:
    stats = measure(str(root))
    split = stats["splits"]["train"]
    assert (split["videos"], split["clips"], split["frames"], split["stored_frames"]) == (3, 4, 120, 120)
    assert split["videos_of_25_frames"] == 2
    assert split["hours"] == round(12 / 3600, 4)
    assert stats["fps"] == {"10": 3}
    assert stats["video_frames"]["median"] == 40
    assert stats["video_seconds"]["max"] == 6.0
    assert sum(stats["video_frames"]["histogram"]["counts"]) == 3


def test_motion_luma_labels_and_failures(root: Path) -> None:
    stats = measure(str(root))
    assert stats["motion"]["max"] == 10.0
    assert stats["still_share"] == 1.0  # blinking is no motion
    assert stats["luma"]["min"] == 5.0
    assert stats["black_share"] == pytest.approx(1 / 3, abs=1e-4)
    assert stats["frozen_share"] == pytest.approx(2 / 3, abs=1e-4)
    assert stats["clips_with_cuts"] == 0
    assert stats["labels"] == {
        "classes": 1,
        "labelled": 2,
        "by_class": [{"label": 3, "text": "class 3", "videos": 2}],
    }
    assert stats["failures"] == {"crash": 1}


def test_videos_that_stand_still_are_counted(tmp_path: Path) -> None:
    stats = measure(str(write_set(tmp_path / "set", [(still(20, 100), -1), (crossing(20), -1)])))
    assert stats["still_share"] == 0.5
    assert stats["moving"]["min"] == 0.0 < 0.03 < stats["moving"]["max"] < 0.3
    assert "standing still 50.0%" in as_text(stats)


def test_a_set_from_before_the_measures_says_so(root: Path) -> None:
    older = read_index_table(root).drop_columns(["cuts", "frozen", "black", "moving"])
    Root.parse(root).write(INDEX, index_bytes(older))
    stats = measure(str(root))
    assert (stats["frozen_share"], stats["black_share"], stats["clips_with_cuts"]) == (None, None, 0)
    assert (stats["still_share"], stats["moving"]) == (None, {})
    assert "not measured" in as_text(stats)
    json.dumps(stats, allow_nan=False)


def test_colour_is_measured_on_pixels(tmp_path: Path) -> None:
    frames = still(30, 0)
    frames[..., 0], frames[:15, ..., 2] = 200, 100
    sample = measure(str(write_set(tmp_path / "set", [(frames, -1)])))["sample"]
    assert sample["rgb_mean"][:2] == [200.0, 0.0]
    assert sample["rgb_std"][:2] == [0.0, 0.0]
    assert sample["rgb_mean"][2] == pytest.approx(50, abs=5)


def test_first_frames_that_look_alike_are_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first, other = (rng.integers(0, 200, (30, 16, 16, 3), dtype=np.uint8) for _ in range(2))
    brighter = first + 40
    root = write_set(tmp_path / "set", [(first, -1), (brighter, -1), (other, -1)])
    same = measure(str(root))["sample"]["near_duplicates"]
    assert (same["groups"], same["videos"]) == (1, 2)
    assert sorted(same["examples"][0]) == ["v0_0000", "v1_0000"]


def steps(*sizes: int) -> np.ndarray:
    """u8 [8, 9, 3] whose left to right steps, row by row, are as many times upwards as told, downwards after that."""
    picture = np.empty((len(sizes), 9), np.uint8)
    for row, ups in enumerate(sizes):
        picture[row] = 128 + np.cumsum([0] + [9] * ups + [-9] * (8 - ups))
    return np.repeat(picture[..., None], 3, 2)


def test_near_duplicates_are_linked_in_chains() -> None:
    """Each row of nine pixels is eight bits of the hash: the first three pictures differ by three bits each."""
    pictures = [steps(*[0] * 8), steps(3, *[0] * 7), steps(6, *[0] * 7), steps(*[8] * 8)]
    assert near_duplicates(pictures) == [[0, 1, 2]]
    assert near_duplicates([pictures[0], pictures[2]]) == []
    assert near_duplicates(pictures[:1]) == []


def test_official_counts_stand_beside_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_set(tmp_path / "set", [(still(30, 9), 0)], name="ssv2")
    stats = measure(str(root))
    assert stats["official"]["train"] == {"ours": [1, 30, 1], "official": [168_913, 7_620_427, 162_074]}
    assert main(["stats", str(root)]) == 0
    text = capsys.readouterr().out
    assert "train videos" in text
    assert "168,912" in text  # missing


def test_text_and_json(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", str(root), "--json", "--sample", "0"]) == 0
    assert json.loads(capsys.readouterr().out)["sample"] == {"videos": 0}
    assert main(["stats", str(root)]) == 0
    text = capsys.readouterr().out
    assert "standing still 100.0%" in text
    assert "crash (1)" in text
    assert main(["stats", str(root / "none")]) == 1
    assert main(["stats", str(root), "--sample", "-1"]) == 1
