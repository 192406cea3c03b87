"""One set of shards as a stream of windows: in what order samples take them, and reading one.

`ClipSet` joins a `ClipIndex`, the arithmetic of `sampling`, and a `ShardFiles` that hands out open tars. A local root
is read at random; a set with `block_shards` walks through blocks of that many shards, so that a remote one is fetched
in order, ahead of its use, and never waits for its whole.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np

from cwm_hub.clips import sampling
from cwm_hub.clips.clip_index import ClipIndex, ClipSource
from cwm_hub.clips.local_shards import BrokenCount, BrokenShardError, LocalShards, ShardFiles
from cwm_hub.clips.remote_shards import RemoteShards, pin_revision
from cwm_hub.clips.retries import FetchConfig, with_retries
from cwm_hub.clips.sampling import Ints, Sampling
from cwm_hub.shards.arrays import MAGIC, Member, find_members, row_type
from cwm_hub.shards.codecs import Frames, ShardError, decode_clip, raw_byte_range
from cwm_hub.shards.index import INDEX, read_index_table
from cwm_hub.shards.manifest import MANIFEST, Manifest
from cwm_hub.shards.storage import Root

T = TypeVar("T")

REMOTE_BLOCK_SHARDS = 4
"""Shards shuffled together where a remote source does not say: output order is then unrelated to the order on disk."""

LOGGED_BYTES = 32 << 20
"""Of what was logged beside clips, kept by a process for their next windows: of most robot sets everything."""

BLOCK_TRIES, TRIES = 16, 64
"""Substitutes tried for a broken clip: first inside its block, then anywhere in the epoch."""


class Window(NamedTuple):
    """What was read for one sample."""

    key: str
    """Of the clip."""
    start: int
    """First frame, counted in the stored frames of the source video."""
    label: int
    """Of the clip, -1 where unknown."""
    broken: dict[str, str]
    """Shards or clips that could not be read and were passed over, with the reason."""
    logged: bytes
    """What was logged beside the frames, a record of `ClipSet.logged_row` for each; empty where it was not asked for."""


class _Epoch(NamedTuple):
    windows: Ints
    """In the order they are used."""
    block: Ints
    """Block of each, ascending."""
    shards: Ints
    """The shards in the order of the blocks; empty without blocks."""


class ClipSet:
    """The windows of one `ClipIndex` in the order in which sample numbers take them."""

    def __init__(
        self,
        index: ClipIndex,
        files: ShardFiles,
        *,
        window_frames: int,
        unit: Sampling,
        seed: int,
        block_shards: int,
        max_broken_share: float,
    ) -> None:
        self.index = index
        self.logged_row = row_type({})
        """Of what was logged beside a frame, as far as it is asked for."""
        self._members: dict[tuple[int, int], list[Member]] = {}  # by bytes and frames of the clip
        self._logged: dict[int, bytes] = {}
        self._logged_bytes = 0
        self._files, self._unit, self._seed, self._block_shards = files, unit, seed, block_shards
        self._window_frames = window_frames
        self._units = index.windows.units(unit, window_frames=window_frames)
        self._epochs: dict[int, _Epoch] = {}
        self._announced: tuple[int, int] | None = None
        self._max_broken_share = max_broken_share
        self._unreadable: set[int] = set()  # rows of the index, as this process met them

    def __len__(self) -> int:
        """Samples of one epoch."""
        return len(self._units) - 1

    def fingerprint(self) -> dict[str, Any]:
        """What decides this set's part of the stream."""
        return self.index.fingerprint() | {"block_shards": self._block_shards}

    def window(self, sample: int) -> tuple[int, int]:
        """(row of the index, first frame inside the clip) that sample number `sample` of this set takes."""
        epoch, position = divmod(sample, len(self))
        return self._locate(self._plan(epoch), position)

    def read(self, sample: int, out: Frames, broken: BrokenCount) -> Window:
        """Read the window of a sample into `out`, uint8 [T, H, W, 3]; a broken one is replaced, always by the same.

        Raises:
            ShardError: too much is broken, or nothing readable was found.
        """
        epoch, position = divmod(sample, len(self))
        plan, at = self._plan(epoch), position
        passed: dict[str, str] = {}
        self._announce(plan, epoch, position)
        for tries in range(1, TRIES + 1):
            row, first = self._locate(plan, at)
            try:
                self._read(row, first, out)
                logged = self._read_logged(row, first) if self.logged_row.names else b""
            except BrokenShardError as error:
                passed[error.name] = error.reason
                broken.add(error.name, error.reason)
                self._check_share(row, error)
            else:
                start, label = int(self.index.start[row]) + first, int(self.index.label[row])
                return Window(self.index.key[row].as_py(), start, label, passed, logged)
            low, high = self._block_range(plan, position) if tries < BLOCK_TRIES else (0, len(self))
            at = sampling.substitute_position(
                position, tries, seed=self._seed, epoch=epoch, low=low, high=high
            )
        name, reason = passed.popitem()
        raise ShardError(f"{self.index.source.root}: no readable clip in {TRIES} tries; {name}: {reason}")

    def _check_share(self, row: int, error: BrokenShardError) -> None:
        """A count alone would let a small set shrink to one clip that is drawn again and again."""
        usable = self.index.windows.clips
        whole_shard = usable[self.index.shard[usable] == self.index.shard[row]]
        self._unreadable.update([row] if error.name == self._clip_name(row) else whole_shard.tolist())
        if len(self._unreadable) > self._max_broken_share * len(usable):
            raise ShardError(
                f"{self.index.source.root}: {len(self._unreadable)} of {len(usable)} clips cannot be read, more than "
                f"the share of {self._max_broken_share:g} allowed; the last: {error}"
            )

    def _clip_name(self, row: int) -> str:
        return f"clip {self.index.key[row]}"

    def _plan(self, epoch: int) -> _Epoch:
        if epoch not in self._epochs:
            while len(self._epochs) > 1:  # a batch may straddle two epochs
                self._epochs.pop(next(iter(self._epochs)))
            self._epochs[epoch] = self._make_plan(epoch)
        return self._epochs[epoch]

    def _make_plan(self, epoch: int) -> _Epoch:
        rotate = self._unit == "frame"
        windows = sampling.draw_windows(self._units, seed=self._seed, epoch=epoch, rotate=rotate)
        if not self._block_shards:
            order = sampling.epoch_order(len(self), seed=self._seed, epoch=epoch)
            return _Epoch(windows[order], np.zeros(len(self), np.int64), np.arange(0))
        shards = self._shard_order(epoch)
        place = np.empty_like(shards)
        place[shards] = np.arange(len(shards))
        rows, _ = self.index.windows.locate(windows)
        block = place[self.index.shard[rows]] // self._block_shards
        order = sampling.epoch_order(len(self), seed=self._seed, epoch=epoch, block=block)
        return _Epoch(windows[order], block[order], shards)

    def _shard_order(self, epoch: int) -> Ints:
        records = self.index.manifest.splits[self.index.source.split]
        return sampling.shard_order(len(records), seed=self._seed, epoch=epoch)

    def _block_range(self, plan: _Epoch, position: int) -> tuple[int, int]:
        block = plan.block[position]
        low, high = np.searchsorted(plan.block, [block, block + 1])
        return int(low), int(high)

    def _announce(self, plan: _Epoch, epoch: int, position: int) -> None:
        """Have this block and the next one fetched, once per block."""
        block = int(plan.block[position])
        if not self._block_shards or self._announced == (epoch, block):
            return
        self._announced = (epoch, block)
        coming = plan.shards[block * self._block_shards :][: 2 * self._block_shards]
        if len(coming) <= self._block_shards:  # the last block: the next epoch follows
            coming = np.concatenate([coming, self._shard_order(epoch + 1)[: self._block_shards]])
        self._files.prefetch(coming.tolist())

    def _locate(self, plan: _Epoch, position: int) -> tuple[int, int]:
        row, first = self.index.windows.locate(plan.windows[position : position + 1])
        return int(row[0]), int(first[0])

    def _load(self, row: int, first: int, out: Frames) -> bytes | memoryview:
        """The clip's payload; of a raw clip only the window, read into `out`."""
        descriptor = self._files.open(int(self.index.shard[row]))
        offset, size = int(self.index.offset[row]), int(self.index.size[row])
        data: bytes | memoryview
        if self.index.codec[row].as_py() == "raw":
            skip, size = raw_byte_range(*self.index.image_size, first, first + self._window_frames)
            data = out.data.cast("B")
            found = self._from_disk(row, lambda: os.preadv(descriptor, [data], offset + skip))
        else:
            data = self._from_disk(row, lambda: os.pread(descriptor, size, offset))
            found = len(data)
        if found != size:
            raise BrokenShardError(self._clip_name(row), "the shard ends inside it")
        return data

    def _from_disk(self, row: int, read: Callable[[], T]) -> T:
        """What the system says of one clip (EIO, ESTALE) must not end a run that has the others."""
        try:
            return read()
        except OSError as error:
            raise BrokenShardError(self._clip_name(row), error.strerror or str(error)) from error

    def _read(self, row: int, first: int, out: Frames) -> None:
        data, codec = self._load(row, first, out), self.index.codec[row].as_py()
        if codec == "raw":
            return
        try:
            frames = decode_clip(bytes(data), codec, first, first + self._window_frames)
        except ShardError as error:
            raise BrokenShardError(self._clip_name(row), str(error)) from error
        if frames.shape != out.shape:
            difference = f"it decodes to {frames.shape}, the index says {out.shape}"
            raise BrokenShardError(self._clip_name(row), difference)
        out[:] = frames

    def _read_logged(self, row: int, first: int) -> bytes:
        """What was logged beside the window."""
        rows = self._logged.get(row) or self._load_logged(row)
        last = first + self._window_frames
        return rows[first * self.logged_row.itemsize : last * self.logged_row.itemsize]

    def _load_logged(self, row: int) -> bytes:
        """What was logged beside a clip, kept for its next windows; where arrays lie, clips of one length share."""
        descriptor = self._files.open(int(self.index.shard[row]))
        offset, size, count = self.index.arrays[row].tolist()
        data = self._from_disk(row, lambda: os.pread(descriptor, size, offset))
        rows = np.empty(count, self.logged_row)
        try:
            members = self._members.get((size, count))
            if members is None or len(data) != size or not data.startswith(MAGIC):
                members = self._members[size, count] = self._find_members(data, rows=count)
            for member in members:
                rows[member.name] = member.read(data, 0, count)
        except ShardError as error:
            raise BrokenShardError(self._clip_name(row), str(error)) from error
        self._logged_bytes += rows.nbytes
        while self._logged and self._logged_bytes > LOGGED_BYTES:
            self._logged_bytes -= len(self._logged.pop(next(iter(self._logged))))
        logged = self._logged[row] = rows.tobytes()
        return logged

    def _find_members(self, data: bytes, *, rows: int) -> list[Member]:
        """The arrays that are asked for; raises ShardError where they are not those of the manifest."""
        members = [one for one in find_members(data) if one.name in (self.logged_row.names or ())]
        found = {one.name: (one.rows, one.shape) for one in members}
        expected = {name: (rows, self.logged_row[name].shape) for name in self.logged_row.names or ()}
        if found != expected:
            raise ShardError(f"its arrays are {found}, the manifest says {expected}")
        return members


