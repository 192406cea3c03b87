"""Shard format v1: a directory of plain tars that is also a valid Hub dataset repository.

    ROOT/data/train-00000-of-00004.tar   samples `{key}.mp4` (or `.jpg`, `.u8`) + `{key}.json`, nothing else in data/
    ROOT/meta/manifest.json              per shard: samples, frames, bytes, sha256; config, versions, plan hash
    ROOT/meta/index.parquet              one row a clip with its byte offset, so a local loader reads one window
    ROOT/meta/failures.jsonl             one line for every source video that gave no clip, with the reason

Every json has the same fields and no nulls (a label that is unknown is -1, a text ""), because readers infer the
columns of the whole set from its first samples. Tars carry no clock and no owner: the same clips give the same bytes.
Written with the standard library, read by anything that reads WebDataset; this module never imports torch.
`root` may be a local path or any fsspec URL wherever something is read or a small file is written.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from cwm_hub.codecs import CODECS, EXTENSIONS, Frames, H264Encoder, ShardError, encode_clip
from cwm_hub.config import ConfigError, from_dict, to_dict
from cwm_hub.storage import read_file, sync, write_file

if TYPE_CHECKING:
    import pyarrow

FORMAT_VERSION = 1
"""Version of the directory format that this code writes, the highest that it reads."""

MANIFEST = "meta/manifest.json"
INDEX = "meta/index.parquet"
FAILURES = "meta/failures.jsonl"

KEY = re.compile(r"[a-z0-9_-]{1,90}")
"""A sample's key: no dots (readers cut the name at the first one) and short enough for a plain ustar header."""


@dataclass(frozen=True, slots=True)
class ClipRow:
    """One clip: a row of `meta/index.parquet` and, without its place (shard, offset, size), the json in the tar."""

    key: str
    """Unique in the set and stable between runs, `[a-z0-9_-]+`."""
    split: str
    """`train`, `validation` or `test`."""
    shard: str
    """File of the tar inside the root: `data/train-00000-of-00004.tar`."""
    offset: int
    """Byte offset of the clip's payload (not of its header) in the tar."""
    size: int
    """Bytes of the payload."""
    num_frames: int
    """Frames stored in this clip."""
    fps: float
    """Stored frames per second."""
    start_frame: int
    """Index of the clip's first frame among the stored frames of its source video."""
    source: str
    """Stable id of the source video; clips of one video share it."""
    source_path: str
    """Path of the video below the input folder, bytes that are not UTF-8 written as `\\xNN`."""
    source_frames: int
    """Stored frames of the whole source video (pieces overlap, so the sum over clips may be larger)."""
    label: int
    """Class index, -1 where unknown."""
    label_text: str
    """Class or caption, "" where unknown."""
    width: int
    """Pixels of a stored frame."""
    height: int
    """Pixels of a stored frame."""
    codec: str
    """One of `CODECS`."""
    motion: float
    """Mean absolute difference of successive frames per pixel and channel, in 0-255 units; 0 is a still picture."""
    luma: float
    """Mean pixel value, 0-255."""

    def sample_json(self) -> bytes:
        """The sample's json member: every field but the place in the tar, in the order of the class."""
        values = {
            f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("shard", "offset", "size")
        }
        return json.dumps(values).encode()


@dataclass(frozen=True, slots=True)
class EncodedClip:
    """A clip as it goes into a tar: payload bytes and what is known of the frames before they were encoded."""

    payload: bytes
    codec: str
    fps: float
    num_frames: int
    width: int
    height: int
    motion: float
    luma: float

    @classmethod
    def encode(cls, frames: Frames, *, codec: str, fps: float, h264: H264Encoder | None = None) -> Self:
        """Encode uint8 RGB frames [T, H, W, 3] as `encode_clip` does and measure their motion and luma."""
        payload = encode_clip(frames, codec, fps, h264=h264)
        motion, luma = measure_clip(frames)
        count, height, width, _ = frames.shape
        return cls(payload, codec, round(float(fps), 6), count, width, height, motion, luma)


def measure_clip(frames: Frames) -> tuple[float, float]:
    """(motion, luma) of uint8 frames [T, H, W, 3] as defined in `ClipRow`, rounded to four digits."""
    change = np.maximum(frames[1:], frames[:-1])
    change -= np.minimum(frames[1:], frames[:-1])
    return round(_mean(change), 4), round(_mean(frames), 4)


def _mean(frames: Frames) -> float:
    """Mean of all pixels, 0 where there are none; 32-bit sums a row are exact, and a third of the time of floats."""
    sums = frames.sum(axis=(2, 3), dtype=np.uint32)
    return int(sums.sum(dtype=np.uint64)) / max(1, frames.size)


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """What the manifest says of one tar."""

    file: str
    """`data/train-00000-of-00004.tar`."""
    samples: int
    """Clips inside."""
    frames: int
    """Stored frames inside."""
    bytes: int
    """Size of the tar."""
    sha256: str
    """Of the tar."""


