"""`cwm-dataprep verify --repair`: shards that are not what the manifest says, written again from their source videos.

The commands that made the set and its additions are recorded beside it (`.state/command.json`, `command-added-001.json`).
Without a commit marker of its own such a command takes a shard for unwritten, and nothing else.
"""

import contextlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from cwm_hub.command_line import how_many
from cwm_hub.shards.storage import Root
from dataprep.sharding.command import COMMAND
from dataprep.sharding.ledger import (
    PLAN,
    STATES,
    expected_states,
    of_addition,
    read_plan,
    read_plans,
    read_state,
)


def repair(root: Root, shards: Collection[str]) -> None:
    """Write these shards (`data/train-00000-of-00004.tar`) again; the commands' own words go to standard error.

    Raises:
        ValueError: the set is remote, was not made here, or a command did not end well.
    """
    home = root.home
    by_plan = {} if home is None or read_plan(root, PLAN) is None else _by_plan(root, shards)
    commands = {number: home / of_addition(COMMAND, number) for number in by_plan} if home else {}
    if home is None or not by_plan or not all(path.is_file() for path in commands.values()):
        raise ValueError(
            f"{root} cannot be repaired: the command that made it is not recorded there; fetch these files again: "
            f"{', '.join(sorted(shards))}"
        )
    for number, markers in by_plan.items():
        recorded = json.loads(commands[number].read_text())
        # Where the set lies now, wherever it was made: of an option given twice the last counts.
        words = [*recorded["arguments"], "--out", str(home.absolute()), "--mend", str(number)]
        with contextlib.ExitStack() as taken_back:
            for marker in markers:
                taken_back.enter_context(_taken_back(home / STATES / marker))
            _run(root, words, recorded["folder"], how_many(len(markers), "shard"))


def interrupted(root: Root) -> set[str]:
    """Shards whose commit marker a repair took back that was killed then: they may be whole, and cannot be added to."""
    if root.home is None or read_plan(root, PLAN) is None:
        return set()
    there = root.files(STATES)
    names = [name for plan in read_plans(root) for _, name in expected_states(plan) if name in there]
    states = {name: read_state(root, f"{STATES}/{name}") for name in names}
    return {f"data/{Path(name).stem}.tar" for name, state in states.items() if state and not state.plan_hash}


def _by_plan(root: Root, shards: Collection[str]) -> dict[int, list[str]]:
    """Commit markers of these shards by the plan that they are of: 0 of the set's beginning, 1, 2, ... of an addition."""
    markers = {Path(shard).stem + ".json" for shard in shards}
    by_plan = {
        number: [name for _, name in expected_states(plan) if name in markers]
        for number, plan in enumerate(read_plans(root))
    }
    return {number: mine for number, mine in by_plan.items() if mine}


@contextlib.contextmanager
def _taken_back(marker: Path) -> Iterator[None]:
    """A commit marker is one of no plan, which still tells the ends of the source files (see `replaced`) and what failed.

    One that no shard was written for is put back, with its time, by which replaced files are known.
    """
    root, name = Root.parse(marker.parent), marker.name
    state = read_state(root, name) if marker.is_file() else None
    if state is None:
        yield
        return
    before, status = marker.read_bytes(), marker.stat()
    taken_back = replace(state, plan_hash="").to_json()
    root.write(name, taken_back)
    try:
        yield
    finally:
        if marker.read_bytes() == taken_back:
            root.write(name, before)
            os.utime(marker, ns=(status.st_atime_ns, status.st_mtime_ns))


def _run(root: Root, words: list[str], folder: str, what: str) -> None:
    print(f"writing {what} again: cwm-dataprep {shlex.join(words)}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "dataprep", *words]
    code = subprocess.run(command, cwd=folder, check=False).returncode
    if code not in (0, 2):  # 2: as many videos failed as at first
        raise ValueError(
            f"the command that made {root} ended with exit code {code}: are its videos where they were?"
        )
