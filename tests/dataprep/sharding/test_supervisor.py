"""The engine writes the same bytes whatever dies, and blames a video only when it must."""

import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from openers import numbered_listing, open_numbered, raw_config

from cwm_hub.shards.codecs import decode_clip
from cwm_hub.shards.index import read_index
from cwm_hub.shards.manifest import Manifest
from cwm_hub.shards.storage import Root
from dataprep.sharding import ledger, supervisor
from dataprep.sharding.ledger import Origin
from dataprep.sharding.plan import Listing, ShardConfig, make_plan
from dataprep.sharding.supervisor import RunOptions, run_jobs
from dataprep.sharding.worker import Beat, OutputError, ShardJob, ShardState, make_jobs


def make_shards(
    root: Path | str,
    listing: Listing,
    config: ShardConfig | None = None,
    run: Callable[[list[ShardJob], RunOptions], None] = run_jobs,
    **options: object,
) -> ledger.Outcome:
    plan = make_plan(listing, config or raw_config())
    with ledger.run_lock(Root.parse(root)):
        ledger.begin(Root.parse(root), plan, Origin())
        tasks = ledger.unfinished(Root.parse(root), plan.tasks, plan.hash)
        run_options = RunOptions(**{"workers": 2, **options})  # type: ignore[arg-type]
        run(make_jobs(tasks, plan, root=Root.parse(root), opener=open_numbered), run_options)
        return ledger.finalize(Root.parse(root))


def fingerprint(root: Path) -> dict[str, str]:
    """sha256 of everything that is the data set."""
    files = [path for part in ("data", "meta") for path in sorted((root / part).iterdir())]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def failures_of(root: Path) -> dict[str, tuple[str, str]]:
    lines = map(json.loads, (root / "meta/failures.jsonl").read_text().splitlines())
    return {line["source_path"]: (line["reason"], line["detail"]) for line in lines}


def test_clips_of_a_long_video_overlap_so_that_no_window_is_lost(tmp_path: Path) -> None:
    config = raw_config(max_clip_frames=40, overlap_frames=24)
    make_shards(tmp_path, numbered_listing(40, 41, 100), config)
    rows = sorted(read_index(tmp_path), key=lambda row: row.key)
    assert [(row.key, row.start_frame, row.num_frames, row.source_frames) for row in rows] == [
        ("v000", 0, 40, 40),
        ("v001_c000", 0, 40, 41),
        ("v001_c001", 16, 25, 41),
        ("v002_c000", 0, 40, 100),
        ("v002_c001", 16, 40, 100),
        ("v002_c002", 32, 40, 100),
        ("v002_c003", 48, 40, 100),
        ("v002_c004", 64, 36, 100),
    ]
    for row in rows:
        data = (tmp_path / row.shard).read_bytes()[row.offset : row.offset + row.size]
        numbers = decode_clip(data, "raw")[:, 0, 0, 0].tolist()
        assert numbers == list(range(row.start_frame, row.start_frame + row.num_frames))
    for source, length in (("v001", 41), ("v002", 100)):
        windows = {
            start for row in rows if row.source == source
            for start in range(row.start_frame, row.start_frame + row.num_frames - 24)
        }  # fmt: skip
        assert windows == set(range(length - 24))


def test_a_video_without_the_arrays_that_the_others_have_is_a_line_with_its_reason(tmp_path: Path) -> None:
    source = {"arrays": {"action": ["x"], "reward": ["reward"]}}
    config = raw_config(source=source)
    outcome = make_shards(tmp_path, numbered_listing("logged:5", 5), config, workers=0)
    assert outcome.videos == 1 and Manifest.load(tmp_path).config["arrays"].keys() == {"action", "reward"}
    assert failures_of(tmp_path) == {
        "videos/1": ("bad_rows", "no action and no reward beside the frames, which the plan promises")
    }


