"""Runs Python command lines one after another, each in a fork of a process that has imported what they share.

    python tests/readme_runner.py JOBS.json

Importing torch and accelerate takes seconds, and a README has a score of commands. A job is the words after `python`; a
line is printed for each, and the first one that fails ends the run with what it said.
"""

import json
import os
import runpy
import sys
import time
from pathlib import Path

import accelerate  # noqa: F401
import torch  # noqa: F401

import cwm_hub.agents.dreamer
import cwm_hub.clips.loader
import cwm_hub.evaluation.predict
import cwm_hub.models.registry  # noqa: F401


def run(words: list[str]) -> None:
    """As `python WORDS` in this process."""
    if words[0] == "-m":
        sys.argv = words[1:]
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        exec(compile(words[1], "<snippet>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
        runpy.run_path(words[0], run_name="__main__")


def in_a_fork(words: list[str], log: Path) -> int:
    """The exit code of `python WORDS`, whose output goes to `log`."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    code = 1
    try:
        run(words)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except Exception:  # noqa: BLE001  (a traceback and exit code 1, as in a process of its own)
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    for number, job in enumerate(json.loads(Path(sys.argv[1]).read_text())):
        began, log = time.perf_counter(), Path(f"{number:02d}.log")
        code = in_a_fork(job, log)
        print(f"{code} in {time.perf_counter() - began:.1f} s: {' '.join(job)[:100]!r}", flush=True)
        if code:
            sys.exit(log.read_text()[-3000:])
