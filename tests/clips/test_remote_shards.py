"""Remote roots: the same stream as a local one in the same order, whatever the network does."""

import errno
import fcntl
import importlib.util
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import fsspec
import pytest
from flaky_server import FlakyServer
from hub_server import File, HubServer, Repo
from synthetic_shards import write_shards
from test_loader import equal, take

from cwm_hub.clips import remote_shards, retries
from cwm_hub.clips.clip_index import ClipSource
from cwm_hub.clips.loader import ClipLoader
from cwm_hub.clips.retries import FetchConfig
from cwm_hub.shards.codecs import ShardError

WINDOW = 5

needs_http = pytest.mark.skipif(
    importlib.util.find_spec("aiohttp") is None,
    reason="fsspec reads https through aiohttp (pip install aiohttp)",
)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(retries, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(remote_shards, "RANGE_BYTES", 8192)
    monkeypatch.setattr(remote_shards, "SMALLEST_RANGE_BYTES", 1024)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """40 sources in six shards, also under memory://numbered."""
    root = write_shards(tmp_path_factory.mktemp("shards"), range(5, 45), shards=6)
    fsspec.filesystem("memory").put(f"{root}/", "/numbered/", recursive=True)
    return root


def loader(root: object, cache: Path, *, block_shards: int = 2, **changes) -> ClipLoader:
    retries, timeout = changes.pop("retries", 4), changes.pop("timeout_seconds", 60.0)
    config = FetchConfig(cache_dir=str(cache), retries=retries, timeout_seconds=timeout)
    settings = {"batch_clips": 4, "window_frames": WINDOW, "seed": 0, "fetch": config} | changes
    return ClipLoader([ClipSource(str(root), block_shards=block_shards)], **settings)


def shard_of(root: Path) -> dict[str, str]:
    from cwm_hub.shards.index import read_index

    return {row.key: row.shard for row in read_index(root)}


def test_memory_root_gives_the_local_stream(shards, tmp_path):
    local = take(loader(shards, tmp_path / "a"), 30)
    assert equal(local, take(loader("memory://numbered", tmp_path / "b"), 30))
    assert equal(local[13:], take(loader("memory://numbered", tmp_path / "c", start_batch=13, workers=2), 17))


def test_an_epoch_walks_through_blocks_of_shards(shards, tmp_path):
    place = shard_of(shards)
    batches = take(loader(shards, tmp_path), 10)  # 40 sources: one epoch
    keys = [key for batch in batches for key in batch.source]
    assert len(set(keys)) == 40
    runs = [{place[key] for key in group} for group in _groups([place[key] for key in keys], keys, 2)]
    assert [len(run) for run in runs] == [2, 2, 2]
    assert set.union(*runs) == set(place.values())


def _groups(shards: list[str], keys: list[str], block: int) -> list[list[str]]:
    """Cut the sequence where the next shard would be the (block + 1)-th."""
    groups: list[list[str]] = [[]]
    seen: set[str] = set()
    for shard, key in zip(shards, keys, strict=True):
        if len(seen | {shard}) > block:
            groups.append([])
            seen = set()
        seen.add(shard)
        groups[-1].append(key)
    return groups


@needs_http
def test_http_with_every_fault_gives_the_local_stream(shards, tmp_path):
    with FlakyServer(shards) as server:
        server.faults.extend(["500", "cut", "short", "stall", "500", "cut"] * 3)
        clips = loader(server.url, tmp_path, timeout_seconds=0.5, retries=16)
        assert equal(take(loader(shards, tmp_path), 20), take(clips, 20))
        assert not server.faults
        assert clips.broken == {}


@needs_http
def test_each_shard_is_fetched_once_by_ranks_and_workers_together(shards, tmp_path):
    with FlakyServer(shards) as server:
        ranks = [loader(server.url, tmp_path, rank=rank, world_size=2, workers=2) for rank in range(2)]
        streams = [iter(rank) for rank in ranks]
        for _ in range(8):
            for stream in streams:
                next(stream)
        sizes = {path.name: path.stat().st_size for path in (shards / "data").iterdir()}
        assert {name: server.bytes_sent[name] for name in sizes} == sizes


@needs_http
def test_a_server_without_ranges_works(shards, tmp_path):
    with FlakyServer(shards, ranges=False) as server:
        assert equal(take(loader(shards, tmp_path), 12), take(loader(server.url, tmp_path), 12))


@needs_http
def test_a_partial_file_is_continued(shards, tmp_path):
    tars = sorted((shards / "data").iterdir())
    clips = loader("memory://numbered", tmp_path, block_shards=6)
    with FlakyServer(shards) as server:
        for record in clips._batches.sets[0].index.manifest.shards:
            (tmp_path / f"{record.sha256}-{record.bytes}.partial").write_bytes(
                (shards / record.file).read_bytes()[:10_000]
            )
        take(loader(server.url, tmp_path, block_shards=6), 10)
        assert [server.bytes_sent[tar.name] for tar in tars] == [tar.stat().st_size - 10_000 for tar in tars]


@needs_http
def test_a_killed_process_leaves_its_lock_and_its_bytes(shards, tmp_path):
    with FlakyServer(shards, stall_seconds=60) as server:
        server.faults.extend([""] * 8 + ["stall", "stall"])
        child = multiprocessing.get_context("fork").Process(
            target=lambda: take(loader(server.url, tmp_path), 1), daemon=True
        )
        child.start()
        while (
            len(server.faults) > 1
        ):  # then one of its two fetching threads hangs, and the other too or waits for it
            assert child.is_alive()
            time.sleep(0.01)
        child.kill()
        child.join()
        server.faults.clear()
        assert equal(take(loader(shards, tmp_path), 10), take(loader(server.url, tmp_path), 10))
        tars = {path.name: path.stat().st_size for path in (shards / "data").iterdir()}
        twice = sum(server.bytes_sent[name] for name in tars) - sum(tars.values())
        assert twice <= 2 * remote_shards.RANGE_BYTES  # sent, not yet written when the process died


@needs_http
def test_without_locks_two_processes_fetch_into_files_of_their_own(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "no locks")))
    with FlakyServer(shards) as server:
        clips = loader(server.url, tmp_path, workers=2)
        assert equal(take(clips, 10), take(loader(shards, tmp_path), 10))
        assert clips.broken == {}


