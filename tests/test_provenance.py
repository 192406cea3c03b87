"""What a result says of where it came from, where git is, where it is not, and where it would say something untrue."""

import subprocess
from pathlib import Path

import pytest

from cwm_hub import provenance
from cwm_hub.provenance import git_commit


def test_the_commit_is_that_of_the_folder_itself(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        person = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.check_output(["git", "-C", str(tmp_path), *person, *words], text=True).strip()

    assert git_commit(tmp_path) == "unknown"
    git("init", "--quiet")
    assert git_commit(tmp_path) == "unknown"  # no commit yet
    git("commit", "--quiet", "--allow-empty", "-m", "a")
    assert git_commit(tmp_path) == git("rev-parse", "HEAD")
    inside = tmp_path / ".venv/lib/site-packages"
    inside.mkdir(parents=True)
    assert git_commit(inside) == "unknown"  # that commit is another project's


def test_without_git_and_without_a_library_it_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(provenance, "LIBRARIES", ("numpy", "no-such-library"))
    told = provenance.provenance()
    assert told["git_commit"] == "unknown" and list(told["versions"]) == ["python", "numpy"]
