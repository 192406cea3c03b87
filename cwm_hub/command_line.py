"""What `cwm-hub`, `cwm-dataprep` and the recipes have in common: sub-commands, spelling, one sentence for what went wrong, progress."""

import argparse
import importlib
import os
import re
import select
import shlex
import shutil
import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import NoReturn

from cwm_hub import missing_extra
from cwm_hub.config import nearest

EXIT_DONE = 0
EXIT_INPUT = 1
"""Wrong usage, or an input or output that cannot be worked with."""
EXIT_INTERRUPTED = 130
TERMINAL_SECONDS, LOG_SECONDS = 0.5, 10.0
"""Between lines of progress, where a line is rewritten and where each has its own."""

Commands = Mapping[str, tuple[str, str]]
"""Sub-command to (module with `add_arguments(parser)`, which loads no torch, and `EXAMPLES`, commands that end its help; one
line of help)."""


class Parser(argparse.ArgumentParser):
    """argparse with our exit code, and a word for what was misspelt before what is missing."""

    def error(self, message: str) -> NoReturn:
        """One sentence and exit code 1."""
        self.exit(EXIT_INPUT, f"error: {message} (see {self.prog} --help)\n")

    def check_spelling(self, words: Sequence[str]) -> None:
        """Refuse an option that is none, with the nearest that is one."""
        known = list(self._option_string_actions)
        for word in words:
            if word == "--":
                return
            name = word.partition("=")[0]
            if name.startswith("--") and not any(option.startswith(name) for option in known):
                self.error(f"there is no option {name}{nearest(name, known)}")


def with_dashes(words: Sequence[str]) -> list[str]:
    """`--max_failures=3` as `--max-failures=3`: both spellings are taken."""
    return [
        name.replace("_", "-") + equals + value if name.startswith("--") else word
        for word in words
        for name, equals, value in [word.partition("=")]
    ]


def how_many(count: int, one: str, many: str | None = None) -> str:
    """A count with its noun, and whatever follows it, in the right number.

    >>> how_many(1, "clip"), how_many(1234, "clip"), how_many(1, "video is", "videos are")
    ('1 clip', '1,234 clips', '1 video is')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def add_checkpoint(
    parser: argparse.ArgumentParser, name: str = "checkpoint", *, metavar: str = "NAME"
) -> None:
    """The argument of a command that takes a checkpoint by what `find_checkpoint` knows."""
    known = "owner/name[@revision], an embedded name, a directory or a run folder"
    parser.add_argument(name, metavar=metavar, help=known)


def run_command(
    prog: str,
    description: str,
    commands: Commands,
    arguments: Sequence[str] | None,
    run: Callable[[ModuleType, argparse.Namespace], int],
) -> int:
    """Runs the sub-command that the words name, of which alone the module is imported; returns an exit code.

    Args:
        prog: name of the tool.
        description: of the tool.
        commands: its sub-commands.
        arguments: the words; those of this process by default.
        run: is given the module and its arguments, the words among them as `words`; does what a sub-command's module is
            for, and returns its exit code. What a user can cause is a ValueError, an OSError or an ImportError, which
            become one sentence on stderr; a warning is a line there.
    """
    words = with_dashes(sys.argv[1:] if arguments is None else arguments)
    parser = Parser(prog=prog, description=description)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    asked = next((word for word in words if not word.startswith("-")), None)
    if asked is not None and asked not in commands:
        parser.error(f"there is no command {asked}{nearest(asked, commands)}")
    for name, (module, summary) in commands.items():
        command = subparsers.add_parser(
            name, help=summary, description=summary, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if name == asked:
            found = importlib.import_module(module)
            found.add_arguments(command)
            if examples := getattr(found, "EXAMPLES", ()):  # a source of one's own may have none
                command.epilog = "\n  ".join(["examples:", *examples])
            command.check_spelling(words)
    args = parser.parse_args(words)
    args.words = list(words)
    if "" in words:  # would mean the current folder
        return _fail("one of the arguments is empty: is a variable of the shell not set?")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
            code = run(importlib.import_module(commands[args.command][0]), args)
            sys.stdout.flush()
            return code
    except KeyboardInterrupt:
        print(f"\ninterrupted; continue with: {prog} {shlex.join(words)}", file=sys.stderr)
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


def loading(what: str) -> None:
    """Say what is coming, before torch is imported, which takes seconds; of several processes the first one does."""
    if os.environ.get("RANK", "0") == "0":
        print(f"loading {what}", flush=True)


def line_seconds() -> float:
    """Between lines of progress on standard output."""
    return TERMINAL_SECONDS if sys.stdout.isatty() else LOG_SECONDS


def progress_line(text: str, *, last: bool) -> None:
    """Progress that rewrites its line on a terminal, and has a line each time elsewhere."""
    if sys.stdout.isatty():
        text = fitted(text, shutil.get_terminal_size().columns)
        print(f"\r\x1b[K{text}", end="\n" if last else "", flush=True)
    else:
        print(text, flush=True)


def fitted(text: str, columns: int) -> str:
    """What fits a terminal's line, which rewriting needs: less of all but its last two columns, those in brackets first.

    >>> fitted("10 / 99 steps  loss    1.50  success 33 %  2.0 steps/s (act 9 %  update 89 %)  left 1.0 min", 60)
    '10 / 99 steps loss 1.50 success…  2.0 steps/s  left 1.0 min'
    """
    if len(text) < columns:
        return text
    text = re.sub(r" \([^)]*\)", "", text)
    if len(text) < columns:
        return text
    head, *kept = text.rsplit("  ", 2)
    tail = "".join(f"  {column}" for column in kept)
    room = max(1, columns - 1 - len(tail))
    return (textwrap.shorten(head, room, placeholder="…") + tail)[: max(1, columns - 1)]


class Pace:
    """How far, how fast, how long: a line now and then, and one at the end.

    Args:
        total: how many there are to do.
        unit: what they are, in the plural.
    """

    def __init__(self, total: int, unit: str) -> None:
        self._done, self._total, self._unit = 0, total, unit
        self._began = self._told = time.monotonic()

    def add(self, more: int) -> None:
        """So many more are done."""
        self._done += more
        now, last = time.monotonic(), self._done == self._total
        if last or now - self._told >= line_seconds():
            self._told, rate = now, self._done / max(now - self._began, 1e-6)
            left = f"  {rate:.2f} a second  left {(self._total - self._done) / rate / 60:.1f} min"
            text = f"{self._done:,} of {self._total:,} {self._unit}"
            progress_line(text if last else text + left, last=last)


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
    print(f"error: {' '.join(sentence.split())}", file=sys.stderr)
    return EXIT_INPUT
