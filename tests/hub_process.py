"""Steps of a person at the Hub, each taken by the real client in a process of its own.

The client reads its environment when it is imported, so a test cannot take them itself.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from hub_server import WRITER, HubServer

from cwm_hub.hub.saving import save_pretrained
from cwm_hub.models.registry import create_model

Client = Callable[..., list[str]]
"""Takes steps in a fresh process; returns a line for each."""

STEPS = """
import json, sys, warnings
from cwm_hub import from_pretrained, push_to_hub
from cwm_hub.hub import CheckpointError

def load(name, **options):
    with warnings.catch_warnings(record=True) as said:
        weight = next(from_pretrained(name, **options).parameters()).flatten()[0].item()
    return f"weight {weight}" + "".join(f"; {warning.message}" for warning in said)

for action, name, options in json.loads(sys.argv[1]):
    try:
        result = load(name, **options) if action == "load" else push_to_hub(options.pop("directory"), name, **options)
    except CheckpointError as error:  # everything that may be raised
        result = f"refused: {error}"
    assert "\\n" not in result, result
    print(result)
"""


def load(name: str, **options: object) -> tuple:
    """A step of a client: load a checkpoint and tell its first weight."""
    return ("load", name, options)


def push(directory: Path, name: str, **options: object) -> tuple:
    """A step of a client: push a checkpoint and tell its address."""
    return ("push", name, {"directory": str(directory)} | options)


def run_python(
    server: HubServer,
    folder: Path,
    *arguments: object,
    token: str | None = WRITER,
    environment: dict[str, str] | None = None,
) -> list[str]:
    """Runs Python with `server` for the Hub; returns the lines it printed."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    variables |= server.environment(folder / "home", token) | (environment or {})
    command = [sys.executable, *map(str, arguments)]
    result = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def checkpoint(folder: Path, weight: float) -> Path:
    """A checkpoint whose first parameter is `weight` throughout."""
    model = create_model("plainwm-debug")
    next(model.parameters()).data.fill_(weight)
    return save_pretrained(model, folder, name="someone/wm")
