"""`cwm-hub`: what the library does at a command line. Each sub-command is a module, imported when it is asked for."""

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from cwm_hub.command_line import EXIT_DONE, run_command

if TYPE_CHECKING:
    import argparse

COMMANDS = {
    "app": ("cwm_hub.hub.app_command", "a page on this machine to look at a model"),
    "bench": (
        "cwm_hub.clips.bench",
        "windows and batches a second that training gets out of shards, and what limits",
    ),
    "compare": ("cwm_hub.hub.compare_command", "where two checkpoints differ, and how their scores compare"),
    "convert": ("cwm_hub.hub.convert_command", "what the official ContextWM code saved, as a checkpoint"),
    "doctor": ("cwm_hub.doctor", "what this machine can draw, read and train with, and what to install"),
    "eval": ("cwm_hub.hub.eval_command", "a published evaluation done again by its recorded protocol"),
    "export": ("cwm_hub.hub.export_command", "a checkpoint as files that the official ContextWM code loads"),
    "info": ("cwm_hub.hub.info_command", "what a checkpoint says of itself"),
    "list": ("cwm_hub.hub.list_command", "models at hand, or what an owner has published"),
    "publish": (
        "cwm_hub.hub.publish_command",
        "a run's model, scores, pictures and card to the Hub or a directory",
    ),
    "watch": ("cwm_hub.hub.watch_command", "a film of a saved agent in its task, or in another"),
    "verify": ("cwm_hub.hub.verify_command", "whether a checkpoint is as it was published"),
}
"""Sub-command to (module, one line of help).

The module has `add_arguments(parser)`, which loads no torch, and `run(args)`, an iterator of lines that are printed as
they come; what a user can cause is a ValueError.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command; bad input is one sentence on stderr and exit code 1."""
    return run_command(
        "cwm-hub",
        "Contextualized world models: shards, checkpoints, evaluation.",
        COMMANDS,
        arguments,
        _print,
    )


def _print(module: ModuleType, args: "argparse.Namespace") -> int:
    for line in module.run(args):
        print(line, flush=True)
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
