"""Whole small files below a root that is a local folder or any fsspec URL (hf, s3, https, memory): read, replace.

Whatever the client library of a URL raises leaves here as OSError with one line.
"""

import contextlib
import errno
import fcntl
import functools
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import fsspec
import fsspec.core
from fsspec.implementations.local import LocalFileSystem

CLIENT_ERRORS = {
    "aiohttp": ("ClientError",),
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "httpx": ("HTTPError",),
    "httpx2": ("HTTPError",),
}
"""Errors of the libraries that fsspec speaks through, which it passes on as they are; by module."""

UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
"""How network and FUSE file systems say that they have no locks, or cannot sync a folder."""


def client_errors() -> tuple[type[Exception], ...]:
    """Those of `CLIENT_ERRORS` whose module is in use."""
    modules = {name: sys.modules[name] for name in CLIENT_ERRORS if name in sys.modules}
    return tuple(getattr(module, kind) for name, module in modules.items() for kind in CLIENT_ERRORS[name])


@contextlib.contextmanager
def remote_errors() -> Iterator[None]:
    """Turn `client_errors` into OSError with one line."""
    try:
        yield
    except Exception as error:
        if isinstance(error, client_errors()):  # asked now: the first use of a URL imports its client
            raise OSError(" ".join(str(error).split()) or type(error).__name__) from error
        raise


def locate(root: str | Path, name: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a local or fsspec root, and the path of `name` below the root in its words."""
    filesystem, base = fsspec.core.url_to_fs(str(root))
    return filesystem, f"{base.rstrip('/')}/{name}"


@remote_errors()
def read_file(root: str | Path, name: str) -> bytes:
    """The bytes of `name` below a local or fsspec root; FileNotFoundError where there is none."""
    filesystem, path = locate(root, name)
    return filesystem.cat_file(path)


@remote_errors()
def read_range(root: str | Path, name: str, offset: int, size: int) -> bytes:
    """`size` bytes of `name` from `offset` on, fewer where it ends before."""
    filesystem, path = locate(root, name)
    # by name: the second argument of s3fs is a version
    return filesystem.cat_file(path, start=offset, end=offset + size)


@remote_errors()
def write_file(root: str | Path, name: str, data: bytes) -> None:
    """Write a small file below a local or fsspec root; a reader sees the old bytes or the new ones, never half."""
    home = local_path(root)
    if home is None:
        filesystem, target = _remote(root, name)
        filesystem.pipe_file(target, data)
        return
    path = home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


@remote_errors()
def upload_file(root: str | Path, name: str, source: Path) -> None:
    """Copy a finished local file below a remote root, under its final name."""
    filesystem, target = _remote(root, name)
    filesystem.put_file(str(source), target)


def local_path(root: str | Path) -> Path | None:
    """The folder that `root` names, None where it is remote; opens no connection to tell."""
    protocol, _ = fsspec.core.split_protocol(str(root))
    if protocol not in (None, *LocalFileSystem.protocol):
        return None
    return Path(fsspec.core.url_to_fs(str(root))[1])


@remote_errors()
def list_files(root: str | Path, folder: str) -> dict[str, int]:
    """Size of every file directly in `folder` below a local or fsspec root, by name; empty if there is no folder."""
    filesystem, path = locate(root, folder)
    filesystem.invalidate_cache()
    try:
        entries = filesystem.ls(path, detail=True)
    except FileNotFoundError:
        return {}
    return {entry["name"].rpartition("/")[2]: entry["size"] for entry in entries if entry["type"] == "file"}


def _remote(root: str | Path, name: str) -> tuple[fsspec.AbstractFileSystem, str]:
    filesystem, target = locate(root, name)
    filesystem.makedirs(target.rpartition("/")[0], exist_ok=True)
    return filesystem, target


def sync(path: Path) -> None:
    """Make a local file, or the renames inside a local folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync(descriptor: int) -> None:
    """`os.fsync`, or a warning where the file system cannot: what was written is there, but for a power cut."""
    with _warning_where_unsupported(
        "this file system cannot sync a folder: a power cut may lose what was written"
    ):
        os.fsync(descriptor)


def lock(file: IO[Any], *, wait: bool = False, shared: bool = False, of_process: bool = False) -> bool:
    """Lock an open file between processes; it is held until the file is closed.

    Args:
        file: opened for writing.
        wait: until nobody else holds it.
        shared: with others that hold it shared.
        of_process: by `lockf`: a child that inherits the file does not hold it.

    Returns:
        False where the file system has no locks, with a warning: nobody is kept out.

    Raises:
        BlockingIOError, PermissionError: another one holds it (EAGAIN or EACCES, as the system has it).
    """
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    with _warning_where_unsupported("this file system has no locks: nothing keeps two runs off one folder"):
        (fcntl.lockf if of_process else fcntl.flock)(file, how)
        return True
    return False


@contextlib.contextmanager
def _warning_where_unsupported(sentence: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        warn_once(f"{sentence} ({os.strerror(error.errno)})")


@functools.cache
def warn_once(sentence: str) -> None:
    """A RuntimeWarning, once in the life of this process: by the rules of `warnings` others bring it back."""
    warnings.warn(sentence, RuntimeWarning, stacklevel=1)
