"""What is added to a finished set lies in new shards; the old ones keep their bytes, names and splits."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from made_videos import counting_frames, write_video

from cwm_hub.shards.index import read_index
from cwm_hub.shards.manifest import Manifest, read_failures
from cwm_hub.shards.measures import MEASURES_VERSION
from dataprep.__main__ import main
from dataprep.curation.verify import verify
from dataprep.sharding.recordings import END_BYTES, digest_ends


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos of 26 to 33 frames."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(8):
        write_video(folder / f"ep{number}/front.mp4", counting_frames(26 + number))
    return folder


@pytest.fixture(scope="module")
def finished(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of two videos, which lie in the folder `in` beside it."""
    folder = tmp_path_factory.mktemp("finished")
    for number in range(2):
        shutil.copytree(clips / f"ep{number}", folder / f"in/ep{number}")
    assert main(command(folder / "in", folder / "out")) == 0
    return folder / "out"


@pytest.fixture
def videos(clips: Path, tmp_path: Path) -> Path:
    """The first four, and one that is no video."""
    folder = tmp_path / "in"
    for number in range(4):
        shutil.copytree(clips / f"ep{number}", folder / f"ep{number}")
    (folder / "bad.mp4").write_bytes(b"no video at all")
    return folder


def command(videos: Path, out: Path, *more: str) -> list[str]:
    small = [
        "--size",
        "16",
        "--videos-per-shard",
        "2",
        "--workers",
        "0",
        "--max-failures",
        "50%",
        "--name",
        "mine",
    ]
    return ["folder", str(videos), "--out", str(out), *small, *more]


def run_here(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
    """`PYTHON -m dataprep ...` without the second that a process takes to start."""
    return subprocess.CompletedProcess(words, main(words[3:]))


def tars(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "data").iterdir()}


def frames_of(root: Path) -> dict[str, tuple[str, int]]:
    return {row.source_path: (row.split, row.num_frames) for row in read_index(root)}


