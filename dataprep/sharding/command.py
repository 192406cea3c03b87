"""What every source sub-command shares: its options, and the way from a listing to a finished shard directory."""

import argparse
import contextlib
import json
import re
import shlex
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from cwm_hub.command_line import how_many
from cwm_hub.provenance import usable_cores
from cwm_hub.shards.storage import Root
from dataprep.command_line import EXIT_DONE, add_options, option, read_options
from dataprep.decode.frames import DecodeSettings
from dataprep.sharding import ledger
from dataprep.sharding.additions import added_later, left_out, plan_addition, plan_again
from dataprep.sharding.dry_run import estimate
from dataprep.sharding.ledger import Origin
from dataprep.sharding.plan import Listing, Plan, ShardConfig, count_reasons, make_plan, plain_letters
from dataprep.sharding.progress import ProgressLine, clock
from dataprep.sharding.replaced import refuse_replaced
from dataprep.sharding.summary import Tolerance, report, say
from dataprep.sharding.supervisor import RunOptions, run_jobs
from dataprep.sharding.worker import Opener, ShardJob, make_jobs, output_errors

COMMAND = ".state/command.json"
"""The words of the command that a set began with, and the folder that it was given in, for `verify --repair`; of an addition's
command `ledger.of_addition`."""
PROGRESS = ".state/progress{}.json"
"""Of a whole run, or of a part: `progress-0-of-4.json`."""


def _part(text: str) -> str:
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and int(part) < int(parts)):
        raise argparse.ArgumentTypeError(f"expected I/N with I from 0 to N - 1, got {text!r}")
    return text


@dataclass(frozen=True)
class SourceOptions:
    """What a source sub-command is asked of its run, beyond `RunOptions`; changes no byte of the output."""

    out: str = option(metavar="OUT")
    """Directory or fsspec URL to write."""
    engine: Literal["local", "ray"] = "local"
    """Where workers run: here, or on the Ray cluster at RAY_ADDRESS."""
    shard_range: str = option("0/1", metavar="I/N", parse=_part)
    """Write only every N-th shard from I = 0 on, for job arrays; then `finalize`."""
    dry_run: bool = False
    """Write nothing; tell the plan, and size and time from a probe."""
    overwrite: bool = False
    """Remove an earlier run's work first."""
    append: bool = False
    """Add the videos that a finished set does not have, in new shards; what is there keeps its bytes."""
    retry_failures: bool = False
    """Try the videos again that a finished set lists in meta/failures.jsonl, in new shards."""
    mend: int | None = None
    """Write again what is missing of a set's beginning (0) or of its N-th addition, from the videos that it had, and nothing
    else; `verify --repair` gives it."""

    def __post_init__(self) -> None:
        if self.overwrite and (self.append or self.retry_failures):
            raise ValueError("--overwrite removes what --append and --retry-failures add to")
        if self.mend is not None and (self.overwrite or self.append or self.retry_failures):
            raise ValueError("--mend goes without --overwrite, --append and --retry-failures")


def add_arguments(
    parser: argparse.ArgumentParser, *, leave_out: Collection[str] = (), **defaults: Any
) -> None:
    """Add the options that decide the shards and those that only decide how they are made.

    Args:
        parser: of a source sub-command.
        leave_out: fields of `DecodeSettings` that the source decides itself.
        defaults: of the source, where they are not the fields' own.
    """
    written = parser.add_argument_group("what is written")
    add_options(written, DecodeSettings, leave_out=leave_out, **defaults)
    add_options(written, ShardConfig, leave_out=("name", "decode", "source"), **defaults)
    run = parser.add_argument_group("how it is made (changes no byte of the output)")
    add_options(run, SourceOptions)
    add_options(run, RunOptions, workers=usable_cores())
    add_options(run, Tolerance)


def dataset_name(folder: str, *, default: str) -> str:
    """The data set's name after a folder's: `My Clips` -> `my-clips`, `default` where nothing is left."""
    return re.sub(r"[^a-z0-9_-]+", "-", plain_letters(folder)).strip("-") or default


def shard_config(
    args: argparse.Namespace, name: str, source: dict[str, Any] | None = None, **decode: Any
) -> ShardConfig:
    """The configuration that the common options describe; `decode` replaces fields of `DecodeSettings`.

    The paper's own preprocessing (`--paper-exact`) knows of no cuts.

    Raises:
        ValueError: a value is out of range.
    """
    settings = read_options(DecodeSettings, args, **decode)
    keep_cuts = args.keep_cuts or getattr(args, "paper_exact", False)
    return read_options(
        ShardConfig, args, name=name, decode=settings, keep_cuts=keep_cuts, source=source or {}
    )


