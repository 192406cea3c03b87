"""What every source sub-command shares: its options, and the way from a listing to a finished shard directory."""

import argparse
import contextlib
import os
import re
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from types import FrameType
from typing import Any, get_args, get_type_hints

from cwm_hub.shards.codecs import CODECS
from cwm_hub.shards.manifest import FAILURES
from cwm_hub.shards.storage import Root
from dataprep.decode.frames import DecodeSettings
from dataprep.errors import EXIT_DONE, EXIT_FAILURES, InputError
from dataprep.sharding import ledger
from dataprep.sharding.dry_run import estimate
from dataprep.sharding.ledger import Origin, Outcome
from dataprep.sharding.plan import Listing, Plan, ShardConfig, ShardTask, count_reasons, make_plan
from dataprep.sharding.progress import ProgressLine, clock
from dataprep.sharding.supervisor import RunOptions, run_jobs
from dataprep.sharding.worker import Opener, make_jobs

PROGRESS = ".state/progress.json"


def add_arguments(parser: argparse.ArgumentParser, *, videos_per_shard: int) -> None:
    """Add the options that decide the shards and those that only decide how they are made."""
    parser.add_argument("--out", required=True, metavar="OUT", help="directory or fsspec URL to write")
    _add_shard_options(parser.add_argument_group("what is written"), videos_per_shard)
    _add_run_options(parser.add_argument_group("how it is made (changes no byte of the output)"))


def _add_shard_options(group: argparse._ArgumentGroup, videos_per_shard: int) -> None:
    decode = DecodeSettings()
    hints = get_type_hints(DecodeSettings)
    group.add_argument(
        "--size", type=int, default=decode.size, help="pixels of a side (default: %(default)s)"
    )
    group.add_argument(
        "--codec", choices=CODECS, default="h264", help="form of a clip (default: %(default)s)"
    )
    group.add_argument(
        "--resize", choices=get_args(hints["resize"]), default=decode.resize, help="(default: %(default)s)"
    )
    group.add_argument(
        "--fit", choices=get_args(hints["fit"]), default=decode.fit, help="(default: %(default)s)"
    )
    group.add_argument("--stride", type=int, default=decode.stride, metavar="N", help="keep every n-th frame")
    group.add_argument(
        "--fps", type=float, metavar="RATE", help="resample to this rate (default: keep every frame)"
    )
    group.add_argument(
        "--min-frames",
        type=int,
        default=decode.min_frames,
        metavar="N",
        help="shorter videos are skipped (default: %(default)s)",
    )
    group.add_argument(
        "--max-pixels", type=int, default=decode.max_pixels, metavar="N", help="larger frames are refused"
    )
    group.add_argument(
        "--hdr",
        choices=get_args(hints["hdr"]),
        default=decode.hdr,
        help="PQ and HLG video (default: %(default)s)",
    )
    group.add_argument(
        "--max-clip-frames",
        type=int,
        default=256,
        metavar="N",
        help="longer videos become pieces (default: %(default)s)",
    )
    group.add_argument(
        "--videos-per-shard", type=int, default=videos_per_shard, metavar="N", help="(default: %(default)s)"
    )
    group.add_argument(
        "--seed", type=int, default=0, help="of the deal of videos to shards (default: %(default)s)"
    )
    group.add_argument("--limit", type=int, metavar="N", help="only N videos of each split")


def _add_run_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--workers",
        type=int,
        default=usable_cores(),
        metavar="N",
        help="processes (default: one per core, %(default)s)",
    )
    group.add_argument(
        "--timeout",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="a silent worker is killed (default: %(default)s)",
    )
    group.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="where workers run: here, or on the Ray cluster at RAY_ADDRESS (default: %(default)s)",
    )
    add_max_failures(group)
    group.add_argument(
        "--shard-range",
        type=_part,
        default="0/1",
        metavar="I/N",
        help="write only every N-th shard from I = 0 on, for job arrays; then `finalize`",
    )
    group.add_argument(
        "--dry-run", action="store_true", help="write nothing; tell the plan, and size and time from a probe"
    )
    group.add_argument("--overwrite", action="store_true", help="remove an earlier run's work first")


