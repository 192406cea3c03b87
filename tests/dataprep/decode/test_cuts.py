"""Shot cuts: found in marked videos, kept right in the pieces of a long one, left alone where nobody wants them."""

from pathlib import Path

import numpy as np
import pytest
from made_scenes import SIDE, add_noise, dissolve, gain, marked_videos, pan, real, scene, still
from made_videos import write_video

from cwm_hub.shards.cells import frame_cells
from cwm_hub.shards.index import read_index
from dataprep.__main__ import main
from dataprep.decode.cuts import find_cuts, find_dissolves
from dataprep.sharding.worker import join_cuts

MARKED = marked_videos()


@pytest.mark.parametrize("name", MARKED)
def test_the_cuts_of_a_marked_video(name: str) -> None:
    frames, cuts = MARKED[name]
    assert list(find_cuts(frame_cells(frames), 25)) == cuts


@pytest.mark.parametrize(
    ("one", "other", "mixed"),
    [
        ("hand_box_0.webm", "outdoor_0.webm", 12),
        ("hand_box_0.webm", "outdoor_0.webm", 40),
        ("hand_cup_0.webm", "outdoor_0.webm", 4),
        ("hand_cup_0.webm", "outdoor_0.webm", 12),
        ("outdoor_0.webm", "outdoor_1.webm", 4),
        ("outdoor_0.webm", "outdoor_1.webm", 25),
        ("outdoor_1.webm", "balance_multi_cam1.mp4", 25),
        ("outdoor_1.webm", "balance_multi_cam1.mp4", 40),
    ],
)
def test_a_dissolve_is_two_cuts(one: str, other: str, mixed: int) -> None:
    frames, cuts = dissolve(real(one)[-mixed - 15 :], real(other, mixed + 15), mixed)
    assert list(find_cuts(frame_cells(frames), 25)) == cuts


def test_a_dissolve_at_either_end_of_a_clip_is_one_cut() -> None:
    frames, (first, after) = dissolve(real("hand_box_0.webm")[-27:], real("outdoor_0.webm", 27), 12)
    assert find_cuts(frame_cells(frames[first:]), 25) == (12,)
    assert find_cuts(frame_cells(frames[:after]), 25) == (first,)


def test_into_black_and_of_a_small_part_there_is_no_dissolve() -> None:
    """Noise that is nearly black is a mixture with anything; a bright thing that fades away and in elsewhere is none of all."""
    black = add_noise(np.full((30, SIDE, SIDE, 3), 16, np.uint8), 1.5)
    frames, _ = dissolve(real("outdoor_0.webm", 30), black, 12)
    assert find_dissolves(frame_cells(frames)) == find_dissolves(frame_cells(frames[::-1])) == []
    here = np.repeat(real("outdoor_0.webm", 1), 30, axis=0) // 4
    there = here.copy()
    here[:, 8:24, 8:24] = there[:, 36:52, 36:52] = 255
    assert find_cuts(frame_cells(dissolve(here, there, 12)[0]), 25) == ()


def test_what_keeps_its_contrast_or_its_picture_is_no_dissolve() -> None:
    """Slow pans over soft pictures, whose frames lie between others too, and light that comes and goes."""
    films = [pan(scene(seed, width=4 * SIDE), 90, pixels_a_frame=0.7) for seed in range(5)]
    fade = np.concatenate([np.linspace(1, 0, 15), np.linspace(0, 1, 15)])
    films += [gain(still(scene(1), 30), fade), gain(real("outdoor_0.webm", 30), 0.5 + fade / 2)]
    assert [find_cuts(frame_cells(film), 25) for film in films] == [()] * 7


def test_a_thing_that_jumps_before_a_still_background_is_no_cut() -> None:
    """As a gripper does at 10 frames a second: far brighter than all else, over a tenth of the picture."""
    frames = np.repeat(real("outdoor_0.webm", 1), 30, axis=0) // 4
    frames[:15, 8:28, 8:28] = 255
    frames[15:, 36:56, 36:56] = 255
    assert find_cuts(frame_cells(frames), 10) == ()
    frames[15:] = real("hand_cup_0.webm", 1)
    assert find_cuts(frame_cells(frames), 10) == (15,)


def test_frames_of_any_size_and_clips_of_any_length() -> None:
    frames = MARKED["three recordings"][0]
    for size in (8, 20, 100, 256):
        larger = frames[:, np.arange(size) * 64 // size][:, :, np.arange(size) * 64 // size]
        assert find_cuts(frame_cells(larger), 25) == (40, 70)
    assert find_cuts(frame_cells(frames[39:41]), 25) == (1,)
    assert find_cuts(frame_cells(frames[40:41]), 25) == ()


def test_cuts_of_pieces_joined_by_hand() -> None:
    """The overlap is 20 to 29: its middle, 25, divides what is believed."""
    assert join_cuts([(0, 30, (4, 24, 26)), (20, 30, (3, 5, 29))]) == [4, 24, 25, 49]
    assert join_cuts([(0, 30, (4,))]) == [4]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One film of shots that begin at 0, 40, 70 and 100, under the name that Something-Something-v2 would give it."""
    folder = tmp_path_factory.mktemp("videos")
    shots = [real("hand_box_0.webm", 40), real("outdoor_0.webm", 30), real("hand_cup_0.webm", 30)]
    shots.append(real("balance_multi_cam1.mp4", 50))
    write_video(folder / "7.webm", np.concatenate(shots), fps=12, codec="libvpx-vp9")
    return folder


def cuts_of(out: Path) -> dict[int, tuple[int, ...]]:
    return {row.start_frame: row.cuts for row in read_index(out)}


def test_pieces_of_a_long_video_keep_their_cuts(videos: Path, tmp_path: Path) -> None:
    command = ["folder", str(videos), "--workers", "0", "--max-clip-frames", "60", "--overlap-frames", "24"]
    assert main([*command, "--out", str(tmp_path / "found")]) == 0
    # the last piece begins with the shot of 100 inside it; 108 is where a piece of its own begins
    assert cuts_of(tmp_path / "found") == {0: (40,), 36: (4, 34), 72: (28,), 108: ()}
    assert main([*command, "--out", str(tmp_path / "kept"), "--keep-cuts"]) == 0
    assert set(cuts_of(tmp_path / "kept").values()) == {()}


def test_paper_exact_looks_for_no_cuts(videos: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "labels.json").write_text('{"Holding it": "0"}')
    (labels / "train.json").write_text('[{"id": "7", "label": "holding it", "template": "Holding [it]"}]')
    (labels / "validation.json").write_text("[]")
    command = ["ssv2", "--videos", str(videos), "--labels", str(labels), "--workers", "0"]
    assert main([*command, "--out", str(tmp_path / "exact"), "--paper-exact"]) == 0
    assert cuts_of(tmp_path / "exact") == {0: ()}
    assert main([*command, "--out", str(tmp_path / "ours")]) == 0
    assert cuts_of(tmp_path / "ours") == {0: (40, 70, 100)}
