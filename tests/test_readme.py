"""Every command and every snippet of README.md runs, in its order, or stands below with the reason why it does not."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FEW = "--updates 2 --batch_clips 2 --workers 0"
"""Two updates in place of thousands."""

REDUCED = {
    "cwm-dataprep folder VIDEOS --out shards/mine": ("VIDEOS", "recipes/../dataprep/samples"),
    "python recipes/pretrain.py --config recipes/configs/pretrain/small.yaml": ("--run", f"{FEW} --run"),
    "python recipes/publish.py": ("hf://owner/contextwm-mine", "published"),
    "python recipes/finetune.py": (
        "--run",
        "--env.name dummy --agent_steps 60 --prefill_steps 50 --warmup_updates 1 --update_every_steps 50 "
        "--evaluate_every_steps 60 --evaluation_episodes 1 --agent.batch_sequences 8 --agent.sequence_steps 6 --run",
    ),
    "python recipes/evaluate_agent.py": ("--out", "--episodes 1 --out"),
    "cwm-dataprep lerobot": ("owner/name", "tests/fixtures/lerobot/v3_two_cameras --size 32"),
    "cwm-hub bench shards/mine": ("shards/mine", "shards/mine --seconds 0.2 --batch-clips 2"),
    "cwm-hub compare A B": ("A B", "contextwm-tiny published"),
    "cwm-hub eval NAME": ("NAME --data ROOT", "published --data shards/mine"),
    "cwm-hub verify NAME": ("NAME", "published"),
    "python recipes/compare.py": ("runs/a --designs.b runs/b", "runs/mine --designs.b runs/mine"),
    "cwm-hub convert DIR": (
        "DIR --to PLACE",
        "tests/fixtures/parity/contextualized --stoch 3 --classes 5 --to converted",
    ),
}
"""The beginning of a command, and what of it is replaced so that it takes seconds on the embedded clips."""

SNIPPETS = {
    "video = ...": "import torch; video = torch.zeros(1, 7, 3, 32, 32, dtype=torch.uint8)  #",
}
"""What a snippet leaves to its reader."""

AFTERWARDS = {
    "ClipLoader(": "assert next(iter(loader)).video.shape == (16, 25, 3, 64, 64)",
    "from_pretrained(": "assert future.shape == (1, 7, 3, 32, 32)",
}
"""By a word of the snippet: what must hold when it has run."""

NOT_RUN = {
    "make demo": "takes minutes; its stages are the commands below, and CI runs it",
    "make test": "is this",
    "make docs": "tests/test_docs.py builds it",
    "pip install": "asks the package index",
    "source .venv/bin/activate": "is of the shell that it is typed into",
    "accelerate launch --quiet --multi_gpu --num_processes 8": "takes eight GPUs",
    "python recipes/sweep.py": "trains for hours; tests/recipes/test_sweep.py runs one that is small",
    "python recipes/report.py --runs": "needs that sweep; tests/recipes/test_runs_report.py makes such a page",
    "cwm-hub watch": "needs that sweep; tests/hub/test_watch.py films an agent",
    "cwm-hub app": "serves until it is interrupted; tests/hub/test_space.py asks it",
}
"""The beginning of a command -> why it is not run here."""

TOOLS = (
    "python ",
    "pip ",
    "accelerate ",
    "ACCELERATE_",
    "cwm-dataprep ",
    "cwm-hub ",
    "make ",
    "pytest ",
    "source ",
)
ALONE = ("python ", "make ", "source ")
"""Of these two words are a command; of the others they are a name, as `cwm-dataprep split` is one."""
CONSOLE_SCRIPTS = {"cwm-dataprep": ["-m", "dataprep"], "cwm-hub": ["-m", "cwm_hub.cli"]}


def pieces() -> list[str]:
    """Commands and Python snippets of README.md in their order; a snippet holds line breaks, a command none."""
    found: list[str] = []
    text = (ROOT / "README.md").read_text()
    for language, block, inline in re.findall(r"```(\w*)\n(.*?)```|`([^`]+)`", text, re.DOTALL):
        if language == "python":
            found.append(block)
        elif block:
            lines = re.sub(r"\\\n\s*", "", block).splitlines()
            found += [shlex.join(shlex.split(line, comments=True)) for line in lines]
        elif inline.startswith(TOOLS) and (len(inline.split()) > 2 or inline.startswith(ALONE)):
            found.append(" ".join(inline.split()))
    return found


def job(piece: str) -> list[str] | None:
    """The words after `python` that do what this piece says, None where it is not run."""
    if "\n" in piece:
        for old, new in SNIPPETS.items():
            piece = piece.replace(old, new)
        return ["-c", piece + "\n".join(code for word, code in AFTERWARDS.items() if word in piece)]
    if any(piece.startswith(begin) for begin in NOT_RUN):
        return None
    for begin, (old, new) in REDUCED.items():
        if piece.startswith(begin):
            assert old in piece, piece
            piece = piece.replace(old, new, 1)
    program, *words = shlex.split(piece)
    if program == "python":
        return words
    assert program in CONSOLE_SCRIPTS, f"neither run nor excused: {piece}"
    return [*CONSOLE_SCRIPTS[program], *words]


def test_every_command_is_run_or_excused_and_no_excuse_is_stale() -> None:
    found = pieces()
    assert len([piece for piece in found if "\n" in piece]) >= 2
    run = [piece for piece in found if job(piece)]
    assert len(run) >= 14
    for begin in (*NOT_RUN, *REDUCED):
        assert any(piece.startswith(begin) for piece in found), f"README.md has no command {begin}"


@pytest.mark.slow
def test_the_readme_runs_as_written(tmp_path: Path) -> None:
    for name in ("recipes", "tests", "dataprep"):
        (tmp_path / name).symlink_to(ROOT / name)
    jobs = [words for piece in pieces() if (words := job(piece))]
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    runner = [sys.executable, str(ROOT / "tests/readme_runner.py"), "jobs.json"]
    environment = {**os.environ, "MUJOCO_GL": "egl"}  # the snippet's own environment is not MuJoCo's
    result = subprocess.run(
        runner, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("\n") == len(jobs)
