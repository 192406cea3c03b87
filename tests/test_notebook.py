"""The notebook of the quickstart runs from top to bottom; by a plain Python, since Jupyter's kernel would be 87 MB of packages."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = json.loads((ROOT / "docs/quickstart.ipynb").read_text())
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def as_python(cell: str) -> str:
    """A cell with its lines for the shell, `!command`, as calls that must succeed."""
    return re.sub(r"^!(.*)$", lambda line: f"shell({line[1]!r})", cell, flags=re.MULTILINE)


def test_lines_for_the_shell_become_calls() -> None:
    assert as_python("a = 1\n!echo 'it'\nb = 2") == "a = 1\nshell(\"echo 'it'\")\nb = 2"


def test_it_holds_no_outputs() -> None:
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in NOTEBOOK["cells"])


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path: Path) -> None:
    for name in ("dataprep", "recipes"):
        (tmp_path / name).symlink_to(ROOT / name)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, module in {"cwm-dataprep": "-m dataprep", "python": ""}.items():
        (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        (tools / name).chmod(0o755)
    head = "import subprocess\n\ndef shell(line):\n    subprocess.run(line, shell=True, check=True)\n\n"
    (tmp_path / "notebook.py").write_text(
        head + "\n".join(map(as_python, CODE)) + "\nprint(env.action_space)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{tools}:{os.environ['PATH']}"}
    run = subprocess.run(
        [sys.executable, "notebook.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.endswith("Box(-1.0, 1.0, (1,), float32)\n")
    assert (tmp_path / "runs/notebook/run/model/model.safetensors").exists()
