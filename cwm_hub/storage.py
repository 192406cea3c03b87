"""Whole small files below a root that is a local folder or any fsspec URL (hf, s3, https, memory): read, replace."""

import os
from pathlib import Path

import fsspec.core
from fsspec.implementations.local import LocalFileSystem


def read_file(root: str | Path, name: str) -> bytes:
    """The bytes of `name` below a local or fsspec root; FileNotFoundError where there is none."""
    filesystem, base = fsspec.core.url_to_fs(str(root))
    return filesystem.cat_file(f"{base.rstrip('/')}/{name}")


def write_file(root: str | Path, name: str, data: bytes) -> None:
    """Write a small file below a local or fsspec root; a reader sees the old bytes or the new ones, never half."""
    filesystem, base = fsspec.core.url_to_fs(str(root))
    if not isinstance(filesystem, LocalFileSystem):
        target = f"{base.rstrip('/')}/{name}"
        filesystem.makedirs(target.rpartition("/")[0], exist_ok=True)
        filesystem.pipe_file(target, data)
        return
    path = Path(base) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make a rename inside a local folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
