"""Clips into a new set as they are encoded: what `filter`, `split` and `merge` share.

A set appears under its name whole: it is written beside it, and renamed when its manifest is on disk.
"""

import contextlib
import glob
import hashlib
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from cwm_hub.shards.arrays import Sums, describe_arrays
from cwm_hub.shards.extra_columns import Columns, add_columns, read_columns
from cwm_hub.shards.index import INDEX, ClipRow, index_bytes, index_table, read_index_table
from cwm_hub.shards.manifest import FAILURES, Manifest, ShardRecord, failures_bytes, shard_name
from cwm_hub.shards.storage import Root, commit_folder, temporary_name
from cwm_hub.shards.writer import ShardWriter


class Clip(NamedTuple):
    """A clip of a finished set on its way to another."""

    place: Root
    """The set that it lies in."""
    row: ClipRow
    """What it is to be called; shard, offset and size are those of its old place."""
    old_source: str | None = None
    """Its source video's id there, None where that stays."""


@contextlib.contextmanager
def new_set(out: Root) -> Iterator[Path]:
    """A folder to write to, which becomes `out` where nothing is raised; those of processes that were killed go.

    Raises:
        ValueError: `out` is remote, or holds something.
    """
    if out.home is None:
        raise ValueError(f"the new set is written to a local directory, got {out}")
    if out.home.exists() and (not out.home.is_dir() or any(out.home.iterdir())):
        held = "a data set" if out.files("data") or out.files("meta") else "something"
        raise ValueError(f"{out} already holds {held}: choose another --out")
    staging = temporary_name(out.home.absolute())
    for left in staging.parent.glob(f"{glob.escape(staging.stem)}.*"):
        process = left.suffix[1:]
        if process.isdecimal() and not _is_another_process(int(process)):
            shutil.rmtree(left, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        commit_folder(staging, out.home.absolute())
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _is_another_process(number: int) -> bool:
    """One that runs here, of whichever user."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return number != os.getpid()


def write_copy(
    home: Path,
    manifest: Manifest,
    shards: Mapping[str, Sequence[Sequence[Clip]]],
    failures: Iterable[Mapping[str, str]],
    *,
    watch: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Write these clips, in these shards of each split, into the folder `home`; returns the manifest with their records.

    A clip's payload and arrays are copied byte for byte; its json says what its row says now.
    """
    root = Root.parse(home)
    splits: dict[str, tuple[ShardRecord, ...]] = {}
    rows: list[ClipRow] = []
    sums: dict[str, list[Sums]] = {}
    for split, parts in shards.items():
        records = []
        for number, clips in enumerate(parts):
            name = shard_name(split, number, len(parts))
            watch(name)
            with ShardWriter(home / name, codec=manifest.codec) as writer:
                for place, row, _ in clips:
                    payload = place.read_range(row.shard, row.offset, row.size)
                    if len(payload) != row.size:
                        raise ValueError(f"{place}/{row.shard} ends before clip {row.key}: see verify")
                    arrays = (
                        place.read_range(row.shard, row.arrays_offset, row.arrays_size) if row.arrays else b""
                    )
                    writer.append(row, payload, arrays)
            assert writer.record is not None
            records.append(writer.record)
            sums.setdefault(split, []).append(writer.sums)
            rows += writer.rows
        splits[split] = tuple(records)
    written = [clip for parts in shards.values() for clips in parts for clip in clips]
    root.write(INDEX, index_bytes(add_columns(index_table(rows), _columns(written))))
    root.write(FAILURES, failures_bytes(failures))
    names = {name: facts.names for name, facts in manifest.arrays.items()}
    copied = replace(manifest, splits=splits, config=manifest.config | describe_arrays(sums, names))
    copied.save(root)
    return copied


def _columns(clips: Sequence[Clip]) -> Columns:
    """The users' own columns of all sets that these clips come from, by the sources' new ids."""
    of_set = {place: read_columns(read_index_table(place)) for place in dict.fromkeys(c.place for c in clips)}
    columns: Columns = {}
    for place, row, old_source in clips:
        for name, values in of_set[place].items():
            columns.setdefault(name, {})[row.source] = values.get(old_source or row.source)
    return columns


def find_copies(clips: Sequence[Clip]) -> list[list[str]]:
    """Source videos whose first clips are the same bytes: only those of one size and length are read."""
    alike: dict[tuple[int, int], list[Clip]] = defaultdict(list)
    for clip in clips:
        if clip.row.start_frame == 0:
            alike[clip.row.size, clip.row.source_frames].append(clip)
    copies: dict[bytes, list[str]] = defaultdict(list)
    for group in alike.values():
        for place, row, _ in group if len(group) > 1 else ():
            payload = place.read_range(row.shard, row.offset, row.size)
            copies[hashlib.sha256(payload).digest()].append(row.source)
    return [sources for sources in copies.values() if len(sources) > 1]


def deal(clips: Iterable[Clip], *, most: int) -> list[list[Clip]]:
    """The clips of a split in their order, in shards of about `most`; those of one video stay together."""
    shards: list[list[Clip]] = [[]]
    before = None
    for clip in clips:
        if len(shards[-1]) >= most and clip.row.source != before:
            shards.append([])
        shards[-1].append(clip)
        before = clip.row.source
    return shards
