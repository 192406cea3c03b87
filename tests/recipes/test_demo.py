"""The demo's loop on stages of a second: what it reuses, what it logs, what is left when it is killed; and how recipes end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from recipes.demo import Loop, Stage
from recipes.run.folder import one_sentence_errors, read_rows

ROOT = Path(__file__).parents[2]


def stage(folder: Path, name: str, code: str = "") -> Stage:
    """Writes a file of its name."""
    return Stage(name, ["-c", f"{code}\nopen({str(folder / name)!r}, 'w')"], folder / name)


def test_finished_stages_are_reused_until_an_earlier_one_ran_again(tmp_path, capfd):
    def loop(*stages: Stage) -> list[int]:
        fresh = Loop(tmp_path)
        return [fresh.run(one) for one in stages]

    first, second = stage(tmp_path, "a"), stage(tmp_path, "b", "sum(range(10_000_000))")
    assert loop(first, second) == [0, 0]
    rows = read_rows(tmp_path / "stages.jsonl")
    assert [(row["stage"], row["status"]) for row in rows] == [("a", "done"), ("b", "done")]
    assert 0 <= rows[0]["cpu_seconds"] < rows[1]["cpu_seconds"]
    assert loop(first, second) == [0, 0] and len(read_rows(tmp_path / "stages.jsonl")) == 2
    (tmp_path / "a").unlink()
    assert loop(first, second) == [0, 0] and len(read_rows(tmp_path / "stages.jsonl")) == 4
    assert loop(stage(tmp_path, "a", "import sys; sys.exit(7)")) == [7]
    assert "'a' ended with exit code 7; the same command resumes there" in capfd.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to end a process with its parent")
def test_a_killed_demo_leaves_no_stage_behind(tmp_path):
    """Which would hold its run folder, so that the same command could not resume there."""
    stay = Stage("stay", ["-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"])
    code = f"from pathlib import Path; from recipes.demo import Loop, Stage; Loop(Path({str(tmp_path)!r})).run({stay!r})"
    demo = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert demo.stdout is not None
    child = next(int(line) for line in demo.stdout if line.strip().isdigit())
    demo.kill()
    demo.wait()
    until = time.monotonic() + 10
    while alive(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(child)


def alive(process: int) -> bool:
    """A process that has ended and that nobody has waited for is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_torchruns_report_ends_with_the_sentence(tmp_path, monkeypatch):
    file = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
    with pytest.raises(SystemExit, match=r"^error: no such thing$"), one_sentence_errors():
        raise ValueError("no such\nthing")
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=1, error_file=str(file))
    *_, last, _ = str(ChildFailedError("recipes/pretrain.py", {0: failure})).splitlines()
    assert last == "  traceback : error: no such thing"


def test_ctrl_c_is_one_word_and_the_exit_code_of_one(capsys):
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # in the background a shell has it ignored
    try:
        with pytest.raises(SystemExit) as stopped, one_sentence_errors():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.value.code == 130 and capsys.readouterr().err == "\ninterrupted\n"
