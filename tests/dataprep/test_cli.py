"""The command line: quick to answer, one sentence for every wrong input, the promised exit codes."""

import contextlib
import csv
import json
import math
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from made_videos import counting_frames, write_video

from cwm_hub.shards.index import read_index_table
from cwm_hub.shards.manifest import Manifest
from dataprep.__main__ import COMMANDS, main
from dataprep.curation.verify import verify
from dataprep.sharding.summary import Tolerance
from dataprep.sources.table import SOURCES

SAMPLES = Path(__file__).parents[2] / "dataprep/samples"
CLI = [sys.executable, "-m", "dataprep"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(8):
        write_video(folder / f"{number}.mp4", counting_frames(30 + number))
    return folder


def folder_command(videos: Path, out: Path | str, *more: str) -> list[str]:
    small = ["--size", "16", "--videos-per-shard", "2", "--validation-share", "0"]
    return ["folder", str(videos), "--out", str(out), *small, *more]


def test_help_is_light() -> None:
    code = "import sys\nfrom dataprep.__main__ import main\ntry:\n main(['--help'])\nexcept SystemExit:\n print(sorted(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(command in told for command in SOURCES | COMMANDS)
    loaded = set(json.loads(told.splitlines()[-1].replace("'", '"')))
    assert not loaded & {"torch", "av", "numpy", "pyarrow", "fsspec"}


def test_sharding_never_loads_torch(videos: Path, tmp_path: Path) -> None:
    arguments = folder_command(videos, tmp_path / "out", "--workers", "0")
    code = f"import sys\nfrom dataprep.__main__ import main\nassert main({arguments!r}) == 0\nprint('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["fold"], "there is no command fold; did you mean 'folder'?"),
        (["folder", "x", "--ouy", "y"], "there is no option --ouy; did you mean '--out'?"),
        (
            ["folder", "x", "--out", "y", "--max_clip_frmes=3"],
            "there is no option --max-clip-frmes; did you mean '--max-clip-frames'?",
        ),
        (["folder", "x"], "the following arguments are required: --out"),
        (["folder", "{tmp}/no", "--out", "{tmp}/o"], "there is no directory {tmp}/no"),
        (["folder", "{tmp}/empty", "--out", "{tmp}/o"], "no video found"),
        (["folder", "{videos}", "--out", "{tmp}/o", "--size", "63"], "h264 needs an even size, got 63"),
        (["folder", "{videos}", "--out", "{tmp}/o", "--size", "0"], "size must be at least 1, got 0"),
        (
            ["folder", "{videos}", "--out", "{tmp}/o", "--size", "99998"],
            "size must be at most 4096, got 99998",
        ),
        (["folder", "{videos}", "--out", "{tmp}/o", "--codec", "av1"], "invalid choice: 'av1'"),
        (
            ["folder", "{videos}", "--out", "{tmp}/o", "--workers", "-1"],
            "workers is at least 0, got -1",
        ),
        (
            ["folder", "{videos}", "--out", "{tmp}/o", "--shard-range", "2/2"],
            "expected I/N with I from 0 to N - 1, got '2/2'",
        ),
        (
            ["folder", "{videos}", "--out", "{tmp}/o", "--max-failures", "few"],
            "expected a count or a percentage",
        ),
        (
            ["folder", "{videos}", "--out", "{tmp}/o", "--validation-share", "1"],
            "validation_share is at least 0 and below 1, got 1.0",
        ),
        (
            ["folder", "{videos}", "--out", "{tmp}/o", "--labels", "{tmp}/l.csv"],
            "cannot read",
        ),
        (["folder", "{videos}/0.mp4", "--out", "{tmp}/o"], "{videos}/0.mp4 is no directory"),
        (
            ["folder", "{videos}", "--out", "{videos}/0.mp4"],
            "cannot write to {videos}/0.mp4: Not a directory",
        ),
        (["folder", "{videos}", "--out", "/proc/o"], "cannot write to /proc/o"),
        (["folder", "{videos}", "--out", "nonsense://x"], "nonsense"),
        (
            ["folder", "{videos}", "--out", "{tmp}/o", "--timeout", "nan"],
            "timeout_seconds is above 0 and finite, got nan",
        ),
        (
            ["folder", "{videos}", "--out", "{tmp}/o", "--max-clip-frames", "0"],
            "max_clip_frames is at least 1, got 0",
        ),
        (["folder", "{videos}", "--out", ""], "one of the arguments is empty"),
        (["stats", "{videos}/0.mp4"], "{videos}/0.mp4/meta/manifest.json: Not a directory"),
        (["finalize", "{tmp}/empty"], "holds no recorded run"),
    ],
)
def test_wrong_input_is_one_sentence(
    arguments: list[str], sentence: str, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"tmp": tmp_path, "videos": videos}
    try:
        code = main([argument.format(**places) for argument in arguments])
    except SystemExit as stop:
        code = stop.code  # type: ignore[assignment]
    told = capsys.readouterr().err
    assert code == 1
    assert told.startswith("error: ") and told.count("\n") == 1, told
    assert sentence.format(**places) in told
    assert not (tmp_path / "o").exists()


