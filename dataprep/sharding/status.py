"""`cwm-dataprep status`: how far the runs of an output are, whichever machines write it, and what has failed so far.

What is counted is what is written: the commit markers of shards. What each part is at is its last sign of life.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cwm_hub.shards.codecs import ShardError
from cwm_hub.shards.manifest import Manifest
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
    """For people: a line for each plan, each part's last sign of life, and whether the set is finished.

    Raises:
        ValueError: no run was recorded there.
    """
    plans = read_plans(root)
    done = 0
    for number, plan in enumerate(plans):
        whole, line = _plan_line(root, plan)
        done += whole
        yield f"addition {number}: {line}" if number else line
    for name in sorted(root.files(".state")):
        if name.startswith("progress") and name.endswith(".json"):
            yield _part_line(name, json.loads(root.read(f".state/{name}")), now)
    try:
        manifest = Manifest.load(root)
    except ShardError:
        yield "not finished: " + (
            "cwm-dataprep finalize, or the command of the run, ends it"
            if done == len(plans)
            else "shards are missing"
        )
        return
    behind = len(plans) - 1 - len(manifest.config.get("additions", []))
    yield f"finished: manifest {manifest.hash[:12]}" + (", without the last addition" if behind else "")


def _plan_line(root: Root, plan: dict[str, Any]) -> tuple[bool, str]:
    present = root.files(STATES)
    expected = expected_states(plan)
    states = [read_state(root, f"{STATES}/{name}") for _, name in expected if name in present]
    written = [state for state in states if state is not None and state.plan_hash == plan["plan_hash"]]
    rows = [row for state in written for row in state.rows]
    reasons = Counter(failure.reason for state in written for failure in state.failures)
    reasons.update(reason for _, reason, _ in plan["failures"])
    text = (
        f"{len(written)} of {len(expected)} shards are written: {len({row.source for row in rows})} of "
        f"{plan['videos']} videos, {len(rows)} clips, {sum(row.num_frames for row in rows)} frames, "
        f"{sum(row.size for row in rows) / 1e6:.1f} MB"
    )
    return len(written) == len(expected), text + (
        f"; without a clip: {count_reasons(reasons)}" if reasons else ""
    )


def _part_line(name: str, progress: dict[str, Any], now: float) -> str:
    part = name.removeprefix("progress").removesuffix(".json").removeprefix("-").replace("-of-", "/")
    who = f"part {part}" if part else "the last run"
    ago = clock(max(0.0, now - progress["time"]))
    return (
        f"{who}: {progress['videos']} of {progress['total_videos']} videos, {progress['failures']} failed, "
        f"after {clock(progress['seconds'])}; last heard of {ago} ago"
    )
