"""LeRobot sets of both formats: an episode of a camera is a video, no frame is lost, doubled or of another episode."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hub_server import File, HubServer, Repo
from made_lerobot import KEY, episode_row, write_info, write_pictures, write_v3
from made_videos import FIXTURES, counting_frames, read_clips, read_numbers, write_video

from cwm_hub.shards.index import read_index, read_index_table, read_recordings
from cwm_hub.shards.manifest import Manifest
from dataprep.__main__ import main
from dataprep.decode.frames import DecodeSettings, open_video
from dataprep.sources.folder import list_videos
from dataprep.sources.lerobot import Request, list_episodes
from dataprep.sources.lerobot_tables import FOLDERS, read_info
from dataprep.sources.repository import open_repository

LENGTHS = [31, 47, 30, 52, 26, 40]
CAMERAS = ("observation.images.front", "observation.images.wrist")
V3, V21 = FIXTURES / "lerobot/v3_two_cameras", FIXTURES / "lerobot/v21_two_cameras"


def shard(place: Path | str, out: Path, *more: str) -> int:
    fixed = ["--workers", "1", "--max-failures", "100%", "--validation-share", "0"]
    return main(["lerobot", str(place), "--out", str(out), *fixed, *more])


def episodes_of(out: Path) -> dict[str, list[int]]:
    """Numbers that the frames of each source show."""
    clips = read_clips(out)
    return {row.source_path: read_numbers(clips[row.key]) for row in read_index(out)}


def failures_of(out: Path) -> dict[str, str]:
    lines = map(json.loads, (out / "meta/failures.jsonl").read_text().splitlines())
    return {line["source_path"]: line["reason"] for line in lines}


def fingerprint(root: Path) -> dict[str, str]:
    files = [path for part in ("data", "meta") for path in sorted((root / part).iterdir())]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("place", [V3, V21])
def test_every_episode_of_every_camera_is_one_clip(place: Path, tmp_path: Path) -> None:
    assert shard(place, tmp_path, "--codec", "raw", "--size", "128") == 0
    rows = {row.source_path: row for row in read_index(tmp_path)}
    clips = read_clips(tmp_path)
    assert len(rows) == 12
    for episode, length in enumerate(LENGTHS):
        for camera in CAMERAS:
            row = rows[f"episode_{episode:06d}/{camera}"]
            assert row.key == f"{camera.replace('.', '-')}_{episode:06d}"
            assert (row.num_frames, row.source_frames, row.start_frame, row.fps) == (length, length, 0, 10)
            task = ("push the disc", "hold still")[episode % 2]
            assert (row.label, row.label_text, row.split) == (episode % 2, task, "train")
            frames = clips[row.key].astype(float)  # 96 rows have become 128: rows 2-9 are 3-13
            assert np.abs(frames[:, 5:11, 4:8].mean((1, 2, 3)) - 40 * episode).max() < 8
            number = frames[:, 5:11, 14:18].mean((1, 2, 3)) / 4
            assert np.abs(number - np.arange(length)).max() < 3  # the codec's noise
    facts = Manifest.load(tmp_path).config["source"]
    assert (facts["fps"], facts["robot_type"], facts["cameras"]) == (10.0, "made_up", list(CAMERAS))


@pytest.mark.parametrize("place", [V3, V21])
def test_frames_are_those_of_the_files_in_order(place: Path, tmp_path: Path) -> None:
    """None lost, none doubled: joined, the episodes are what a plain reader gets out of the files."""
    assert shard(place, tmp_path, "--codec", "raw") == 0
    clips = read_clips(tmp_path)
    for camera in CAMERAS:
        ours = np.concatenate([clips[f"{camera.replace('.', '-')}_{n:06d}"] for n in range(6)])
        files = sorted(path for path in place.glob("videos/**/*.mp4") if camera in str(path))
        plain = []
        for file in files:
            with open_video(file, DecodeSettings()) as reader:
                plain += list(reader)
        assert np.array_equal(ours, np.stack(plain))


def test_all_formats_give_the_same_videos(tmp_path: Path) -> None:
    """v2.0 is v2.1 with other statistics."""
    shutil.copytree(V21, tmp_path / "v2.0")
    info = tmp_path / "v2.0/meta/info.json"
    info.write_text(info.read_text().replace("v2.1", "v2.0"))
    for name, place in (("three", V3), ("two", V21), ("older", tmp_path / "v2.0")):
        assert shard(place, tmp_path / name, "--name", "same") == 0
    three, two, older = (
        {row.source_path: (row.num_frames, row.key, row.label) for row in read_index(tmp_path / name)}
        for name in ("three", "two", "older")
    )
    assert three == two == older


def test_cameras_episodes_and_rate_are_chosen(tmp_path: Path) -> None:
    more = [
        "--cameras",
        "wrist",
        "--episodes",
        "1",
        "3:6",
        "--max-episodes",
        "3",
        "--fps",
        "5",
        "--min-frames",
        "5",
    ]
    assert shard(V3, tmp_path, *more) == 0
    rows = {row.source_path: (row.num_frames, row.fps) for row in read_index(tmp_path)}
    assert rows == {
        f"episode_{n:06d}/observation.images.wrist": (LENGTHS[n] // 2 + LENGTHS[n] % 2, 5.0)
        for n in (1, 3, 4)
    }


def test_an_episode_is_in_one_split_whatever_its_cameras(tmp_path: Path) -> None:
    assert shard(V3, tmp_path, "--validation-share", "0.5") == 0
    splits: dict[str, set[str]] = {}
    for row in read_index(tmp_path):
        splits.setdefault(row.source_path.partition("/")[0], set()).add(row.split)
    assert len(splits) == 6 and all(len(of_one) == 1 for of_one in splits.values())
    assert set().union(*splits.values()) == {"train", "validation"}
    assert {row.source_path.partition("/")[0] for row in read_index(tmp_path)} == {
        row.recording for row in read_index(tmp_path)
    }
    assert set(read_recordings(read_index_table(tmp_path)).values()) == splits.keys()


def test_a_camera_that_is_added_later_goes_where_its_episode_is(tmp_path: Path) -> None:
    assert shard(V3, tmp_path, "--validation-share", "0.5", "--cameras", "front") == 0
    assert read_recordings(read_index_table(tmp_path)) == {}  # each episode is one video so far
    assert shard(V3, tmp_path, "--append", "--cameras", "wrist") == 0
    rows = read_index(tmp_path)
    assert len(rows) == 12 and {row.split for row in rows} == {"train", "validation"}
    assert len({(row.recording, row.split) for row in rows}) == 6


def test_a_small_share_of_few_episodes_holds_one_out_and_a_growing_set_keeps_it(tmp_path: Path) -> None:
    def splits() -> dict[str, str]:
        return {row.source_path[:14]: row.split for row in read_index(tmp_path)}

    more = ("--validation-share", "0.01", "--cameras", "front")
    assert shard(V3, tmp_path, *more, "--episodes", "0:3") == 0
    first = splits()
    assert sorted(first.values()) == ["train", "train", "validation"]
    assert shard(V3, tmp_path, *more, "--append") == 0
    assert len(splits()) == 6 and splits() == {**dict.fromkeys(splits(), "train"), **first}


def test_what_a_set_holds_of_an_episode_stands_before_any_draw() -> None:
    """The others are drawn each by itself: all of a large share, and of a small one not at least one."""
    repository = open_repository(str(V3), revision=None, folders=FOLDERS)
    settled = {"episode_000000/observation.images.front": "train"}
    for share, split in ((0.999, "validation"), (0.001, "train")):
        listing = list_episodes(repository, read_info(repository), Request(validation_share=share), settled)
        splits = {source.source_path[:14]: source.split for source in listing.sources}
        assert splits.pop("episode_000000") == "train" and set(splits.values()) == {split}


def test_cameras_of_other_letters_have_keys_of_their_own(tmp_path: Path) -> None:
    write_pictures(tmp_path, "v2.1", [25])
    names = ("kamera.höhe", "kamera.hohe", "カメラ", "上", "top_cam", "top.cam", "Top-Cam")
    write_info(tmp_path, "v2.1", features={name: {"dtype": "image", "shape": [48, 64, 3]} for name in names})
    repository = open_repository(str(tmp_path), revision=None, folders=FOLDERS)
    ids = {one.camera: one.id for one in list_episodes(repository, read_info(repository), Request()).sources}
    assert ids["kamera.hohe"] == "kamera-hohe_000000"
    assert re.fullmatch("kamera-hohe-[0-9a-f]{6}_000000", ids["kamera.höhe"])
    assert re.fullmatch("top-cam-[0-9a-f]{6}_000000", ids["top_cam"])
    assert len(set(ids.values())) == 7 and all(
        re.fullmatch("[a-z0-9][a-z0-9_-]*", one) for one in ids.values()
    )


@pytest.mark.parametrize(
    ("lengths", "info", "held_out"),
    [
        ([25] * 3, {}, 1),
        ([25] * 20, {"splits": {"train": "0:20"}}, 2),
        ([25] * 4, {"splits": {"train": "0:3", "val": "3:4"}}, 0),  # the set's own is enough
        ([25] * 3, {"splits": {"train": "0:3", "val": "3:3"}}, 1),  # an empty one is none
        ([25, 25], {}, 0),  # of two it would be half
        ([25, 25, 24], {}, 0),  # the third is too short
    ],
)
def test_a_tenth_is_held_out_as_of_a_folder(
    lengths: list[int], info: dict[str, dict[str, str]], held_out: int, tmp_path: Path
) -> None:
    rows = [episode_row(n, length, 2.5 * n) for n, length in enumerate(lengths)]
    write_v3(tmp_path, rows, frames=sum(lengths), **info)
    repository = open_repository(str(tmp_path), revision=None, folders=FOLDERS)
    listing = list_episodes(repository, read_info(repository), Request(), min_frames=25)
    own = 1 if info.get("splits", {}).get("val") == "3:4" else 0
    assert sum(source.split == "validation" for source in listing.sources) == held_out + own
    said = f"held out for validation: {held_out} of {len(lengths)} episodes (--validation-share 0: none)"
    assert (said in listing.notes) == bool(held_out)


def test_splits_are_those_of_info_json(tmp_path: Path) -> None:
    rows = [episode_row(n, 25, 2.5 * n) for n in range(4)]
    write_v3(tmp_path / "set", rows, frames=100, splits={"train": "0:2", "val": "2:3"})
    assert shard(tmp_path / "set", tmp_path / "out") == 0
    found = {row.source_path[:14]: row.split for row in read_index(tmp_path / "out")}
    assert found == {"episode_000000": "train", "episode_000001": "train", "episode_000002": "validation"}
    assert failures_of(tmp_path / "out") == {f"episode_000003/{KEY}": "no_split"}


def test_times_that_drift_move_no_border(tmp_path: Path) -> None:
    """Each episode's time is 0.03 s too long: the last begins 1.2 frames too late by the clock."""
    rows = [episode_row(n, 26, n * 2.63, (n + 1) * 2.63) for n in range(41)]
    write_v3(tmp_path / "set", rows, frames=41 * 26)
    assert round(rows[40][f"videos/{KEY}/from_timestamp"] * 10) == 40 * 26 + 12
    assert shard(tmp_path / "set", tmp_path / "out") == 0
    assert episodes_of(tmp_path / "out") == {
        f"episode_{n:06d}/{KEY}": [(26 * n + i) % 64 for i in range(26)] for n in range(41)
    }


