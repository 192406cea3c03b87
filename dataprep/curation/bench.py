"""`cwm-dataprep bench`: how many windows and batches a second training gets out of these shards, and what limits it.

    storage           the page cache emptied of the tars, then windows read; of a URL whole tars fetched
    read              the bytes of windows from memory, decoding nothing
    read and decode   windows as the loader gives them
    workers           batches of these from `--workers` processes to one that trains, as torch's loader hands them over

On a file system in memory `storage` is as fast as `read`.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import psutil

from cwm_hub.shards.manifest import Manifest
from dataprep.curation.read_rates import Rate, ReadSet, measure_rates
from dataprep.errors import EXIT_DONE, InputError

PARTS = 4
"""Measurements that share `--seconds`."""
CROWDED = 0.7
"""Workers that get less than this share of their cores are waiting for something."""
MEMORY_SHARE = 0.5
"""A set that takes less of the free memory than this comes from memory after its first epoch."""


@dataclass(frozen=True)
class Figures:
    """The measurement, as `--json` prints it."""

    root: str
    manifest_hash: str
    codec: str
    image_size: int
    split: str
    window_frames: int
    batch_clips: int
    workers: int
    cores: int
    """That this process may use."""
    storage_mb_per_second: float
    storage_windows_per_second: float
    """Of an epoch that finds nothing in memory."""
    read_mb_per_second: float
    """From memory, by one process."""
    read_windows_per_core_second: float
    decoded_windows_per_core_second: float
    """Read and decoded."""
    windows_per_second: float
    """Of all workers together."""
    batches_per_second: float
    """The most updates a second: what the workers give, or storage where it is slower and the set outgrows memory."""
    fits_memory: bool
    limit: str
    """`storage`, `workers` or `decode`."""
    sentence: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this sub-command's options."""
    parser.add_argument("root", metavar="ROOT", help="shard directory or fsspec URL")
    parser.add_argument("--split", default="train", help="(default: %(default)s)")
    parser.add_argument("--window-frames", type=int, default=25, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--batch-clips", type=int, default=16, metavar="N", help="(default: %(default)s)")
    parser.add_argument(
        "--workers",
        type=int,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="loader processes on this machine, all ranks together (default: one per core, %(default)s)",
    )
    parser.add_argument(
        "--seconds", type=float, default=8.0, metavar="S", help="of measuring in all (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one json object as the last line")


def run(args: argparse.Namespace) -> int:
    """Measure and print; exit code 0."""
    for name in ("window_frames", "batch_clips", "workers"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")
    if not 0 < args.seconds < 1e6:
        raise InputError(f"--seconds must be a positive number, got {args.seconds:g}")
    figures = measure(
        args.root,
        split=args.split,
        window_frames=args.window_frames,
        batch_clips=args.batch_clips,
        workers=args.workers,
        seconds=args.seconds,
    )
    print(as_text(figures))
    if args.json:
        print(json.dumps(asdict(figures)))
    return EXIT_DONE


def measure(
    root: str, *, split: str, window_frames: int, batch_clips: int, workers: int, seconds: float
) -> Figures:
    """Time the four parts on this machine.

    Args:
        root: Local path or fsspec URL.
        split: Of the manifest.
        window_frames: Of a window.
        batch_clips: Windows of a batch.
        workers: Processes that read from storage together, and those of the last part.
        seconds: For all parts; opening the set and starting processes come on top.

    Raises:
        ShardError, SamplingError: As `ClipLoader`.
    """
    with tempfile.TemporaryDirectory(prefix="cwm-dataprep-") as cache:
        what = ReadSet(root, split, window_frames, batch_clips, cache)
        samples, manifest = len(what.open()), Manifest.load(root)
        part = seconds / PARTS
        storage = measure_rates(what, "storage", workers=workers, seconds=part)
        (read,) = measure_rates(what, "read", workers=1, seconds=part)
        (decode,) = measure_rates(what, "decode", workers=1, seconds=part)
        together = measure_rates(what, "batches", workers=workers, seconds=part)
    cores = len(os.sched_getaffinity(0))
    tars = sum(record.bytes for record in manifest.splits[split])
    fits = not what.remote and tars < MEMORY_SHARE * psutil.virtual_memory().available
    bytes_per_second = sum(rate.bytes for rate in storage) / max(rate.wall_seconds for rate in storage)
    from_storage = bytes_per_second / (tars / samples if what.remote else read.bytes / read.windows)
    by_workers, busy = _together(together, cores)
    limit = find_limit(from_storage, by_workers, busy, workers=workers, cores=cores, fits_memory=fits)
    batches = (from_storage if limit == "storage" else by_workers) / batch_clips
    reason = _reason(limit, manifest.codec, workers=workers, cores=cores, busy=busy, remote=what.remote)
    return Figures(
        root=root,
        manifest_hash=manifest.hash,
        codec=manifest.codec,
        image_size=manifest.image_size,
        split=split,
        window_frames=window_frames,
        batch_clips=batch_clips,
        workers=workers,
        cores=cores,
        storage_mb_per_second=round(bytes_per_second / 1e6, 2),
        storage_windows_per_second=round(from_storage, 1),
        read_mb_per_second=round(read.bytes / read.wall_seconds / 1e6, 2),
        read_windows_per_core_second=round(read.windows / read.cpu_seconds, 1),
        decoded_windows_per_core_second=round(decode.windows / decode.cpu_seconds, 1),
        windows_per_second=round(by_workers, 1),
        batches_per_second=round(batches, 2),
        fits_memory=fits,
        limit=limit,
        sentence=f"{reason}; an update on {batch_clips} clips that takes more than {1e3 / batches:.3g} ms never waits",
    )


def _together(rates: Sequence[Rate], cores: int) -> tuple[float, float]:
    """(windows a second of all processes, share of their cores' time that they used)."""
    wall = sum(rate.wall_seconds for rate in rates) / len(rates)
    busy = sum(rate.cpu_seconds for rate in rates) / wall / min(len(rates), cores)
    return sum(rate.windows / rate.wall_seconds for rate in rates), busy


def find_limit(
    from_storage: float, by_workers: float, busy: float, *, workers: int, cores: int, fits_memory: bool
) -> str:
    """Which of the three to change first.

    Args:
        from_storage: Windows a second of an epoch that finds nothing in memory.
        by_workers: Windows a second that the workers give from memory.
        busy: Share of their cores' time that they use.
        workers: Loader processes.
        cores: That they may use.
        fits_memory: Whether later epochs come from memory.
    """
    if from_storage < by_workers and not fits_memory:
        return "storage"
    return "workers" if workers < cores or busy < CROWDED else "decode"


def _reason(limit: str, codec: str, *, workers: int, cores: int, busy: float, remote: bool) -> str:
    if limit == "storage":
        until = "until the loader's cache holds the set" if remote else "and the set does not stay in memory"
        return f"storage gives less than the workers could use, {until}"
    if limit == "workers" and workers < cores:
        return f"{workers} of {cores} cores work, more --workers would help"
    if limit == "workers":
        return f"the workers get {busy:.0%} of their cores: something else runs, or the trainer takes no more"
    work = "copying" if codec == "raw" else f"decoding {codec}, which --codec raw would spare"
    return f"all {cores} cores are busy {work}"


def as_text(figures: Figures) -> str:
    """A table and the sentence that names the limit."""
    rows = (
        ("storage", figures.storage_mb_per_second, figures.storage_windows_per_second, "windows/s"),
        (
            "read from memory",
            figures.read_mb_per_second,
            figures.read_windows_per_core_second,
            "windows per core-second",
        ),
        ("read and decode", None, figures.decoded_windows_per_core_second, "windows per core-second"),
        ("all workers", None, figures.windows_per_second, f"windows/s from {figures.workers}"),
        (
            f"batches of {figures.batch_clips}",
            None,
            figures.batches_per_second,
            "batches/s, the most steps/s",
        ),
    )
    head = (
        f"{figures.root}: {figures.codec}, {figures.image_size}x{figures.image_size}, "
        f"windows of {figures.window_frames} frames of {figures.split}, {figures.cores} cores"
    )
    lines = [
        f"{name:<20}{'' if rate is None else f'{rate:,.1f} MB/s':>16}{value:>14,.1f} {unit}"
        for name, rate, value, unit in rows
    ]
    return "\n".join((head, *lines, f"limit: {figures.limit}: {figures.sentence}"))
