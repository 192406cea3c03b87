"""A trainer ends with the launcher that started it, and with no other parent."""

import os
import subprocess
import sys
import time

import pytest

TRAINER = """
import sys, time
from recipes.run.world import end_with_launcher
end_with_launcher()
print("ready", flush=True)
time.sleep(30)
"""
LAUNCHER = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', sys.argv[1]]).pid, flush=True); input()"


def ended(process: int, seconds: float) -> bool:
    """Whether it is gone, or nothing but its exit code is left of it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with open(f"/proc/{process}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
@pytest.mark.parametrize("launcher", ["ACCELERATE_DYNAMO_BACKEND", "TORCHELASTIC_RUN_ID", None])
def test_a_trainer_ends_with_its_launcher_and_with_no_other_parent(launcher):
    known = {"ACCELERATE_DYNAMO_BACKEND", "TORCHELASTIC_RUN_ID"}
    environment = {name: value for name, value in os.environ.items() if name not in known}
    environment |= {} if launcher is None else {launcher: "no"}
    parent = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, TRAINER],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    trainer = int(parent.stdout.readline())
    assert parent.stdout.readline() == "ready\n"
    parent.kill()
    parent.wait()
    try:
        assert ended(trainer, 20 if launcher else 1) == (launcher is not None)
    finally:
        if not ended(trainer, 0.1):
            os.kill(trainer, 9)