def test_frames_of_a_deleted_episode_move_no_border(tmp_path: Path) -> None:
    rows = [episode_row(0, 30, 0.0), episode_row(2, 28, 7.000000000000001), episode_row(3, 27, 9.8)]
    write_v3(
        tmp_path / "set", rows, frames=130
    )  # 40 frames after the first, and five at the end, are of none
    assert shard(tmp_path / "set", tmp_path / "out") == 0
    starts = {0: (0, 30), 2: (70, 28), 3: (98, 27)}
    assert episodes_of(tmp_path / "out") == {
        f"episode_{n:06d}/{KEY}": [(start + i) % 64 for i in range(length)]
        for n, (start, length) in starts.items()
    }


def test_what_cannot_be_an_episode_is_a_line_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        episode_row(0, 30, 0.0),
        episode_row(1, 40, 3.0, 6.0),  # 30 frames by its times
        episode_row(2, 30, 6.0, **{f"videos/{KEY}/file_index": 7}),
        episode_row(3, 30, 6.0, **{f"videos/{KEY}/from_timestamp": None}),
        episode_row(4, 0, 9.0),
        episode_row(5, 30, 9.0),  # the file ends after 100 frames
        episode_row(6, 20, 6.0),
    ]
    write_v3(tmp_path / "set", rows, frames=100)
    shutil.copy(
        tmp_path / f"set/videos/{KEY}/chunk-000/file-000.mp4",
        tmp_path / f"set/videos/{KEY}/chunk-000/file-003.mp4",
    )
    assert shard(tmp_path / "set", tmp_path / "out") == 0
    assert episodes_of(tmp_path / "out") == {f"episode_000000/{KEY}": list(range(30))}
    assert failures_of(tmp_path / "out") == {
        f"episode_000001/{KEY}": "wrong_length",
        f"episode_000002/{KEY}": "missing_file",
        f"episode_000003/{KEY}": "missing_file",
        f"episode_000004/{KEY}": "zero_frames",
        f"episode_000005/{KEY}": "truncated",
        f"episode_000006/{KEY}": "too_short",
    }
    assert "1 video file belongs to no episode" in capsys.readouterr().err


