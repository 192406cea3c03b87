"""YouTube driving: runs, heads and strides by hand; folder, zip and mp4 give the same frames; steering stays in step."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_videos import counting_frames, read_clips, read_numbers, write_video
from PIL import Image

from cwm_hub.shards.index import read_index
from cwm_hub.shards.manifest import Manifest
from cwm_hub.shards.scaling import bilinear
from dataprep.__main__ import main
from dataprep.decode.zip_directory import read_directory
from dataprep.sources.youtube_driving import STEERING, list_runs, read_steering, split_runs

RUNS = {0: [range(1, 301)], 3: [range(6_510_787, 6_511_087), range(6_600_003, 6_600_303)], 10: [range(1, 50)]}
"""Numbers by directory: one run, two, and one that is all head."""


def picture(directory: int, number: int) -> Image.Image:
    """A landscape picture, 60 x 40, that depends on its name alone."""
    rng = np.random.default_rng([directory, number])
    return Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)).resize(
        (60, 40), Image.Resampling.BICUBIC
    )


def jpeg(directory: int, number: int) -> bytes:
    target = io.BytesIO()
    picture(directory, number).save(target, "JPEG", quality=90)
    return target.getvalue()


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ytb")
    for directory, runs in RUNS.items():
        folder = root / "newytb" / f"dir-{directory}"
        folder.mkdir(parents=True)
        for number in (number for run in runs for number in run):
            (folder / f"{number}.jpg").write_bytes(jpeg(directory, number))
    (root / "newytb" / "dir-0" / "thumb.jpg").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def archive(frames: Path) -> Path:
    path = frames.parent / f"{frames.name}.zip"
    with zipfile.ZipFile(path, "w") as target:
        for number, file in enumerate(sorted(frames.rglob("*.jpg"))):
            packing = zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED
            target.write(file, file.relative_to(frames), compress_type=packing)
    return path


def test_runs_are_split_where_numbers_jump() -> None:
    assert split_runs([3, 1, 2, 10, 12, 11]) == [range(1, 4), range(10, 13)]
    assert split_runs([]) == []


def test_head_and_stride_by_hand(frames: Path) -> None:
    runs = {run.id: run for run in list_runs(frames, skip_head=99, stride=5)}
    assert list(runs) == ["ytb_dir-00_0", "ytb_dir-03_0", "ytb_dir-03_1", "ytb_dir-10_0"]
    # 1 to 300: the first 99 go, so 100 is the first that can stay, and it is a multiple of 5
    assert list(runs["ytb_dir-00_0"].kept) == list(range(100, 301, 5))
    # 6,510,787 + 99 = 6,510,886: the next multiple of 5 is 6,510,890
    assert list(runs["ytb_dir-03_0"].kept) == list(range(6_510_890, 6_511_087, 5))
    assert list(runs["ytb_dir-03_1"].kept) == list(range(6_600_105, 6_600_303, 5))
    assert list(runs["ytb_dir-10_0"].kept) == []


@pytest.fixture(scope="module")
def exact(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exact") / "out"
    meta = out.parent / "meta.txt"
    lines = [
        f"newytb/dir-{d}/{n}.jpg {n % 1000 / 1000:.3f}"
        for d, runs in RUNS.items()
        for run in runs
        for n in run
    ]
    meta.write_text("\n".join(lines[:-400]) + "\n")
    arguments = ["--frames", str(frames), "--meta", str(meta), "--paper-exact", "--codec", "raw"]
    assert main(["youtube-driving", *arguments, "--out", str(out), "--workers", "1"]) == 0
    return out


def test_paper_exact_is_the_papers_preprocessing_frame_by_frame(exact: Path) -> None:
    found = read_clips(exact)
    assert set(found) == {"ytb_dir-00_0", "ytb_dir-03_0", "ytb_dir-03_1"}
    for frame, number in zip(found["ytb_dir-00_0"], range(100, 301, 5), strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(jpeg(0, number))))
        assert np.array_equal(frame, bilinear(pixels[:, 10:50], 64, 64))
    rows = read_index(exact)
    assert {row.fps for row in rows} == {4.0}
    assert not Manifest.load(exact).redistributable


def test_a_zip_is_read_in_place_and_gives_the_same_bytes(exact: Path, archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--frames", str(archive), "--paper-exact", "--codec", "raw", "--out", str(out)]
    assert main(["youtube-driving", *arguments, "--workers", "1"]) == 0
    ours, theirs = read_clips(out), read_clips(exact)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[key], theirs[key]) for key in ours)


def sharded_copy(archive: Path, folder: Path) -> tuple[Path, list[str]]:
    """A copy of the zip, and the command that has sharded it."""
    copy = folder / "copy.zip"
    copy.write_bytes(archive.read_bytes())
    words = ["--frames", str(copy), "--size", "16", "--out", str(folder / "out"), "--workers", "0"]
    command = ["youtube-driving", *words]
    assert main(command) == 0
    return copy, command


def test_a_zip_of_the_same_size_in_place_of_another_is_told(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, command = sharded_copy(archive, tmp_path)
    with zipfile.ZipFile(archive) as before, zipfile.ZipFile(copy, "w") as after:
        for entry in before.infolist():
            data = before.read(entry)
            is_stored = entry.compress_type == zipfile.ZIP_STORED
            after.writestr(entry, data[:-1] + b"!" if data and is_stored else data)
    assert copy.stat().st_size == archive.stat().st_size
    assert main(command) == 1
    assert "other files of the same size (dir-0/1-300.jpg)" in capsys.readouterr().err


def test_a_zip_that_grew_holds_what_it_held(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, command = sharded_copy(archive, tmp_path)
    with zipfile.ZipFile(copy, "a") as grown:
        picture = grown.read(grown.namelist()[0])
        for number in range(1, 301):
            grown.writestr(f"dir-77/{number}.jpg", picture)
    assert main([*command, "--append"]) == 0
    told = capsys.readouterr().err
    assert "1 video to be added" in told and "changed since" not in told


def test_steering_is_kept_in_step_with_the_stored_frames(exact: Path) -> None:
    table = pq.read_table(exact / STEERING).to_pydict()
    rows = list(zip(table["source"], table["frame"], table["steering"], strict=True))
    first = [row for row in rows if row[0] == "ytb_dir-00_0"]
    assert [frame for _, frame, _ in first] == list(range(41))
    assert [value for *_, value in first] == pytest.approx([n / 1000 for n in range(100, 301, 5)])
    assert len([row for row in rows if row[0] == "ytb_dir-03_1"]) == 0  # cut from the end of meta.txt


def test_mp4_files_with_a_list(tmp_path: Path) -> None:
    for number, name in enumerate(("a.mp4", "b c.mp4", "unlisted.mp4")):
        write_video(tmp_path / "in" / name, counting_frames(250, height=64 + 2 * number))
    (tmp_path / "list.csv").write_text("path,split\na.mp4,train\nb c.mp4,validation\ngone.mp4,train\n")
    out = tmp_path / "out"
    arguments = ["--videos", str(tmp_path / "in"), "--list", str(tmp_path / "list.csv"), "--out", str(out)]
    assert main(["youtube-driving", *arguments, "--workers", "1", "--max-failures", "1"]) == 0
    rows = read_index(out)
    assert sorted((row.split, row.source_path) for row in rows) == [
        ("train", "a.mp4"),
        ("validation", "b c.mp4"),
    ]
    for frames in read_clips(out).values():
        assert read_numbers(frames) == [n % 64 for n in range(100, 250, 5)]
    assert "gone.mp4" in (out / "meta" / "failures.jsonl").read_text()


def test_steering_after_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "meta.txt").write_bytes("\ufeffdir-0/1.jpg 0.5\r\ndir-0/2.jpg -1\r\n".encode())
    assert read_steering(tmp_path / "meta.txt") == {(0, 1): 0.5, (0, 2): -1.0}


def test_the_zip_directory_is_that_of_zipfile(archive: Path) -> None:
    with zipfile.ZipFile(archive) as reference:
        expected = [
            (i.filename, i.header_offset, i.compress_size, i.compress_type) for i in reference.infolist()
        ]
    assert [tuple(entry) for entry in read_directory(archive)] == expected


@pytest.mark.slow
def test_a_zip64_directory(tmp_path: Path) -> None:
    """More than 65,535 entries, as the real one has, and an offset that is written in 64 bits."""
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as target:
        for number in range(66_000):
            target.writestr(f"dir-1/{number}.jpg", b"x")
        with target.open("dir-2/1.jpg", "w", force_zip64=True) as entry:
            entry.write(b"yy")
    entries = list(read_directory(path))
    assert len(entries) == 66_001
    assert entries[-1][0] == "dir-2/1.jpg"
    assert entries[-1].packed_bytes == 2


def test_every_cut_of_a_zip_is_found(archive: Path, tmp_path: Path) -> None:
    data = archive.read_bytes()
    path = tmp_path / "cut.zip"
    for end in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:end])
        with pytest.raises(ValueError):
            list(read_directory(path))


def test_bad_input_is_one_sentence(frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "no.zip").write_bytes(b"nothing packed here")
    (tmp_path / "meta.txt").write_text("dir-0/1.jpg left\n")
    for arguments, sentence in (
        (["--frames", str(tmp_path / "none")], "there is no folder or zip"),
        (["--frames", str(tmp_path)], "holds no frame named"),
        (["--frames", str(tmp_path / "no.zip")], "not a zip"),
        (["--frames", str(frames), "--meta", str(tmp_path / "meta.txt")], "could not convert"),
        (["--frames", str(frames), "--list", "x.csv"], "give --videos"),
        (["--frames", str(frames), "--fps", "3"], "--stride"),
    ):
        assert main(["youtube-driving", *arguments, "--out", str(tmp_path / "out")]) == 1
        error = capsys.readouterr().err
        assert sentence in error
        assert error.strip().count("\n") == 0
