"""`cwm-dataprep finalize`: the last step of a run whose shards were written in parts (`--shard-range`)."""

import argparse
from dataclasses import dataclass

from cwm_hub.shards.storage import Root
from dataprep.command_line import add_options, positional, read_options
from dataprep.sharding import ledger
from dataprep.sharding.summary import Tolerance, report


@dataclass(frozen=True)
class FinalizeOptions:
    """Options of this sub-command."""

    out: str = positional("OUT")
    """Directory or fsspec URL that the parts were written to."""


EXAMPLES = (
    "cwm-dataprep finalize shards/ssv2",
    "cwm-dataprep finalize s3://bucket/sets/ssv2 --max-failures 1%",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this sub-command's options."""
    add_options(parser, FinalizeOptions)
    add_options(parser, Tolerance)


def run(args: argparse.Namespace) -> int:
    """Merge the parts; returns the exit code."""
    root = Root.parse(read_options(FinalizeOptions, args).out)
    with ledger.run_lock(root):
        outcome = ledger.finalize(root)
    return report(outcome, root, read_options(Tolerance, args))