def test_a_v21_file_of_another_length_is_told(tmp_path: Path) -> None:
    shutil.copytree(V21, tmp_path / "set")
    lines = (V21 / "meta/episodes.jsonl").read_text().replace('"length": 47', '"length": 46')
    (tmp_path / "set/meta/episodes.jsonl").write_text(lines)
    assert shard(tmp_path / "set", tmp_path / "out") == 0
    assert failures_of(tmp_path / "out") == {f"episode_000001/{camera}": "wrong_length" for camera in CAMERAS}


@pytest.mark.parametrize(("damaged_from", "damaged_to"), [(33, 39), (31, 33), (76, 78)])
def test_an_undecodable_stretch_costs_the_episodes_that_it_touches(
    damaged_from: int, damaged_to: int, tmp_path: Path
) -> None:
    """In the second episode, whose frames are 31 to 77 of the file: in its midst, its first ones, its last ones."""
    shutil.copytree(V3, tmp_path / "set")
    file = tmp_path / "set/videos/observation.images.front/chunk-000/file-000.mp4"
    import av

    with av.open(str(file)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        first, last = packets[damaged_from].pos, packets[damaged_to].pos
    data = bytearray(file.read_bytes())
    data[first:last] = bytes(last - first)
    file.write_bytes(data)
    assert shard(tmp_path / "set", tmp_path / "out", "--codec", "raw") == 0
    assert failures_of(tmp_path / "out") == {"episode_000001/observation.images.front": "decode_error"}
    shard(V3, tmp_path / "whole", "--codec", "raw")
    damaged, whole = read_clips(tmp_path / "out"), read_clips(tmp_path / "whole")
    assert all(np.array_equal(clip, whole[key]) for key, clip in damaged.items())


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_pictures_in_parquet(version: str, tmp_path: Path) -> None:
    lengths = [30, 26, 41]
    write_pictures(tmp_path / "set", version, lengths)
    assert shard(tmp_path / "set", tmp_path / "out") == 0
    assert episodes_of(tmp_path / "out") == {
        f"episode_{n:06d}/{KEY}": list(range(m)) for n, m in enumerate(lengths)
    }
    assert shard(tmp_path / "set", tmp_path / "half", "--fps", "5", "--min-frames", "5") == 0
    assert episodes_of(tmp_path / "half")[f"episode_000000/{KEY}"] == list(range(0, 30, 2))


def test_depth_is_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(V3, tmp_path / "set")
    info = json.loads((V3 / "meta/info.json").read_text())
    info["features"]["observation.images.wrist"]["info"]["video.is_depth_map"] = True
    (tmp_path / "set/meta/info.json").write_text(json.dumps(info))
    assert shard(tmp_path / "set", tmp_path / "out") == 0
    assert "depth is left out: observation.images.wrist" in capsys.readouterr().err
    assert len(read_index(tmp_path / "out")) == 6


def test_a_long_file_is_opened_once_for_its_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataprep.decode import stretch

    opened, decoded = [], []
    plain_open, plain_decode = stretch.open_container, stretch.LongVideo._decode
    monkeypatch.setattr(stretch, "open_container", lambda file: opened.append(file) or plain_open(file))

    def counted(self, first, rest):  # type: ignore[no-untyped-def]
        for frame in plain_decode(self, first, rest):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(stretch.LongVideo, "_decode", counted)
    assert shard(V3, tmp_path, "--workers", "0") == 0
    assert len(opened) == 2 and len(decoded) == 2 * sum(LENGTHS)


@pytest.mark.slow
def test_parts_workers_and_kills_give_the_same_bytes(tmp_path: Path) -> None:
    more = ["--videos-per-shard", "3"]
    assert shard(V3, tmp_path / "calm", *more, "--workers", "0") == 0
    assert shard(V3, tmp_path / "two", *more, "--workers", "2") == 0
    for part in ("1/2", "0/2"):
        assert shard(V3, tmp_path / "parts", *more, "--shard-range", part) == 0
    assert main(["finalize", str(tmp_path / "parts")]) == 0
    command = ["lerobot", str(V3), "--out", str(tmp_path / "killed"), *more, "--validation-share", "0"]
    run = subprocess.Popen([sys.executable, "-m", "dataprep", *command], stderr=subprocess.DEVNULL)
    while run.poll() is None and not list((tmp_path / "killed").glob(".state/shards/*.json")):
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert len(list((tmp_path / "killed").glob(".state/shards/*.json"))) < 4
    assert main(command) == 0
    expected = fingerprint(tmp_path / "calm")
    assert len([name for name in expected if name.endswith(".tar")]) == 4
    for name in ("two", "parts", "killed"):
        assert fingerprint(tmp_path / name) == expected


def test_a_dry_run_tells_the_size_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shard(V3, tmp_path / "out", "--dry-run", "--cameras", "front") == 0
    told = capsys.readouterr().err
    assert "6 of 6 episodes, 0.1 MB in 1 file" in told and "about 226 frames" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_from_the_hub_only_what_is_asked_for_is_fetched(tmp_path: Path) -> None:
    files = {path.relative_to(V3).as_posix(): path.read_bytes() for path in V3.rglob("*") if path.is_file()}
    files["README.md"] = b"---\nlicense: cc-by-4.0\ntags: [LeRobot]\n---\nA set.\n"
    with HubServer() as hub:
        repo = hub.repos["dataset", "me/robot"] = Repo(private=False)
        commit = repo.commit(
            "main", {name: File(data, lfs=name.endswith("mp4")) for name, data in files.items()}
        )
        repo.commit("other", {"README.md": File(b"nothing", lfs=False)})
        out = tmp_path / "out"
        command = ["lerobot", "me/robot", "--out", str(out), "--cameras", "front", "--workers", "1"]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}

        def run(*more: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "dataprep", *command, *more],
                env=clean | hub.environment(tmp_path / "home"),
                capture_output=True, text=True, check=False, timeout=120,
            )  # fmt: skip

        first = run()
        assert first.returncode == 0, first.stderr
        fetched = {line.partition(f"/resolve/{commit}/")[2] for line in hub.requests if "/resolve/" in line}
        assert fetched == {
            *("README.md", "meta/info.json", "meta/tasks.parquet"),
            *("meta/episodes/chunk-000/file-000.parquet", f"videos/{CAMERAS[0]}/chunk-000/file-000.mp4"),
            "data/chunk-000/file-000.parquet",
        }
        manifest = Manifest.load(out)
        assert (manifest.licence, manifest.config["source"]["commit"]) == ("cc-by-4.0", commit)
        assert manifest.config["source"]["dataset"] == "me/robot"
        command[0] = "hub-dataset"
        command[command.index("--cameras") : command.index("--workers")] = []
        other = run()
        assert other.returncode == 1 and "use `cwm-dataprep lerobot me/robot`" in other.stderr
        command[0] = "lerobot"
        command[-2:-2] = ["--cameras", "front"]
        repo.commit("main", {"README.md": File(b"moved on", lfs=False)})
        assert run("--revision", commit).returncode == 0  # the same work still
        gone = run("--revision", "v9")
        assert (gone.returncode, gone.stderr.count("\n")) == (1, 1) and "no such revision" in gone.stderr
    shard(V3, tmp_path / "local", "--cameras", "front")
    here, there = ({row.key: row.num_frames for row in read_index(one)} for one in (tmp_path / "local", out))
    assert here == there and len(here) == 6


