"""One thread a process, and a loopback Hub for tests that ask for one.

Where cores are shared, threads that wait for each other made tiny networks 20 times slower.
"""

import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported; child processes inherit it

import pytest
from hub_server import WRITER, HubServer

if TYPE_CHECKING:
    from hub_process import Client


@pytest.fixture
def server() -> Iterator[HubServer]:
    """A loopback Hub for client processes."""
    with HubServer() as running:
        yield running


@pytest.fixture
def client(server, tmp_path) -> "Client":
    """Takes steps in a fresh process for which `server` is the Hub; returns a line for each."""
    from hub_process import STEPS, run_python

    def run(*steps: tuple, token: str | None = WRITER) -> list[str]:
        return run_python(server, tmp_path, "-c", STEPS, json.dumps(steps), token=token)

    return run
