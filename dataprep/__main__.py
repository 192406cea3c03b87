"""`cwm-dataprep`: raw video -> WebDataset shards. Each sub-command is a module, imported when it is asked for."""

import importlib
import os
import select
import shlex
import sys
import warnings
from collections.abc import Sequence

from cwm_hub import missing_extra
from cwm_hub.config import nearest
from dataprep.command_line import EXIT_DONE, EXIT_INPUT, EXIT_INTERRUPTED, Parser, with_dashes
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
    arguments = with_dashes(sys.argv[1:] if arguments is None else arguments)
    parser = Parser(prog="cwm-dataprep", description="Raw video to WebDataset shards for video pre-training.")
    commands, table = (
        parser.add_subparsers(dest="command", metavar="COMMAND", required=True),
        SOURCES | COMMANDS,
    )
    asked = next((a for a in arguments if not a.startswith("-")), None)
    if asked is not None and asked not in table:
        parser.error(f"there is no command {asked}{nearest(asked, table)}")
    for name, (module, summary) in table.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name == asked:
            importlib.import_module(module).add_arguments(command)
            command.check_spelling(arguments)
    args = parser.parse_args(arguments)
    args.words = list(arguments)
    if "" in arguments:  # would mean the current folder
        return _fail("one of the arguments is empty: is a variable of the shell not set?")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
            code = importlib.import_module(table[args.command][0]).run(args)
            sys.stdout.flush()
            return code
    except KeyboardInterrupt:
        print(f"\ninterrupted; continue with: cwm-dataprep {shlex.join(arguments)}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except ValueError as error:
        return _fail(str(error))
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _reader_has_gone():
            return EXIT_DONE
        known = [str(part) for part in (error.filename, error.strerror) if part]
        return _fail(": ".join(known) or str(error))
    except ImportError as error:  # of an extra, or of what opens a kind of URL: it names the package
        return _fail(missing_extra(error))


def _reader_has_gone() -> bool:
    """Whether who reads our output has seen enough, as `head` has; nothing is then written to it any more."""
    try:
        descriptor = sys.stdout.fileno()
    except OSError:  # not a file
        return False
    output = select.poll()
    output.register(descriptor, 0)
    gone = any(event & select.POLLERR for _, event in output.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)  # for what is flushed at the end
    return gone


def _fail(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return EXIT_INPUT


if __name__ == "__main__":
    sys.exit(main())