def make_shards(
    args: argparse.Namespace, listing: Listing, config: ShardConfig, *, opener: Opener, origin: Origin
) -> int:
    """Plan, write what is missing, finalise, report; returns the exit code.

    Raises:
        ValueError: nothing to do, or the output belongs to other work.
        OutputError: the output cannot be written.
    """
    options, run_options = read_options(SourceOptions, args), read_options(RunOptions, args)
    root = Root.parse(options.out)
    retried = set() if options.mend is None else added_later(root, options.mend)
    plan, number = _plan(options, root, listing, config, retried)
    if plan is None:
        say("there is nothing to add")
        return EXIT_DONE
    columns: Mapping[str, Mapping[str, Any]] | None = listing.columns
    if options.mend is not None:
        origin, columns = ledger.read_origin(root, number), None
    if options.dry_run:
        return _dry_run(run_options, plan, listing, opener)
    part, parts = map(int, options.shard_range.split("/"))
    with ledger.run_lock(root, f"{part}-of-{parts}" if parts > 1 else ""):
        if options.overwrite:
            ledger.clear(root)
        ledger.begin(root, plan, origin, columns, addition=number)
        if options.mend is None:
            _record_command(root, args.words, number)
        refuse_replaced(root, ledger.read_plans(root)[number], plan.sources)
        mine = plan.tasks[part::parts]
        tasks = ledger.unfinished(root, mine, plan.hash)
        say(
            f"{how_many(plan.videos, 'video')} in {how_many(len(plan.tasks), 'shard')}; {len(mine) - len(tasks)} of {len(mine)} already written"
        )
        _tell_listing(listing)
        started = time.monotonic()
        run = run_jobs
        if options.engine == "ray":
            from dataprep.sharding.ray_engine import run_on_ray as run
        failed = None if options.mend is None else left_out(root, tasks, retried)
        jobs = make_jobs(tasks, plan, root=root, opener=opener, left_out=failed)
        _run(run, run_options, jobs, root, PROGRESS.format(f"-{part}-of-{parts}" if parts > 1 else ""))
        if parts > 1:
            say(
                f"part {part}/{parts} is written; when all are: cwm-dataprep finalize {shlex.quote(options.out)} "
                "(cwm-dataprep status tells how far they are)"
            )
            return EXIT_DONE
        outcome = ledger.finalize(root)
    already = len(mine) > 0 and not tasks
    seconds = None if already else time.monotonic() - started
    return report(outcome, root, read_options(Tolerance, args), seconds=seconds, already=already)


def _plan(
    options: SourceOptions, root: Root, listing: Listing, config: ShardConfig, retried: Collection[str]
) -> tuple[Plan | None, int]:
    """What is to be written, and the number of the addition that it is: 0 for a set's beginning."""
    if options.mend is not None:
        return plan_again(root, listing, config, options.mend, retried), options.mend
    if not (options.append or options.retry_failures):
        return make_plan(listing, config), 0
    addition = plan_addition(
        root, listing, config, append=options.append, retry_failures=options.retry_failures
    )
    for note in addition.notes:
        say(note)
    return addition.plan, addition.number


def _record_command(root: Root, words: Sequence[str], number: int) -> None:
    """Keep the command for `verify --repair`: all parts, nothing removed first and nothing added."""
    dropped = ("--overwrite", "--append", "--retry-failures")
    again = [word for word in words if not (len(word) > 2 and any(name.startswith(word) for name in dropped))]
    record = {"arguments": [*again, "--shard-range", "0/1"], "folder": str(Path.cwd())}
    with output_errors(root):
        root.write(ledger.of_addition(COMMAND, number), json.dumps(record).encode())


def _dry_run(options: RunOptions, plan: Plan, listing: Listing, opener: Opener) -> int:
    for split, tasks in groupby(plan, key=lambda task: task.split):
        counts = [len(task.sources) for task in tasks]
        say(f"{split}: {how_many(sum(counts), 'video')} would go into {how_many(len(counts), 'shard')}")
    _tell_listing(listing)
    if listing.failures:
        say(f"could not be listed: {count_reasons(Counter(f.reason for f in listing.failures))}")
    guess = estimate(plan, opener, timeout_seconds=options.timeout_seconds, few_files=listing.share_files)
    workers = max(1, min(options.workers, len(plan.tasks)))
    say(
        f"about {guess.frames:.0f} frames, {guess.bytes / 1e6:.1f} MB and {clock(guess.worker_seconds / workers)} "
        f"with {how_many(workers, 'worker')}, judged by {how_many(guess.probed, 'video')} of which {guess.failed} failed; nothing was written"
    )
    return EXIT_DONE


def _tell_listing(listing: Listing) -> None:
    for note in listing.notes:
        say(note)
    listed = Counter(source.split for source in listing.sources)
    for split, official in listing.official_counts.items():
        say(f"{split}: {how_many(listed[split], 'video')} found, {official} in the official list")


def _run(
    run: Callable[..., None], options: RunOptions, jobs: Sequence[ShardJob], root: Root, name: str
) -> None:
    if not jobs:
        return
    videos = sum(len(job.task.sources) for job in jobs)
    progress = ProgressLine(videos, save=lambda data: root.write(name, data))
    with _term_interrupts():
        try:
            run(jobs, options, progress)
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