@needs_http
def test_a_broken_shard_is_passed_over_and_counted(shards, tmp_path):
    with FlakyServer(shards) as server:
        server.always["train-00003-of-00006.tar"] = "500"
        clips = loader(server.url, tmp_path, workers=2)
        batches = take(clips, 10)
        assert list(clips.broken) == ["data/train-00003-of-00006.tar"]
        place = shard_of(shards)
        assert {place[key] for batch in batches for key in batch.source} == set(place.values()) - set(
            clips.broken
        )
        assert server.requests["train-00003-of-00006.tar"] == 4  # one process tried, the others took its word
        healthy = {
            (b, i): key
            for b, batch in enumerate(take(loader(shards, tmp_path), 10))
            for i, key in enumerate(batch.source)
        }
        for (b, i), key in healthy.items():
            if place[key] not in clips.broken:
                assert batches[b].source[i] == key


@needs_http
def test_too_many_broken_shards_stop_the_run_with_a_sentence(shards, tmp_path):
    with FlakyServer(shards) as server:
        for number in range(6):
            server.always[f"train-{number:05d}-of-00006.tar"] = "500"
        with pytest.raises(
            ShardError, match="cannot be read, more than 1 allowed; the last: data/train-0000"
        ):
            take(loader(server.url, tmp_path, max_broken=1, workers=1), 10)


@needs_http
def test_a_shard_with_wrong_bytes_is_broken(shards, tmp_path):
    copy = write_shards(tmp_path / "copy", range(5, 45), shards=6)
    tar = copy / "data/train-00002-of-00006.tar"
    data = bytearray(tar.read_bytes())
    data[3000] ^= 1
    tar.write_bytes(data)
    with FlakyServer(copy) as server:
        clips = loader(server.url, tmp_path / "cache")
        take(clips, 10)
        assert clips.broken == {
            "data/train-00002-of-00006.tar": "its bytes do not have the sha256 of the manifest"
        }


@pytest.mark.parametrize("name", ["manifest.json", "index.parquet"])
@needs_http
def test_meta_files_are_retried_and_a_missing_one_is_a_sentence(shards, tmp_path, name):
    with FlakyServer(shards) as server:
        server.suffix = name
        server.faults.extend(["500", "cut", "stall"])
        take(loader(server.url, tmp_path, timeout_seconds=0.5, retries=16), 1)
        server.always[name] = "500"
        with pytest.raises(ShardError, match=rf"{name} cannot be read \(tried 4 times\)"):
            loader(server.url, tmp_path)
        with pytest.raises(ShardError, match="is not a finished shard directory"):
            loader(server.url + "/nowhere", tmp_path)


