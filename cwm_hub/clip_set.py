"""One set of shards as a stream of windows: which clips count, in what order they come, and reading one window.

`ClipSet` joins the index (columns in NumPy arrays, so that loader workers share one copy of them), the arithmetic of
`sampling` and a `ShardFiles`, which hands out open tars. A local root is read at random; a set with `block_shards`
walks through blocks of that many shards, so that a remote one is fetched in order and never waits for its whole.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cwm_hub import sampling
from cwm_hub.remote import FetchConfig, RemoteShards, local_path, pin_revision, with_retries
from cwm_hub.sampling import Ints, Sampling, SamplingError, WindowTable
from cwm_hub.shard_files import BrokenCount, BrokenShardError, LocalShards, ShardFiles
from cwm_hub.shards import (
    INDEX,
    MANIFEST,
    Manifest,
    ShardError,
    ShardRecord,
    decode_clip,
    raw_byte_range,
    read_index_table,
)

if TYPE_CHECKING:
    import pyarrow

Frames = np.ndarray[Any, np.dtype[np.uint8]]

REMOTE_BLOCK_SHARDS = 4
"""Shards shuffled together where a remote source does not say: output order is then unrelated to the order on disk."""

FILTERS = ("num_frames", "fps", "source_frames", "label", "motion", "luma")
"""Index columns that `ClipSource.where` can bound."""

BLOCK_TRIES, TRIES = 16, 64
"""Substitutes tried for a broken clip: first inside its block, then anywhere in the epoch."""


@dataclass(frozen=True)
class ClipSource:
    """A shard directory as one part of a training mixture."""

    root: str
    """Local path or fsspec URL (https, s3, hf, memory) of a directory in shard format v1."""
    weight: float = 1.0
    """Share of the samples that come from here, relative to the other sources (the assembled data set: equal)."""
    split: str = "train"
    """Split of the manifest to read."""
    where: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Keep clips whose index column lies within [low, high]: `{"motion": (1.5, 255)}`."""
    subset: int | None = None
    """Use only this many source videos, chosen by `subset_seed` (1,500 and 15,000 in the paper); None uses all."""
    subset_seed: int = 0
    """Seed of the choice. The choice for 1,500 is contained in that for 15,000."""
    block_shards: int | None = None
    """Shards that are shuffled together; 0 shuffles the whole set. None: 0 for a local root, `REMOTE_BLOCK_SHARDS` for a
    remote one."""


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


class _Epoch(NamedTuple):
    windows: Ints
    """In the order they are used."""
    block: Ints
    """Block of each, ascending."""
    shards: Ints
    """The shards in the order of the blocks."""


