"""Which clips of a shard directory count, where they lie and which windows they hold: the index as NumPy columns.

Filters and subsets are settled here, once, in the process that builds the loader; its workers share the columns (after
a fork the same memory, and nothing in them is a Python object whose counter a reader would touch).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cwm_hub.clips import sampling
from cwm_hub.clips.sampling import Ints, WindowTable
from cwm_hub.config import check_range
from cwm_hub.shards.codecs import ShardError
from cwm_hub.shards.extra_columns import OURS
from cwm_hub.shards.manifest import Manifest, ShardRecord

if TYPE_CHECKING:
    import pyarrow

FILTERS = ("num_frames", "fps", "source_frames", "label", "motion", "luma", "frozen", "black", "moving")
"""Index columns that `ClipSource.where` can bound, beside those of the user's own that hold numbers."""

LOGGED = ("action", "reward", "is_terminal")
"""What a batch has of the arrays beside the clips (see `cwm_hub.shards.arrays`)."""


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
    """Keep clips whose index column lies within [low, high]: `{"moving": (0.015, 1)}`."""
    subset: int | None = None
    """Use only this many source videos, chosen by `subset_seed` (1,500 and 15,000 in the paper); None uses all."""
    subset_seed: int = 0
    """Seed of the choice. The choice for 1,500 is contained in that for 15,000."""
    keep_cuts: bool = False
    """Draw windows across the cuts between shots, as if the index named none."""
    block_shards: int | None = None
    """Shards that are shuffled together; 0 shuffles the whole set. None: 0 for a local root, 4 for a remote one."""

    def __post_init__(self) -> None:
        if self.block_shards is not None:
            check_range(self, "block_shards", at_least=0)


@dataclass(frozen=True)
class Usage:
    """How much of a set's split training can draw from, and what each rule leaves out."""

    root: str
    split: str
    all_clips: int
    all_sources: int
    clips: int
    sources: int
    seconds: float
    """Of the clips that are used, overlaps included."""
    filtered: int
    """Clips outside `where`."""
    short: int
    """Of the others, clips of fewer frames than a window."""
    covered: int
    """Of the others, clips whose windows are all in an earlier piece of their video, or all cross a cut."""
    unchosen: int
    """Of the others, clips of source videos that `subset` did not choose."""
    median_frames: int
    """Of all clips."""


class ClipIndex:
    """The usable clips of one `ClipSource`, one entry per index row that passed its filters."""

    def __init__(
        self,
        source: ClipSource,
        manifest: Manifest,
        table: "pyarrow.Table",
        *,
        window_frames: int,
        commit: str | None = None,
    ) -> None:
        """Choose the clips and lay out the windows; `commit` is the Hub's of a set that is there.

        Raises:
            ShardError: the index does not fit the manifest, or the clips differ in size.
            ValueError: no clip is left, or a filter or subset asks for what is not there.
        """
        import pyarrow.compute as pc

        self.source, self.manifest, self.commit = source, manifest, commit
        records = manifest.splits.get(source.split, ())
        if not records:
            splits = ", ".join(manifest.splits) or "none"
            held_out = "; cwm-dataprep split makes one" if source.split == "validation" else ""
            raise ValueError(f"{source.root} has no split {source.split!r}; it has: {splits}{held_out}")
        table = table.filter(pc.equal(table["split"], source.split)).combine_chunks()
        rows = table.filter(_within(table, source.where))
        self.filtered_clips = len(table) - len(rows)
        self._all_clips, self._all_sources = len(table), len(table["source"].unique())
        self._median_frames = int(np.median(table["num_frames"].to_numpy()))
        self._fps = rows["fps"].to_numpy()
        self._read_columns(rows, records)
        names, number = _number_sources(rows["source"])
        cuts = None if source.keep_cuts or "cuts" not in rows.column_names else _cuts(rows["cuts"])
        self.windows = WindowTable.build(
            number, self.start, self.frames, window_frames=window_frames, cuts=cuts
        )
        """Every window of the usable clips."""
        if not len(self.windows):
            raise ValueError(
                f"{source.root} has no {source.split} clip of at least {window_frames} frames"
                + (f" within {source.where}" if source.where else "")
            )
        self._long_clips = len(np.unique(self.windows.row))
        if source.subset is not None:
            self.windows = self._subset(names.take(self.windows.sources).to_pylist(), source.subset)
        self.source_names = names.take(self.windows.sources)
        """Ids of the source videos that are sampled, sorted; an arrow array."""
        self.image_size = self._one_size()
        """(height, width) of every frame."""

    def _read_columns(self, rows: "pyarrow.Table", records: Sequence[ShardRecord]) -> None:
        number = {record.file: shard for shard, record in enumerate(records)}
        file = rows["shard"].combine_chunks().dictionary_encode()
        files = file.dictionary.to_pylist()
        for name in files:
            if name not in number:
                raise ShardError(f"{self.source.root}: the index names {name}, the manifest does not")
        self.shard: Ints = np.array([number[name] for name in files], np.int64)[file.indices.to_numpy()]
        self.offset, self.size = rows["offset"].to_numpy(), rows["size"].to_numpy()
        self.height, self.width = rows["height"].to_numpy(), rows["width"].to_numpy()
        self.start, self.frames = rows["start_frame"].to_numpy(), rows["num_frames"].to_numpy()
        self.label = rows["label"].to_numpy()
        places = [rows[name].to_numpy() for name in ("arrays_offset", "arrays_size", "num_frames")]
        self.arrays: Ints = np.stack(places, 1)
        """(offset, bytes, rows) of what was logged beside each clip."""
        self.key, self.codec = rows["key"].combine_chunks(), rows["codec"].combine_chunks()

    def _subset(self, names: Sequence[str], count: int) -> WindowTable:
        chosen = set(sampling.choose_subset(names, count, seed=self.source.subset_seed))
        return self.windows.keep(self.windows.sources[[name in chosen for name in names]])

    def _one_size(self) -> tuple[int, int]:
        height, width = self.height[self.windows.row], self.width[self.windows.row]
        if (height != height[0]).any() or (width != width[0]).any():
            sizes = sorted(set(zip(height.tolist(), width.tolist(), strict=True)))
            found = ", ".join(f"{h}x{w}" for h, w in sizes)
            raise ShardError(f"{self.source.root} mixes image sizes: {found}")
        return int(height[0]), int(width[0])

    def facts(self) -> dict[str, Any]:
        """What of the set is used and what is left out, for logs and `train.json`."""
        rows = self.windows.clips
        return {
            "root": self.source.root,
            "name": self.manifest.name,
            "manifest_hash": self.manifest.hash,
            "licence": self.manifest.licence,
            "redistributable": self.manifest.redistributable,
            "split": self.source.split,
            "sources": len(self.source_names),
            "clips": len(rows),
            "frames": int(self.frames[rows].sum()),
            "windows": len(self.windows),
            "short_sources": self.windows.short_sources,
            "filtered_clips": self.filtered_clips,
        } | ({"commit": self.commit} if self.commit else {})

    def usage(self, window_frames: int) -> Usage:
        """What a person is told of the set at the start of training; `window_frames` as the index was made with."""
        rows = np.unique(self.windows.row)  # a clip with a cut owns windows in several stretches
        short = int((self.frames < window_frames).sum())
        rates = self._fps[rows]
        return Usage(
            root=self.source.root,
            split=self.source.split,
            all_clips=self._all_clips,
            all_sources=self._all_sources,
            clips=len(rows),
            sources=len(self.source_names),
            seconds=float((self.frames[rows][rates > 0] / rates[rates > 0]).sum()),
            filtered=self.filtered_clips,
            short=short,
            covered=len(self.frames) - short - self._long_clips,
            unchosen=self._long_clips - len(rows),
            median_frames=self._median_frames,
        )

    def fingerprint(self) -> dict[str, Any]:
        """What decides this set's part of the stream; the root may move."""
        return {
            "manifest_hash": self.manifest.hash,
            "split": self.source.split,
            "where": {column: list(bounds) for column, bounds in sorted(self.source.where.items())},
            "subset": self.source.subset,
            "subset_seed": self.source.subset_seed,
            "windows": len(self.windows),
        }


