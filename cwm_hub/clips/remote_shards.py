"""Tars behind a URL (https, s3, hf, memory: whatever fsspec opens), through a bounded cache on the local disk.

A shard is fetched whole, once for all processes of a machine (a lock file per shard), in ranges that are retried with
growing pauses; what has arrived stays in a `.partial` file, so that neither a cut connection nor a killed process
starts it again. Files are named by the sha256 of the manifest and checked against it: the cache is never stale. Each
process fetches the block that comes next in the background, passing over what another one is already fetching.
"""

import contextlib
import functools
import hashlib
import os
import platform
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from cwm_hub.clips.local_shards import BrokenShardError, OpenFiles
from cwm_hub.clips.retries import PERMANENT, FetchConfig, call_within, one_line, pause
from cwm_hub.shards.codecs import ShardError
from cwm_hub.shards.manifest import ShardRecord
from cwm_hub.shards.storage import Root, lock

RANGE_BYTES, SMALLEST_RANGE_BYTES = 8 * 2**20, 64 * 2**10
"""Size of one read; quartered after a failure, doubled after a success."""

REREADS = 8
"""Times that a shard is fetched again because the cache dropped it before it was opened."""

ABANDONED_SECONDS = 3600.0
"""A `.partial` file that has not grown for that long may be dropped to make room."""

Lock = Literal["mine", "theirs", "none"]
"""Held by us, by another one, or the file system has no locks."""


def pin_revision(root: str) -> str:
    """An `hf://` root at the commit it names now, so that a later push does not change a running training."""
    if not root.startswith("hf://"):
        return root
    from huggingface_hub import HfApi, HfFileSystem
    from huggingface_hub.constants import REPO_TYPES_URL_PREFIXES
    from huggingface_hub.hf_file_system import HfFileSystemResolvedRepositoryPath

    path = HfFileSystem().resolve_path(root)
    if not isinstance(path, HfFileSystemResolvedRepositoryPath):
        return root  # a bucket has no revisions
    commit = HfApi().repo_info(path.repo_id, repo_type=path.repo_type, revision=path.revision).sha
    prefix = REPO_TYPES_URL_PREFIXES.get(path.repo_type, "")
    return f"hf://{prefix}{path.repo_id}@{commit}/{path.path_in_repo}".rstrip("/")


