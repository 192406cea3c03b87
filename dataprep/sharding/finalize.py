"""`cwm-dataprep finalize`: the last step of a run whose shards were written in parts (`--shard-range`)."""

import argparse

from cwm_hub.shards.storage import Root
from dataprep.sharding import ledger
from dataprep.sharding.command import add_max_failures, exit_code, report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this sub-command's options."""
    parser.add_argument("out", metavar="OUT", help="directory or fsspec URL that the parts were written to")
    add_max_failures(parser)


def run(args: argparse.Namespace) -> int:
    """Merge the parts; returns the exit code."""
    root = Root.parse(args.out)
    with ledger.run_lock(root):
        outcome = ledger.finalize(root)
    report(outcome, root)
    return exit_code(outcome, args.max_failures)