def test_a_source_is_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    outcome = make_shards(tmp_path, numbered_listing(30, "broken:30", 30))
    assert {row.source for row in read_index(tmp_path)} == {"v000", "v002"}
    assert failures_of(tmp_path) == {"videos/1": ("decode_error", "made up")}
    assert (outcome.videos, outcome.failures, outcome.skips) == (2, 1, 0)


@pytest.mark.parametrize("codec", ["raw", "h264"])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_any_number_of_workers_gives_the_same_bytes(tmp_path: Path, workers: int, codec: str) -> None:
    listing = numbered_listing(*range(25, 38), "broken:30")
    make_shards(tmp_path / "two", listing, raw_config(codec=codec), workers=2)
    make_shards(tmp_path / "other", listing, raw_config(codec=codec), workers=workers)
    assert fingerprint(tmp_path / "two") == fingerprint(tmp_path / "other")


def test_a_video_that_kills_its_worker_is_quarantined(tmp_path: Path) -> None:
    make_shards(tmp_path, numbered_listing(30, "segfault:30", 30, "exit:30", "bug:30", 30))
    assert {row.source for row in read_index(tmp_path)} == {"v000", "v002", "v005"}
    assert failures_of(tmp_path) == {
        "videos/1": ("crash", "the worker died by SIGSEGV, 3 times"),
        "videos/3": ("crash", "the worker ended with code 1: the worker has had enough, 3 times"),
        "videos/4": (
            "crash",
            "the worker ended with code 1: ZeroDivisionError: a bug in the opener, 3 times",
        ),
    }


def test_a_quarantined_video_leaves_no_trace_in_the_clips_beside_it(tmp_path: Path) -> None:
    config = raw_config(codec="h264")
    for behaviour in ("segfault", "broken"):
        make_shards(tmp_path / behaviour, numbered_listing(30, 40, f"{behaviour}:30", 30), config, workers=1)
    first, second = (next((tmp_path / name / "data").iterdir()) for name in ("segfault", "broken"))
    assert first.read_bytes() == second.read_bytes()


def test_a_video_that_hangs_is_quarantined_in_bounded_time(tmp_path: Path) -> None:
    started = time.monotonic()
    make_shards(tmp_path, numbered_listing(30, "hang:30", 30), timeout_seconds=3.0)
    assert failures_of(tmp_path) == {"videos/1": ("timeout", "no sign of life for 3 s, 2 times")}
    assert {row.source for row in read_index(tmp_path)} == {"v000", "v002"}
    assert time.monotonic() - started < 60


def test_a_slow_long_video_is_not_taken_for_a_hang(tmp_path: Path) -> None:
    config = raw_config(max_clip_frames=50)  # 3 s of work, a sign every 0.1 s
    make_shards(tmp_path, numbered_listing("slow:1500"), config, timeout_seconds=2.0)
    assert failures_of(tmp_path) == {}


def test_frames_that_are_not_kept_are_a_sign_of_life(tmp_path: Path) -> None:
    make_shards(tmp_path, numbered_listing("rare:30"), timeout_seconds=2.0)  # 5 s of work before the first
    assert failures_of(tmp_path) == {}


@pytest.mark.parametrize("codec", ["raw", "h264"])
def test_a_worker_killed_once_costs_nothing(tmp_path: Path, codec: str) -> None:
    marker = tmp_path / "marker"
    config = raw_config(codec=codec)
    make_shards(tmp_path / "killed", numbered_listing(30, f"die-once {marker}:30", 30), config)
    marker.touch()
    make_shards(tmp_path / "calm", numbered_listing(30, f"die-once {marker}:30", 30), config)
    assert fingerprint(tmp_path / "killed") == fingerprint(tmp_path / "calm")


def test_workers_that_die_for_no_video_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_work", _leave_at_once)
    with pytest.raises(ChildProcessError, match="ended 6 times without being at any video"):
        make_shards(tmp_path, numbered_listing(30))


def _leave_at_once(*_: object) -> None:
    os._exit(9)


