"""`cwm-dataprep describe`: another licence for a finished set; no clip is read or written.

    cwm-dataprep describe shards/mine --licence cc-by-4.0 --redistributable

The card follows when the set is pushed. The manifest's hash is another one afterwards, so a training run that was begun
on the set does not go on with it: describe a set before it is used.
"""

import argparse
import json
from dataclasses import dataclass, replace
from typing import Any

from cwm_hub.shards.manifest import Manifest
from cwm_hub.shards.storage import Root
from dataprep.command_line import EXIT_DONE, add_options, positional, read_options
from dataprep.sharding.ledger import PLAN, read_plan, run_lock


@dataclass(frozen=True)
class DescribeOptions:
    """Options of this sub-command."""

    root: str = positional("ROOT")
    """Shard directory or fsspec URL."""
    licence: str | None = None
    """Of the source videos; none: as it is."""
    redistributable: bool = False
    """The licence lets others publish shards of them."""
    not_redistributable: bool = False
    """It does not."""

    def __post_init__(self) -> None:
        if self.redistributable and self.not_redistributable:
            raise ValueError("--redistributable and --not-redistributable contradict each other")


EXAMPLES = (
    "cwm-dataprep describe shards/mine --licence CC-BY-4.0 --redistributable",
    "cwm-dataprep describe shards/mine --not-redistributable",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this sub-command's options."""
    add_options(parser, DescribeOptions)


def run(args: argparse.Namespace) -> int:
    """Change the manifest, and what a later run of the set compares itself with; exit code 0.

    Raises:
        ValueError: nothing is asked for, or there is no finished set.
    """
    options = read_options(DescribeOptions, args)
    root = Root.parse(options.root)
    new: dict[str, Any] = {} if options.licence is None else {"licence": options.licence}
    if options.redistributable or options.not_redistributable:
        new["redistributable"] = options.redistributable
    if not new:
        raise ValueError("nothing to change: give --licence, --redistributable or --not-redistributable")
    with run_lock(root):
        manifest = Manifest.load(root)
        plan = read_plan(root)
        if plan is not None:
            root.write(PLAN, json.dumps(plan | new, indent=1).encode())
        changed = replace(manifest, **new)
        changed.save(root)
    print(
        f"{root}: licence {changed.licence}, {'' if changed.redistributable else 'not '}redistributable; "
        f"manifest {manifest.hash[:12]} is {changed.hash[:12]} now"
    )
    return EXIT_DONE
