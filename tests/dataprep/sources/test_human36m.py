"""Human3.6M: names, cameras, the crop worked out by hand, and the paper's preprocessing frame by frame."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
from made_videos import counting_frames, read_clips, read_numbers, write_video
from PIL import Image

from cwm_hub.shards.index import read_index
from cwm_hub.shards.manifest import Manifest
from cwm_hub.shards.scaling import bilinear
from dataprep.__main__ import main
from dataprep.sources.human36m import CAMERAS, list_frames, list_videos, pose_box

COUNT = 130


def failures(root: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (root / "meta" / "failures.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two takes by four cameras, one of them lost, and S11's, of which one camera is missing everywhere."""
    root = tmp_path_factory.mktemp("h36m")
    first = write_video(
        root / "S1" / "Videos" / "Walking 1.54138969.mp4", counting_frames(COUNT, width=96), fps=50
    )
    data = first.read_bytes()
    names = [f"S1/Videos/Walking 1.{camera}.mp4" for camera in CAMERAS]
    names += [f"S9/Videos/TakingPhoto.{camera}.mp4" for camera in CAMERAS[:3]]
    names += [f"S11/Videos/Directions.{camera}.mp4" for camera in CAMERAS[1:]]
    names += ["S1/Videos/_ALL 1.54138969.mp4", "S2/Videos/Walking 1.54138969.mp4"]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def test_recordings_are_told_apart_though_their_names_have_spaces_and_dots(videos: Path) -> None:
    listing = list_videos(videos)
    ids = [source.id for source in listing.sources]
    assert ids[:4] == [f"h36m_s01_walking-1_{camera}" for camera in CAMERAS]
    assert {source.recording for source in listing.sources[:4]} == {"s01_walking-1"}
    assert len(set(ids)) == 10
    assert {source.split for source in listing.sources if "_s01_" in source.id} == {"train"}
    assert {source.split for source in listing.sources if "_s01_" not in source.id} == {"validation"}
    photo = next(source for source in listing.sources if "_s09_" in source.id)
    assert (photo.id, photo.label_text) == ("h36m_s09_photo_54138969", "Photo")  # one spelling for both
    assert [failure.source_path for failure in listing.failures] == ["h36m_s09_photo_60457274"]
    assert any("known to be missing" in note for note in listing.notes)
    assert any(note.startswith("2 mp4 files with other names") for note in listing.notes)


def test_masks_beside_videos_are_named_and_left_alone(tmp_path: Path) -> None:
    for camera in CAMERAS:
        for folder in ("ForegroundMasks", "Videos", "masks"):
            path = tmp_path / f"S1/{folder}/Eating.{camera}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
    listing = list_videos(tmp_path)
    assert [Path(source.path).parent.name for source in listing.sources] == ["Videos"] * 4
    assert listing.notes == (
        "recordings are there twice: Videos is used, 8 files in ForegroundMasks, masks left alone",
    )
    originals = sorted((tmp_path / "S1/Videos").iterdir())
    originals[0].unlink()
    listing = list_videos(tmp_path)  # a mask does not stand in for the video that is gone
    assert len(listing.sources) == 3 and [failure.reason for failure in listing.failures] == ["missing_file"]
    for path in originals[1:]:
        path.unlink()
    with pytest.raises(ValueError, match="same recording: keep one of them in a Videos folder"):
        list_videos(tmp_path)