def test_a_rerun_does_only_what_is_missing(tmp_path: Path) -> None:
    listing = numbered_listing(*[30] * 12)
    make_shards(tmp_path, listing)
    before = fingerprint(tmp_path)
    tars = sorted((tmp_path / "data").iterdir())
    kept = tars[0].stat().st_mtime_ns
    tars[1].unlink()
    tars[2].write_bytes(tars[2].read_bytes()[:-512])
    (tmp_path / "data" / f".tmp-{tars[1].name}.999").write_bytes(b"left by a killed worker")
    make_shards(tmp_path, listing)
    assert fingerprint(tmp_path) == before
    assert tars[0].stat().st_mtime_ns == kept


def test_a_damaged_state_file_is_a_shard_to_write_again(tmp_path: Path) -> None:
    listing = numbered_listing(*[30] * 12)
    make_shards(tmp_path, listing)
    before = fingerprint(tmp_path)
    first, second, *_ = sorted((tmp_path / ".state" / "shards").iterdir())
    first.write_bytes(first.read_bytes()[:-40])
    second.write_text("[]")
    with pytest.raises(ValueError, match="is damaged: run the same command again"):
        ledger.finalize(Root.parse(tmp_path))
    make_shards(tmp_path, listing)
    assert fingerprint(tmp_path) == before
    (tmp_path / ".state/plan.json").write_text("{}")
    with pytest.raises(ValueError, match=r"plan\.json is damaged"):
        ledger.finalize(Root.parse(tmp_path))


@pytest.mark.parametrize(
    ("listing", "changes", "named"),
    [
        (
            numbered_listing(30, 30),
            {"codec": "jpeg", "seed": 7},
            "--codec was 'raw', is 'jpeg'; --seed was 0, is 7. Restore that, use",
        ),
        (numbered_listing(30, 30), {"max_clip_frames": 99}, "--max-clip-frames was 256, is 99"),
        (numbered_listing(30, 30, 30), {}, "it had 2 source videos, listed now: 3. Restore that, "),
    ],
)
def test_other_work_in_the_same_place_is_refused(
    tmp_path: Path, listing: Listing, changes: dict[str, object], named: str
) -> None:
    make_shards(tmp_path, numbered_listing(30, 30))
    before = fingerprint(tmp_path)
    with pytest.raises(ValueError, match=f"was begun otherwise: {named}"):
        make_shards(tmp_path, listing, raw_config(**changes))
    assert fingerprint(tmp_path) == before


def test_another_version_of_a_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_shards(tmp_path, numbered_listing(30))
    monkeypatch.setattr(ledger, "library_versions", lambda: {"av": "99"})
    with pytest.raises(ValueError, match=r"begun otherwise: av was '.*', is '99'"):
        make_shards(tmp_path, numbered_listing(30))


def test_foreign_files_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine.tar").touch()
    with pytest.raises(ValueError, match="already holds files that no recorded run wrote"):
        make_shards(tmp_path, numbered_listing(30))
    with pytest.raises(ValueError, match="nothing was removed"):
        ledger.clear(Root.parse(tmp_path))
    assert (tmp_path / "data/mine.tar").exists()


def test_two_runs_on_one_output_exclude_each_other(tmp_path: Path) -> None:
    with (
        ledger.run_lock(Root.parse(tmp_path)),
        pytest.raises(ValueError, match="another run is writing"),
        ledger.run_lock(Root.parse(tmp_path)),
    ):
        pass
    with ledger.run_lock(Root.parse(tmp_path), "0-of-2"):
        with ledger.run_lock(Root.parse(tmp_path), "1-of-2"):
            pass
        for part in ("0-of-2", ""):
            with (
                pytest.raises(ValueError, match="another run is writing"),
                ledger.run_lock(Root.parse(tmp_path), part),
            ):
                pass
    with ledger.run_lock(Root.parse(tmp_path)):
        pass


def test_a_set_without_a_single_usable_video_is_an_error_that_counts_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no video could be used: 2 decode_error; see .*failures.jsonl"):
        make_shards(tmp_path, numbered_listing("broken:30", "broken:30"))
    assert len(failures_of(tmp_path)) == 2
    assert not (tmp_path / "meta/manifest.json").exists()


