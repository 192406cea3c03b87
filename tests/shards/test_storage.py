"""File systems that cannot do everything, as network mounts and FUSE have it."""

import errno
import fcntl
import os
import stat
import warnings
from pathlib import Path

import pytest

from cwm_hub.shards import storage
from cwm_hub.shards.storage import UNSUPPORTED, Root, lock


@pytest.fixture(autouse=True)
def _nothing_told_yet() -> None:
    storage.warn_once.cache_clear()


def failing(number: int):
    def call(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


def fail_for_folders(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    plain = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("of_process", [False, True])
@pytest.mark.parametrize("number", UNSUPPORTED)
def test_without_locks_work_goes_on_with_one_warning(tmp_path, monkeypatch, number, of_process):
    monkeypatch.setattr(fcntl, "lockf" if of_process else "flock", failing(number))
    with (tmp_path / "lock").open("ab") as file:
        with pytest.warns(RuntimeWarning, match="this file system has no locks"):
            assert not lock(file, of_process=of_process)
        with warnings.catch_warnings(action="error"):
            assert not lock(file, wait=True, of_process=of_process)


def test_a_lock_keeps_others_out_and_is_shared_where_asked(tmp_path):
    path = tmp_path / "lock"
    with path.open("ab") as first, path.open("ab") as second:
        assert lock(first, shared=True) and lock(second, shared=True)
        with pytest.raises(BlockingIOError):
            lock(second)


def test_other_errors_of_a_lock_are_errors(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", failing(errno.EIO))
    with (tmp_path / "lock").open("ab") as file, pytest.raises(OSError, match="Input/output"):
        lock(file)


@pytest.mark.parametrize("number", UNSUPPORTED)
def test_a_folder_that_cannot_be_synced_is_one_warning(tmp_path: Path, monkeypatch, number):
    fail_for_folders(monkeypatch, number)
    with pytest.warns(RuntimeWarning, match="cannot sync"):
        Root.parse(tmp_path).write("a", b"1")
    with warnings.catch_warnings(action="error"):
        Root.parse(tmp_path).write("a", b"2")
    assert (tmp_path / "a").read_bytes() == b"2"


def test_a_disk_that_fails_while_it_syncs_is_an_error(tmp_path: Path, monkeypatch):
    fail_for_folders(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        Root.parse(tmp_path).write("a", b"1")
