"""`--ids`: the lists of the official code choose the videos and their splits, in each of the three data sets."""

import json
from pathlib import Path

import pytest
from made_videos import counting_frames, write_video
from PIL import Image

from cwm_hub.shards.index import read_index
from cwm_hub.shards.manifest import Manifest
from dataprep.__main__ import main
from dataprep.sharding.plan import Failure, Listing, SourceVideo
from dataprep.sources import human36m, ssv2, youtube_driving
from dataprep.sources.id_lists import IdList, keep_listed, read_id_list


def write_list(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def videos(*ids: str) -> tuple[SourceVideo, ...]:
    return tuple(SourceVideo(id, f"/{id}", f"{id}.webm") for id in ids)


@pytest.mark.parametrize(
    ("listed_id", "name", "video"),
    [
        (ssv2.listed_id, "78687", "ssv2_078687"),
        (ssv2.listed_id, "78687.webm", "ssv2_078687"),
        (ssv2.listed_id, "S9_Directions.54138969", None),
        (human36m.listed_id, "S9_Directions.54138969", "h36m_s09_directions_54138969"),
        (human36m.listed_id, "S11_WalkDog_1.60457274", "h36m_s11_walkdog-1_60457274"),
        (human36m.listed_id, "S1/S1_WalkingDog_1.60457274_%06d.jpg", "h36m_s01_walkdog-1_60457274"),
        (human36m.listed_id, "S1/Videos/Walking 1.54138969.mp4", "h36m_s01_walking-1_54138969"),
        (human36m.listed_id, "h36m_s01_walking-1_54138969", "h36m_s01_walking-1_54138969"),
        (human36m.listed_id, "S2_Walking.54138969", None),
        (youtube_driving.listed_id, "dir-7_0", "ytb_dir-07_0"),
        (youtube_driving.listed_id, "dir-7", None),
    ],
)
def test_names_of_the_official_lists(listed_id, name: str, video: str | None) -> None:
    assert listed_id(name) == video


def test_a_line_is_a_name_and_perhaps_a_count(tmp_path: Path) -> None:
    one = read_id_list("validation=" + write_list(tmp_path / "a.txt", "78687 54 19\n\n7\ndir-7_0 None\n"))
    assert (one.split, one.frames) == ("validation", {"78687": 54, "7": 0, "dir-7_0": 0})
    assert read_id_list(write_list(tmp_path / "b=c.txt", "7\n")).split is None


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    write_list(tmp_path / "a.txt", "\ufeff78687 54 19\r\n7 30 2\r\n")
    assert read_id_list(str(tmp_path / "a.txt")).frames == {"78687": 54, "7": 30}


def test_what_no_list_names_is_left_alone_and_what_is_absent_fails_once() -> None:
    failures = (
        Failure("5.webm", "missing_file", "named in the train list"),
        Failure("6.webm", "missing_file", "named in the test list"),
    )
    listing = Listing(videos("ssv2_000001", "ssv2_000002", "ssv2_000003"), failures)
    lists = (
        IdList(Path("a.txt"), None, {"1": 40, "5": 50}, ""),
        IdList(Path("b.txt"), "validation", {"3": 0, "4": 0}, ""),
    )
    kept = keep_listed(listing, lists, ssv2.listed_id)
    assert [(s.id, s.split) for s in kept.sources] == [
        ("ssv2_000001", "train"),
        ("ssv2_000003", "validation"),
    ]
    assert [f.source_path for f in kept.failures] == ["5.webm", "4"]
    assert kept.official_counts == {"train": 2, "validation": 2}
    assert kept.notes == (
        "a.txt: 2 videos, 90 frames",
        "b.txt: 2 videos, 0 frames",
        "1 video is in no list and was left alone",
    )
    assert keep_listed(listing, (), ssv2.listed_id) is listing


def test_lists_that_share_a_video_or_are_of_another_set_are_refused() -> None:
    listing = Listing(videos("ssv2_000001"))
    first, second = (IdList(Path(name), None, {"1": 0}, "") for name in "ab")
    with pytest.raises(ValueError, match="b names 1, which is named before as 1"):
        keep_listed(listing, (first, second), ssv2.listed_id)
    with pytest.raises(ValueError, match="a names '1', which is no name of a video of this data set"):
        keep_listed(listing, (first,), youtube_driving.listed_id)


def test_ssv2_with_the_official_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("7", "8", "78687"):
        write_video(tmp_path / f"videos/{name}.webm", counting_frames(26), codec="libvpx-vp9")
    (tmp_path / "labels").mkdir()
    for split, names in (("train", ("7", "78687", "9")), ("validation", ("8",))):
        entries = [{"id": name, "template": "Holding [something]"} for name in names]
        (tmp_path / f"labels/{split}.json").write_text(json.dumps(entries))
    ids = write_list(tmp_path / "train_video_folder.txt", "78687 54 19\n8 45 93\n")
    command = ["ssv2", "--videos", str(tmp_path / "videos"), "--labels", str(tmp_path / "labels")]
    assert main([*command, "--out", str(tmp_path / "out"), "--ids", ids]) == 0
    assert sorted(row.key for row in read_index(tmp_path / "out")) == ["ssv2_000008", "ssv2_078687"]
    assert "train: 1 video found, 1 in the official list" in capsys.readouterr().err
    (listed,) = Manifest.load(tmp_path / "out").config["source"]["ids"]
    assert listed[0] == "train_video_folder.txt"


def test_youtube_driving_with_the_official_splits(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"in/dir-{number}").mkdir(parents=True)
        for frame in range(1, 31):
            Image.new("RGB", (32, 24), (frame, 0, 0)).save(tmp_path / f"in/dir-{number}/{frame}.jpg")
    lists = [
        "train=" + write_list(tmp_path / "ytb_train.txt", "dir-2_0 30 None\n"),
        "validation=" + write_list(tmp_path / "ytb_eval.txt", "dir-0_0 30 None\n"),
    ]
    command = ["youtube-driving", "--frames", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--ids"]
    more = ["--skip-head", "0", "--stride", "1", "--size", "16", "--workers", "1"]
    assert main([*command, *lists, *more]) == 0
    found = {row.source: row.split for row in read_index(tmp_path / "out")}
    assert found == {"ytb_dir-02_0": "train", "ytb_dir-00_0": "validation"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [(None, "cannot read the list"), ("", "names no video"), ("1 2\n1 3\n", "names 1 twice")],
)
def test_a_list_that_cannot_be_used_is_one_sentence(
    text: str | None, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (tmp_path / "ids.txt").write_text(text)
    with pytest.raises(SystemExit) as stop:
        main(["youtube-driving", "--frames", str(tmp_path), "--out", "x", "--ids", str(tmp_path / "ids.txt")])
    told = capsys.readouterr().err
    assert stop.value.code == 1 and told.count("\n") == 1 and sentence in told
