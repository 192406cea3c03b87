"""`cwm-dataprep verify`: is a shard directory, here or on a hub, what its manifest says?

    quick   manifest, index and failures agree; every tar is there with its size, none is left over; no source
            video is in two splits (on the Hub also the sha256 that it keeps of each file): nothing is read but meta/
    index   and every tar is walked header by header: names, places and json as in the index, both ends in place
    full    and every tar's sha256 is recomputed and every clip decoded

A tar that was cut at a member's edge opens without an error in every reader, so sizes and ends are checked by hand.
"""

import argparse
import contextlib
import hashlib
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any, Literal

from cwm_hub.command_line import how_many
from cwm_hub.shards.arrays import EXTENSION, decode_arrays
from cwm_hub.shards.codecs import EXTENSIONS, ShardError, decode_clip
from cwm_hub.shards.index import ClipRow, read_index
from cwm_hub.shards.manifest import FAILURES, Manifest, ShardRecord, read_failures
from cwm_hub.shards.storage import Root, remote_errors
from dataprep.command_line import EXIT_DONE, EXIT_VERIFY, add_options, positional

Level = Literal["quick", "index", "full"]
BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as the manifest says."""

    where: str
    """File inside the root."""
    what: str
    """A clause for people."""


@dataclass(frozen=True)
class VerifyOptions:
    """Options of this sub-command."""

    root: str = positional("ROOT")
    """Shard directory or fsspec URL, e.g. hf://datasets/me/clips."""
    level: Level = "index"
    """How deep to look; each includes the ones before."""
    repair: bool = False
    """Write shards that have a problem again, by the command that made the set, from its videos."""


