"""What a result depends on outside its configuration: command, versions, commit, machine."""

import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

LIBRARIES = ("torch", "accelerate", "webdataset", "av", "numpy", "huggingface_hub")


def provenance() -> dict[str, Any]:
    """What a result depends on outside its configuration: command, versions of what is installed, commit, machine."""
    return {
        "command": " ".join(sys.argv),
        "git_commit": git_commit(ROOT),
        "versions": {"python": platform.python_version()} | dict(_versions()),
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count()},
    }


def git_commit(root: Path) -> str:
    """The commit that is checked out in this folder; `unknown` without git, or where the folder is no checkout of its own.

    An environment inside another project's checkout is not of that project's commit.
    """
    command = ["git", "-C", str(root), "rev-parse", "HEAD", "--show-toplevel"]
    try:
        git = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    commit, _, top = git.stdout.strip().partition("\n")
    return commit if git.returncode == 0 and Path(top).resolve() == root.resolve() else "unknown"


def _versions() -> Iterator[tuple[str, str]]:
    for name in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            yield name, version(name)


def usable_cores() -> int:
    """Cores that this process may use, all of the machine's where the system does not tell (macOS)."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