def common_arrays(sets: Sequence[ClipIndex], names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Shape of a row of each of these arrays that all sets have.

    Raises:
        ValueError: a set without actions, where they are asked for.
        ShardError: actions of different sizes.
    """
    first = sets[0]
    for index in sets if "action" in names else ():
        if "action" not in index.manifest.arrays:
            raise ValueError(
                f"{index.source.root} holds no actions beside its clips; cwm-dataprep lerobot writes them where they were "
                "logged"
            )
        sizes = [one.manifest.arrays["action"].shape[0] for one in (first, index)]
        if sizes[0] != sizes[1]:
            raise ShardError(
                f"{first.source.root} holds actions of {sizes[0]} numbers and {index.source.root} of {sizes[1]}: "
                "a mixture needs one size"
            )
    every = [index.manifest.arrays for index in sets]
    return {name: every[0][name].shape for name in names if all(name in arrays for arrays in every)}


def _number_sources(column: "pyarrow.ChunkedArray") -> tuple["pyarrow.Array", Ints]:
    """(sorted names, number of each row's source); faster than `np.unique`, which compares Python strings."""
    import pyarrow.compute as pc

    coded = column.combine_chunks().dictionary_encode()
    order = pc.sort_indices(coded.dictionary).to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return coded.dictionary.take(order), rank[coded.indices.to_numpy()]


def _cuts(column: "pyarrow.ChunkedArray") -> tuple[Ints, Ints]:
    """(row, frame inside the clip) of every cut."""
    import pyarrow.compute as pc

    lists = column.combine_chunks()
    return pc.list_parent_indices(lists).to_numpy().astype(np.int64), pc.list_flatten(lists).to_numpy()


def _within(table: "pyarrow.Table", where: Mapping[str, tuple[float, float]]) -> NDArray[np.bool_]:
    kept = np.ones(len(table), bool)
    own = [
        name
        for name in table.column_names
        if name not in OURS and str(table.schema.field(name).type) == "double"
    ]
    for column, (low, high) in where.items():
        if column not in (*FILTERS, *own):
            raise ValueError(f"cannot filter by {column!r}, choose one of {', '.join((*FILTERS, *own))}")
        if column not in table.column_names:
            raise ValueError(f"cannot filter by {column!r}: it was not measured when this set was made")
        values = table[column].to_numpy()
        kept &= (low <= values) & (values <= high)
    return kept