def test_finalize_removes_what_a_kill_in_its_midst_left(tmp_path: Path) -> None:
    make_shards(tmp_path, numbered_listing(4))
    (tmp_path / "meta" / ".tmp-index.parquet.12345").write_bytes(b"")
    ledger.finalize(Root.parse(tmp_path))
    assert not list((tmp_path / "meta").glob(".tmp-*"))


def test_finalize_refuses_a_set_with_holes(tmp_path: Path) -> None:
    make_shards(tmp_path, numbered_listing(*[30] * 12))
    (tmp_path / ".state/shards/train-00001-of-00003.json").unlink()
    with pytest.raises(ValueError, match=r"1 of 3 shards are not written yet \(train-00001-of-00003, ...\)"):
        ledger.finalize(Root.parse(tmp_path))
    with pytest.raises(ValueError, match="holds no recorded run"):
        ledger.finalize(Root.parse(tmp_path / "nowhere"))


def test_a_shard_whose_videos_all_fail_has_no_tar(tmp_path: Path) -> None:
    outcome = make_shards(tmp_path, numbered_listing("broken:30", 30), raw_config(videos_per_shard=1))
    assert len(list((tmp_path / "data").iterdir())) == len(outcome.manifest.shards) == 1


def test_the_output_may_be_any_fsspec_url(tmp_path: Path) -> None:
    import fsspec

    root = f"memory:/{tmp_path}/set"
    listing = numbered_listing(*range(25, 34))
    make_shards(root, listing, workers=0)
    make_shards(tmp_path / "local", listing)
    assert Manifest.load(root) == Manifest.load(tmp_path / "local")
    filesystem = fsspec.filesystem("memory")
    for record in Manifest.load(root).shards:
        data = filesystem.cat_file(f"{tmp_path}/set/{record.file}")
        assert hashlib.sha256(data).hexdigest() == record.sha256
    filesystem.rm(f"{tmp_path}/set/data/train-00000-of-00003.tar")
    make_shards(root, listing, workers=0)
    assert len(filesystem.ls(f"{tmp_path}/set/data")) == 3


def test_progress_counts_up_to_the_truth(tmp_path: Path) -> None:
    plan = make_plan(numbered_listing(*[30] * 9, "broken:30"), raw_config())
    seen: list[Beat] = []
    run_jobs(
        make_jobs(plan, plan, root=Root.parse(tmp_path), opener=open_numbered), RunOptions(2), seen.append
    )
    assert (seen[-1].videos, seen[-1].clips, seen[-1].frames, seen[-1].failures) == (10, 9, 270, 1)
    assert [beat.videos for beat in seen] == sorted(beat.videos for beat in seen)


def test_a_state_file_says_all(tmp_path: Path) -> None:
    make_shards(tmp_path, numbered_listing(30, "broken:30"))
    (path,) = (tmp_path / ".state/shards").iterdir()
    state = ShardState.from_json(path.read_bytes())
    assert list(state.rows) == read_index(tmp_path)
    assert ShardState.from_json(state.to_json()) == state


RUN = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2].split(":")
from openers import numbered_listing, open_numbered, raw_config
from test_supervisor import make_shards
if __name__ == "__main__":
    config = raw_config(videos_per_shard=3, codec="h264")
    make_shards(Path(sys.argv[1]), numbered_listing(*sys.argv[3:]), config)