class ClipSet:
    """The usable windows of one `ClipSource`, in the order in which sample numbers take them."""

    def __init__(
        self,
        source: ClipSource,
        manifest: Manifest,
        index: "pyarrow.Table",
        files: ShardFiles,
        *,
        window_frames: int,
        sampling_unit: Sampling,
        seed: int,
        block_shards: int,
    ) -> None:
        """Choose the clips and lay out the windows.

        Raises:
            ShardError: the index does not fit the manifest, or the clips differ in size.
            SamplingError: no clip is left, or a filter or subset asks for what is not there.
        """
        self.source, self.manifest, self.window_frames = source, manifest, window_frames
        self._files, self._unit, self._seed, self._block_shards = files, sampling_unit, seed, block_shards
        self.short_sources = self.filtered_clips = 0
        self._table = self._choose(index)
        self._units = self._table.units(sampling_unit, window_frames=window_frames)
        self.image_size = self._one_size()
        self._epochs: dict[int, _Epoch] = {}

    def _choose(self, index: "pyarrow.Table") -> WindowTable:
        import pyarrow.compute as pc

        records = self.manifest.splits.get(self.source.split, ())
        if not records:
            splits = ", ".join(self.manifest.splits) or "none"
            raise SamplingError(f"{self.source.root} has no split {self.source.split!r}; it has: {splits}")
        index = index.filter(pc.equal(index["split"], self.source.split)).combine_chunks()
        kept = index.filter(_within(index, self.source.where))
        self.filtered_clips = len(index) - len(kept)
        names, source = _number_sources(kept["source"])
        table = WindowTable.build(
            source,
            kept["start_frame"].to_numpy(),
            kept["num_frames"].to_numpy(),
            window_frames=self.window_frames,
        )
        self.short_sources = table.short_sources
        if not len(table):
            raise SamplingError(
                f"{self.source.root} has no {self.source.split} clip of at least {self.window_frames} frames"
                + (f" within {self.source.where}" if self.source.where else "")
            )
        self.source_names = names.take(table.sources)
        """Ids of the source videos that are sampled, sorted; an arrow array."""
        if self.source.subset is not None:
            usable = self.source_names.to_pylist()
            chosen = set(sampling.choose_subset(usable, self.source.subset, seed=self.source.subset_seed))
            kept_sources = np.array([name in chosen for name in usable])
            table = table.keep(table.sources[kept_sources])
            self.source_names = names.take(table.sources)
        self._read_columns(kept, records)
        return table

    def _read_columns(self, rows: "pyarrow.Table", records: Sequence[ShardRecord]) -> None:
        number = {record.file: shard for shard, record in enumerate(records)}
        shard = rows["shard"].combine_chunks().dictionary_encode()
        unknown = [file for file in shard.dictionary.to_pylist() if file not in number]
        if unknown:
            raise ShardError(f"{self.source.root}: the index names {unknown[0]}, the manifest does not")
        self._shard = np.array([number[file] for file in shard.dictionary.to_pylist()])[
            shard.indices.to_numpy()
        ]
        self._offset, self._size = rows["offset"].to_numpy(), rows["size"].to_numpy()
        self._height, self._width = rows["height"].to_numpy(), rows["width"].to_numpy()
        self._start, self._label = rows["start_frame"].to_numpy(), rows["label"].to_numpy()
        self._frames = rows["num_frames"].to_numpy()
        self._key, self._codec = rows["key"].combine_chunks(), rows["codec"].combine_chunks()

    def _one_size(self) -> tuple[int, int]:
        height, width = self._height[self._table.row], self._width[self._table.row]
        if (height != height[0]).any() or (width != width[0]).any():
            found = ", ".join(
                f"{h}x{w}" for h, w in sorted(set(zip(height.tolist(), width.tolist(), strict=True)))
            )
            raise ShardError(f"{self.source.root} mixes image sizes: {found}")
        return int(height[0]), int(width[0])

    def __len__(self) -> int:
        """Samples of one epoch."""
        return len(self._units) - 1

    def facts(self) -> dict[str, Any]:
        """What of the set is used, for logs and `train.json`."""
        rows = self._table.row
        return {
            "root": self.source.root,
            "name": self.manifest.name,
            "manifest_hash": self.manifest.hash,
            "split": self.source.split,
            "sources": len(self.source_names),
            "clips": len(rows),
            "frames": int(self._frames[rows].sum()),
            "windows": len(self._table),
            "short_sources": self.short_sources,
            "filtered_clips": self.filtered_clips,
        }

    def fingerprint(self) -> dict[str, Any]:
        """What decides this set's part of the stream."""
        return {
            "manifest_hash": self.manifest.hash,
            "split": self.source.split,
            "where": {column: list(bounds) for column, bounds in sorted(self.source.where.items())},
            "subset": self.source.subset,
            "subset_seed": self.source.subset_seed,
            "block_shards": self._block_shards,
            "windows": len(self._table),
        }

    def window(self, sample: int) -> tuple[int, int]:
        """(index row, first frame inside the clip) that sample number `sample` of this set takes."""
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
            except BrokenShardError as error:
                passed[error.name] = error.reason
                broken.add(error.name, error.reason)
            else:
                start, label = int(self._start[row]) + first, int(self._label[row])
                return Window(self._key[row].as_py(), start, label, passed)
            low, high = self._block_range(plan, position) if tries < BLOCK_TRIES else (0, len(self))
            at = sampling.substitute_position(
                position, tries, seed=self._seed, epoch=epoch, low=low, high=high
            )
        name, reason = passed.popitem()
        raise ShardError(f"{self.source.root}: no readable clip in {TRIES} tries; {name}: {reason}")

    def _plan(self, epoch: int) -> _Epoch:
        if epoch not in self._epochs:
            while len(self._epochs) > 1:  # a batch may straddle two epochs
                self._epochs.pop(next(iter(self._epochs)))
            self._epochs[epoch] = self._make_plan(epoch)
        return self._epochs[epoch]

    def _make_plan(self, epoch: int) -> _Epoch:
        windows = sampling.draw_windows(
            self._units, seed=self._seed, epoch=epoch, rotate=self._unit == "frame"
        )
        if not self._block_shards:
            order = sampling.epoch_order(len(self), seed=self._seed, epoch=epoch)
            return _Epoch(windows[order], np.zeros(len(self), np.int64), np.arange(0))
        shards = sampling.shard_order(int(self._shard.max()) + 1, seed=self._seed, epoch=epoch)
        place = np.empty_like(shards)
        place[shards] = np.arange(len(shards))
        rows, _ = self._table.locate(windows)
        block = place[self._shard[rows]] // self._block_shards
        order = sampling.epoch_order(len(self), seed=self._seed, epoch=epoch, block=block)
        return _Epoch(windows[order], block[order], shards)

    def _block_range(self, plan: _Epoch, position: int) -> tuple[int, int]:
        block = plan.block[position]
        low, high = np.searchsorted(plan.block, [block, block + 1])
        return int(low), int(high)

    def _announce(self, plan: _Epoch, epoch: int, position: int) -> None:
        if not self._block_shards:
            return
        following = (int(plan.block[position]) + 1) * self._block_shards
        coming = plan.shards[following : following + self._block_shards]
        if not len(coming):
            coming = sampling.shard_order(len(plan.shards), seed=self._seed, epoch=epoch + 1)[
                : self._block_shards
            ]
        self._files.prefetch(coming.tolist())

    def _locate(self, plan: _Epoch, position: int) -> tuple[int, int]:
        row, first = self._table.locate(plan.windows[position])
        return int(row), int(first)

    def _read(self, row: int, first: int, out: Frames) -> None:
        descriptor, offset, size = (
            self._files.open(self._shard[row]),
            int(self._offset[row]),
            int(self._size[row]),
        )
        codec, stop = self._codec[row].as_py(), first + self.window_frames
        if codec == "raw":
            skip, size = raw_byte_range(*self.image_size, first, stop)
            if os.preadv(descriptor, [out.data], offset + skip) != size:
                raise BrokenShardError(f"clip {self._key[row]}", "the shard ends inside it")
            return
        data = os.pread(descriptor, size, offset)
        if len(data) != size:
            raise BrokenShardError(f"clip {self._key[row]}", "the shard ends inside it")
        try:
            frames = decode_clip(data, codec, first, stop)
        except ShardError as error:
            raise BrokenShardError(f"clip {self._key[row]}", str(error)) from error
        if frames.shape != out.shape:
            raise BrokenShardError(
                f"clip {self._key[row]}", f"it is {frames.shape}, the index says {out.shape}"
            )
        out[:] = frames