def test_new_videos_go_into_new_shards_and_the_old_keep_their_bytes(
    clips: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(command(videos, out)) == 0
    before, old, rows = Manifest.load(out), tars(out), frames_of(out)
    held_out = next(path for path, (split, _) in rows.items() if split == "validation")
    for number in (4, 5):
        shutil.copytree(clips / f"ep{number}", videos / f"ep{number}")
    wrist = videos / held_out.replace("front", "wrist")  # another camera of a recording that is held out
    shutil.copy(clips / "ep6/front.mp4", wrist)
    assert main(command(videos, out)) == 1
    assert (
        "it had 5 source videos, listed now: 8. Restore that, add new videos with --append"
        in capsys.readouterr().err
    )
    assert main(command(videos, out, "--append", "--validation-share", "0")) == 0
    told = capsys.readouterr().err
    assert f"4 videos are in {out} and left alone" in told
    assert "1 video failed before and is left alone: --retry-failures tries again" in told
    assert "3 videos to be added: 2 to train, 1 to validation" in told and "held out" not in told
    assert told.splitlines()[-1].startswith(f"{out} can be used: 7 of 8 videos")
    new = tars(out)
    assert {name: new[name] for name in old} == old
    assert sorted(new.keys() - old.keys()) == ["train-00002-of-00003.tar", "validation-00001-of-00002.tar"]
    after = frames_of(out)
    assert {path: after[path] for path in rows} == rows
    assert after["ep4/front.mp4"] == ("train", 30) and after["ep5/front.mp4"] == ("train", 31)
    assert after[wrist.relative_to(videos).as_posix()] == ("validation", 32)
    assert verify(out, "full") == []
    (entry,) = Manifest.load(out).config["additions"]
    assert entry["videos"] == 3 and Manifest.load(out).hash != before.hash
    assert main(command(videos, out, "--append", "--validation-share", "0")) == 0
    assert "there is nothing to add" in capsys.readouterr().err and tars(out) == new


def test_what_failed_is_tried_again_and_nothing_else(
    clips: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for name in ("part.mp4", "short.mp4"):
        write_video(videos / name, counting_frames(9))
    assert main(command(videos, out)) == 0
    assert "; mend them and give the command again with --retry-failures" in capsys.readouterr().err
    old = tars(out)
    shutil.copy(clips / "ep7/front.mp4", videos / "bad.mp4")
    shutil.copy(clips / "ep5/front.mp4", videos / "part.mp4")  # a download that is whole now
    shutil.copytree(clips / "ep6", videos / "ep6")  # new, and not asked for
    assert main(command(videos, out, "--append", "--dry-run")) == 0
    assert "2 videos failed before and are left alone: --retry" in capsys.readouterr().err
    assert main(command(videos, out, "--retry-failures")) == 0
    assert "left alone: --retry" not in capsys.readouterr().err
    after = frames_of(out)
    assert (after["bad.mp4"][1], after["part.mp4"][1]) == (33, 31) and "ep6/front.mp4" not in after
    assert [failure["source_path"] for failure in read_failures(out)] == ["short.mp4"]
    assert {name: data for name, data in tars(out).items() if name in old} == old
    assert verify(out, "full") == []
    assert main(command(videos, out, "--append")) == 0  # a second addition
    assert len(frames_of(out)) == 7 and len(Manifest.load(out).config["additions"]) == 2
    assert verify(out, "full") == []


def test_a_set_of_before_a_column_came_is_added_to(clips: Path, videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(command(videos, out)) == 0
    for path in (out / ".state/shards").iterdir():
        state = json.loads(path.read_text())
        state["rows"] = [row[:-1] for row in state["rows"]]
        path.write_text(json.dumps(state))
    shutil.copytree(clips / "ep4", videos / "ep4")
    assert main(command(videos, out, "--append")) == 0
    assert len(frames_of(out)) == 5 and verify(out, "full") == []


def test_a_video_that_fails_again_stays_among_the_failures_once(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(command(videos, out)) == 0
    (videos / "bad.mp4").write_bytes(b"")
    assert main(command(videos, out, "--retry-failures")) == 0
    assert [(f["source_path"], f["reason"]) for f in read_failures(out)] == [("bad.mp4", "empty_file")]
    assert len(frames_of(out)) == 4


def test_an_addition_in_parts_is_not_there_before_it_is_finalised(
    clips: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(command(videos, out)) == 0
    before = Manifest.load(out)
    for number in (4, 5, 6):
        shutil.copytree(clips / f"ep{number}", videos / f"ep{number}")
    add = command(videos, out, "--append", "--validation-share", "0")
    assert main([*add, "--shard-range", "0/2"]) == 0
    assert Manifest.load(out) == before
    assert main(["finalize", str(out)]) == 1
    assert "1 of 2 shards are not written yet" in capsys.readouterr().err
    assert main(add) == 0  # goes on
    assert "1 of 2 already written" in capsys.readouterr().err
    assert len(frames_of(out)) == 7 and verify(out, "full") == []


@pytest.mark.parametrize("name", ["columns", "videos"])
@pytest.mark.parametrize("data", ["[]", '{"a": []}', "{"])
def test_a_damaged_note_of_the_ledger_is_one_sentence(
    finished: Path, tmp_path: Path, name: str, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    (out / f".state/{name}.json").write_text(data)
    words = ["finalize", str(out)] if name == "columns" else command(finished.parent / "in", out, "--append")
    assert main(words) == 1
    told = capsys.readouterr().err
    assert f"/.state/{name}.json is damaged: use --overwrite" in told and told.count("\n") == 1


def test_what_cannot_be_added_is_one_sentence(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for arguments, sentence in (
        (command(videos, out, "--append"), "is not a finished shard directory"),
        (command(videos, out), None),
        (command(videos, out, "--append", "--overwrite"), "--overwrite removes what --append"),
        (command(videos, out, "--append", "--size", "32"), "was made otherwise: --size was 16, is 32"),
    ):
        assert main(arguments) == (0 if sentence is None else 1)
        told = capsys.readouterr().err
        assert sentence is None or (sentence in told and told.count("\n") == 1), told


def test_videos_that_were_replaced_or_removed_are_said_and_nothing_of_them_is_touched(
    clips: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(command(videos, out)) == 0
    old = tars(out)
    shutil.copy(clips / "ep7/front.mp4", videos / "ep1/front.mp4")
    shutil.copy(clips / "ep6/front.mp4", videos / "ep0/front.mp4")
    (videos / "ep2/front.mp4").unlink()
    shutil.copytree(clips / "ep4", videos / "ep4")
    capsys.readouterr()
    for _ in range(2):
        assert main(command(videos, out, "--append")) == 0
        (line,) = (line for line in capsys.readouterr().err.splitlines() if "their clips stay" in line)
        assert line.startswith(
            f"2 videos of {out} changed since (ep0/front.mp4, ...) and 1 video of {out} is not listed any more (ep2/front.mp4): "
        )
    assert {name: data for name, data in tars(out).items() if name in old} == old and len(frames_of(out)) == 5
    added = videos / "ep4/front.mp4"
    added.write_bytes(added.read_bytes()[:-1] + b"!")
    assert main(command(videos, out, "--append")) == 0
    assert f"3 videos of {out} changed since (ep0/front.mp4, ...)" in capsys.readouterr().err
    (out / ".state/videos.json").unlink()  # as sets of before have it
    (out / ".state/videos-added-001.json").unlink()
    shutil.copytree(clips / "ep2", videos / "ep2", dirs_exist_ok=True)
    assert main(command(videos, out, "--append")) == 0
    assert "did not record its videos' sizes: a replaced one is not noticed" in capsys.readouterr().err


def test_a_file_is_known_by_both_its_ends(tmp_path: Path) -> None:
    path, whole = tmp_path / "long.mp4", bytes(5 * END_BYTES)

    def digest(changed: int) -> str:
        path.write_bytes(whole[:changed] + b"!" + whole[changed + 1 :])
        return digest_ends(path)

    ends, middle = {digest(0), digest(5 * END_BYTES - 1)}, {digest(at * END_BYTES) for at in (1, 2, 3)}
    assert (len(ends), len(middle), len(ends | middle)) == (2, 1, 3)


def test_a_video_of_the_same_size_in_place_of_another_is_told(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, videos = tmp_path / "out", tmp_path / "in"
    shutil.copytree(finished, out)
    shutil.copytree(finished.parent / "in", videos)  # written again, and the same
    assert main(command(videos, out)) == 0
    assert "nothing was left to do" in capfd.readouterr().err
    video = videos / "ep1/front.mp4"
    video.write_bytes(video.read_bytes()[:-1] + b"!")
    os.utime(video, (0, 0))  # as a copy that keeps the time of a file
    assert main(command(videos, out)) == 1
    told = (
        "1 source video is another file of the same size (ep1/front.mp4). Restore that, use --overwrite, or"
    )
    assert told in capfd.readouterr().err
    assert main(command(videos, out, "--append")) == 0
    assert f"1 video of {out} changed since (ep1/front.mp4): their clips stay" in capfd.readouterr().err
    next((out / "data").iterdir()).write_bytes(b"")
    recorded = out / ".state/command.json"
    recorded.write_text(recorded.read_text().replace(str(finished.parent / "in"), str(videos)))
    assert main(["verify", str(out), "--repair"]) == 1
    assert told in capfd.readouterr().err


def test_a_link_that_leads_to_an_older_video_of_the_same_size_is_told(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, videos = tmp_path / "out", tmp_path / "in"
    shutil.copytree(finished, out)
    shutil.copytree(finished.parent / "in", tmp_path / "first")
    shutil.copytree(finished.parent / "in", tmp_path / "second")
    other = tmp_path / "second/ep1/front.mp4"
    other.write_bytes(other.read_bytes()[:-1] + b"!")
    videos.mkdir()
    for episode in ("ep0", "ep1"):
        (videos / episode).symlink_to(tmp_path / "first" / episode)
    time.sleep(0.02)  # a file system's clock may tick a hundred times a second
    for marker in (out / ".state/shards").iterdir():
        os.utime(marker)
    time.sleep(0.02)
    for link in videos.iterdir():
        link.unlink()
        link.symlink_to(tmp_path / "second" / link.name)
    assert main(command(videos, out)) == 1
    assert "1 source video is another file of the same size (ep1/front.mp4)" in capsys.readouterr().err


@pytest.mark.parametrize("ends", [[1, 2], None])
def test_a_damaged_commit_marker_is_a_shard_to_write_again(
    ends: object, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    (marker,) = (out / ".state/shards").iterdir()
    whole = marker.read_bytes()
    marker.write_text(json.dumps({**json.loads(whole), "ends": ends}))
    assert main(command(finished.parent / "in", out)) == 0 and marker.read_bytes() == whole


def test_a_repair_that_was_killed_is_ended_before_anything_is_added(
    clips: Path,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, videos = tmp_path / "out", tmp_path / "in"
    shutil.copytree(finished, out)
    shutil.copytree(finished.parent / "in", videos)
    shutil.copytree(clips / "ep4", videos / "ep4")
    (marker,) = (out / ".state/shards").iterdir()
    whole, shards = marker.read_bytes(), tars(out)
    marker.write_text(json.dumps({**json.loads(whole), "plan_hash": ""}))  # the tar is whole again
    assert main(command(videos, out, "--append")) == 1
    told = f"a repair of {out} was interrupted at {marker.stem}: cwm-dataprep verify {out} --repair ends it"
    assert told in capsys.readouterr().err and tars(out) == shards
    monkeypatch.setattr("dataprep.curation.repair.subprocess.run", run_here)
    assert main(["verify", str(out), "--repair"]) == 0
    assert marker.read_bytes() == whole and tars(out) == shards
    assert main(command(videos, out, "--append")) == 0


def test_other_measures_of_what_is_added_are_told(
    clips: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    shutil.copytree(finished.parent / "in", tmp_path / "in")
    shutil.copytree(clips / "ep4", tmp_path / "in/ep4")
    for name in (".state/plan.json", "meta/manifest.json"):
        record = json.loads((out / name).read_text())
        record["versions"]["measures"] = "1"
        (out / name).write_text(json.dumps(record))
    assert main(command(tmp_path / "in", out, "--append")) == 0
    told = f"{out} was measured by version 1, what is added is by version {MEASURES_VERSION}: "
    assert f"{told}its columns for filters (motion, moving, cuts, ...) may differ" in capsys.readouterr().err


def test_shards_that_were_added_are_repaired_from_the_videos_that_they_had(
    clips: Path, videos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(command(videos, out)) == 0
    begun = tars(out).keys()
    for number in (4, 5):
        shutil.copytree(clips / f"ep{number}", videos / f"ep{number}")
        assert main(command(videos, out, "--append")) == 0
    shutil.copytree(clips / "ep6", videos / "ep6")  # nobody asked for it
    assert main(["describe", str(out), "--licence", "mit"]) == 0
    whole, manifest = tars(out), Manifest.load(out)
    added = max(whole.keys() - begun)
    (out / "data" / added).write_bytes(whole[added][:-512])
    capfd.readouterr()
    assert main(["verify", str(out), "--repair"]) == 0
    assert "writing 1 shard again: cwm-dataprep folder" in capfd.readouterr().err
    assert tars(out) == whole and Manifest.load(out) == manifest and verify(out, "full") == []
    for name in whole:
        (out / "data" / name).unlink()
    for number in (2, 0, 1):
        assert main(command(videos, out, "--mend", str(number))) == 0
    assert tars(out) == whole and Manifest.load(out) == manifest
    shutil.rmtree(videos / "ep4")
    for number, sentence in ((1, "no video found"), (9, "has 2 additions: there is no number 9")):
        assert main(command(videos, out, "--mend", str(number))) == 1
        assert sentence in capfd.readouterr().err


@pytest.mark.parametrize("marker", ["kept", "lost"])
def test_a_mended_video_is_left_out_of_the_first_shards_when_they_are_repaired(
    marker: str, clips: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", run_here)
    out = tmp_path / "out"
    assert main(command(videos, out)) == 0
    begun = tars(out)
    shutil.copy(clips / "ep7/front.mp4", videos / "bad.mp4")
    assert main(command(videos, out, "--retry-failures")) == 0
    whole, manifest, rows = tars(out), Manifest.load(out), read_index(out)
    for name in begun:
        (out / "data" / name).write_bytes(begun[name][:-512])
        if marker == "lost":
            (out / ".state/shards" / name).with_suffix(".json").unlink()
    assert main(["verify", str(out), "--repair"]) == 0
    assert (tars(out), Manifest.load(out), read_index(out)) == (whole, manifest, rows)
    assert read_failures(out) == []


def test_a_repair_that_fails_leaves_the_notes_as_they_were(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", run_here)

    def notes() -> dict[str, tuple[bytes, int]]:
        return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in (out / ".state/shards").iterdir()}

    out = tmp_path / "out"
    shutil.copytree(finished, out)
    recorded = json.loads((out / ".state/command.json").read_text())
    recorded["arguments"][1] = str(tmp_path)  # no videos there
    (out / ".state/command.json").write_text(json.dumps(recorded))
    before = notes()
    next((out / "data").iterdir()).write_bytes(b"")
    assert main(["verify", str(out), "--repair"]) == 1
    assert "ended with exit code 1: are its videos where they were?" in capfd.readouterr().err
    assert notes() == before


def test_an_addition_that_was_killed_goes_on_with_its_videos_though_others_came(
    clips: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(command(videos, out)) == 0
    shutil.copytree(clips / "ep4", videos / "ep4")
    add = command(videos, out, "--append", "--validation-share", "0")
    assert main([*add, "--shard-range", "0/2"]) == 0
    for number in (5, 6):
        shutil.copytree(clips / f"ep{number}", videos / f"ep{number}")
    assert main(add) == 0
    assert (
        "an addition of 1 video was begun and goes on; 2 more videos can be added when it has ended"
        in capsys.readouterr().err
    )
    assert main(add) == 0
    assert len(frames_of(out)) == 7 and len(Manifest.load(out).config["additions"]) == 2
