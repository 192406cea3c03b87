"""Small videos made on the spot, and the torture set."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_videos import FIXTURES, write_video


@pytest.fixture(scope="session")
def torture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked torture set."""
    root = tmp_path_factory.mktemp("torture")
    with tarfile.open(FIXTURES / "videos" / "torture.tar.xz") as archive:
        archive.extractall(root, filter="fully_trusted")
    return root


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """``make_video("a.webm", frames, fps=12)`` writes below ``tmp_path``."""

    def make(name: str, frames: np.ndarray, **options: object) -> Path:
        return write_video(tmp_path / name, frames, **options)  # type: ignore[arg-type]

    return make
