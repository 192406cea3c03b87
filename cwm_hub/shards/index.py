"""`meta/index.parquet`: one row a clip, with its place in the tars, so that a reader opens one window directly.

Columns that came with format 1.1 have a default. An index in which every row has the default lacks the column, as one of
1.0 does, so that a set that uses none of them has the bytes that it had.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cwm_hub.shards.codecs import ShardError
from cwm_hub.shards.storage import Root

if TYPE_CHECKING:
    import pyarrow

INDEX = "meta/index.parquet"


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
    camera: str = ""
    """Which of several cameras of one recording, "" where there is one."""
    arrays: str = ""
    """What was logged beside the frames, `action reward`: names of `arrays.MEMBERS`; "" where nothing was."""
    arrays_offset: int = 0
    """Byte offset in the tar of the npz that holds them."""
    arrays_size: int = 0
    """Its bytes; 0 where there is none."""

    def sample_json(self) -> bytes:
        """The sample's json member: the fields of format 1.0 without the place in the tar, in the order of the class."""
        values = {name: getattr(self, name) for name in _FIRST if name not in ("shard", "offset", "size")}
        return json.dumps(values).encode()


_LATER: dict[str, str | int | float] = {
    f.name: cast("str | int | float", f.default) for f in fields(ClipRow) if f.default is not MISSING
}
"""Columns of format 1.1 and their defaults."""

_FIRST = tuple(f.name for f in fields(ClipRow) if f.name not in _LATER)


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
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = index if isinstance(index, pa.Table) else index_table(index)
    unused = [name for name, default in _LATER.items() if pc.all(pc.equal(table[name], default)).as_py()]
    sink = io.BytesIO()
    pq.write_table(table.drop_columns(unused), sink, compression="zstd")
    return sink.getvalue()


def read_index_table(root: str | Path | Root) -> "pyarrow.Table":
    """`meta/index.parquet` as an arrow table, the cheap form for large sets; a column that it lacks is its default.

    Raises:
        ShardError: there is none, it is damaged, or a column is missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(Root.parse(root).read(INDEX)))
    except FileNotFoundError as error:
        raise ShardError(f"{root} is not a finished shard directory: it has no {INDEX}") from error
    except pa.ArrowException as error:
        raise ShardError(f"{root}/{INDEX}: damaged parquet: {error}") from error
    missing = [name for name in _FIRST if name not in table.column_names]
    if missing:
        raise ShardError(f"{root}/{INDEX}: missing columns {missing}")
    for name, default in _LATER.items():
        if name not in table.column_names:
            table = table.append_column(name, pa.repeat(default, len(table)))
    return table


def read_index(root: str | Path | Root) -> list[ClipRow]:
    """The rows of `meta/index.parquet`, in the order of the shards; raises as `read_index_table`."""
    table = read_index_table(root)
    columns = [table.column(f.name).to_pylist() for f in fields(ClipRow)]
    return [ClipRow(*values) for values in zip(*columns, strict=True)]
