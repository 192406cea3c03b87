"""`cwm-hub bench`: how many windows and batches a second training gets out of these shards, and what limits it.

    storage           the loader's first batches while nothing is in memory (of a URL: while its cache folder is empty)
    workers           the same batches again, from memory, from `--workers` processes to one that takes them
    read and decode   the same batches in one process, by its CPU seconds: what a core gives

All three are `ClipLoader`, as training has it. On a file system in memory `storage` is as fast as `workers`.
"""

import dataclasses
import itertools
import json
import os
import re
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cwm_hub.config import check_range
from cwm_hub.provenance import usable_cores

if TYPE_CHECKING:
    import argparse

    from cwm_hub.clips.loader import ClipLoader
    from cwm_hub.shards.manifest import ShardRecord

PARTS = 3
"""Measurements that share the seconds."""
SLOWER = 0.8
"""Storage below this share of what the workers give, or workers below this share of what their cores could, is the limit."""
MEMORY_SHARE = 0.5
"""A set that takes less of the free memory than this comes from memory after its first epoch."""
ROUNDS = 5
"""Of a measurement by CPU seconds; their median counts."""


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """What is measured."""

    root: str
    """Shard directory or fsspec URL."""
    split: str = "train"
    """Split of the manifest."""
    window_frames: int = 25
    """Frames of a window."""
    batch_clips: int = 16
    """Windows of a batch."""
    workers: int = field(default_factory=usable_cores)
    """Loader processes on this machine, all ranks together; one per core by default."""
    seconds: float = 9.0
    """Of measuring in all; opening the set and starting processes come on top."""

    def __post_init__(self) -> None:
        check_range(self, "window_frames", "batch_clips", "workers", at_least=1)
        check_range(self, "seconds", above=0)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What came out."""

    manifest_hash: str
    codec: str
    image_size: int
    cores: int
    """That this process may use."""
    storage_windows_per_second: float
    """Of an epoch that finds nothing in memory."""
    decoded_windows_per_core_second: float
    """Read from memory and decoded."""
    windows_per_second: float
    """Of all workers together, from memory."""
    batches_per_second: float
    """The most updates a second: what the workers give, or storage where it is slower and the set outgrows memory."""
    fits_memory: bool
    limit: str
    """`storage`, `workers` or `decode`."""
    sentence: str


EXAMPLES = (
    "cwm-hub bench shards/mine",
    "cwm-hub bench s3://bucket/sets/mine --workers 8 --batch-clips 32 --json",
)


def add_arguments(parser: "argparse.ArgumentParser") -> None:
    """Add this sub-command's options."""
    parser.add_argument("root", metavar="SHARDS", help="shard directory or fsspec URL")
    parser.add_argument("--split", default=BenchConfig.split, help="(default: %(default)s)")
    for name in ("window_frames", "batch_clips"):
        default, words = getattr(BenchConfig, name), "(default: %(default)s)"
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, metavar="N", help=words)
    words = "loader processes on this machine, all ranks together (default: one per core, %(default)s)"
    parser.add_argument("--workers", type=int, default=usable_cores(), metavar="N", help=words)
    words = "of measuring in all (default: %(default)s)"
    parser.add_argument("--seconds", type=float, default=BenchConfig.seconds, metavar="S", help=words)
    parser.add_argument("--json", action="store_true", help="print one json object as the last line")


def run(args: "argparse.Namespace") -> Iterator[str]:
    """The lines to print."""
    settings = dict(vars(args))
    config = BenchConfig(**{each.name: settings[each.name] for each in dataclasses.fields(BenchConfig)})
    yield from report(config, as_json=args.json)


def report(config: BenchConfig, *, as_json: bool) -> Iterator[str]:
    """A table, the sentence that names the limit and, where asked for, one json object."""
    figures = measure(config)
    yield (
        f"{config.root}: {figures.codec}, {figures.image_size}x{figures.image_size}, windows of "
        f"{config.window_frames} frames of {config.split}, {figures.cores} cores"
    )
    for name, value, unit in (
        ("from storage", figures.storage_windows_per_second, "windows/s"),
        ("read and decode", figures.decoded_windows_per_core_second, "windows per core-second"),
        ("all workers", figures.windows_per_second, f"windows/s from {config.workers}"),
        (f"batches of {config.batch_clips}", figures.batches_per_second, "batches/s, the most updates/s"),
    ):
        yield f"{name:<20}{value:>14,.1f} {unit}"
    yield f"limit: {figures.limit}: {figures.sentence}"
    if as_json:
        yield json.dumps(dataclasses.asdict(config) | dataclasses.asdict(figures))