EXAMPLES = (
    "cwm-dataprep verify shards/mine --level full",
    "cwm-dataprep verify hf://datasets/owner/clips",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this sub-command's options."""
    add_options(parser, VerifyOptions)


def run(args: argparse.Namespace) -> int:
    """Print every problem; exit code 0 or 3, and 1 where there is no shard directory at all."""
    problems = _problems(args)
    shards = {record.file for record in Manifest.load(args.root).shards}
    if args.repair:
        from dataprep.curation.repair import interrupted, repair

        root = Root.parse(args.root)
        broken = {problem.where for problem in problems} & shards | interrupted(root)
        if broken:
            repair(root, broken)
            problems = _problems(args)
    if problems:
        print(f"{args.root}: {how_many(len(problems), 'problem')} at level {args.level}", file=sys.stderr)
        return EXIT_VERIFY
    manifest = Manifest.load(args.root)
    clips = sum(record.samples for record in manifest.shards)
    print(
        f"{args.root}: {how_many(len(manifest.shards), 'shard')}, {how_many(clips, 'clip')}, as the manifest {manifest.hash[:12]} says"
    )
    return EXIT_DONE


def _problems(args: argparse.Namespace) -> list[Problem]:
    try:
        with remote_errors():
            problems = verify(args.root, args.level, watch=_say)
    except OSError as error:
        raise ValueError(f"cannot read {args.root}: {error}") from error
    for problem in problems:
        print(f"{problem.where}: {problem.what}")
    return problems


def verify(
    root: str | Path | Root, level: Level = "quick", *, watch: Callable[[str], None] = lambda line: None
) -> list[Problem]:
    """Every problem found; an empty list is a clean bill.

    Args:
        root: Local path or fsspec URL.
        level: How deep to look; each includes the ones before.
        watch: Called with a line now and then.

    Raises:
        ShardError: There is no manifest or index, or they are damaged: nothing can be compared.
    """
    root = Root.parse(root)
    manifest, rows = Manifest.load(root), read_index(root)
    by_shard: dict[str, list[ClipRow]] = {record.file: [] for record in manifest.shards}
    problems = list(_check_index(manifest, rows, by_shard)) + list(_check_files(root, manifest))
    problems += _check_failures(root)
    if level == "quick":
        return problems
    spoiled = {problem.where for problem in problems}
    for number, record in enumerate(manifest.shards, start=1):
        if record.file not in spoiled:
            watch(f"{record.file} ({number}/{len(manifest.shards)})")
            problems += _check_shard(root, record, by_shard[record.file], full=level == "full")
    return problems


def _check_index(
    manifest: Manifest, rows: Sequence[ClipRow], by_shard: dict[str, list[ClipRow]]
) -> Iterator[Problem]:
    """Sort the rows to their shards and compare sums; every clip's key and every source's split must be one."""
    keys: set[str] = set()
    splits: dict[str, str] = {}
    logged = " ".join(manifest.arrays)
    for row in rows:
        if row.shard not in by_shard:
            yield Problem(
                row.shard, f"the index places clip {row.key} in a shard that the manifest does not list"
            )
            continue
        by_shard[row.shard].append(row)
        if row.codec not in EXTENSIONS:
            yield Problem(row.shard, f"clip {row.key} has the unknown codec {row.codec!r}")
        if row.key in keys:
            yield Problem(row.shard, f"clip key {row.key} occurs twice")
        keys.add(row.key)
        if row.arrays != logged:
            told = row.arrays or "no arrays"
            yield Problem(row.shard, f"clip {row.key} has {told}, the manifest says {logged or 'none'}")
        if splits.setdefault(row.source, row.split) != row.split:
            yield Problem(row.shard, f"source {row.source} is in {splits[row.source]} and in {row.split}")
    for record in manifest.shards:
        mine = by_shard[record.file]
        found = (len(mine), sum(row.num_frames for row in mine))
        if found != (record.samples, record.frames):
            yield Problem(
                record.file,
                f"the index lists {how_many(found[0], 'clip')} with {how_many(found[1], 'frame')}, "
                f"the manifest {record.samples} with {record.frames}",
            )


def _check_files(root: Root, manifest: Manifest) -> Iterator[Problem]:
    """Sizes, left-overs, and checksums where the store keeps them."""
    present = _sizes(root, manifest)
    remote = _remote_sha256(root) if root.url.startswith("hf://") else {}
    for record in manifest.shards:
        size = present.pop(record.file, None)
        if size is None:
            yield Problem(record.file, "missing")
        elif size != record.bytes:
            yield Problem(record.file, f"{size} bytes, the manifest says {record.bytes}")
        elif remote.get(record.file, record.sha256) != record.sha256:
            yield Problem(record.file, "another sha256 than the manifest's")
    for file in sorted(present):
        yield Problem(file, "not in the manifest")


def _sizes(root: Root, manifest: Manifest) -> dict[str, int]:
    """Bytes of every file in data/; over plain http, which lists nothing, of those that the manifest names."""
    if not root.url.startswith(("http://", "https://")):
        return {f"data/{name}": size for name, size in root.files("data").items()}
    sizes = {}
    for record in manifest.shards:
        filesystem, path = root.locate(record.file)
        with contextlib.suppress(FileNotFoundError):
            sizes[record.file] = filesystem.size(path)
    return sizes


def _remote_sha256(root: Root) -> dict[str, str]:
    """The sha256 that the Hub keeps of every large file, by name; no file is downloaded."""
    filesystem, folder = root.locate("data")
    entries = filesystem.ls(folder, detail=True, refresh=True)
    sums = {}
    for entry in entries:
        lfs: Any = entry.get("lfs")
        if lfs:
            sums["data/" + entry["name"].rpartition("/")[2]] = lfs["sha256"]
    return sums


def _check_failures(root: Root) -> list[Problem]:
    try:
        read_failures(root)
    except ShardError as error:
        return [Problem(FAILURES, str(error).removeprefix(f"{FAILURES}: "))]
    return []


def _check_shard(root: Root, record: ShardRecord, rows: list[ClipRow], *, full: bool) -> list[Problem]:
    """Walk one tar; a tar tells at most one structural problem, because after it nothing has a place."""
    filesystem, path = root.locate(record.file)
    try:
        with remote_errors(), filesystem.open(path, "rb") as file:
            _compare(file, record, sorted(rows, key=lambda row: row.offset))
            return list(_check_content(file, record, rows)) if full else []
    except ShardError as error:
        return [Problem(record.file, str(error))]
    except OSError as error:
        return [Problem(record.file, f"cannot be read: {error.strerror or error}")]


def _compare(file: BufferedIOBase, record: ShardRecord, rows: Sequence[ClipRow]) -> None:
    """Raise ShardError at the first member that is not where, or what, the index says."""
    expected: list[tuple[str, int | None, int, bytes]] = []
    for row in rows:
        data = row.sample_json()
        expected.append((f"{row.key}.{EXTENSIONS[row.codec]}", row.offset, row.size, b""))
        if row.arrays:
            expected.append((f"{row.key}.{EXTENSION}", row.arrays_offset, row.arrays_size, b""))
        expected.append((f"{row.key}.json", None, len(data), data))
    members = walk(file, record.bytes)
    for name, offset, size, data in expected:
        member = next(members, None)
        if member is None:
            raise ShardError(f"ends before {name}")
        if member.name != name:
            raise ShardError(f"holds {member.name} where the index says {name}")
        if member.size != size or (offset is not None and member.offset_data != offset):
            raise ShardError(
                f"{name} has {member.size} bytes at {member.offset_data}, the index says otherwise"
            )
        if data:
            file.seek(member.offset_data)
            if file.read(size) != data:
                raise ShardError(f"{name} and the index differ")
    extra = next(members, None)
    if extra is not None:
        raise ShardError(f"holds {extra.name}, which is not in the index")


def walk(file: BufferedIOBase, size: int) -> Iterator[tarfile.TarInfo]:
    """Members of an uncompressed tar of `size` bytes, by its headers alone.

    Raises:
        ShardError: A header is damaged, a member reaches beyond the file, or the two end blocks are not its end.
    """
    offset = 0
    while True:
        file.seek(offset)
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            raise ShardError(f"truncated: the end blocks are missing after {offset} bytes")
        if not any(block):
            break
        try:
            member = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except tarfile.HeaderError as error:
            raise ShardError(f"damaged tar header at byte {offset}: {error}") from error
        member.offset_data = offset + BLOCK
        offset = member.offset_data + -(-member.size // BLOCK) * BLOCK
        if offset > size:
            raise ShardError(f"truncated: {member.name} ends at byte {offset} of {size}")
        yield member
    if any(file.read(BLOCK)) or size != offset + 2 * BLOCK:
        raise ShardError(f"expected two end blocks from byte {offset} to the end of {size} bytes")


def check_digest(file: BufferedIOBase, record: ShardRecord) -> Iterator[Problem]:
    """Whether a shard, from where its file stands, is byte for byte the manifest's."""
    if hashlib.file_digest(file, "sha256").hexdigest() != record.sha256:
        yield Problem(record.file, "another sha256 than the manifest's")


def _check_content(file: BufferedIOBase, record: ShardRecord, rows: Sequence[ClipRow]) -> Iterator[Problem]:
    file.seek(0)
    yield from check_digest(file, record)
    for row in rows:
        file.seek(row.offset)
        try:
            frames = decode_clip(file.read(row.size), row.codec)
        except ShardError as error:
            yield Problem(record.file, f"clip {row.key}: {error}")
            continue
        if frames.shape != (row.num_frames, row.height, row.width, 3):
            yield Problem(record.file, f"clip {row.key} decodes to {frames.shape}, the index says otherwise")
        if row.arrays:
            file.seek(row.arrays_offset)
            yield from _check_arrays(file.read(row.arrays_size), record, row)


def _check_arrays(data: bytes, record: ShardRecord, row: ClipRow) -> Iterator[Problem]:
    try:
        arrays = decode_arrays(data)
    except ShardError as error:
        yield Problem(record.file, f"clip {row.key}: {error}")
        return
    if " ".join(arrays) != row.arrays:
        yield Problem(record.file, f"clip {row.key} holds {' '.join(arrays)}, the index says {row.arrays}")
    for name, values in arrays.items():
        if len(values) != row.num_frames:
            yield Problem(
                record.file,
                f"clip {row.key} has {how_many(row.num_frames, 'frame')} and {how_many(len(values), 'row')} of {name}",
            )


def _say(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{line}", end="\x1b[K", file=sys.stderr, flush=True)
