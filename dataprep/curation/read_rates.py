"""How fast windows come out of a shard set: processes that read what the loader would read, for a while, by the clock.

The windows are read by the loader's own code (`cwm_hub.clips.window_stream`), in the order in which training draws them. Tars of a
URL are fetched whole into a folder of this measurement, as the loader fetches them into its cache. Batches go to this
process as torch's loader processes hand them over: each in fresh shared memory, a few ahead.
"""

import itertools
import mmap
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from cwm_hub.clips.clip_index import ClipSource
from cwm_hub.clips.local_shards import BrokenCount
from cwm_hub.clips.retries import FetchConfig
from cwm_hub.clips.window_stream import ClipSet, open_clip_set
from cwm_hub.shards.codecs import ShardError
from cwm_hub.shards.manifest import Manifest, ShardRecord
from cwm_hub.shards.storage import local_path

Work = Literal["storage", "read", "decode", "batches"]
"""First bytes from disk or URL; bytes of windows from memory; windows read and decoded; these handed over in batches."""

BATCHES_AHEAD = 4
"""Of a process, as the loader's default."""

WARM_UP = 0.25
"""Share of the time that brings windows into memory before the clock starts."""


@dataclass(frozen=True)
class ReadSet:
    """What is read."""

    root: str
    """Local path or fsspec URL."""
    split: str
    window_frames: int
    batch_clips: int
    cache: str
    """Folder for tars fetched from a URL, empty at first."""

    @property
    def remote(self) -> bool:
        """Whether tars are fetched."""
        return local_path(self.root) is None

    def open(self) -> ClipSet:
        """As the loader opens it, but shuffled as one whole, so that nothing is fetched unasked.

        Raises:
            ShardError, SamplingError: as `ClipLoader`.
        """
        source = ClipSource(self.root, split=self.split, block_shards=0)
        fetch = FetchConfig(cache_dir=self.cache, cache_bytes=2**62)
        return open_clip_set(
            source, window_frames=self.window_frames, unit="source", seed=0, number=0, fetch=fetch
        )


@dataclass(frozen=True)
class Rate:
    """What one process did."""

    windows: int
    bytes: int
    cpu_seconds: float
    wall_seconds: float


def measure_rates(what: ReadSet, work: Work, *, workers: int, seconds: float) -> list[Rate]:
    """Do one kind of work in `workers` processes that start their clocks together.

    Raises:
        ShardError: something could not be read, or a process died.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    pipes, processes = [], []
    try:
        for number in range(workers):
            ours, theirs = context.Pipe()
            arguments = (theirs, what, work, number, workers, seconds)
            processes.append(context.Process(target=_run, args=arguments, daemon=True))
            processes[-1].start()
            theirs.close()
            pipes.append(ours)
        for pipe in pipes:
            _hear(pipe)
        if work == "storage" and not what.remote:
            _empty_page_cache(what)
        for pipe in pipes:
            pipe.send("go")
        if work == "batches":
            _take_batches(pipes)
        return [rate for pipe in pipes if (rate := _hear(pipe))]
    finally:
        for process in processes:
            process.kill()
            process.join()


def _hear(pipe: Connection) -> Any:
    try:
        said = pipe.recv()
    except (EOFError, ConnectionError) as error:
        raise ShardError("a measuring process died: is there memory for --workers of them?") from error
    if isinstance(said, ShardError):
        raise said
    return said


def _run(pipe: Connection, what: ReadSet, work: Work, number: int, workers: int, seconds: float) -> None:
    """One process: open, say so, wait for the start, measure, say what came out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    try:
        clips = what.open()
        pipe.send(None)
        pipe.recv()
        if work == "batches":
            rate = _give_batches(clips, what, pipe, number / workers, seconds)
        elif work != "storage":
            rate = _from_memory(clips, what, work, number / workers, seconds)
        elif what.remote:
            rate = _fetch_tars(clips, what, number, workers, seconds)
        else:
            rate = _read_once(clips, what, number, workers, seconds)
        pipe.send(rate)
    except ShardError as error:
        pipe.send(ShardError(str(error)))
    except EOFError:
        return  # the parent gave up


def _read_once(clips: ClipSet, what: ReadSet, number: int, workers: int, seconds: float) -> Rate:
    """Every window of an epoch at most once, or later ones would come from memory."""
    out, windows, count = _frames(clips, what), 0, 0
    clock = _Clock(seconds)
    for sample in range(number, len(clips), workers):
        count += clips.load(sample, out)
        windows += 1
        if clock.over():
            break
    return clock.rate(windows, count)