"""


def start_run(root: Path, *videos: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            RUN,
            str(root),
            f"{Path(__file__).parent}:{Path(__file__).parents[2]}",
            *(videos or ["slow:30"] * 16),
        ],
        start_new_session=True,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )


def members(session: int) -> list[int]:
    """Processes of a session: the run, its fork server and its workers."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def kill_at_random(root: Path, *, kills: int, seed: int) -> None:
    """SIGKILL the run or one of its processes at random moments, going on with a new run where it ended."""
    draw = random.Random(seed)
    run = start_run(root)
    for number in range(kills):
        if run.poll() is not None:
            run = start_run(root)
        time.sleep(draw.uniform(0.3, 1.5))
        others = [pid for pid in members(run.pid) if pid != run.pid]
        victim = run.pid if number % 2 == 0 or not others else draw.choice(others)
        with contextlib.suppress(ProcessLookupError):  # it ended just now
            os.kill(victim, signal.SIGKILL)
        if victim == run.pid:
            run.wait()
            wait_until_gone(run.pid)
    if run.wait() != 0:
        assert start_run(root).wait() == 0


def wait_until_gone(session: int) -> None:
    """Workers end by themselves when the supervisor is killed."""
    deadline = time.monotonic() + 60
    while members(session):
        assert time.monotonic() < deadline, f"still there: {members(session)}"
        time.sleep(0.02)


def test_killed_workers_leave_no_temporary_files(tmp_path: Path) -> None:
    with (
        tempfile.TemporaryDirectory() as temporary
    ):  # the fork server's socket in it takes no path above 107 bytes
        run = start_run(tmp_path / "out", "30", "segfault:30", "exit:30", "30", TMPDIR=temporary)
        assert run.wait() == 0, run.communicate()
        assert set(failures_of(tmp_path / "out")) == {"videos/1", "videos/2"}
        assert not list(Path(temporary).iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_anywhere_and_run_again_gives_the_same_bytes(tmp_path: Path, kills: int) -> None:
    assert start_run(tmp_path / "calm").wait() == 0
    kill_at_random(tmp_path / "stormy", kills=kills, seed=kills)
    assert fingerprint(tmp_path / "stormy") == fingerprint(tmp_path / "calm")
    assert not list((tmp_path / "stormy").rglob(".tmp-*"))


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Path:
    """A file system of 1 MiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mount], capture_output=True
    ).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield mount  # type: ignore[misc]
    subprocess.run(["umount", "-l", mount], check=True)


def test_a_full_disk_is_one_sentence_and_nothing_is_lost(tiny_disk: Path, tmp_path: Path) -> None:
    listing = numbered_listing(*[200] * 22)  # 11 tars of 77 kB
    config = raw_config(videos_per_shard=2)
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(bytes(600_000))
    with pytest.raises(OutputError, match=r"cannot write to .*: No space left on device"):
        make_shards(tiny_disk / "out", listing, config)
    written = len(list((tiny_disk / "out/data").glob("train-*.tar")))
    assert 0 < written < 11
    ballast.unlink()
    make_shards(tiny_disk / "out", listing, config)
    make_shards(tmp_path / "calm", listing, config)
    assert fingerprint(tiny_disk / "out") == fingerprint(tmp_path / "calm")


def test_a_read_only_output_is_one_sentence(tiny_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", tiny_disk], check=True)
    with pytest.raises(OutputError, match=r"cannot write to .*: Read-only file system"):
        make_shards(tiny_disk / "out", numbered_listing(30))


def test_no_process_is_left_behind(tmp_path: Path) -> None:
    make_shards(tmp_path, numbered_listing(30, 30))
    assert multiprocessing.active_children() == []


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["h264", "raw"])
def test_a_worker_stays_small_however_long_the_video(torture: Path, tmp_path: Path, codec: str) -> None:
    """20,000 frames of 64x64 are 246 MB: a worker that held them would be above the limit."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/long.mp4").symlink_to(torture / "01_len20000_16x16.mp4")
    arguments = [
        "folder",
        str(tmp_path / "in"),
        "--out",
        str(tmp_path / "out"),
        "--codec",
        codec,
        "--workers",
        "0",
    ]
    code = f"""
import re
from pathlib import Path
from dataprep.__main__ import main
assert main({arguments!r}) == 0
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]  # ru_maxrss has the parent's too
print(int(peak) // 1024)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 300
    assert {row.source_frames for row in read_index(tmp_path / "out")} == {20_000}