@pytest.mark.parametrize("place", [V3, V21])
def test_folder_names_the_right_command(place: Path, tmp_path: Path) -> None:
    (tmp_path / "many").symlink_to(place.parent)
    for inside in (place, place / "videos", tmp_path):
        with pytest.raises(ValueError, match=r"is a LeRobot data set .*: use `cwm-dataprep lerobot "):
            list_videos(inside)


@pytest.mark.parametrize("place", [V3, V21])
def test_hub_dataset_names_the_right_command(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["hub-dataset", str(place), "--out", str(tmp_path / "out")]) == 1
    assert f"use `cwm-dataprep lerobot {place}`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            ["--cameras", "left"],
            "--cameras left is not one of the data set's cameras: observation.images.top",
        ),
        (["--episodes", "7:9"], "none of the episodes asked for"),
        (["--revision", "main"], "--revision main is of a data set of the Hub"),
        (["--max-episodes", "0"], "max_episodes is at least 1, got 0"),
    ],
)
def test_what_is_not_there_is_one_sentence(
    more: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_v3(tmp_path / "set", [episode_row(0, 30, 0.0)], frames=30)
    assert shard(tmp_path / "set", tmp_path / "out", *more) == 1
    told = capsys.readouterr().err
    assert sentence in told and told.count("\n") == 1


def test_other_formats_and_other_folders_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_info(tmp_path / "old", "v1.6")
    (tmp_path / "empty").mkdir()
    write_info(tmp_path / "bare", "v3.0")
    write_info(tmp_path / "torn", "v2.1", fps=None)
    write_info(tmp_path / "still", "v2.1", fps=0)
    for name, sentence in (
        ("old", "codebase version v1.6, expected v2.0, v2.1 or v3.0"),
        ("empty", "is no LeRobot data set: it has no meta/info.json"),
        ("bare", "lists no episode"),
        ("torn", "info.json is damaged"),
        ("still", "fps is above 0 and finite, got 0"),
        ("nowhere/at/all", "there is no folder"),
    ):
        assert shard(tmp_path / name, tmp_path / "out") == 1
        told = capsys.readouterr().err
        assert sentence in told and told.count("\n") == 1


def test_a_table_without_times_is_read_by_its_lengths(tmp_path: Path) -> None:
    shutil.copytree(V3, tmp_path / "set")
    path = next((tmp_path / "set/meta/episodes").rglob("*.parquet"))
    table = pq.read_table(path)
    pq.write_table(table.drop_columns([name for name in table.column_names if "to_timestamp" in name]), path)
    assert shard(tmp_path / "set", tmp_path / "out") == 0
    assert sorted(row.num_frames for row in read_index(tmp_path / "out")) == sorted(2 * LENGTHS)


def test_two_files_of_one_camera(tmp_path: Path) -> None:
    rows = [
        episode_row(0, 30, 0.0),
        episode_row(1, 26, 3.0),
        episode_row(2, 28, 0.0, **{f"videos/{KEY}/file_index": 1}),
    ]
    write_v3(tmp_path / "set", rows, frames=56)
    write_video(tmp_path / f"set/videos/{KEY}/chunk-000/file-001.mp4", counting_frames(28), fps=10)
    assert shard(tmp_path / "set", tmp_path / "out") == 0
    assert episodes_of(tmp_path / "out") == {
        f"episode_000000/{KEY}": list(range(30)),
        f"episode_000001/{KEY}": list(range(30, 56)),
        f"episode_000002/{KEY}": list(range(28)),
    }
