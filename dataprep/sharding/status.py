"""`cwm-dataprep status`: how far the runs of an output are, whichever machines write it, and what has failed so far.

What is counted is what is written: commit markers of shards whose tars are there with their size. What each part is at is its
last sign of life. The last line says what the set is: finished, not finished, or damaged.
"""

import argparse
import json
import shlex
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cwm_hub.command_line import how_many
from cwm_hub.shards.codecs import ShardError
from cwm_hub.shards.index import INDEX, read_index_table
from cwm_hub.shards.manifest import MANIFEST, Manifest
from cwm_hub.shards.storage import Root
from dataprep.command_line import EXIT_DONE, add_options, positional, read_options
from dataprep.sharding.ledger import STATES, expected_states, read_plans, read_state
from dataprep.sharding.plan import count_reasons
from dataprep.sharding.progress import clock


@dataclass(frozen=True)
class StatusOptions:
    """Options of this sub-command."""

    out: str = positional("OUT")
    """Directory or fsspec URL that one run, or the parts of a `--shard-range` run, write to."""


EXAMPLES = (
    "cwm-dataprep status shards/ssv2",
    "cwm-dataprep status s3://bucket/sets/ssv2",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this sub-command's options."""
    add_options(parser, StatusOptions)


def run(args: argparse.Namespace) -> int:
    """Print where the runs are; exit code 0."""
    root = Root.parse(read_options(StatusOptions, args).out)
    for line in status_lines(root, now=time.time()):
        print(line)
    return EXIT_DONE


def status_lines(root: Root, *, now: float) -> Iterator[str]:
    """For people: a line for each plan, each part's last sign of life, and what the set is.

    Raises:
        ValueError: no run was recorded there.
    """
    plans = read_plans(root)
    tars = root.files("data")
    unwritten: dict[int, list[str]] = {}
    for number, plan in enumerate(plans):
        unwritten[number], line = _plan_line(root, plan, tars)
        yield f"addition {number}: {line}" if number else line
    for name in sorted(root.files(".state")):
        if name.startswith("progress") and name.endswith(".json"):
            yield _part_line(root, name, now)
    yield _last_line(root, unwritten, tars)


def _last_line(root: Root, unwritten: Mapping[int, list[str]], tars: Mapping[str, int]) -> str:
    place = shlex.quote(str(root))
    lacking = [(number, name) for number, names in unwritten.items() for name in names]
    try:
        manifest = Manifest.load(root)
        read_index_table(root)
    except ShardError as error:
        has = root.files("meta")
        gone = [file for file in (MANIFEST, INDEX) if file.rpartition("/")[2] not in has]
        if MANIFEST in gone:
            return "not finished: " + (
                "shards are missing"
                if lacking
                else "cwm-dataprep finalize, or the command of the run, ends it"
            )
        mend = f"cwm-dataprep finalize {place} writes it again"
        again = "shards are missing too: the command of the run writes all of it again" if lacking else mend
        return f"damaged: {gone[0] + ' is missing' if gone else error}; {again}"
    lost = [
        record.file for record in manifest.shards if tars.get(record.file.rpartition("/")[2]) != record.bytes
    ]
    if lost:
        is_or_are = "are missing or have" if len(lost) > 1 else "is missing or has"
        return (
            f"damaged: {how_many(len(lost), 'shard')} of {len(manifest.shards)} {is_or_are} another size ({lost[0]}); "
            f"cwm-dataprep verify {place} --repair writes what is lost again"
        )
    finished = f"finished: manifest {manifest.hash[:12]}"
    added = len(manifest.config.get("additions", []))
    if any(number > added for number in unwritten):
        return f"{finished}, without the last addition"
    if lacking:
        number, name = lacking[0]
        return (
            f"{finished}, but {how_many(len(lacking), 'commit marker')} of its shards, which --append needs, cannot be used "
            f"({STATES}/{name}); the command of the run with --mend {number} writes the shard and its marker again"
        )
    return finished


def _plan_line(root: Root, plan: dict[str, Any], tars: Mapping[str, int]) -> tuple[list[str], str]:
    """Names of the commit markers that are not there with their tars, and the line."""
    present = root.files(STATES)
    expected = expected_states(plan)
    written, unwritten = [], []
    for _, name in expected:
        state = read_state(root, f"{STATES}/{name}") if name in present else None
        size = tars.get(f"{name.removesuffix('.json')}.tar")
        if (
            state is None
            or state.plan_hash != plan["plan_hash"]
            or (state.record and size != state.record.bytes)
        ):
            unwritten.append(name)
        else:
            written.append(state)
    rows = [row for state in written for row in state.rows]
    reasons = Counter(failure.reason for state in written for failure in state.failures)
    reasons.update(reason for _, reason, _ in plan["failures"])
    text = (
        f"{len(written)} of {how_many(len(expected), 'shard is', 'shards are')} written: {len({row.source for row in rows})} of "
        f"{how_many(plan['videos'], 'video')}, {how_many(len(rows), 'clip')}, {how_many(sum(row.num_frames for row in rows), 'frame')}, "
        f"{sum(row.size for row in rows) / 1e6:.1f} MB"
    )
    return unwritten, text + (f"; without a clip: {count_reasons(reasons)}" if reasons else "")


def _part_line(root: Root, name: str, now: float) -> str:
    part = name.removeprefix("progress").removesuffix(".json").removeprefix("-").replace("-of-", "/")
    who = f"part {part}" if part else "the last run"
    try:
        progress = json.loads(root.read(f".state/{name}"))
        ago = clock(max(0.0, now - progress["time"]))
        return (
            f"{who}: {progress['videos']} of {how_many(progress['total_videos'], 'video')}, {progress['failures']} failed, "
            f"after {clock(progress['seconds'])}; last heard of {ago} ago"
        )
    except (ValueError, KeyError, TypeError):
        return f"{who}: its last sign of life, .state/{name}, is damaged"
