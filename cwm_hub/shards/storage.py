"""Where shard sets lie, a local folder or any fsspec URL (hf, s3, https, memory), and files that appear there whole.

Whatever the client library of a URL raises leaves here as OSError with one line.
"""

import contextlib
import ctypes
import errno
import fcntl
import functools
import glob
import os
import secrets
import shutil
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Root:
    """Where a shard set lies: a local folder or anything that fsspec opens. Its methods take names below it."""

    url: str
    """As the user wrote it."""
    home: Path | None
    """The local folder, None where it is remote."""

    @classmethod
    def parse(cls, root: "str | Path | Root") -> "Root":
        """Understand what a user wrote; opens no connection."""
        if isinstance(root, Root):
            return root
        protocol, _ = fsspec.core.split_protocol(str(root))
        is_local = protocol in (None, *LocalFileSystem.protocol)
        return cls(str(root), Path(fsspec.core.url_to_fs(str(root))[1]) if is_local else None)

    def __str__(self) -> str:
        return self.url

    def locate(self, name: str) -> tuple[fsspec.AbstractFileSystem, str]:
        """The file system, and the path of `name` in its words."""
        filesystem, base = fsspec.core.url_to_fs(self.url)
        return filesystem, f"{base.rstrip('/')}/{name}"

    @remote_errors()
    def read(self, name: str) -> bytes:
        """The bytes of a file; FileNotFoundError where there is none."""
        filesystem, path = self.locate(name)
        return filesystem.cat_file(path)

    @remote_errors()
    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """`size` bytes of a file from `offset` on, fewer where it ends before."""
        filesystem, path = self.locate(name)
        # by name: the second argument of s3fs is a version
        return filesystem.cat_file(path, start=offset, end=offset + size)

    @remote_errors()
    def write(self, name: str, data: bytes) -> None:
        """Write a small file; a reader sees the old bytes or the new ones, never half."""
        if self.home is not None:
            write_whole(self.home / name, data)
        else:
            filesystem, target = self._remote(name)
            filesystem.pipe_file(target, data)

    @remote_errors()
    def upload(self, name: str, source: Path) -> None:
        """Copy a finished local file below a remote root, under its final name."""
        filesystem, target = self._remote(name)
        filesystem.put_file(str(source), target)

    @remote_errors()
    def files(self, folder: str) -> dict[str, int]:
        """Size of every file directly in `folder`, by name; empty if there is no such folder."""
        filesystem, path = self.locate(folder)
        filesystem.invalidate_cache()
        try:
            entries = filesystem.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        return {
            entry["name"].rpartition("/")[2]: entry["size"] for entry in entries if entry["type"] == "file"
        }

    @remote_errors()
    def modified(self, name: str) -> float:
        """When a file was written, in seconds since 1970."""
        filesystem, path = self.locate(name)
        return filesystem.modified(path).timestamp()

    def _remote(self, name: str) -> tuple[fsspec.AbstractFileSystem, str]:
        filesystem, target = self.locate(name)
        filesystem.makedirs(target.rpartition("/")[0], exist_ok=True)
        return filesystem, target


def temporary_name(path: Path) -> Path:
    """Where a process writes what is to become `path`: beside it, and its own."""
    return path.with_name(f".tmp-{path.name}.{os.getpid()}")


def write_whole(path: Path, data: bytes) -> None:
    """Write a local file so that it is there whole or as before, whatever dies; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
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


def commit_folder(staging: Path, target: Path) -> None:
    """Make a finished folder appear under its name, on disk, in one step; what was there before is gone then.

    Readers find the old one or the new one; for a moment neither, where the file system cannot exchange two folders. What a
    process that was killed in here left of older ones goes too.
    """
    for path in (*staging.rglob("*"), staging):
        sync(path)
    retired = target.with_name(f".{target.name}.old-{secrets.token_hex(4)}")
    try:
        if target.exists() and exchanged(staging, target):
            staging.rename(retired)
        else:
            if target.exists():
                target.rename(retired)
            staging.rename(target)
    finally:  # Ctrl-C between the two puts the old one back
        if retired.exists() and not target.exists():
            retired.rename(target)
    sync(target.parent)
    for old in target.parent.glob(f".{glob.escape(target.name)}.old-*"):
        shutil.rmtree(old, ignore_errors=True)


def exchanged(a: Path, b: Path) -> bool:
    """Whether two folders changed names in one step, which Linux can on most of its file systems."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    here, both = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename is not None and rename(here, os.fsencode(a), here, os.fsencode(b), both) == 0


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