@needs_http
def test_the_cache_stays_within_its_bound(shards, tmp_path):
    tars = [path.stat().st_size for path in (shards / "data").iterdir()]
    bounded = FetchConfig(cache_dir=str(tmp_path), cache_bytes=sum(sorted(tars)[-4:]))
    with FlakyServer(shards) as server:
        clips = loader(server.url, tmp_path, fetch=bounded)
        for number, batch in enumerate(clips):
            assert batch.video.shape[0] == 4
            with remote_shards._locked(
                tmp_path / "room.lock", wait=True
            ):  # nothing is dropped while it is counted
                assert sum(path.stat().st_size for path in tmp_path.glob("*.tar")) <= bounded.cache_bytes
            if number == 40:
                break
        assert sum(server.bytes_sent.values()) > 2 * sum(tars)  # dropped and fetched again in later epochs
    with pytest.raises(ShardError, match="raise cache_bytes or lower block_shards"):
        loader("memory://numbered", tmp_path, fetch=FetchConfig(cache_dir=str(tmp_path), cache_bytes=tars[0]))


@needs_http
def test_more_streams_than_shards_neither_hang_nor_idle(shards, tmp_path):
    started = time.monotonic()
    with FlakyServer(shards) as server:
        ranks = [loader(server.url, tmp_path, rank=rank, world_size=5, workers=2) for rank in range(5)]
        keys = [key for rank in ranks for batch in take(rank, 2) for key in batch.source]
    assert len(keys) == len(set(keys)) == 40  # ten streams, six shards: the ranks share one epoch
    assert time.monotonic() - started < 60


def test_a_cache_that_cannot_be_written_is_a_sentence(shards, tmp_path):
    occupied = tmp_path / "file"
    occupied.write_text("not a folder")
    with pytest.raises(ShardError, match=r"^the shard cache .*file cannot be used: .*Not a directory"):
        take(loader("memory://numbered", occupied), 1)


def test_an_abandoned_call_does_not_block(tmp_path):
    forever = threading.Event()
    result = retries.call_within(forever.wait, timeout_seconds=0.05)
    forever.set()
    assert isinstance(result, TimeoutError)


STREAM = """
import itertools, json, sys
from cwm_hub.clips import ClipLoader, ClipSource, FetchConfig
from cwm_hub.shards import ShardError

fetch = FetchConfig(cache_dir=sys.argv[1], retries=2, timeout_seconds=20)
for root in sys.argv[2:]:
    try:
        source = ClipSource(root, block_shards=2)
        clips = ClipLoader([source], batch_clips=4, window_frames=5, seed=0, workers=1, fetch=fetch)
        print(json.dumps([[batch.source, batch.start] for batch in itertools.islice(clips, 20)]))
        print(clips.facts()[0]["commit"])
    except ShardError as error:
        print(error)
"""


def run_on_hub(server: HubServer, folder: Path, *roots: str) -> list[str]:
    """The lines that `STREAM` prints in a process for which `server` is the Hub."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment = inherited | server.environment(folder / "home")
    command = [sys.executable, "-c", STREAM, str(folder / "cache"), *roots]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@pytest.mark.slow
def test_a_hub_root_is_pinned_to_the_commit_it_names_at_the_start(shards, tmp_path):
    repo = Repo(private=True)
    files = [path for path in shards.rglob("*") if path.is_file()]
    repo.commit("main", {str(path.relative_to(shards)): File(path.read_bytes(), lfs=True) for path in files})
    with HubServer() as server:
        server.repos["dataset", "someone/clips"] = repo

        def push_over_it(line: str) -> None:
            if ".tar" in line and len(repo.commits) == 2:
                repo.commit("main", {})

        server.before = push_over_it
        named = repo.branches["main"]
        stream, commit, refusal = run_on_hub(
            server, tmp_path, "hf://datasets/someone/clips", "hf://datasets/someone/nothing"
        )
        local = take(loader(shards, tmp_path / "local"), 20)
        assert json.loads(stream) == [[list(batch.source), list(batch.start)] for batch in local]
        assert len(repo.commits) == 3 and commit == named != repo.branches["main"]
        assert refusal.startswith("hf://datasets/someone/nothing cannot be read (tried 1 times): ")


def test_a_loader_can_be_sent_to_another_process(shards, tmp_path):
    """As `spawn` and `forkserver` workers need it: connections, threads and open files stay behind."""
    clips = loader(shards, tmp_path)
    remote_clips = loader("memory://numbered", tmp_path)
    first = take(remote_clips, 3)
    for original in (clips, remote_clips):
        copy = pickle.loads(pickle.dumps(original._batches))
        assert equal(first, [copy[number] for number in range(3)])
