"""Open tars of one shard set, wherever they lie; here for a local root, in `remote_shards` for a URL."""

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from cwm_hub.shards.codecs import ShardError
from cwm_hub.shards.manifest import ShardRecord

OPEN_FILES = 128
"""Tars a process keeps open for one set."""


class BrokenShardError(ShardError):
    """A shard or a clip that cannot be read while training runs; the loader passes over it and counts it."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason


class BrokenCount:
    """What could not be read so far, and the count at which that is too much."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.reasons: dict[str, str] = {}

    def add(self, name: str, reason: str) -> None:
        """Count a shard or clip once; raises ShardError where there are more than `limit`."""
        self.reasons[name] = reason
        if len(self.reasons) > self.limit:
            raise ShardError(
                f"{len(self.reasons)} shards or clips cannot be read, more than {self.limit} allowed; "
                f"the last: {name}: {reason}"
            )


@runtime_checkable
class ShardFiles(Protocol):
    """The tars of a set, numbered as in the manifest's split."""

    def open(self, shard: int) -> int:
        """File descriptor of a tar, valid until the next call; raises BrokenShardError."""

    def prefetch(self, shards: Sequence[int]) -> None:
        """These shards come next."""


class OpenFiles:
    """The last `limit` tars opened by this process; a copy sent to another process starts empty."""

    def __init__(self, limit: int = OPEN_FILES) -> None:
        self.limit = limit
        self._files: OrderedDict[int, int] = OrderedDict()

    def get(self, shard: int) -> int | None:
        """The descriptor, if the tar is open."""
        if shard in self._files:
            self._files.move_to_end(shard)
        return self._files.get(shard)

    def put(self, shard: int, path: Path) -> int:
        """Open a tar, closing the one unused for longest."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if len(self._files) >= self.limit:
            os.close(self._files.popitem(last=False)[1])
        self._files[shard] = descriptor
        return descriptor

    def __getstate__(self) -> dict[str, Any]:
        return {"limit": self.limit, "_files": OrderedDict()}

    # `close` is bound here: when Python ends, `os` goes first.
    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        for descriptor in self._files.values():
            close(descriptor)


class LocalShards:
    """The tars of a local shard directory."""

    def __init__(self, root: str | Path, records: Sequence[ShardRecord]) -> None:
        """Check that every tar is there with its size.

        Raises:
            ShardError: one is missing or has another size than the manifest says.
        """
        self._paths = [Path(root) / record.file for record in records]
        self._open = OpenFiles()
        for path, record in zip(self._paths, records, strict=True):
            if not path.is_file():
                raise ShardError(f"{path} is missing, though the manifest lists it")
            if path.stat().st_size != record.bytes:
                raise ShardError(f"{path} has {path.stat().st_size} bytes, the manifest says {record.bytes}")

    def open(self, shard: int) -> int:
        """File descriptor of a tar."""
        descriptor = self._open.get(shard)
        if descriptor is not None:
            return descriptor
        try:
            return self._open.put(shard, self._paths[shard])
        except OSError as error:
            raise BrokenShardError(str(self._paths[shard]), error.strerror or str(error)) from error

    def prefetch(self, shards: Sequence[int]) -> None:
        """Nothing to do: they are here."""