def test_videos_become_shards_of_every_fifth_frame(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    common = ["--out", str(out), "--workers", "1", "--max-failures", "1"]
    assert main(["human36m", "--videos", str(videos), *common]) == 0
    found = read_clips(out)
    assert len(found) == 10
    row = read_index(out)[0]
    assert (row.num_frames, row.fps) == (26, 10.0)
    manifest = Manifest.load(out)
    assert not manifest.redistributable
    assert manifest.config["decode"]["fit"] == "center-crop"
    full = tmp_path / "full"
    assert main(["human36m", "--videos", str(videos), "--crop", "full", *common[2:], "--out", str(full)]) == 0
    numbers = [n % 64 for n in range(0, COUNT, 5)]
    assert read_numbers(read_clips(full)["h36m_s01_walking-1_55011271"]) == numbers


def test_the_crop_by_hand() -> None:
    def box(x0: float, x1: float, y0: float, y1: float) -> tuple[int, int, int, int]:
        return pose_box(np.array([[x0, y0], [x1, y1], [(x0 + x1) / 2, y0]]))

    assert box(400, 500, 300, 700) == (150, 200, 600, 600)  # 400 + 200 wide around (450, 500)
    assert box(50, 150, 300, 700) == (0, 200, 600, 600)  # moved in from the left
    assert box(850, 950, 700, 990) == (510, 510, 490, 490)  # and from right and bottom
    assert box(10, 910, 10, 500) == (0, 0, 1000, 1000)  # never larger than the picture
    assert box(400, 501, 300, 700) == (150, 200, 600, 600)  # 150.5 to 750.5, truncated


def write_pictures(folder: Path, sequence: str, numbers: range, seed: int = 0) -> dict[int, np.ndarray]:
    """JPEG pictures of 1000 x 1000 (smooth, so that they stay small); returns what they decode to."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pictures = {}
    for number in numbers:
        path = folder / f"{sequence}_{number:06d}.jpg"
        small = Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8))
        small.resize((1000, 1000), Image.Resampling.BICUBIC).save(path, quality=90)
        pictures[number] = np.asarray(Image.open(path).convert("RGB"))
    return pictures


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, np.ndarray]]:
    """One recording flat, one in a folder of its own; 26 pictures, numbers 1, 6, 11, ..."""
    root = tmp_path_factory.mktemp("frames")
    numbers = range(1, 130, 5)
    decoded = write_pictures(root / "S5", "S5_Eating_1.55011271", numbers)
    write_pictures(root / "S9" / "S9_WalkDog.54138969", "S9_WalkDog.54138969", numbers, seed=1)
    (root / "S5" / "readme.jpg").write_bytes(b"no picture")
    return root, decoded


def test_pictures_are_grouped_by_their_names_flat_or_nested(pictures) -> None:
    root, _ = pictures
    listing = list_frames(root)
    assert [source.id for source in listing.sources] == [
        "h36m_s05_eating-1_55011271",
        "h36m_s09_walkdog_54138969",
    ]
    assert [source.split for source in listing.sources] == ["train", "validation"]
    assert dict(listing.sources[0].options)["numbers"] == list(range(1, 130, 5))
    assert len(listing.failures) == 6  # three cameras of each take
    assert listing.notes == ("1 pictures with other names were left alone",)


def test_paper_exact_is_the_papers_preprocessing_frame_by_frame(pictures, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    root, decoded = pictures
    rng = np.random.default_rng(2)
    joints = {number: 300 + 400 * rng.random((16, 2)) for number in decoded}
    annot = tmp_path / "annot"
    annot.mkdir()
    names = [f"S5_Eating_1.55011271_{number:06d}.jpg" for number in joints]
    (annot / "train_images.txt").write_text("\n".join(names) + "\n")
    with h5py.File(annot / "train.h5", "w") as file:
        file["part"] = np.stack(list(joints.values()))
    out = tmp_path / "out"
    common = ["--out", str(out), "--workers", "1", "--max-failures", "10", "--codec", "raw"]
    assert main(["human36m", "--frames", str(root), "--annot", str(annot), "--paper-exact", *common]) == 0
    (frames,) = read_clips(out).values()
    for frame, number in zip(frames, decoded, strict=True):
        left, top, width, height = pose_box(joints[number])
        assert width != 1000
        crop = decoded[number][top : top + height, left : left + width]
        assert np.array_equal(frame, bilinear(crop, 64, 64))
    assert {failure["reason"] for failure in failures(out)} == {"annot_missing", "missing_file"}


def test_the_pose_crop_of_a_video_is_frame_by_frame(tmp_path: Path) -> None:
    """Picture n of the annotations is frame n - 1 of the video; only every fifth has joints."""
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(3)
    shown = np.zeros((COUNT, 1000, 1000, 3), np.uint8)
    shown[::5] = rng.integers(0, 256, (26, 10, 10, 3), dtype=np.uint8).repeat(100, axis=1).repeat(100, axis=2)
    video = write_video(tmp_path / "S9/Videos/Eating 1.55011271.mp4", shown, fps=50)
    joints = {number: 300 + 400 * rng.random((16, 2)) for number in range(1, COUNT + 1, 5)}
    names = [f"S9_Eating_1.55011271_{number:06d}.jpg" for number in joints]
    (tmp_path / "valid_images.txt").write_text("\n".join(names))
    with h5py.File(tmp_path / "valid.h5", "w") as file:
        file["part"] = np.stack(list(joints.values()))
    out = tmp_path / "out"
    common = ["--out", str(out), "--workers", "1", "--max-failures", "3", "--codec", "raw"]
    assert (
        main(["human36m", "--videos", str(tmp_path), "--annot", str(tmp_path), "--paper-exact", *common]) == 0
    )
    with av.open(str(video)) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    (frames,) = read_clips(out).values()
    for frame, number in zip(frames, joints, strict=True):
        left, top, width, height = pose_box(joints[number])
        crop = decoded[number - 1][top : top + height, left : left + width]
        assert np.abs(frame.astype(int) - bilinear(crop, 64, 64)).max() <= 1  # two ways from yuv to rgb


def test_a_frame_without_joints_fails_its_recording(pictures, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    root, decoded = pictures
    names = [f"S5_Eating_1.55011271_{number:06d}.jpg" for number in list(decoded)[:-1]]
    (tmp_path / "valid_images.txt").write_text("\n".join(names))
    with h5py.File(tmp_path / "valid.h5", "w") as file:
        file["part"] = np.full((len(names), 16, 2), 500.0)
    out = tmp_path / "out"
    code = main(
        ["human36m", "--frames", str(root), "--annot", str(tmp_path), "--out", str(out), "--workers", "1"]
    )
    assert code == 1  # nothing is left
    assert {"annot_missing"} < {failure["reason"] for failure in failures(out)}


def test_damaged_pictures_count_against_the_limit(pictures, tmp_path: Path) -> None:
    root, _ = pictures
    for path in (root / "S5").glob("S5*.jpg"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / path.name).write_bytes(path.read_bytes()[: 0 if "_000006" in path.name else None])
    out = tmp_path / "out"
    assert main(["human36m", "--frames", str(tmp_path / "in"), "--out", str(out), "--workers", "1"]) == 1
    assert "decode_error" in {failure["reason"] for failure in failures(out)}


def test_bad_input_is_one_sentence(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out")]
    for arguments, sentence in (
        (["--videos", str(tmp_path / "none")], "there is no directory"),
        (["--videos", str(videos), "--crop", "pose"], "give --annot"),
        (["--videos", str(videos), "--paper-exact"], "give --annot"),
        (["--frames", str(videos)], "no video found"),
    ):
        assert main(["human36m", *arguments, *out]) == 1
        error = capsys.readouterr().err
        assert sentence in error
        assert error.strip().count("\n") == 0
