"""What every recipe does to its run folder and its world: refuse, resume, log. No torch.

A run folder holds `config.yaml`, `metrics.jsonl` and `checkpoints/step-<updates>/`; everything in it is written so
that a killed run finds it whole.
"""

import csv
import io
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from cwm_hub import missing_extra
from cwm_hub.command_line import EXIT_INTERRUPTED
from cwm_hub.shards.storage import lock, write_whole


class RecipeError(ValueError):
    """What a user can cause and mend: one sentence."""


@contextmanager
def one_sentence_errors() -> Iterator[None]:
    """Turn every ValueError (ours all are), OSError and package that is not installed into one line on stderr and exit code 1,
    and Ctrl-C into 130.

    A process of torchrun leaves the line in torchelastic's error file too, so that it stands in the report that torchrun ends with.
    """
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("CWM_TRACEBACK"):
            raise
        words = missing_extra(error) if isinstance(error, ImportError) else str(error)
        sentence = f"error: {' '.join(words.split())}"
        if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
            told = {"message": sentence, "extraInfo": {"timestamp": str(int(time.time()))}}
            Path(file).write_text(json.dumps({"message": told}), encoding="utf-8")
        sys.exit(sentence)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn what torch and safetensors make of a full disk, a RuntimeError and an error of their own, into one sentence.

    Raises:
        OSError: the file was not written.
    """
    try:
        yield
    except Exception as error:
        if not re.search("inline_container|PytorchStreamWriter|I/O error", str(error)):
            raise
        free = shutil.disk_usage(place.parent).free
        raise OSError(f"cannot write {place}: its disk has {free / 1e6:,.1f} MB left") from error


def lock_run(run: Path) -> TextIO:
    """Keep every other process from training in this folder, until the file is closed or this process ends.

    The lock is the process's own: a loader worker that outlives it does not hold it.

    Raises:
        RecipeError: another process has it.
    """
    run.mkdir(parents=True, exist_ok=True)
    file = (run / ".lock").open("w")
    try:
        lock(file, of_process=True)
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, as the system has it
        file.close()
        raise RecipeError(f"another process is training in {run}") from None
    return file


@contextmanager
def begun_or_untouched(run: Path, *, played: str) -> Iterator[None]:
    """Hold the run's lock; what fails before there is a file of this name takes along everything that it made in the folder.

    So does SIGTERM, as long as nobody else handles it.

    Raises:
        RecipeError: another process has the lock.
    """
    names = {path.name for path in run.iterdir()} if run.is_dir() else set()
    with lock_run(run):
        before = names | {path.name for path in run.iterdir() if path.name != ".lock"}
        handler = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        try:
            yield
        except BaseException:
            if not (run / played).exists():
                for path in [path for path in run.iterdir() if path.name not in before]:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                if not any(run.iterdir()):
                    run.rmdir()
            raise
        finally:
            signal.signal(signal.SIGTERM, handler)


def step_directory(checkpoints: Path, updates: int) -> Path:
    """Name of the checkpoint after so many updates."""
    return checkpoints / f"step-{updates:08d}"


def saved_steps(checkpoints: Path) -> list[int]:
    """Updates after which there is a whole checkpoint, rising."""
    names = (path.name for path in checkpoints.glob("step-*") if path.is_dir())
    return sorted(int(name[5:]) for name in names if name[5:].isdigit())


def keep_newest(checkpoints: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints, and what killed runs left half written."""
    for updates in saved_steps(checkpoints)[:-keep]:
        shutil.rmtree(step_directory(checkpoints, updates))
    for leftover in checkpoints.glob("*.tmp"):
        shutil.rmtree(leftover)


def truncate_rows(path: Path, *, counter: str, last: int) -> None:
    """Drop the rows of a jsonl file whose `counter` lies beyond `last`: a resumed run writes them again."""
    if path.exists():
        rows = read_rows(path, numbers=[counter])
        kept = [json.dumps(row) + "\n" for row in rows if row[counter] <= last]
        write_text(path, "".join(kept))


def read_rows(path: Path, *, numbers: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Rows of a jsonl file, none where there is no file; a last line that a kill cut short is left out.

    Raises:
        RecipeError: a line is no row, or one that lacks a number of these names.
    """
    text = path.read_text(errors="replace") if path.is_file() else ""
    rows = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), 1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not all(
                isinstance(row.get(name), int | float) for name in numbers
            ):
                raise ValueError(f"expected {', '.join(numbers) or 'values'} by name")
            rows.append(row)
        except ValueError as error:
            raise RecipeError(
                f"{path}: line {number} is no row ({error}): delete it, or begin a new run"
            ) from error
    return rows


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add one json line."""
    with path.open("a") as file:
        file.write(json.dumps(dict(row)) + "\n")


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows under the names of all of them."""
    file = io.StringIO()
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(file, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def note_unreadable(path: Path, broken: Iterable[tuple[str, str]], *, updates: int) -> None:
    """Add the shards and clips of (name, reason) that the file does not name yet; processes of a run share it."""
    with path.open("a") as file:
        lock(file, wait=True)  # lockf's lock would go when read_rows closes the file
        known = {row["name"] for row in read_rows(path)}
        rows = [{"updates": updates, "name": name, "reason": reason} for name, reason in dict(broken).items()]
        file.write("".join(json.dumps(row) + "\n" for row in rows if row["name"] not in known))


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    write_whole(path, text.encode())


class StopSignal:
    """SIGTERM and Ctrl-C ask for a checkpoint instead of ending the process; `received` is the signal's number."""

    def __init__(self) -> None:
        self.received = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: Any) -> None:
        self.received = number
