"""Clips into a new set as they are encoded: what `filter`, `split` and `merge` share.

A set appears under its name whole: it is written beside it, and renamed when its manifest is on disk.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cwm_hub.shards.extra_columns import Columns, add_columns, read_columns
from cwm_hub.shards.index import INDEX, ClipRow, index_bytes, index_table, read_index_table
from cwm_hub.shards.manifest import FAILURES, Manifest, ShardRecord, failures_bytes, shard_name
from cwm_hub.shards.storage import Root, commit_folder, temporary_name
from cwm_hub.shards.writer import ShardWriter

Clip = tuple[Root, ClipRow]
"""Where a clip lies, and the row that it is to have: key, split and all but its place may differ from the old one's."""


@contextlib.contextmanager
def new_set(out: Root) -> Iterator[Path]:
    """A folder to write to, which becomes `out` where nothing is raised.

    Raises:
        ValueError: `out` is remote, or holds something.
    """
    if out.home is None:
        raise ValueError(f"the new set is written to a local directory, got {out}")
    if out.home.exists() and (not out.home.is_dir() or any(out.home.iterdir())):
        held = "a data set" if out.files("data") or out.files("meta") else "something"
        raise ValueError(f"{out} already holds {held}: choose another --out")
    staging = temporary_name(out.home.absolute())
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        commit_folder(staging, out.home.absolute())
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_copy(
    home: Path,
    manifest: Manifest,
    shards: Mapping[str, Sequence[Sequence[Clip]]],
    failures: Iterable[Mapping[str, str]],
    *,
    watch: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Write these clips, in these shards of each split, into the folder `home`; returns the manifest with their records.

    A clip's payload is copied byte for byte; its json says what its row says now.
    """
    root = Root.parse(home)
    splits: dict[str, tuple[ShardRecord, ...]] = {}
    rows: list[ClipRow] = []
    for split, parts in shards.items():
        records = []
        for number, clips in enumerate(parts):
            name = shard_name(split, number, len(parts))
            watch(name)
            with ShardWriter(home / name, codec=manifest.codec) as writer:
                for place, row in clips:
                    payload = place.read_range(row.shard, row.offset, row.size)
                    if len(payload) != row.size:
                        raise ValueError(f"{place}/{row.shard} ends before clip {row.key}: see verify")
                    writer.append(row, payload)
            assert writer.record is not None
            records.append(writer.record)
            rows += writer.rows
        splits[split] = tuple(records)
    places = [place for parts in shards.values() for clips in parts for place, _ in clips]
    columns = {place: read_columns(read_index_table(place)) for place in dict.fromkeys(places)}
    extra: Columns = {}
    for place, row in zip(places, rows, strict=True):
        for name, values in columns[place].items():
            extra.setdefault(name, {})[row.source] = values.get(row.source)
    root.write(INDEX, index_bytes(add_columns(index_table(rows), extra)))
    root.write(FAILURES, failures_bytes(failures))
    copied = replace(manifest, splits=splits)
    copied.save(root)
    return copied


def deal(clips: Iterable[Clip], *, most: int) -> list[list[Clip]]:
    """The clips of a split in their order, in shards of about `most`; those of one video stay together."""
    shards: list[list[Clip]] = [[]]
    before = None
    for place, row in clips:
        if len(shards[-1]) >= most and row.source != before:
            shards.append([])
        shards[-1].append((place, row))
        before = row.source
    return shards
