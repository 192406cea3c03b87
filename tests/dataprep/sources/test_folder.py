"""Any tree becomes a listing: every video once, labels and splits where given, and a reason for the rest."""

import json
import os
import re
from pathlib import Path

import pytest
from made_videos import FIXTURES, counting_frames, write_video

from cwm_hub.shards.index import read_index
from dataprep.__main__ import main
from dataprep.sharding.recordings import (
    DEFAULT_SHARE,
    File,
    choose_splits,
    draw_held_out,
    hold_out,
    recording,
)
from dataprep.sources.folder import list_videos, video_id
from dataprep.sources.labels import Label, Labels


def touch(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def video(path: Path, content: bytes = b"") -> None:
    """What may be a video, by its first bytes."""
    touch(path, b"\x00\x00\x01\xba" + content)


def test_videos_are_known_by_their_suffix_and_sorted(tmp_path: Path) -> None:
    for name in ("b/two.WebM", "a.mp4", "b/notes.txt", "README", "c/d/e/three.mkv"):
        touch(tmp_path / name)
    listing = list_videos(tmp_path)
    assert [source.source_path for source in listing.sources] == ["a.mp4", "b/two.WebM", "c/d/e/three.mkv"]
    assert [source.path for source in listing.sources] == [
        str(tmp_path / s.source_path) for s in listing.sources
    ]
    assert listing.notes == ("2 files without a video suffix were left alone",)


def test_what_only_bears_a_videos_name_is_passed_over(tmp_path: Path) -> None:
    """Companions that macOS leaves on foreign disks, and programs in TypeScript."""
    companion = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(60)
    for name in ("._a.mp4", "folder/._b.MOV", "._c.ts"):
        touch(tmp_path / name, companion)
    touch(tmp_path / "index.ts", "export const café = () => 1;\n".encode())
    touch(tmp_path / "latin.mts", "// café\r\n".encode("latin-1"))
    touch(tmp_path / "windows.ts", "let a = 1".encode("utf-16"))
    packet = b"\x47\x40\x11\x10\x00" + bytes(183)
    for name in ("a.mp4", "._really.mp4", "camera.ts", "damaged.ts", "no_companion.mp4"):
        touch(tmp_path / name, {"camera.ts": packet * 3, "damaged.ts": bytes(50) + packet}.get(name, b"x"))
    listing = list_videos(tmp_path)
    assert [source.source_path for source in listing.sources] == [
        "._really.mp4",
        "a.mp4",
        "camera.ts",
        "damaged.ts",
        "no_companion.mp4",
    ]
    assert listing.failures == ()
    assert listing.notes == (
        "6 files that only bear a video's name (macOS companions, TypeScript), left alone",
    )


def test_ids_are_keys_and_differ_for_any_two_paths() -> None:
    paths = [
        "clip.mp4",
        "clip.webm",
        "S1/Walking 1.54138969.mp4",
        "S1/Walking 1.55011271.mp4",
        "Ä.mp4",
        "é.mp4",
        "__key__.mp4",
    ]
    paths += ["x" * 300 + ".mp4", "x" * 299 + ".mp4", b"latin1_\xe9.mp4".decode("utf-8", "surrogateescape")]
    ids = [video_id(path) for path in paths]
    assert len(set(ids)) == len(paths)
    assert all(len(key) <= 80 and set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-") for key in ids)
    assert video_id("S1/Walking 1.54138969.mp4") == "s1-walking-1-54138969-05ae80fe38"
    for name, words in (
        ("Größe/Øre.mp4", "grosse-ore"),
        ("Łódź_Æ.mp4", "lodz_ae"),
        ("u\u0308.mp4", "u"),  # as macOS writes an ü
        ("Кот 1.mp4", "1"),
    ):
        assert video_id(name)[:-11] == words


def test_links_are_followed_after_the_files_themselves(tmp_path: Path) -> None:
    real = touch(tmp_path / "z/real.mp4")
    (tmp_path / "a_link.mp4").symlink_to(real)
    (tmp_path / "elsewhere.mp4").symlink_to(touch(tmp_path.parent / f"{tmp_path.name}-outside.mp4"))
    (tmp_path / "broken.mp4").symlink_to("nowhere.mp4")
    (tmp_path / "loop_a.mp4").symlink_to("loop_b.mp4")
    (tmp_path / "loop_b.mp4").symlink_to("loop_a.mp4")
    (tmp_path / "z/up").symlink_to("..")
    (tmp_path / "again").symlink_to("z")
    os.link(real, tmp_path / "z/zz_hard.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    listing = list_videos(tmp_path)
    assert [source.source_path for source in listing.sources] == ["elsewhere.mp4", "z/real.mp4"]
    assert {f.source_path: f.reason for f in listing.failures} == {
        "a_link.mp4": "duplicate",
        "again": "duplicate",
        "broken.mp4": "missing_file",
        "loop_a.mp4": "link_loop",
        "loop_b.mp4": "link_loop",
        "pipe.mp4": "not_a_file",
        "z/up": "link_loop",
        "z/zz_hard.mp4": "duplicate",
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_may_not_be_read_is_a_failure(tmp_path: Path) -> None:
    touch(tmp_path / "secret/a.mp4").parent.chmod(0)
    assert [(f.source_path, f.reason) for f in list_videos(tmp_path).failures] == [("secret", "unreadable")]


def test_labels_meet_the_files(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        touch(tmp_path / name, name.encode())
    listing = list_videos(tmp_path, labels=Labels({"a.mp4": Label(2, "two", "test"), "gone.mp4": Label(1)}))
    assert [(s.source_path, s.label, s.split) for s in listing.sources] == [
        ("a.mp4", 2, "test"),
        ("b.mp4", -1, "train"),
    ]
    assert [(f.source_path, f.reason) for f in listing.failures] == [("gone.mp4", "missing_file")]
    assert listing.notes == (
        "1 video is not in the labels file",
        "1 path of the labels file matches no video, such as 'gone.mp4'",
    )


def test_a_validation_share_is_drawn_by_the_path(tmp_path: Path) -> None:
    for number in range(200):
        video(tmp_path / f"{number}.mp4", str(number).encode())
    splits = {s.source_path: s.split for s in list_videos(tmp_path, validation_share=0.25).sources}
    assert 30 < sum(split == "validation" for split in splits.values()) < 70
    (tmp_path / "0.mp4").unlink()
    later = {s.source_path: s.split for s in list_videos(tmp_path, validation_share=0.25).sources}
    assert all(splits[path] == split for path, split in later.items())


@pytest.mark.parametrize(
    ("count", "share", "held_out", "note"),
    [
        (1, None, 0, "no validation split: there is 1 recording"),
        (2, None, 0, "no validation split: of 2 recordings one is held out with --validation-share 0.5"),
        (3, None, 1, "held out for validation: 1 of 3 recordings (--validation-share 0: none)"),
        (3, 0.0, 0, None),
        (2, 0.001, 1, None),
        (2, 0.999, 1, None),
        (1, 0.5, 0, "no validation split: there is 1 recording"),
    ],
)
def test_of_few_videos_one_is_held_out_or_it_is_said_that_none_is(
    tmp_path: Path, count: int, share: float | None, held_out: int, note: str | None
) -> None:
    for number in range(count):
        video(tmp_path / f"{number}.mp4", str(number).encode())
    listing = list_videos(tmp_path, validation_share=share)
    assert sum(source.split == "validation" for source in listing.sources) == held_out
    assert len(listing.notes) == (note is not None)
    assert note is None or listing.notes[0].startswith(note)


def test_what_surely_gives_no_clip_is_no_recording_of_those_that_some_are_held_out_of(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", counting_frames(26)).read_bytes()
    tail = whole.index(b"moov") - 4
    for name, content in {
        "empty": b"", "page": b"<html>not found</html>", "picture": b"\x89PNG\r\n\x1a\n", "hole": bytes(9000),
        "no index": whole[:tail], "short": write_video(tmp_path / "s/s.mp4", counting_frames(24)).read_bytes(),
    }.items():  # fmt: skip
        touch(tmp_path / f"{name}.mp4", content)
    for number in range(3):
        touch(tmp_path / f"good/{number}.mp4", whole[:-8] + bytes([number]) + whole[-7:])
    listing = list_videos(tmp_path, validation_share=None, min_frames=25)
    (held_out,) = (source.source_path for source in listing.sources if source.split == "validation")
    assert held_out == "whole.mp4" or held_out.startswith("good/")
    assert listing.notes[-1] == "held out for validation: 1 of 4 recordings (--validation-share 0: none)"
    assert len(listing.sources) == 11 and listing.failures == ()


def test_what_a_set_grows_by_is_drawn_as_it_would_have_been_at_the_beginning_of_a_large_one() -> None:
    names = [f"{number}.mp4" for number in range(200)]
    held = hold_out(names, DEFAULT_SHARE)
    one_by_one = (draw_held_out([one], None, has_validation=False, grows=True) for one in names)
    assert set().union(*one_by_one) == held and len(held) > 1
    new = File(min(held), "", 0)
    for given, settled, split in (
        ({}, {"b": "validation"}, "validation"),
        ({"b": "validation"}, {"c": "train"}, "train"),
    ):
        found = choose_splits([new], given, validation_share=None, settled=settled)
        assert found.split == {new.shown: split}


def test_the_index_names_recordings_of_several_files(tmp_path: Path) -> None:
    for name in ("a/left.mp4", "a/right.mp4", "b.mp4", "copy of c.mp4", "c.mp4"):
        touch(
            tmp_path / name,
            b"\x00\x00\x01\xba" + name.encode() if "c.mp4" not in name else b"\x00\x00\x01\xba",
        )
    for share, copies in ((None, "c.mp4"), (0.0, "")):  # where nothing is held out no file is read for copies
        found = {s.source_path: s.recording for s in list_videos(tmp_path, validation_share=share).sources}
        assert found["a/left.mp4"] == found["a/right.mp4"] == "a/.mp4" and found["b.mp4"] == ""
        assert found["c.mp4"] == found["copy of c.mp4"] == copies


def test_gopro_recordings_of_other_numbers_are_others(tmp_path: Path) -> None:
    names = (
        "GX010042.MP4",
        "GX010043.MP4",
        "GH010042.MP4",
        "b/GX010042.MP4",
        "GX0100422.MP4",
        "AGX010042.MP4",
    )
    assert len({recording(name) for name in names}) == len(names)


def test_a_labels_file_that_names_a_validation_split_decides(tmp_path: Path) -> None:
    for number in range(6):
        video(tmp_path / f"{number}.mp4", str(number).encode())
    labels = Labels({"2.mp4": Label(split="validation")})
    splits = splits_of(tmp_path, labels=labels, validation_share=None)
    assert [path for path, split in splits.items() if split == "validation"] == ["2.mp4"]


def test_labels_of_other_videos_are_refused_before_the_work(tmp_path: Path) -> None:
    video(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match=r"says 'clips/a\.mp4', the folder holds 'a\.mp4'"):
        list_videos(tmp_path, labels=Labels({"clips/a.mp4": Label(2)}))


def splits_of(folder: Path, **options: object) -> dict[str, str]:
    listing = list_videos(folder, **options)  # type: ignore[arg-type]
    return {source.source_path: source.split for source in listing.sources}


def test_copies_byte_for_byte_are_in_one_split(tmp_path: Path) -> None:
    for number in range(30):
        content = bytes(200_000) + number.to_bytes() + bytes(200_000)  # alike at both ends, and of one size
        video(tmp_path / f"{number}.mp4", content)
        video(tmp_path / f"copies/{29 - number}.mp4", content)
    splits = splits_of(tmp_path, validation_share=0.5)
    assert set(splits.values()) == {"train", "validation"}
    assert all(splits[f"{n}.mp4"] == splits[f"copies/{29 - n}.mp4"] for n in range(30))
    (_, note) = list_videos(tmp_path, validation_share=0.5).notes
    assert note == "60 videos are of 30 recordings with several cameras, parts or copies"


def test_a_copy_in_a_held_out_split_is_kept_out_of_training(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        video(tmp_path / name, b"same")
    labels = Labels({"a.mp4": Label(split="train"), "b.mp4": Label(split="validation")})
    listing = list_videos(tmp_path, labels=labels)
    assert [(s.source_path, s.split) for s in listing.sources] == [("b.mp4", "validation")]
    assert [(f.source_path, f.reason, f.detail) for f in listing.failures] == [
        (name, "duplicate", "the same bytes as b.mp4, of another split") for name in ("a.mp4", "c.mp4")
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("{}/front.mp4", "{}/wrist.mp4"),
        ("images.front/episode_{}.mp4", "images.wrist/episode_{}.mp4"),
        ("take{} camera 1.mp4", "take{} camera 2.mp4"),
        ("Talk {} Part1.mp4", "Talk {} part2.mp4"),
        ("cam01/{}.mp4", "cam02/{}.mp4"),
        ("{} CamA.mp4", "{} CamB.mp4"),
        ("cam_high/{}.mp4", "cam_left_wrist/{}.mp4"),
        ("trip/GX01{:04d}.MP4", "trip/GX02{:04d}.MP4"),
        ("GH01{:04d}.MP4", "GH12{:04d}.MP4"),
        ("GOPR{:04d}.MP4", "GP03{:04d}.MP4"),
    ],
)
def test_cameras_and_parts_of_a_recording_are_in_one_split(tmp_path: Path, first: str, second: str) -> None:
    for number in range(40):
        for name in (first, second):
            video(tmp_path / name.format(number), name.format(number).encode())
    splits = splits_of(tmp_path, validation_share=0.5)
    assert 5 < sum(split == "validation" for split in splits.values()) / 2 < 35
    assert all(splits[first.format(n)] == splits[second.format(n)] for n in range(40))
    labels = Labels({first.format(0): Label(split="test")})
    assert splits_of(tmp_path, labels=labels)[second.format(0)] == "test"


def test_a_pattern_tells_recordings_whose_names_do_not(tmp_path: Path) -> None:
    for number in range(40):
        for letter in "xyz":
            video(tmp_path / f"{letter}-{number}.mp4", f"{letter}{number}".encode())
    splits = splits_of(tmp_path, validation_share=0.5, group_by=re.compile(r"-(\d+)"))
    assert all(len({splits[f"{letter}-{n}.mp4"] for letter in "xyz"}) == 1 for n in range(40))
    assert set(splits.values()) == {"train", "validation"}


def test_numbered_parts_without_a_name_are_videos_of_their_own(tmp_path: Path) -> None:
    for number in range(40):
        video(tmp_path / f"part_{number:04d}.mp4", str(number).encode())
    assert set(splits_of(tmp_path, validation_share=0.5).values()) == {"train", "validation"}


def test_from_files_to_shards(tmp_path: Path) -> None:
    for name in ("left/one.webm", "right/two.mp4"):
        codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
        write_video(tmp_path / "in" / name, counting_frames(30), codec=codec)
    labels = touch(tmp_path / "labels.csv", b"path,label,split\nleft/one.webm,5,validation\n")
    out = tmp_path / "out"
    command = [
        "folder",
        str(tmp_path / "in"),
        "--labels",
        str(labels),
        "--out",
        str(out),
        "--size",
        "32",
        "--workers",
        "1",
    ]
    assert main(command) == 0
    rows = {row.source_path: row for row in read_index(out)}
    assert {(path, row.split, row.label, row.num_frames, row.width) for path, row in rows.items()} == {
        ("left/one.webm", "validation", 5, 30, 32),
        ("right/two.mp4", "train", -1, 30, 32),
    }


@pytest.mark.slow
def test_every_torture_file_gets_its_verdict(
    torture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["folder", str(torture), "--out", str(tmp_path), "--max-failures", "100%"]) == 0
    assert "1 file without a video suffix was left alone" in capsys.readouterr().err  # names/no_extension
    accepted = {row.source_path: row.source_frames for row in read_index(tmp_path)}
    lines = [json.loads(line) for line in (tmp_path / "meta/failures.jsonl").read_text().splitlines()]
    rejected = {line["source_path"]: line["reason"] for line in lines}
    assert all(line["detail"] for line in lines)
    cases = {c["name"]: c for c in json.loads((FIXTURES / "videos/torture_expect.json").read_text())}
    assert not accepted.keys() & rejected.keys()
    assert accepted.keys() | rejected.keys() == cases.keys() - {"names/no_extension"}
    for name, case in cases.items():
        if case["verdict"] == "accept":
            assert accepted.get(name) == case["frames"], name
        elif case["verdict"] == "reject":
            assert name in rejected, name
    assert rejected["fs/dir_loop"] == "link_loop"
    assert rejected["fs/link_to_real.mp4"] == "duplicate"