def open_clip_set(
    source: ClipSource,
    *,
    window_frames: int,
    unit: Sampling,
    seed: int,
    number: int,
    fetch: FetchConfig,
    max_broken_share: float,
) -> ClipSet:
    """Open source `number` of a mixture: its manifest and index, read once, and its tars, local or behind a URL.

    Raises:
        ShardError, ValueError: as `ClipLoader`.
    """
    root, block_shards = Root.parse(source.root), source.block_shards
    files: ShardFiles
    if root.home is not None:
        manifest, table = Manifest.load(root), read_index_table(root)
        index = ClipIndex(source, manifest, table, window_frames=window_frames)
        files, block_shards = LocalShards(root.home, manifest.splits[source.split]), block_shards or 0
    else:
        pinned = with_retries(partial(pin_revision, source.root), fetch, what=source.root)
        root = Root.parse(pinned)
        manifest = with_retries(partial(Manifest.load, root), fetch, what=f"{root}/{MANIFEST}")
        table = with_retries(partial(read_index_table, root), fetch, what=f"{root}/{INDEX}")
        commit = pinned.partition("@")[2].partition("/")[0] if pinned.startswith("hf://") else None
        index = ClipIndex(source, manifest, table, window_frames=window_frames, commit=commit or None)
        block_shards = REMOTE_BLOCK_SHARDS if block_shards is None else block_shards
        files = RemoteShards(root, manifest.splits[source.split], fetch=fetch, block_shards=block_shards)
    own_seed = int(sampling.hash_words(seed, number) >> np.uint64(1))
    return ClipSet(
        index,
        files,
        window_frames=window_frames,
        unit=unit,
        seed=own_seed,
        block_shards=block_shards,
        max_broken_share=max_broken_share,
    )