def test_a_hub_that_cannot_be_reached_is_one_sentence(videos: Path) -> None:
    for command in (["stats", "hf://datasets/a/b"], folder_command(videos, "hf://datasets/a/b")):
        environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:1"}
        told = subprocess.run([*CLI, *command], capture_output=True, text=True, env=environment)
        assert told.returncode == 1
        assert told.stderr.startswith("error: ") and told.stderr.count("\n") == 1, told.stderr


def test_a_folder_without_a_usable_video_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.mp4").write_bytes(b"no video at all")
    assert main(folder_command(tmp_path / "in", tmp_path / "out")) == 1
    assert "error: no video could be used: 1 not_a_video; see" in capsys.readouterr().err


def test_failures_above_the_limit_are_exit_code_2_and_the_last_line_says_what_holds(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed, out = tmp_path / "in", tmp_path / "out"
    mixed.mkdir()
    for path in videos.iterdir():
        (mixed / path.name).symlink_to(path)
    (mixed / "bad.mp4").write_bytes(b"no video at all")
    (mixed / "link.mp4").symlink_to(mixed / "bad.mp4")
    for limit, code, words in (
        (["--max-failures", "0"], 2, "more than the 0 that --max-failures 0 allows"),
        (["--max-failures", "0%"], 2, "more than the 0 that --max-failures 0% allows"),
        ([], 0, "within the 1 that --max-failures 10% allows"),
        (["--max-failures", "1"], 0, "within the 1 that --max-failures 1 allows"),
    ):
        assert main(folder_command(mixed, out, *limit)) == code
        last = capsys.readouterr().err.rstrip().splitlines()[-1]
        manifest = Manifest.load(out)
        assert last.startswith(
            f"{out} can be used: 8 of 10 videos, manifest {manifest.hash[:12]}; 1 passed over (1 duplicate); "
            f"1 failed (1 not_a_video), {words}: named in {out}/meta/failures.jsonl"
        )
    assert sum(record.samples for record in manifest.shards) == 8


@pytest.mark.parametrize(
    ("limit", "videos", "allowed"),
    [
        ("10%", 8, 1),
        ("10%", 10, 1),
        ("10%", 11, 2),
        ("1%", 168_913, 1690),
        ("0.7%", 1000, 7),
        ("0%", 99, 0),
        ("3", 99, 3),
    ],
)
def test_a_percentage_of_failures_is_rounded_up(limit: str, videos: int, allowed: int) -> None:
    assert Tolerance(limit).allowed(videos) == allowed


def test_a_finished_set_is_checked_by_its_sizes_and_says_what_that_misses(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(folder_command(videos, out)) == 0
    first = capsys.readouterr().err
    assert "nothing was left to do" not in first
    assert f"no validation split: evaluate has nothing to score; cwm-dataprep split {out} --out NEW" in first
    tar = sorted(out.glob("data/*.tar"))[0]
    whole = tar.read_bytes()
    tar.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    assert main(folder_command(videos, out)) == 0
    told = capsys.readouterr().err
    assert (
        f"every shard is there with its size; what flipped bits would do to them, cwm-dataprep verify {out}"
        in told
    )
    tar.write_bytes(whole[:-512])
    assert main(folder_command(videos, out)) == 0
    assert "nothing was left to do" not in capsys.readouterr().err
    assert tar.read_bytes() == whole


def test_rates_that_differ_are_said_with_what_a_window_then_lasts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for rate in (10, 50):
        write_video(tmp_path / f"in/{rate}.mp4", counting_frames(150), fps=rate)
    assert main(folder_command(tmp_path / "in", tmp_path / "out", "--workers", "0")) == 0
    assert (
        "frame rates differ, 10 to 50 a second: a window of 25 frames lasts 2.5 s of one video and 0.5 s of another; "
        "--fps 10 gives all one rate"
    ) in capsys.readouterr().err
    assert main(folder_command(tmp_path / "in", tmp_path / "one", "--fps", "10", "--workers", "0")) == 0
    assert "frame rates differ" not in capsys.readouterr().err


def test_a_set_of_another_licence_goes_on_as_it_is_described(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(folder_command(videos, out)) == 0
    assert main(["describe", str(out), "--licence", "mit"]) == 0
    described = Manifest.load(out)
    assert main(folder_command(videos, out)) == 1
    assert "--licence was 'mit', is 'unknown'" in capsys.readouterr().err
    assert main(folder_command(videos, out, "--licence", "mit")) == 0
    assert Manifest.load(out) == described


def test_another_size_in_the_same_place_names_the_field(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(folder_command(videos, tmp_path / "out")) == 0
    assert main(folder_command(videos, tmp_path / "out", "--size", "32")) == 1
    told = capsys.readouterr().err
    assert f"{tmp_path / 'out'} was begun otherwise: --size was 16, is 32. Restore that" in told
    assert main(folder_command(videos, tmp_path / "out", "--validation-share", "0.5")) == 1
    told = capsys.readouterr().err
    assert "otherwise: --validation-share was 0.0, is 0.5. Restore" in told and "source videos" not in told
    assert main(folder_command(videos, tmp_path / "out", "--size", "32", "--overwrite")) == 0
    assert Manifest.load(tmp_path / "out").image_size == 32


def test_what_changed_of_the_videos_is_said_where_no_option_did(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, out = tmp_path / "l.csv", tmp_path / "out"
    labels.write_text("path,label\n0.mp4,1\n")
    assert main(folder_command(videos, out, "--labels", str(labels))) == 0
    labels.write_text("path,label\n0.mp4,2\n")
    assert main(folder_command(videos, out, "--labels", str(labels))) == 1
    told = capsys.readouterr().err
    assert "of the 8 source videos some are other files, or have other labels or splits" in told
    (tmp_path / "few").mkdir()
    (tmp_path / "few/0.mp4").symlink_to(videos / "0.mp4")
    assert main(folder_command(tmp_path / "few", out, "--name", Manifest.load(out).name)) == 1
    assert "it had 8 source videos, listed now: 1" in capsys.readouterr().err


def test_columns_of_the_labels_file_are_in_the_index_and_can_be_filtered_by(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, out, fast = tmp_path / "l.csv", tmp_path / "out", tmp_path / "fast"
    labels.write_text("path,speed,robot\n0.mp4,1.5,arm\n1.mp4,3,arm\n2.mp4,,leg\n")
    command = folder_command(videos, out, "--labels", str(labels))
    assert main(command) == 0
    before = Manifest.load(out)

    def columns(root: Path) -> dict[str, tuple[float, str]]:
        rows = read_index_table(root).select(["source_path", "speed", "robot"]).to_pylist()
        return {row["source_path"]: (row["speed"], row["robot"]) for row in rows}

    assert columns(out)["1.mp4"] == (3.0, "arm") and columns(out)["2.mp4"][1] == "leg"
    assert math.isnan(columns(out)["2.mp4"][0]) and columns(out)["7.mp4"][1] == ""
    assert verify(out, "full") == []
    assert main(["filter", str(out), "--where", "speed>1", "--where", "robot=arm", "--out", str(fast)]) == 0
    assert columns(fast) == {"0.mp4": (1.5, "arm"), "1.mp4": (3.0, "arm")}
    assert main(["filter", str(out), "--where", "speed>fast", "--out", str(tmp_path / "no")]) == 1
    assert "speed is compared with a number, got 'fast'" in capsys.readouterr().err
    labels.write_text("path,speed,robot\n0.mp4,9,arm\n")  # of no byte of the shards
    assert main(command) == 0
    assert columns(out)["0.mp4"] == (9.0, "arm") and Manifest.load(out) == before


def test_a_corrupt_shard_is_written_again_from_its_videos(
    videos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(folder_command(videos, out, "--overwrite")) == 0  # which the repair must not do again
    tar = out / "data/train-00001-of-00004.tar"
    whole, others = tar.read_bytes(), {p: p.stat().st_mtime_ns for p in out.glob("data/*") if p != tar}
    tar.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    assert main(["verify", str(out), "--level", "full"]) == 3
    assert main(["verify", str(out), "--level", "full", "--repair"]) == 0
    told = capfd.readouterr()
    assert (
        "writing 1 shard again: cwm-dataprep folder" in told.err and "4 shards, 8 clips, as the" in told.out
    )
    assert tar.read_bytes() == whole and {p: p.stat().st_mtime_ns for p in others} == others
    moved = out.rename(tmp_path / "moved")  # where it lies now is what is repaired
    tar, out = moved / "data/train-00001-of-00004.tar", moved
    tar.unlink()
    assert main(["verify", str(out), "--repair"]) == 0
    assert tar.read_bytes() == whole and not (tmp_path / "out").exists()
    capfd.readouterr()
    tar.unlink()
    (out / ".state/command.json").unlink()
    assert main(["verify", str(out), "--repair"]) == 1
    assert (
        "is not recorded there; fetch these files again: data/train-00001-of-00004.tar"
        in capfd.readouterr().err
    )


def test_a_reader_that_has_seen_enough_ends_the_output_in_silence(videos: Path, tmp_path: Path) -> None:
    assert main(folder_command(videos, tmp_path / "out")) == 0
    ours, theirs = os.pipe()
    os.close(ours)
    result = subprocess.run([*CLI, "stats", str(tmp_path / "out")], stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    assert (result.returncode, result.stderr) == (0, b"")


def test_parts_and_finalize_equal_one_run(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    assert main(["status", str(parts)]) == 1
    assert "holds no recorded run" in capsys.readouterr().err
    assert main(folder_command(videos, parts, "--shard-range", "1/2")) == 0
    assert main(["status", str(parts)]) == 0
    written, part, end = capsys.readouterr().out.splitlines()
    assert re.match(r"2 of 4 shards are written: 4 of 8 videos, 4 clips, \d+ frames, 0.0 MB$", written)
    assert re.match(r"part 1/2: 4 of 4 videos, 0 failed, after 0:\d\d; last heard of \d+:\d\d ago$", part)
    assert end == "not finished: shards are missing"
    assert main(["finalize", str(parts)]) == 1
    assert "2 of 4 shards are not written yet" in capsys.readouterr().err
    assert main(folder_command(videos, parts, "--shard-range", "0/2")) == 0
    capsys.readouterr()
    assert main(["status", str(parts)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[1:3]] == ["part 0/2", "part 1/2"]
    assert lines[3] == "not finished: cwm-dataprep finalize, or the command of the run, ends it"
    assert main(["finalize", str(parts)]) == 0
    assert main(["status", str(parts)]) == 0
    assert f"finished: manifest {Manifest.load(parts).hash[:12]}" in capsys.readouterr().out
    assert main(folder_command(videos, whole)) == 0
    assert Manifest.load(parts) == Manifest.load(whole)


def test_a_dry_run_writes_nothing_and_estimates(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(folder_command(videos, tmp_path / "out", "--dry-run")) == 0
    told = capsys.readouterr().err
    assert "train: 8 videos would go into 4 shards" in told
    assert "about 268 frames" in told  # 30 + ... + 37: all were probed
    assert not (tmp_path / "out").exists()


def test_a_limit(videos: Path, tmp_path: Path) -> None:
    assert main(folder_command(videos, tmp_path / "out", "--limit", "3")) == 0
    assert sum(record.samples for record in Manifest.load(tmp_path / "out").shards) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_continue(videos: Path, tmp_path: Path, number: int) -> None:
    command = folder_command(videos, tmp_path / "out", "--workers", "1", "--videos-per-shard", "1")
    run = subprocess.Popen(
        [*CLI, *command],
        stderr=subprocess.PIPE,
        text=True,
        # A shell ignores Ctrl-C for what it runs in the background, and so would everything started from there.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not list((tmp_path / "out").glob(".state/shards/*.json")):
        assert run.poll() is None
        time.sleep(0.01)
    run.send_signal(number)
    _, told = run.communicate(timeout=30)
    assert run.returncode == 130
    assert told.rstrip().splitlines()[-1] == f"interrupted; continue with: cwm-dataprep {' '.join(command)}"
    assert not list((tmp_path / "out").rglob(".tmp-*"))
    assert main(command) == 0


def test_on_a_terminal_there_is_one_line_rewritten(videos: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    run = subprocess.Popen([*CLI, *folder_command(videos, tmp_path / "out")], stderr=theirs)
    os.close(theirs)
    told = b""
    with contextlib.suppress(OSError):  # how a terminal says that nobody is at its other end any more
        while data := os.read(ours, 1 << 16):  # it holds 4 kB: unread, the run would wait
            told += data
    os.close(ours)
    assert run.wait() == 0
    assert b"\r\x1b[K8/8 videos, 8 clips, " in told
    progress = json.loads((tmp_path / "out/.state/progress.json").read_text())
    assert (progress["videos"], progress["total_videos"], progress["frames"]) == (8, 8, 268)


def test_elsewhere_there_are_plain_lines(videos: Path, tmp_path: Path) -> None:
    told = subprocess.run(
        [*CLI, *folder_command(videos, tmp_path / "out")], capture_output=True, text=True, check=True
    )
    assert "\r" not in told.stderr and "\x1b" not in told.stderr
    assert "8/8 videos, 8 clips, " in told.stderr


def test_the_samples_shard_whole(tmp_path: Path) -> None:
    command = ["folder", str(SAMPLES), "--labels", str(SAMPLES / "labels.csv"), "--out", str(tmp_path)]
    assert main(command) == 0
    splits = Manifest.load(tmp_path).splits
    with (SAMPLES / "labels.csv").open() as file:
        listed = Counter(row["split"] for row in csv.DictReader(file))
    assert {split: sum(r.samples for r in records) for split, records in splits.items()} == listed
    assert 16 <= listed.total() <= 24
    assert sum(path.stat().st_size for path in SAMPLES.iterdir()) < 1 << 20


def test_two_runs_on_one_output_at_once(videos: Path, tmp_path: Path) -> None:
    command = folder_command(videos, tmp_path / "out", "--workers", "1", "--videos-per-shard", "1")
    first = subprocess.Popen([*CLI, *command], stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "out/.state/plan.json").exists():
        assert first.poll() is None
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)  # it holds the lock for as long as the second one needs
    second = subprocess.run([*CLI, *command], capture_output=True, text=True)
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 1
    assert (
        second.stderr
        == f"error: another run is writing to {tmp_path / 'out'}: wait for it, or choose another --out\n"
    )
    first.communicate()
    assert first.returncode == 0
    assert sum(record.samples for record in Manifest.load(tmp_path / "out").shards) == 8


def run_script(path: Path, lines: str) -> subprocess.CompletedProcess[str]:
    path.write_text(lines)
    return subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=120)


def test_a_system_without_affinity_and_a_script_without_a_main_guard(videos: Path, tmp_path: Path) -> None:
    """macOS; and the workers, new processes, must not run the script that called us."""
    command = folder_command(videos, tmp_path / "out")
    told = run_script(
        tmp_path / "script.py",
        "import os, sys\ndel os.sched_getaffinity\nfrom dataprep.__main__ import main\n"
        f"print('here')\nsys.exit(main({command!r}))",
    )
    assert (told.returncode, told.stdout) == (0, "here\n"), told.stderr
    assert sum(record.samples for record in Manifest.load(tmp_path / "out").shards) == 8


def test_file_systems_without_locks_and_folder_sync_give_one_line_each(videos: Path, tmp_path: Path) -> None:
    command = folder_command(videos, tmp_path / "out", "--workers", "0")
    told = run_script(
        tmp_path / "script.py",
        "import errno, fcntl, os, stat, sys\nplain = os.fsync\n"
        "def refuse(*_): raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))\n"
        "def fsync(file): refuse() if stat.S_ISDIR(os.fstat(file).st_mode) else plain(file)\n"
        "fcntl.flock = fcntl.lockf = refuse\nos.fsync = fsync\n"
        f"from dataprep.__main__ import main\nsys.exit(main({command!r}))",
    )
    warned = [line for line in told.stderr.splitlines() if line.startswith("warning: ")]
    assert told.returncode == 0 and len(warned) == 2, told.stderr
    assert "no locks" in warned[0] and "cannot sync" in warned[1]


def test_both_spellings_of_an_option_are_taken(videos: Path, tmp_path: Path) -> None:
    for spelling in ("--videos-per-shard=4", "--videos_per_shard=4"):
        command = ["folder", str(videos), "--out", str(tmp_path / spelling), "--size", "16", spelling]
        command += ["--validation-share", "0"]
        assert main(command) == 0
        assert len(Manifest.load(tmp_path / spelling).shards) == 2