def _fetch_tars(clips: ClipSet, what: ReadSet, number: int, workers: int, seconds: float) -> Rate:
    """Whole tars, those of this process; at least one, however long it takes."""
    records, out = _records(what), _frames(clips, what)
    done: dict[int, int] = {}
    clock = _Clock(seconds)
    for sample in range(len(clips)):
        shard = _shard(clips, sample)
        if shard % workers == number and shard not in done:
            clips.load(sample, out)
            done[shard] = records[shard].bytes
            if clock.over():
                break
    return clock.rate(len(done), sum(done.values()))


def _from_memory(clips: ClipSet, what: ReadSet, work: Work, place: float, seconds: float) -> Rate:
    out, broken = _frames(clips, what), BrokenCount(0)
    samples = _warm_up(clips, what, place, WARM_UP * seconds)
    windows = count = 0
    clock = _Clock((1 - WARM_UP) * seconds)
    while not windows or not clock.over():
        if work == "decode":
            clips.read(next(samples), out, broken)
        else:
            count += clips.load(next(samples), out)
        windows += 1
    return clock.rate(windows, count)


def _give_batches(clips: ClipSet, what: ReadSet, pipe: Connection, place: float, seconds: float) -> Rate:
    batch, broken = np.stack([_frames(clips, what)] * what.batch_clips), BrokenCount(0)
    samples = _warm_up(clips, what, place, WARM_UP * seconds)
    batches = 0
    clock = _Clock((1 - WARM_UP) * seconds)
    while not batches or not clock.over():
        for out in batch:
            clips.read(next(samples), out, broken)
        if batches >= BATCHES_AHEAD:
            pipe.recv()
        descriptor = os.memfd_create("batch")
        os.ftruncate(descriptor, batch.nbytes)
        with mmap.mmap(descriptor, batch.nbytes) as memory:
            memory.write(batch.data)
        pipe.send(batch.nbytes)
        send_handle(pipe, descriptor, 0)  # the process number matters on Windows only
        os.close(descriptor)
        batches += 1
    rate = clock.rate(batches * what.batch_clips, batches * batch.nbytes)
    pipe.send(None)
    for _ in range(min(batches, BATCHES_AHEAD)):
        pipe.recv()
    return rate


def _take_batches(pipes: Sequence[Connection]) -> None:
    """The trainer's side: map each batch and look at every page of it."""
    open_pipes = list(pipes)
    while open_pipes:
        for pipe in cast(list[Connection], wait(open_pipes)):
            size = _hear(pipe)
            if size is None:
                open_pipes.remove(pipe)
                continue
            descriptor = recv_handle(pipe)
            with mmap.mmap(descriptor, size, prot=mmap.PROT_READ) as memory:
                memory[:: mmap.PAGESIZE]
            os.close(descriptor)
            pipe.send("taken")


def _warm_up(clips: ClipSet, what: ReadSet, place: float, seconds: float) -> Iterator[int]:
    """The samples from `place` (a share of an epoch) on that can be loaded in so many seconds, over and over."""
    out, warm = _frames(clips, what), []
    clock = _Clock(seconds)
    for sample in _available(clips, what, int(place * len(clips))):
        clips.load(sample, out)
        warm.append(sample)
        if clock.over():
            break
    return itertools.cycle(warm)


def _available(clips: ClipSet, what: ReadSet, first: int) -> Iterator[int]:
    """Samples of one epoch from `first` on and around, whose tar is here."""
    names = [f"{record.sha256}.tar" for record in _records(what)] if what.remote else []
    here = {shard for shard, name in enumerate(names) if (Path(what.cache) / name).is_file()}
    for step in range(len(clips)):
        sample = (first + step) % len(clips)
        if not what.remote or _shard(clips, sample) in here:
            yield sample


def _shard(clips: ClipSet, sample: int) -> int:
    row, _ = clips.window(sample)
    return int(clips.index.shard[row])


def _records(what: ReadSet) -> tuple[ShardRecord, ...]:
    return Manifest.load(what.root).splits[what.split]


def _frames(clips: ClipSet, what: ReadSet) -> np.ndarray:
    return np.empty((what.window_frames, *clips.index.image_size, 3), np.uint8)


def _empty_page_cache(what: ReadSet) -> None:
    """Ask the system to forget the tars; it does, unless another process has them mapped."""
    root = local_path(what.root)
    assert root is not None
    for record in _records(what):
        descriptor = os.open(root / record.file, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


class _Clock:
    """CPU and wall time since it was made."""

    def __init__(self, seconds: float) -> None:
        self._wall, self._cpu, self._seconds = time.perf_counter(), time.process_time(), seconds

    def over(self) -> bool:
        """Whether the seconds are used up."""
        return time.perf_counter() - self._wall >= self._seconds

    def rate(self, windows: int, count: int) -> Rate:
        """What was done until now."""
        cpu, wall = time.process_time() - self._cpu, time.perf_counter() - self._wall
        return Rate(windows, count, max(cpu, 1e-9), wall)
