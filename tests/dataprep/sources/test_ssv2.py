"""Something-Something-v2 in both naming styles: splits, classes, and what the lists and the folder disagree on."""

import json
from pathlib import Path

import pytest
from made_videos import counting_frames, write_video

from cwm_hub.shards.index import read_index
from cwm_hub.shards.manifest import Manifest
from dataprep.__main__ import main
from dataprep.sources.ssv2 import FOLDER, PREFIX, list_videos, listed_id

LABELS = {"Holding something next to something": "19", "Pushing something from left to right": "93"}
TRAIN = [
    {
        "id": "78687",
        "label": "holding a pen",
        "template": "Holding [something] next to [something]",
        "placeholders": ["pen"],
    },
    {
        "id": "7",
        "label": "pushing a cup",
        "template": "Pushing [something] from left to right",
        "placeholders": ["cup"],
    },
    {"id": "9", "label": "?", "template": "Juggling [something]", "placeholders": []},
    {"id": "10", "label": "gone", "template": "Pushing [something] from left to right", "placeholders": []},
]
VALIDATION = [
    {"id": "8", "label": "x", "template": "Pushing [something] from left to right", "placeholders": []}
]
TEST = [{"id": "220847"}]


def write_labels(folder: Path, prefix: str = "", **replaced: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in (
        {"labels": LABELS, "train": TRAIN, "validation": VALIDATION, "test": TEST} | replaced
    ).items():
        if data is not None:
            (folder / f"{prefix}{name}.json").write_text(data if isinstance(data, str) else json.dumps(data))
    return folder


def write_videos(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or ("7.webm", "8.webm", "9.webm", "78687.webm", "220847.webm", "5.webm", "notes.txt"):
        (folder / name).write_bytes(b"x")
    return folder


@pytest.mark.parametrize("prefix", ["", PREFIX])
@pytest.mark.parametrize("folder", [".", FOLDER])
def test_both_naming_styles(tmp_path: Path, prefix: str, folder: str) -> None:
    write_videos(tmp_path / "videos" / folder)
    listing = list_videos(tmp_path / "videos", write_labels(tmp_path / "labels", prefix))
    assert [(s.id, s.split, s.label, s.label_text) for s in listing.sources] == [
        ("ssv2_000007", "train", 93, "Pushing something from left to right"),
        ("ssv2_000008", "validation", 93, "Pushing something from left to right"),
        ("ssv2_000009", "train", -1, "Juggling something"),
        ("ssv2_078687", "train", 19, "Holding something next to something"),
        ("ssv2_220847", "test", -1, ""),
    ]
    assert [(f.source_path, f.reason) for f in listing.failures] == [("10.webm", "missing_file")]
    assert listing.notes == (
        "1 video is in no list and was left alone",
        "1 video has a template that the labels file does not list: their label is -1",
    )
    assert listing.official_counts == {"train": 168_913, "validation": 24_777, "test": 27_157}


def test_converted_videos_are_taken_where_there_is_no_webm(tmp_path: Path) -> None:
    write_videos(tmp_path / "videos", "7.MP4", "78687.mp4", "78687.webm")
    listing = list_videos(tmp_path / "videos", write_labels(tmp_path / "labels"), ["train"])
    assert [source.source_path for source in listing.sources] == ["7.MP4", "78687.webm"]
    assert listing.notes[0] == "1 videos are .mp4 files, not the data set's own .webm"
    assert listed_id("7.mp4") == "ssv2_000007"


def test_label_files_with_a_byte_order_mark(tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "labels")
    for file in labels.iterdir():
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    listing = list_videos(write_videos(tmp_path / "videos"), labels)
    assert [source.label for source in listing.sources] == [93, 93, -1, 19, -1]


def test_only_the_splits_asked_for(tmp_path: Path) -> None:
    listing = list_videos(write_videos(tmp_path / "v"), write_labels(tmp_path / "l"), ["validation"])
    assert [s.id for s in listing.sources] == ["ssv2_000008"]


def test_without_test_list_and_class_file(tmp_path: Path) -> None:
    listing = list_videos(write_videos(tmp_path / "v"), write_labels(tmp_path / "l", test=None, labels=None))
    assert {s.split for s in listing.sources} == {"train", "validation"}
    assert {s.label for s in listing.sources} == {-1}
    assert "there is no labels file: every label is -1" in listing.notes


@pytest.mark.parametrize(
    ("replaced", "sentence"),
    [
        ({"train": "[{"}, r"train.json: damaged json"),
        ({"train": {"id": "1"}}, "the train list is no json array"),
        ({"train": [{"template": "x"}]}, "the train list has an entry without a numeric id"),
        ({"train": [{"id": "../1"}]}, "without a numeric id"),
        ({"labels": ["a"]}, "the labels file is no json object"),
        ({"test": [{"id": "7"}]}, "video 7 is listed in train and again in test"),
        (
            {"train": None, "validation": None, "test": None},
            r"holds no train.json, validation.json or test.json",
        ),
    ],
)
def test_damaged_lists_are_a_sentence(tmp_path: Path, replaced: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        list_videos(write_videos(tmp_path / "v"), write_labels(tmp_path / "l", **replaced))


def test_missing_directories_are_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = write_labels(tmp_path / "l")
    for videos, folder in ((tmp_path / "no", labels), (labels, tmp_path / "no")):
        command = ["ssv2", "--videos", str(videos), "--labels", str(folder), "--out", str(tmp_path / "out")]
        assert main(command) == 1
        assert capsys.readouterr().err == f"error: there is no directory {tmp_path / 'no'}\n"


def test_from_webm_to_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, frames in (("7", 30), ("8", 45), ("9", 20), ("78687", 26)):
        write_video(tmp_path / f"videos/{name}.webm", counting_frames(frames), codec="libvpx-vp9")
    labels = write_labels(tmp_path / "labels", test=None)
    out = tmp_path / "out"
    command = [
        "ssv2",
        "--videos",
        str(tmp_path / "videos"),
        "--labels",
        str(labels),
        "--out",
        str(out),
        "--workers",
        "1",
    ]
    assert main([*command, "--paper-exact"]) == 0  # one of five videos is missing
    told = capsys.readouterr().err
    assert "train: 3 videos found, 168913 in the official list" in told
    assert (
        "1 passed over (1 too_short); 1 failed (1 missing_file), within the 1 that --max-failures 10% allows"
        in told
    )
    assert {(r.key, r.split, r.label, r.num_frames, r.fps) for r in read_index(out)} == {
        ("ssv2_000007", "train", 93, 30, 12.0),
        ("ssv2_000008", "validation", 93, 45, 12.0),
        ("ssv2_078687", "train", 19, 26, 12.0),
    }
    manifest = Manifest.load(out)
    assert manifest.name == "ssv2"
    assert not manifest.redistributable
    assert manifest.config["decode"]["resize"] == "bicubic"
    assert main([*command, "--paper-exact", "--max-failures", "0"]) == 2
    assert "2 of 2 already written" in capsys.readouterr().err
