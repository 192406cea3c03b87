"""What a result depends on outside its configuration: command, versions, commit, machine."""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

LIBRARIES = ("torch", "accelerate", "webdataset", "av", "numpy", "huggingface_hub")


def provenance() -> dict[str, Any]:
    """What a result depends on outside its configuration: versions, commit, machine."""
    git = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "command": " ".join(sys.argv),
        "git_commit": git.stdout.strip() or None,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count()},
    }


def usable_cores() -> int:
    """Cores that this process may use, all of the machine's where the system does not tell (macOS)."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
