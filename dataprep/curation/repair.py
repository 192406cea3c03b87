"""`cwm-dataprep verify --repair`: shards that are not what the manifest says, written again from their source videos.

The command that made the set is recorded beside it (`.state/command.json`). Without the commit marker of a shard that
command takes it for unwritten, and nothing else.
"""

import json
import shlex
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

from cwm_hub.shards.storage import Root
from dataprep.sharding.command import COMMAND
from dataprep.sharding.ledger import STATES, expected_states, read_plan


def repair(root: Root, shards: Collection[str]) -> None:
    """Write these shards (`data/train-00000-of-00004.tar`) again; the command's own words go to standard error.

    Raises:
        ValueError: the set is remote, was not made here, or the command did not end well.
    """
    home, plan = root.home, read_plan(root)
    if home is None or plan is None or not (home / COMMAND).is_file():
        raise ValueError(
            f"{root} cannot be repaired: the command that made it is not recorded there; fetch these files again: "
            f"{', '.join(sorted(shards))}"
        )
    markers = {Path(shard).stem + ".json" for shard in shards}
    later = markers - {name for _, name in expected_states(plan)}
    if later:
        raise ValueError(
            f"{root} cannot be repaired: {', '.join(sorted(later))} came with --append or --retry-failures; make the set anew"
        )
    recorded = json.loads((home / COMMAND).read_text())
    for marker in markers:
        (home / STATES / marker).unlink(missing_ok=True)
    # Where the set lies now, wherever it was made: of an option given twice the last counts.
    command = ["-m", "dataprep", *recorded["arguments"], "--out", str(home.absolute())]
    print(
        f"writing {len(markers)} shards again: cwm-dataprep {shlex.join(command[2:])}",
        file=sys.stderr,
        flush=True,
    )
    code = subprocess.run([sys.executable, *command], cwd=recorded["folder"], check=False).returncode
    if code not in (0, 2):  # 2: as many videos failed as at first
        raise ValueError(
            f"the command that made {root} ended with exit code {code}: are its videos where they were?"
        )
