"""`cwm-dataprep finalize`: the last step of a run whose shards were written in parts (`--shard-range`)."""

import argparse

from dataprep.sharding import ledger
from dataprep.sharding.command import add_max_failures, exit_code, report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this sub-command's options."""
    parser.add_argument("out", metavar="OUT", help="directory or fsspec URL that the parts were written to")
    add_max_failures(parser)


def run(args: argparse.Namespace) -> int:
    """Merge the parts; returns the exit code."""
    with ledger.run_lock(args.out):
        outcome = ledger.finalize(args.out)
    report(outcome, args.out)
    return exit_code(outcome, args.max_failures)