def measure(config: BenchConfig) -> Figures:
    """Time the loader on this machine.

    Raises:
        ShardError, ValueError: as `ClipLoader`.
    """
    from cwm_hub.shards.manifest import Manifest
    from cwm_hub.shards.storage import Root

    share = config.seconds / PARTS
    # This process's fetching thread may still be writing where a root is a URL; it ends with the command.
    with tempfile.TemporaryDirectory(prefix="cwm-hub-", ignore_cleanup_errors=True) as cache:
        many, alone = (_open(config, workers, cache) for workers in (config.workers, 0))
        manifest, path = Manifest.load(config.root), Root.parse(config.root).home
        records = manifest.splits[config.split]
        if path is None:
            from_storage, read = _fetch(many, records, Path(cache), config.batch_clips, share)
        else:
            tars = [path / record.file for record in records]
            from_storage, read = _read_cold(many, tars, config.batch_clips, share)
        by_workers = _pass(many, seconds=share, most=read)[1] * config.batch_clips
        same = itertools.chain.from_iterable(itertools.islice(alone, read) for _ in itertools.count())
        decoded = windows_per_core_second(same, config.batch_clips, seconds=share)
    size = sum(record.bytes for record in records)
    fits = path is not None and size < MEMORY_SHARE * _available_memory()
    cores, busy = usable_cores(), by_workers / (decoded * min(config.workers, usable_cores()))
    limit = find_limit(from_storage, by_workers, busy, workers=config.workers, cores=cores, fits_memory=fits)
    batches = (from_storage if limit == "storage" else by_workers) / config.batch_clips
    reason = _reason(limit, manifest.codec, workers=config.workers, busy=busy, remote=path is None)
    return Figures(
        manifest_hash=manifest.hash,
        codec=manifest.codec,
        image_size=manifest.image_size,
        cores=cores,
        storage_windows_per_second=round(from_storage, 1),
        decoded_windows_per_core_second=round(decoded, 1),
        windows_per_second=round(by_workers, 1),
        batches_per_second=round(batches, 2),
        fits_memory=fits,
        limit=limit,
        sentence=f"{reason}; an update on a batch that takes more than {1e3 / batches:.3g} ms never waits",
    )


def _open(config: BenchConfig, workers: int, cache: str) -> "ClipLoader":
    from cwm_hub.clips.clip_index import ClipSource
    from cwm_hub.clips.loader import ClipLoader
    from cwm_hub.clips.retries import FetchConfig

    return ClipLoader(
        [ClipSource(config.root, split=config.split)],
        batch_clips=config.batch_clips,
        window_frames=config.window_frames,
        seed=0,
        workers=workers,
        max_broken=0,
        fetch=FetchConfig(cache_dir=cache, cache_bytes=2**62),
    )


def _read_cold(
    loader: "ClipLoader", tars: Sequence[Path], batch_clips: int, seconds: float
) -> tuple[float, int | None]:
    """(windows a second once the system has forgotten the tars, batches that are in memory now; None for all)."""
    for tar in tars:
        with tar.open("rb") as file:  # not forgotten where another process has it mapped
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    epoch = max(1, loader.samples_per_epoch[0] // batch_clips)
    batches, rate = _pass(loader, seconds=seconds, most=epoch)
    return rate * batch_clips, None if batches == epoch else batches


def _fetch(
    loader: "ClipLoader", records: "Sequence[ShardRecord]", cache: Path, batch_clips: int, seconds: float
) -> tuple[float, int | None]:
    """The same of tars behind a URL: windows a second in the bytes that arrived, whether or not they were read yet."""
    started, samples = time.time(), loader.samples_per_epoch[0]
    epoch = max(1, samples // batch_clips)
    batches, _ = _pass(loader, seconds=seconds, most=epoch)
    files = [path.stat() for path in cache.rglob("*") if path.is_file()]
    wall = max(max(file.st_mtime for file in files) - started, 1e-3)  # fetching rests when it is far ahead
    share = sum(file.st_size for file in files) / sum(record.bytes for record in records)
    return share * samples / wall, None if batches == epoch else batches


def _pass(loader: "ClipLoader", *, seconds: float, most: int | None) -> tuple[int, float]:
    """(batches, batches a second) of the loader's stream from its start on: so many seconds, or `most` batches.

    The rate is of what follows the first batch of every worker, which includes the start of its process, or of all where
    nothing follows.
    """
    count, begun = 0, time.perf_counter()
    started = begun
    for _ in itertools.islice(loader, most):
        count += 1
        now = time.perf_counter()
        if count == loader.workers:
            started = now
        elif count > loader.workers and now - started >= seconds:
            break
    timed = count > loader.workers
    return count, (count - loader.workers) / (now - started) if timed else count / (now - begun)


def windows_per_core_second(
    batches: Iterator[object], batch_clips: int, *, seconds: float, rounds: int = ROUNDS
) -> float:
    """Median of `rounds` rounds of `seconds` CPU seconds of this process in all, after a warm-up round."""
    rates = []
    for _ in range(rounds + 1):
        started, count = time.process_time(), 0
        while not count or time.process_time() - started < seconds / rounds:
            next(batches)
            count += batch_clips
        rates.append(count / (time.process_time() - started))
    return statistics.median(rates[1:])


def _available_memory() -> int:
    """Bytes that the system would give to a file's cache."""
    found = re.search(r"^MemAvailable: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


def find_limit(
    from_storage: float, by_workers: float, busy: float, *, workers: int, cores: int, fits_memory: bool
) -> str:
    """Which of the three to change first.

    Args:
        from_storage: Windows a second of an epoch that finds nothing in memory.
        by_workers: Windows a second that the workers give from memory.
        busy: Share of what their cores could give.
        workers: Loader processes.
        cores: That they may use.
        fits_memory: Whether later epochs come from memory.
    """
    if from_storage < SLOWER * by_workers and not fits_memory:
        return "storage"
    return "workers" if workers < cores or busy < SLOWER else "decode"


def _reason(limit: str, codec: str, *, workers: int, busy: float, remote: bool) -> str:
    if limit == "storage":
        until = "until the loader's cache holds the set" if remote else "and the set does not stay in memory"
        return f"storage gives less than the workers could use, {until}"
    if limit == "workers" and workers < usable_cores():
        return f"{workers} of {usable_cores()} cores work, more --workers would help"
    if limit == "workers":
        return f"the workers give {busy:.0%} of what their cores could: something else runs, or handing over costs"
    work = "copying" if codec == "raw" else f"decoding {codec}, which --codec raw would spare"
    return f"all {usable_cores()} cores are busy {work}"