class RemoteShards:
    """The tars of a remote shard directory, fetched as they are needed."""

    def __init__(
        self, root: Root, records: Sequence[ShardRecord], *, fetch: FetchConfig, block_shards: int
    ) -> None:
        """Nothing is fetched yet.

        Raises:
            ShardError: the cache could not hold two blocks of shards.
        """
        self._root, self._records, self._fetch = root, list(records), fetch
        at_once = min(2 * block_shards or len(records), len(records))
        largest = sum(sorted((record.bytes for record in records), reverse=True)[:at_once])
        if largest > fetch.cache_bytes:
            raise ShardError(
                f"a cache of {fetch.cache_bytes} bytes cannot hold the {at_once} shards of {root} that are sampled at "
                f"once, which take {largest}: raise cache_bytes or lower block_shards"
            )
        self._born = time.time()
        self._broken: dict[int, str] = {}
        self._process = _Process(at_once)

    def open(self, shard: int) -> int:
        """File descriptor of a tar in the cache, fetching it first where needed.

        Raises:
            BrokenShardError: it cannot be fetched.
            ShardError: the cache cannot be used, by a full disk for example.
        """
        here = self._here()
        descriptor = here.open_files.get(shard)
        if descriptor is not None:
            return descriptor
        for _ in range(REREADS):
            try:
                return here.open_files.put(shard, self._fetched(shard, wait=True))
            except FileNotFoundError:
                continue  # dropped by another process in between
            except OSError as error:
                raise ShardError(
                    f"the shard cache {self._fetch.directory} cannot be used: {error}"
                ) from error
        raise ShardError(
            f"shards are dropped from {self._fetch.directory} before they are read: raise cache_bytes"
        )

    def prefetch(self, shards: Sequence[int]) -> None:
        """Fetch these in the background, in this order."""
        here = self._here()
        for shard in shards:
            here.wanted.put(shard)
        if here.thread is None:
            here.thread = threading.Thread(target=self._prefetch_for_ever, args=(here,), daemon=True)
            here.thread.start()

    def _prefetch_for_ever(self, here: "_Process") -> None:
        while True:
            shard = here.wanted.get()
            with contextlib.suppress(ShardError, OSError):  # shown when the shard is needed
                self._fetched(shard, wait=False)

    def _here(self) -> "_Process":
        if self._process.pid != os.getpid():  # a loader worker: threads and connections stayed behind
            self._process = _Process(self._process.open_files.limit)
        return self._process

    def _fetched(self, shard: int, *, wait: bool) -> Path:
        """The tar's path in the cache; without `wait` it may not be there yet, because another process fetches it."""
        record = self._records[shard]
        path = self._fetch.directory / f"{record.sha256}.tar"
        if shard in self._broken:
            raise BrokenShardError(record.file, self._broken[shard])
        if _touch(path, record.bytes):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock"), wait=wait) as got:
            if got == "theirs" or _touch(path, record.bytes):
                return path
            failed = path.with_suffix(".failed")
            if failed.exists() and failed.stat().st_mtime >= self._born:
                self._broken[shard] = failed.read_text()
                raise BrokenShardError(record.file, self._broken[shard])
            # Without locks two may fetch it at once: each into a file of its own.
            mine = f"-{platform.node()}-{os.getpid()}-{threading.get_ident()}" if got == "none" else ""
            partial = path.with_name(f"{record.sha256}{mine}-{record.bytes}.partial")
            try:
                self._make_room(partial, record.bytes)
                self._download(record, partial)
                partial.replace(path)
            except BrokenShardError as error:
                self._broken[shard] = error.reason
                failed.write_text(error.reason)  # so that the other processes do not all try in turn
                raise
            failed.unlink(missing_ok=True)
        return path

    def _download(self, record: ShardRecord, partial: Path) -> None:
        for _ in range(2):  # once more from nothing where the bytes turn out wrong
            digest = hashlib.sha256()
            with partial.open("a+b") as file:
                file.seek(0)
                while data := file.read(2**20):
                    digest.update(data)
                for data in self._ranges(record, file.tell()):
                    file.write(data)
                    file.flush()
                    digest.update(data)
            if digest.hexdigest() == record.sha256:
                return
            partial.unlink()
        raise BrokenShardError(record.file, "its bytes do not have the sha256 of the manifest")

    def _ranges(self, record: ShardRecord, have: int) -> Iterator[bytes]:
        size, failures = RANGE_BYTES, 0
        while have < record.bytes:
            stop = min(have + size, record.bytes)
            filesystem, base = self._here().open(self._root)
            read = functools.partial(filesystem.cat_file, f"{base}/{record.file}", start=have, end=stop)
            data = call_within(read, timeout_seconds=self._fetch.timeout_seconds)
            if isinstance(data, bytes) and len(data) == record.bytes:
                data = data[have:stop]  # a server that knows no ranges sends the whole file
            if isinstance(data, bytes) and 0 < len(data) <= stop - have:
                have, failures, size = have + len(data), 0, min(2 * size, RANGE_BYTES)
                yield data
                continue
            failures, size = failures + 1, max(size // 4, SMALLEST_RANGE_BYTES)
            error = (
                data if isinstance(data, Exception) else OSError(f"{len(data)} bytes came for {stop - have}")
            )
            if isinstance(error, PERMANENT) or failures >= self._fetch.retries:
                raise BrokenShardError(record.file, one_line(error)) from error
            pause(failures)

    def _make_room(self, partial: Path, needed: int) -> None:
        """Reserve `needed` bytes, dropping what was unused for longest; readers keep the tars they have open."""
        with _locked(self._fetch.directory / "room.lock", wait=True):
            kept, total = [], needed
            for path in (*self._fetch.directory.glob("*.tar"), *self._fetch.directory.glob("*.partial")):
                if path == partial:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    reserved = (
                        int(path.stem.rpartition("-")[2]) if path.suffix == ".partial" else status.st_size
                    )
                    total += reserved
                    if path.suffix == ".tar" or status.st_mtime < time.time() - ABANDONED_SECONDS:
                        kept.append((status.st_mtime, reserved, path))
            for _, size, path in sorted(kept):
                if total <= self._fetch.cache_bytes:
                    break
                path.unlink(missing_ok=True)
                total -= size
            partial.touch()


class _Process:
    """What belongs to one process and must not cross a fork: connections, the fetching thread, open files."""

    def __init__(self, open_files: int) -> None:
        self.pid = os.getpid()
        self.open_files = OpenFiles(open_files)
        self.wanted: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._opened: tuple[Any, str] | None = None

    def __reduce__(self) -> tuple[type["_Process"], tuple[int]]:
        return _Process, (self.open_files.limit,)

    def open(self, root: Root) -> tuple[Any, str]:
        """The root's file system, one for all threads of this process, and the root in its words."""
        with self._lock:
            if self._opened is None:
                filesystem, path = root.locate("")
                self._opened = filesystem, path.rstrip("/")
            return self._opened


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[Lock]:
    """Hold a lock between processes and threads; yields how it went. A process that dies lets go."""
    with path.open("ab") as file:
        try:
            got: Lock = "mine" if lock(file, wait=wait) else "none"
        except BlockingIOError:
            got = "theirs"
        yield got


def _touch(path: Path, size: int) -> bool:
    """Whether the whole tar is there; marks it as just used."""
    try:
        complete = path.stat().st_size == size
        if complete:
            os.utime(path)
    except FileNotFoundError:
        return False
    return complete