def shard_name(split: str, index: int, count: int) -> str:
    """`data/train-00000-of-00004.tar`, the form from which Hub readers infer the split."""
    return f"data/{split}-{index:05d}-of-{count:05d}.tar"


class ShardWriter:
    """Writes one tar; it appears under its name only when complete, and `rows` then locate every clip in it.

    Use it as a context manager; leaving it by an exception removes what was written. The bytes depend on nothing but
    the clips and their order.

        with ShardWriter(root / shard_name("train", 0, 1), codec="h264") as writer:
            clip = EncodedClip.encode(frames, codec="h264", fps=10)
            writer.add(clip, key="reach_000", split="train", source="reach_000")
        writer.record, writer.rows
    """

    def __init__(self, path: str | Path, *, codec: str = "h264", name: str | None = None) -> None:
        """Open a temporary file beside `path`.

        Args:
            path: local path of the tar.
            codec: of every clip added, one of `CODECS`.
            name: how rows and record call the file; default: its last two parts, `data/FILE`.

        Raises:
            ShardError: unknown codec.
        """
        if codec not in CODECS:
            raise ShardError(f"unknown codec {codec!r}, expected one of {', '.join(CODECS)}")
        self.path = Path(path)
        self.codec = codec
        self.name = name if name is not None else "/".join(self.path.parts[-2:])
        self.rows: list[ClipRow] = []
        self.record: ShardRecord | None = None
        self._keys: set[str] = set()
        self._sha256 = hashlib.sha256()
        self._bytes = 0
        self._temporary = self.path.with_name(f".tmp-{self.path.name}.{os.getpid()}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._temporary.open("wb")

    def add(
        self,
        clip: EncodedClip,
        *,
        key: str,
        split: str,
        source: str,
        source_path: str = "",
        source_frames: int | None = None,
        start_frame: int = 0,
        label: int = -1,
        label_text: str = "",
    ) -> ClipRow:
        """Append a clip that was encoded with this writer's codec; the fields are those of `ClipRow`.

        Raises:
            ShardError: as `append`.
        """
        row = ClipRow(
            key=key,
            split=split,
            shard="",
            offset=0,
            size=0,
            num_frames=clip.num_frames,
            fps=clip.fps,
            start_frame=start_frame,
            source=source,
            source_path=source_path,
            source_frames=clip.num_frames if source_frames is None else source_frames,
            label=label,
            label_text=label_text,
            width=clip.width,
            height=clip.height,
            codec=clip.codec,
            motion=clip.motion,
            luma=clip.luma,
        )
        return self.append(row, clip.payload)

    def append(self, row: ClipRow, payload: bytes) -> ClipRow:
        """Append a clip as it stood in another shard; returns its row, which tells its place in this one.

        Raises:
            ShardError: the key is malformed or was used before in this shard, or the codec differs.
        """
        if not KEY.fullmatch(row.key):
            raise ShardError(f"sample key {row.key!r} is not 1 to 90 of [a-z0-9_-]")
        if row.key in self._keys:
            raise ShardError(f"sample key {row.key!r} occurs twice in {self.name}")
        if row.codec != self.codec:
            raise ShardError(f"a {row.codec} clip cannot go into a {self.codec} shard")
        row = replace(row, shard=self.name, offset=self._bytes + tarfile.BLOCKSIZE, size=len(payload))
        self._add_member(f"{row.key}.{EXTENSIONS[row.codec]}", payload)
        self._add_member(f"{row.key}.json", row.sample_json())
        self._keys.add(row.key)
        self.rows.append(row)
        return row

    def _add_member(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)  # mtime 0, uid 0, no owner
        member.size = len(data)
        self._write(member.tobuf(tarfile.USTAR_FORMAT))
        self._write(data)
        self._write(bytes(-len(data) % tarfile.BLOCKSIZE))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._sha256.update(data)
        self._bytes += len(data)

    def close(self) -> ShardRecord:
        """Finish the tar: two end blocks, fsync, rename; returns its record."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self.path)
        sync(self.path.parent)
        self.record = ShardRecord(
            file=self.name,
            samples=len(self.rows),
            frames=sum(row.num_frames for row in self.rows),
            bytes=self._bytes,
            sha256=self._sha256.hexdigest(),
        )
        return self.record

    def abort(self) -> None:
        """Drop what was written; the final name is not touched."""
        with contextlib.suppress(OSError):  # a full disk fails again on close
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
            return
        try:
            self.close()
        except OSError:
            self.abort()
            raise


@dataclass(frozen=True)
class Manifest:
    """`meta/manifest.json`: what the set holds and how it came to be; its `hash` is how checkpoints name the set."""

    name: str
    """Short name of the data set: `ssv2`, `folder`, ..."""
    codec: str
    """One of `CODECS`."""
    image_size: int
    """Pixels of a side of a stored frame."""
    splits: dict[str, tuple[ShardRecord, ...]]
    """Shards of each split, in order."""
    config: dict[str, Any] = field(default_factory=dict)
    """The full configuration the shards were written with."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of the tool and of the libraries that decide the bytes."""
    plan_hash: str = ""
    """sha256 of configuration and source list; "" where there was no plan."""
    licence: str = "unknown"
    """Licence of the source videos."""
    redistributable: bool = False
    """Whether the sources' licence lets others publish shards of them."""
    format_version: int = FORMAT_VERSION
    """Format of the directory."""

    @property
    def hash(self) -> str:
        """sha256 of the canonical json."""
        return hashlib.sha256(
            json.dumps(to_dict(self), sort_keys=True, separators=(",", ":")).encode()
        ).hexdigest()

    @property
    def shards(self) -> tuple[ShardRecord, ...]:
        """The shards of all splits, in order."""
        return tuple(record for records in self.splits.values() for record in records)

    def save(self, root: str | Path) -> None:
        """Write `meta/manifest.json` atomically."""
        write_file(root, MANIFEST, json.dumps(to_dict(self), indent=1).encode() + b"\n")

    @classmethod
    def load(cls, root: str | Path) -> Self:
        """Read `meta/manifest.json`.

        Raises:
            ShardError: there is none, or it is not one of this format.
        """
        where = f"{root}/{MANIFEST}"
        try:
            data = json.loads(read_file(root, MANIFEST))
        except FileNotFoundError as error:
            raise ShardError(f"{root} is not a finished shard directory: it has no {MANIFEST}") from error
        except ValueError as error:
            raise ShardError(f"{where}: damaged json: {error}") from error
        version = data.get("format_version") if isinstance(data, dict) else None
        if not isinstance(version, int):
            raise ShardError(f"{where}: not a shard manifest")
        if version > FORMAT_VERSION:
            raise ShardError(f"{where}: format {version} is newer than this cwm-hub reads ({FORMAT_VERSION})")
        try:
            return from_dict(cls, data, where=where)
        except ConfigError as error:
            raise ShardError(str(error)) from error


def index_table(rows: Sequence[ClipRow]) -> "pyarrow.Table":
    """Rows as an arrow table: a column for every field of `ClipRow`."""
    import pyarrow as pa

    types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    return pa.table(
        {
            f.name: pa.array([getattr(row, f.name) for row in rows], types[cast(type, f.type)])
            for f in fields(ClipRow)
        }
    )


def index_bytes(index: "pyarrow.Table | Sequence[ClipRow]") -> bytes:
    """`meta/index.parquet` as bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(index if isinstance(index, pa.Table) else index_table(index), sink, compression="zstd")
    return sink.getvalue()


def read_index_table(root: str | Path) -> "pyarrow.Table":
    """`meta/index.parquet` as an arrow table, the cheap form for large sets.

    Raises:
        ShardError: there is none, it is damaged, or a column is missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(read_file(root, INDEX)))
    except FileNotFoundError as error:
        raise ShardError(f"{root} is not a finished shard directory: it has no {INDEX}") from error
    except pa.ArrowException as error:
        raise ShardError(f"{root}/{INDEX}: damaged parquet: {error}") from error
    missing = [f.name for f in fields(ClipRow) if f.name not in table.column_names]
    if missing:
        raise ShardError(f"{root}/{INDEX}: missing columns {missing}")
    return table


