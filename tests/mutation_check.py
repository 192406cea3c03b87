"""Which one-line faults would the fast tests not see? `python tests/mutation_check.py [WORD ...]`, by hand.

`mutations.toml` lists faults by room: a file, a text that occurs in it exactly once, what replaces it, what that would
mean, and the test files that should notice (a mapping, for every fault against every test would take hours). Each fault
is written into a copy of the tree by itself and its tests are run until one fails. A fault that no test sees survives.

Prints each fault's fate. Without a WORD all faults are tried and docs/MUTATIONS.md is written; with some, those of the rooms
so named and those whose meaning holds one of them. Exits 1 where a fault survives that gives no `survives = "reason"`,
where one with a reason is killed after all, or where fewer than 90 % are killed; 2 where a text is not found exactly
once (the list is stale), or the tests fail without any fault.
"""

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).parents[1]
LEAST_KILLED = 0.9
TIMEOUT_SECONDS = 600
PRELOADED = "torch torchmetrics.functional.image scipy.stats pyarrow.parquet av safetensors.torch gymnasium"
"""What takes seconds to import and is no part of the tree: each run is a fork of this process."""


@dataclass(frozen=True)
class Fault:
    """One line to get wrong."""

    room: str
    file: str
    old: str
    new: str
    means: str
    tests: tuple[str, ...]
    survives: str = ""
    """Why no fast test sees it, where that is known and accepted."""


class RunError(SystemExit):
    """The check itself cannot go on; the message is one sentence."""

    def __init__(self, sentence: str):
        print(sentence, file=sys.stderr)
        super().__init__(2)


def read_faults(path: Path) -> list[Fault]:
    """The list, in its order."""
    rooms = tomllib.loads(path.read_text())
    faults = []
    for room, content in rooms.items():
        for fault in content["fault"]:
            tests = fault.pop("tests", content["tests"])
            faults.append(Fault(room=room, tests=tuple(tests), **fault))
    return faults


def check_not_stale(faults: list[Fault], tree: Path) -> None:
    """Refuses a fault whose text is not in its file exactly once, or that changes nothing."""
    for fault in faults:
        found = (tree / fault.file).read_text().count(fault.old) if (tree / fault.file).is_file() else 0
        if found != 1 or fault.old == fault.new:
            raise RunError(f"stale: {fault.file} holds {fault.old!r} {found} times, not once ({fault.means})")


def run_tests(tree: Path, tests: tuple[str, ...]) -> int | None:
    """pytest's exit status of the fast tests in these files, up to the first failure; None where they do not end."""
    process = multiprocessing.get_context("fork").Process(target=_in_child, args=(tree, tests))
    process.start()
    process.join(TIMEOUT_SECONDS)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    return process.exitcode


def _in_child(tree: Path, tests: tuple[str, ...]) -> None:
    import pytest

    os.chdir(tree)
    os.environ["PYTHONPATH"] = str(tree)
    sys.path[:] = [str(tree), *(place for place in sys.path if place != str(TREE))]
    with (tree / "output.txt").open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        status = pytest.main(["-x", "-q", "-m", "not slow", *tests])
    os._exit(status)


def copy_tree(target: Path) -> None:
    """The files that git knows or would add, as they are on disk."""
    command = ["git", "-C", str(TREE), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0"):
        if name and (TREE / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TREE / name, target / name)


def fate(fault: Fault, tree: Path) -> str:
    """`killed` or `survived`; a fault with which no test can even be collected is an error of the list."""
    path = tree / fault.file
    right = path.read_text()
    path.write_text(right.replace(fault.old, fault.new))
    try:
        status = run_tests(tree, fault.tests)
    finally:
        path.write_text(right)
    if status not in (None, 0, 1):
        raise RunError(
            f"{fault.means}: pytest ends with {status}:\n{(tree / 'output.txt').read_text()[-2000:]}"
        )
    return "survived" if status == 0 else "killed"


def table(fates: list[tuple[Fault, str]]) -> str:
    """docs/MUTATIONS.md."""
    killed = sum(end == "killed" for _, end in fates)
    lines = [
        "# Faults that the tests see",
        "",
        f"`python tests/mutation_check.py` writes each of the {len(fates)} one-line faults of `tests/mutations.toml` into a copy of",
        "the tree, one at a time, and runs the fast tests that should notice (the list names them by room or by fault).",
        f"{killed} of {len(fates)} are killed. To be run by hand after a change to these rooms; without words it writes this page.",
    ]
    for room in dict.fromkeys(fault.room for fault, _ in fates):
        lines += ["", f"## {room}", "", "| file | the fault | fate |", "|---|---|---|"]
        for fault, end in fates:
            if fault.room == room:
                told = end if end == "killed" else f"**{end}**: {fault.survives or 'no reason known'}"
                lines.append(f"| `{fault.file}` | {fault.means} | {told} |")
    return "\n".join(lines) + "\n"


def main(words: list[str]) -> int:
    """Run the faults that the words choose, or all."""
    faults = read_faults(TREE / "tests" / "mutations.toml")
    check_not_stale(faults, TREE)
    if words:
        faults = [fault for fault in faults if any(w == fault.room or w in fault.means for w in words)]
    if not faults:
        raise RunError(f"no fault of mutations.toml is called {', '.join(words)}")
    sys.dont_write_bytecode = True  # two faults of one size within a second would share a .pyc
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    for name in PRELOADED.split():
        __import__(name)
    fates = []
    with tempfile.TemporaryDirectory(prefix="cwm-mutations-") as folder:
        tree = Path(folder)
        copy_tree(tree)
        files = tuple(dict.fromkeys(test.partition("::")[0] for fault in faults for test in fault.tests))
        if run_tests(tree, files) != 0:
            raise RunError(f"the tests fail without a fault:\n{(tree / 'output.txt').read_text()[-2000:]}")
        for fault in faults:
            started = time.monotonic()
            fates.append((fault, fate(fault, tree)))
            print(f"{fates[-1][1]:8s} {time.monotonic() - started:4.0f} s  {fault.file}: {fault.means}")
    killed = sum(end == "killed" for _, end in fates)
    print(f"{killed} of {len(fates)} killed")
    if not words:
        (TREE / "docs" / "MUTATIONS.md").write_text(table(fates))
    expected = all((end == "survived") == bool(fault.survives) for fault, end in fates)
    return int(not expected or killed < LEAST_KILLED * len(fates))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
