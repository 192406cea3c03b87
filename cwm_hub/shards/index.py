"""`meta/index.parquet`: one row a clip, with its place in the tars, so that a reader opens one window directly.

An index in which no row has a camera, arrays or a recording lacks these columns (`WHERE_USED`), so that a set without them has the bytes
that it had.
"""

import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cwm_hub.shards.codecs import ShardError
from cwm_hub.shards.storage import Root

if TYPE_CHECKING:
    import pyarrow

INDEX = "meta/index.parquet"

PLACE = ("shard", "offset", "size", "arrays_offset", "arrays_size")
INDEX_ALONE = (*PLACE, "cuts", "frozen", "black", "moving", "camera", "arrays", "recording")
"""Fields of `ClipRow` that are not in the tar: a clip's place, and what a better measure may find anew."""


@dataclass(frozen=True, slots=True)
class ClipRow:
    """One clip: a row of `meta/index.parquet` and, without the fields of `INDEX_ALONE`, the json in the tar.

    Fields with a default were added later: the index of an older set lacks them.
    """

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
    """Mean absolute difference of successive frames per pixel and channel, in 0-255 units; 0 is a still picture. Grain counts,
    and a slow video counts less: `moving` tells whether something moves."""
    luma: float
    """Mean pixel value, 0-255."""
    cuts: tuple[int, ...] = ()
    """Frames of this clip that begin a new shot, ascending, never 0; none where nobody looked for them."""
    frozen: float = nan
    """Share of its frames that stand in a frozen stretch (`measures`), in [0, 1]; NaN where nobody measured."""
    black: float = nan
    """Share of its frames that are black, in [0, 1]; NaN where nobody measured."""
    moving: float = nan
    """Share of its picture that moves (`moving`), in [0, 1]; NaN where nobody measured."""
    camera: str = ""
    """Which of several cameras of one recording, "" where there is one."""
    arrays: str = ""
    """What was logged beside the frames, `action reward`: names of `arrays.MEMBERS`; "" where nothing was."""
    arrays_offset: int = 0
    """Byte offset in the tar of the npz that holds them."""
    arrays_size: int = 0
    """Its bytes; 0 where there is none."""
    recording: str = ""
    """What videos of one scene at one time share (cameras of an episode, parts of a talk, copies): they stay in one split and
    are resampled together; "" where the video is one of its own."""

    def sample_json(self) -> bytes:
        """The sample's json member: every field but those of `INDEX_ALONE`, in the order of the class."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in INDEX_ALONE}
        return json.dumps(values).encode()


WHERE_USED: dict[str, str | int] = {
    "camera": "",
    "arrays": "",
    "arrays_offset": 0,
    "arrays_size": 0,
    "recording": "",
}
"""Columns that an index has where a row uses them, and their values elsewhere."""


def index_table(rows: Sequence[ClipRow]) -> "pyarrow.Table":
    """Rows as an arrow table: a column for every field of `ClipRow`."""
    import pyarrow as pa

    types = {
        str: pa.string(),
        int: pa.int64(),
        float: pa.float64(),
        tuple[int, ...]: pa.list_(pa.int64()),
    }
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
    unused = [name for name, default in WHERE_USED.items() if pc.all(pc.equal(table[name], default)).as_py()]
    sink = io.BytesIO()
    pq.write_table(table.drop_columns(unused), sink, compression="zstd")
    return sink.getvalue()


def read_index_table(root: str | Path | Root) -> "pyarrow.Table":
    """`meta/index.parquet` as an arrow table, the cheap form for large sets; a column that it lacks is its default.

    Raises:
        ShardError: there is none, it is damaged, or a column that every version has is missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Without Arrow's thread pools, whose end at a process's exit aborts it once in some dozens of runs.
        with pq.ParquetFile(io.BytesIO(Root.parse(root).read(INDEX)), pre_buffer=False) as file:
            table = file.read(use_threads=False)
    except FileNotFoundError as error:
        raise ShardError(f"{root} is not a finished shard directory: it has no {INDEX}") from error
    except pa.ArrowException as error:
        raise ShardError(f"{root}/{INDEX}: damaged parquet: {error}") from error
    missing = [f.name for f in fields(ClipRow) if f.name not in table.column_names and f.default is MISSING]
    if missing:
        raise ShardError(f"{root}/{INDEX}: missing columns {missing}")
    for name, default in WHERE_USED.items():
        if name not in table.column_names:
            table = table.append_column(name, pa.repeat(default, len(table)))
    return table


def read_index(root: str | Path | Root) -> list[ClipRow]:
    """The rows of `meta/index.parquet`, in the order of the shards; raises as `read_index_table`."""
    table = read_index_table(root)
    names = [f.name for f in fields(ClipRow) if f.name in table.column_names]
    columns = [table.column(name).to_pylist() for name in names]
    return [make_row(dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]


def read_recordings(table: "pyarrow.Table") -> dict[str, str]:
    """Recording of each source video that shares it with another one of the index, by the video's id."""
    columns = (table.column(name).to_pylist() for name in ("source", "recording"))
    named = {source: recording for source, recording in zip(*columns, strict=True) if recording}
    videos = Counter(named.values())
    return {source: recording for source, recording in named.items() if videos[recording] > 1}


def make_row(values: dict[str, Any]) -> ClipRow:
    """A row from what json or parquet kept of it."""
    return ClipRow(**(values | {"cuts": tuple(values.get("cuts", ()))}))