def open_clip_set(
    source: ClipSource, *, window_frames: int, unit: Sampling, seed: int, number: int, fetch: FetchConfig
) -> ClipSet:
    """Open source `number` of a mixture: its manifest and index, read once, and its tars, local or behind a URL.

    Raises:
        ShardError, SamplingError: as `ClipLoader`.
    """
    path, block_shards = local_path(source.root), source.block_shards
    if path is not None:
        root, block_shards = str(path), block_shards or 0
        manifest, index = Manifest.load(root), read_index_table(root)
    else:
        root = with_retries(partial(pin_revision, source.root), fetch, what=source.root)
        block_shards = REMOTE_BLOCK_SHARDS if block_shards is None else block_shards
        manifest = with_retries(partial(Manifest.load, root), fetch, what=f"{root}/{MANIFEST}")
        index = with_retries(partial(read_index_table, root), fetch, what=f"{root}/{INDEX}")
    records = manifest.splits.get(source.split, ())
    files: ShardFiles
    if path is not None:
        files = LocalShards(path, records)
    else:
        files = RemoteShards(root, records, fetch=fetch, block_shards=block_shards)
    return ClipSet(
        source,
        manifest,
        index,
        files,
        window_frames=window_frames,
        sampling_unit=unit,
        seed=int(sampling.hash_words(seed, number) >> np.uint64(1)),
        block_shards=block_shards,
    )


def _number_sources(column: "pyarrow.ChunkedArray") -> tuple["pyarrow.Array", Ints]:
    """(sorted names, number of each row's source); faster than `np.unique`, which compares Python strings."""
    import pyarrow.compute as pc

    coded = column.combine_chunks().dictionary_encode()
    order = pc.sort_indices(coded.dictionary).to_numpy()
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return coded.dictionary.take(order), rank[coded.indices.to_numpy()].astype(np.int64)


def _within(
    index: "pyarrow.Table", where: Mapping[str, tuple[float, float]]
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    kept = np.ones(len(index), bool)
    for column, (low, high) in where.items():
        if column not in FILTERS:
            raise SamplingError(f"cannot filter by {column!r}, choose one of {', '.join(FILTERS)}")
        values = index[column].to_numpy()
        kept &= (low <= values) & (values <= high)
    return kept
