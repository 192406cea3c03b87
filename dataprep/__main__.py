"""`cwm-dataprep`: raw video -> WebDataset shards. Each sub-command is a module, imported when it is asked for."""

import sys
from collections.abc import Sequence

from cwm_hub.command_line import run_command
from dataprep.sources.table import SOURCES

COMMANDS = {
    "sources": ("dataprep.sources.table", "the kinds of input, with one line each"),
    "finalize": ("dataprep.sharding.finalize", "merge the parts of a --shard-range run into a data set"),
    "status": ("dataprep.sharding.status", "how far the parts of a run are, and what has failed so far"),
    "verify": ("dataprep.curation.verify", "check a shard directory against its manifest"),
    "filter": ("dataprep.curation.filter", "a smaller set by columns of the index: motion, length, class"),
    "split": (
        "dataprep.curation.split",
        "hold out another part of a finished set, without decoding it again",
    ),
    "merge": ("dataprep.curation.merge", "several finished sets as one"),
    "describe": ("dataprep.curation.describe", "another licence for a finished set"),
    "stats": (
        "dataprep.curation.stats",
        "lengths, labels, motion, failures; ours beside the official counts",
    ),
    "preview": ("dataprep.curation.preview", "contact sheet or page of looping clips"),
    "push": ("dataprep.curation.push", "publish a shard directory as a Hub data set"),
}
"""As `SOURCES`: sub-command to (module with `add_arguments(parser)` and `run(args) -> exit code`, one line of help)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command; returns one of the exit codes of `command_line`."""
    return run_command(
        "cwm-dataprep",
        "Raw video to WebDataset shards for video pre-training.",
        SOURCES | COMMANDS,
        arguments,
        lambda module, args: module.run(args),
    )


if __name__ == "__main__":
    sys.exit(main())