def read_index(root: str | Path) -> list[ClipRow]:
    """The rows of `meta/index.parquet`, in the order of the shards; raises as `read_index_table`."""
    table = read_index_table(root)
    columns = [table.column(f.name).to_pylist() for f in fields(ClipRow)]
    return [ClipRow(*values) for values in zip(*columns, strict=True)]


def failures_bytes(failures: Iterable[Mapping[str, str]]) -> bytes:
    """`meta/failures.jsonl` as bytes: one json object with `source_path`, `reason`, `detail` a line."""
    return b"".join(json.dumps(dict(failure)).encode() + b"\n" for failure in failures)


def read_failures(root: str | Path) -> list[dict[str, str]]:
    """The lines of `meta/failures.jsonl`; none where there is no such file: the set did not come from videos.

    Raises:
        ShardError: a line is damaged.
    """
    try:
        lines = read_file(root, FAILURES).splitlines()
    except FileNotFoundError:
        return []
    failures = []
    for number, line in enumerate(lines, start=1):
        try:
            failure = json.loads(line)
        except ValueError:
            failure = None
        if not isinstance(failure, dict) or set(failure) != {"source_path", "reason", "detail"}:
            raise ShardError(f"{FAILURES}: line {number} is not source_path, reason and detail")
        if not all(isinstance(value, str) for value in failure.values()):
            raise ShardError(f"{FAILURES}: line {number} holds what is no text")
        failures.append(failure)
    return failures
