"""`cwm-hub`: what the library does at a command line. Each sub-command is a module, imported when it is asked for."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from cwm_hub import missing_extra

COMMANDS = {
    "bench": (
        "cwm_hub.clips.bench",
        "windows and batches a second that training gets out of shards, and what limits",
    ),
    "publish": (
        "cwm_hub.hub.publish_command",
        "a run's model, scores, pictures and card to the Hub or a directory",
    ),
    "watch": ("cwm_hub.hub.watch_command", "a film of a saved agent in its task, or in another"),
    "verify": ("cwm_hub.hub.verify_command", "the cache's copy of a checkpoint against what the Hub holds"),
}
"""Sub-command to (module, one line of help).

The module has `add_arguments(parser)`, which loads no torch, and `run(args)`, an iterator of lines that are printed as
they come; what a user can cause is a ValueError.
"""

EXIT_DONE, EXIT_INPUT, EXIT_INTERRUPTED = 0, 1, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command; bad input is one sentence on stderr and exit code 1."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = _Parser(
        prog="cwm-hub", description="Contextualized world models: shards, checkpoints, evaluation."
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    asked = next((word for word in arguments if not word.startswith("-")), None)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name == asked:
            importlib.import_module(module).add_arguments(command)
    args = parser.parse_args(arguments)
    try:
        for line in importlib.import_module(COMMANDS[args.command][0]).run(args):
            print(line, flush=True)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (ValueError, OSError, ImportError) as error:
        said = missing_extra(error) if isinstance(error, ImportError) else str(error)
        print(f"error: {' '.join(said.split())}", file=sys.stderr)
        return EXIT_INPUT
    return EXIT_DONE


class _Parser(argparse.ArgumentParser):
    """argparse with one sentence in place of the whole usage."""

    def error(self, message: str) -> NoReturn:
        """Says what is wrong and where help is; exit code 1."""
        self.exit(EXIT_INPUT, f"error: {message} (see {self.prog} --help)\n")


if __name__ == "__main__":
    sys.exit(main())