def usable_cores() -> int:
    """Cores that this process may use, all of the machine's where the system does not tell (macOS)."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def add_origin_options(parser: argparse.ArgumentParser) -> None:
    """Add what `Origin` asks of a source whose licence is not known beforehand."""
    parser.add_argument("--licence", default="unknown", help="of the videos, for manifest and card")
    parser.add_argument(
        "--redistributable", action="store_true", help="that licence lets others publish the shards"
    )


def add_max_failures(group: argparse._ActionsContainer) -> None:
    """Add `--max-failures`, the limit between exit codes 0 and 2."""
    group.add_argument(
        "--max-failures",
        type=_share_or_count,
        default="1%",
        metavar="N",
        help="a count or a percentage; more failures end in exit code 2 (default: %(default)s)",
    )


def dataset_name(folder: str, *, default: str) -> str:
    """The data set's name after a folder's: `My Clips` -> `my-clips`, `default` where nothing is left."""
    return re.sub(r"[^a-z0-9_-]+", "-", folder.lower()).strip("-") or default


def shard_config(
    args: argparse.Namespace, name: str, source: dict[str, Any] | None = None, **decode: Any
) -> ShardConfig:
    """The configuration that the common options describe; `decode` replaces fields of `DecodeSettings`.

    Raises:
        InputError: a value is out of range.
    """
    settings = {
        name: getattr(args, name)
        for name in ("size", "resize", "fit", "stride", "fps", "min_frames", "max_pixels", "hdr")
    }
    try:
        return ShardConfig(
            name=name,
            codec=args.codec,
            decode=DecodeSettings(**{**settings, **decode}),
            max_clip_frames=args.max_clip_frames,
            overlap_frames=min(24, args.max_clip_frames - 1),
            videos_per_shard=args.videos_per_shard,
            seed=args.seed,
            limit=args.limit,
            source=source or {},
        )
    except ValueError as error:
        raise InputError(str(error)) from error


def make_shards(
    args: argparse.Namespace, listing: Listing, config: ShardConfig, *, opener: Opener, origin: Origin
) -> int:
    """Plan, write what is missing, finalise, report; returns the exit code.

    Raises:
        InputError: nothing to do, or the output belongs to other work.
        OutputError: the output cannot be written.
    """
    if args.workers < 0:
        raise InputError(f"--workers must be 0 or more, got {args.workers}")
    if not args.timeout > 0:
        raise InputError(f"--timeout must be a positive number of seconds, got {args.timeout:g}")
    root, plan = Root.parse(args.out), make_plan(listing, config)
    if args.dry_run:
        return _dry_run(args, plan, listing, opener)
    part, parts = args.shard_range
    with ledger.run_lock(root, f"{part}-of-{parts}" if parts > 1 else ""):
        if args.overwrite:
            ledger.clear(root)
        ledger.begin(root, plan, origin)
        mine = plan.tasks[part::parts]
        tasks = ledger.unfinished(root, mine, plan.hash)
        _say(
            f"{plan.videos} videos in {len(plan.tasks)} shards; {len(mine) - len(tasks)} of {len(mine)} already written"
        )
        _tell_listing(listing)
        started = time.monotonic()
        _run(args, tasks, plan, root, opener)
        if parts > 1:
            _say(
                f"part {part}/{parts} is written; when all are: cwm-dataprep finalize {shlex.quote(args.out)}"
            )
            return EXIT_DONE
        outcome = ledger.finalize(root)
    report(outcome, root, seconds=time.monotonic() - started)
    return exit_code(outcome, args.max_failures)


def _dry_run(args: argparse.Namespace, plan: Plan, listing: Listing, opener: Opener) -> int:
    for split, tasks in groupby(plan, key=lambda task: task.split):
        counts = [len(task.sources) for task in tasks]
        _say(f"{split}: {sum(counts)} videos would go into {len(counts)} shards")
    _tell_listing(listing)
    if listing.failures:
        _say(f"could not be listed: {count_reasons(Counter(f.reason for f in listing.failures))}")
    guess = estimate(plan, opener, timeout_seconds=args.timeout)
    workers = max(1, min(args.workers, len(plan.tasks)))
    _say(
        f"about {guess.frames:.0f} frames, {guess.bytes / 1e6:.1f} MB and {clock(guess.worker_seconds / workers)} "
        f"with {workers} workers, judged by {guess.probed} videos of which {guess.failed} failed; nothing was written"
    )
    return EXIT_DONE


def _tell_listing(listing: Listing) -> None:
    for note in listing.notes:
        _say(note)
    listed = Counter(source.split for source in listing.sources)
    for split, official in listing.official_counts.items():
        _say(f"{split}: {listed[split]} videos found, {official} in the official list")


def _run(
    args: argparse.Namespace, tasks: Sequence[ShardTask], plan: Plan, root: Root, opener: Opener
) -> None:
    if not tasks:
        return
    run = run_jobs
    if args.engine == "ray":
        from dataprep.sharding.ray_engine import run_on_ray as run
    options = RunOptions(workers=args.workers, timeout_seconds=args.timeout)
    progress = ProgressLine(
        sum(len(task.sources) for task in tasks), save=lambda data: root.write(PROGRESS, data)
    )
    with _term_interrupts():
        try:
            run(make_jobs(tasks, plan, root=root, opener=opener), options, progress)
        finally:
            with contextlib.suppress(OSError):  # a full disk is told by the error on its way
                progress.close()


@contextlib.contextmanager
def _term_interrupts() -> Iterator[None]:
    """SIGTERM (a batch system's way of saying stop) ends the run as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def report(outcome: Outcome, root: Root, *, seconds: float | None = None) -> None:
    """Tell on standard error what the finished set holds."""
    for split, records in outcome.manifest.splits.items():
        _say(
            f"{split}: {sum(r.samples for r in records)} clips, {sum(r.frames for r in records)} frames, "
            f"{sum(r.bytes for r in records) / 1e6:.1f} MB in {len(records)} shards"
        )
    if outcome.reasons:
        _say(f"{count_reasons(outcome.reasons)}: see {root}/{FAILURES}")
    took = "" if seconds is None else f", {clock(seconds)}"
    _say(f"{root} is complete: {outcome.videos} videos, manifest {outcome.manifest.hash[:12]}{took}")


def exit_code(outcome: Outcome, max_failures: str) -> int:
    """0, or 2 with a sentence where more videos failed than `max_failures` (a count, or a percentage of all)."""
    total = outcome.videos + outcome.failures + outcome.skips
    allowed = total * float(max_failures[:-1]) / 100 if max_failures.endswith("%") else int(max_failures)
    if outcome.failures <= allowed:
        return EXIT_DONE
    _say(f"error: {outcome.failures} of {total} videos failed, more than --max-failures {max_failures}")
    return EXIT_FAILURES


def _share_or_count(text: str) -> str:
    try:
        valid = float(text[:-1]) >= 0 if text.endswith("%") else int(text) >= 0
    except ValueError:
        valid = False
    if not valid:
        raise argparse.ArgumentTypeError(f"expected a count or a percentage such as 1%, got {text!r}")
    return text


def _part(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and int(part) < int(parts)):
        raise argparse.ArgumentTypeError(f"expected I/N with I from 0 to N - 1, got {text!r}")
    return int(part), int(parts)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
