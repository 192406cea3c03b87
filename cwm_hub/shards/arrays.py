"""`{key}.npz`: what was logged beside the frames of a clip, one row a stored frame (shard format 1.1).

    row           0       1       2     ...  T-1
    frame       reset  after a1 after a2
    action        0       a1      a2            float32 [T, A]; `action[t]` led to frame t, as in the replay
    state         s0      s1      s2            float32 [T, S]; when frame t was taken
    reward        0       r1      r2            float32 [T]; received on arrival at frame t
    is_terminal   no      no      no            bool [T]; the task itself ended on arrival at frame t

Rows are of the episode: the first of a later piece holds the action that led there. A plain npz of stored members, which
`numpy.load` reads; the loader reads its rows where they lie. No pickle, no clock: the same rows give the
same bytes.
"""

import functools
import io
import math
import struct
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cwm_hub.config import to_dict
from cwm_hub.shards.codecs import ShardError

Arrays = Mapping[str, NDArray[Any]]
"""Rows by member name, one for every frame of a clip."""

MEMBERS: Mapping[str, tuple[Any, int]] = {
    "action": (np.float32, 2),
    "state": (np.float32, 2),
    "reward": (np.float32, 1),
    "is_terminal": (np.bool_, 1),
}
"""Type and dimensions of every member that the format knows, in the order in which they lie."""

EXTENSION = "npz"
MAGIC = b"PK\x03\x04"

OF_A_STEP = ("action", "reward", "is_terminal")
"""Members whose first row says nothing: no step led to the first frame of a video."""

_LOCAL_HEADER = struct.Struct("<4s2xHH8xLLHH")  # zip: magic, flags, method, packed, unpacked, name, extra
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def encode_arrays(arrays: Arrays) -> bytes:
    """The member's bytes.

    Raises:
        ShardError: no array, an unknown one, one of another type or shape, another number of rows, or a row that is not
            finite.
    """
    rows = {len(values) for values in arrays.values() if np.ndim(values)}
    if len(rows) != 1:
        raise ShardError(f"arrays have a row for every frame, got {_shapes(arrays) or 'none'}")
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name in sorted(arrays, key=_place):
            kind, dimensions = MEMBERS[name]
            values = arrays[name]
            if values.dtype != kind or values.ndim != dimensions or 0 in values.shape:
                wanted = "rows, columns" if dimensions == 2 else "rows"
                raise ShardError(
                    f"{name} is {np.dtype(kind)} [{wanted}], got {values.dtype} {list(values.shape)}"
                )
            if not np.isfinite(values).all():
                raise ShardError(f"{name} holds a number that is not finite")
            member = io.BytesIO()
            np.lib.format.write_array(
                member, np.ascontiguousarray(values), version=(1, 0), allow_pickle=False
            )
            info = zipfile.ZipInfo(f"{name}.npy", _ZIP_TIME)
            info.create_system = 3  # or it names the system that wrote it
            archive.writestr(info, member.getvalue())
    return sink.getvalue()


class Member(NamedTuple):
    """Where one array lies inside the bytes."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    """Of a row."""
    rows: int
    offset: int
    """Of its first row."""

    row_bytes: int

    def read(self, data: bytes, start: int, stop: int) -> NDArray[Any]:
        """Rows `start` to `stop` as an array that cannot be written to; raises ShardError where there are fewer."""
        if not 0 <= start < stop <= self.rows:
            raise ShardError(f"the arrays have {self.rows} rows, asked for {start} to {stop}")
        first, last = self.offset + start * self.row_bytes, self.offset + stop * self.row_bytes
        return np.frombuffer(data[first:last], self.dtype).reshape(-1, *self.shape)


def decode_arrays(data: bytes, start: int = 0, stop: int | None = None) -> dict[str, NDArray[Any]]:
    """Rows `start` to `stop` (exclusive; None: to the end) of every array, read-only.

    Raises:
        ShardError: the bytes are no such member, or it has fewer rows.
    """
    return {
        member.name: member.read(data, start, member.rows if stop is None else stop)
        for member in find_members(data)
    }


def find_members(data: bytes) -> tuple[Member, ...]:
    """Where the arrays lie; it depends on the number of rows and the shapes alone, so that clips of one length share it.

    Raises:
        ShardError: the bytes are no such member.
    """
    found: list[Member] = []
    at = 0
    try:
        while data[at : at + 4] == MAGIC:
            _, flags, method, _, size, name, extra = _LOCAL_HEADER.unpack_from(data, at)
            body = at + _LOCAL_HEADER.size + name + extra
            if flags & 0b1001 or method != zipfile.ZIP_STORED:
                raise ShardError("damaged arrays: a member that is not stored plainly")
            start = (
                body + 10 + int.from_bytes(data[body + 8 : body + 10], "little")
            )  # npy: magic, version, length
            dtype, (rows, *shape) = _npy_header(data[body:start])
            text = data[at + _LOCAL_HEADER.size : at + _LOCAL_HEADER.size + name].decode()
            member_name, row_bytes = text.removesuffix(".npy"), math.prod(shape) * dtype.itemsize
            _place(member_name)
            at = body + size
            if dtype != MEMBERS[member_name][0] or start + rows * row_bytes != at:
                raise ShardError(
                    f"damaged arrays: {member_name} of another type or size than its header says"
                )
            found.append(Member(member_name, dtype, tuple(shape), rows, start, row_bytes))
    except (struct.error, ValueError, SyntaxError) as error:
        if isinstance(error, ShardError):
            raise
        raise ShardError(f"damaged arrays: {error}") from error
    if not found or data[at : at + 4] != b"PK\x01\x02":
        raise ShardError("damaged arrays: no whole npz")
    return tuple(found)


@functools.lru_cache(maxsize=1024)
def _npy_header(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """(type, shape) of an npy file by its header; clips of one length share it."""
    file = io.BytesIO(header)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ShardError("damaged arrays: another npy version than 1.0")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if fortran or dtype.hasobject:
        raise ShardError("damaged arrays: not plain rows")
    return dtype, shape


def row_type(shapes: Mapping[str, tuple[int, ...]]) -> np.dtype[Any]:
    """A row of several arrays as one record, from the shapes of theirs."""
    return np.dtype([(name, MEMBERS[name][0], shape) for name, shape in shapes.items()])


def _place(name: str) -> int:
    if name not in MEMBERS:
        raise ShardError(f"unknown array {name!r}, expected some of {', '.join(MEMBERS)}")
    return list(MEMBERS).index(name)


def _shapes(arrays: Arrays) -> str:
    return ", ".join(f"{name} {list(np.shape(values))}" for name, values in arrays.items())


@dataclass(frozen=True, slots=True)
class ColumnSums:
    """Of one array over frames, each counted once: what means and deviations are made of."""

    rows: int
    total: tuple[float, ...]
    """Of each column."""
    squares: tuple[float, ...]
    """Sum of the squares of each column."""

    @classmethod
    def of(cls, values: NDArray[Any]) -> "ColumnSums":
        """Of rows [n] or [n, columns]; n may be 0."""
        columns = values.reshape(len(values), *values.shape[1:] or (1,)).astype(np.float64)
        return cls(len(values), tuple(columns.sum(0).tolist()), tuple((columns**2).sum(0).tolist()))

    def __add__(self, other: "ColumnSums") -> "ColumnSums":
        return ColumnSums(
            self.rows + other.rows,
            tuple(a + b for a, b in zip(self.total, other.total, strict=True)),
            tuple(a + b for a, b in zip(self.squares, other.squares, strict=True)),
        )


Sums = dict[str, ColumnSums]


def add_sums(parts: Iterable[Mapping[str, ColumnSums]]) -> Sums:
    """Sums of several parts as one.

    Raises:
        ShardError: an array has other columns in one part than in another.
    """
    together: Sums = {}
    for part in parts:
        for name, sums in part.items():
            before = together.get(name)
            if before is not None and len(before.total) != len(sums.total):
                raise ShardError(
                    f"{name} has {len(before.total)} columns in one clip and {len(sums.total)} in another"
                )
            together[name] = sums if before is None else before + sums
    return together


@dataclass(frozen=True)
class ArrayFacts:
    """What the manifest says of one array."""

    shape: tuple[int, ...]
    """Of a row: [A], or [] of a reward."""
    names: tuple[str, ...]
    """Of its columns."""
    mean: tuple[float, ...]
    """Of each column over the frames of the training split, every frame once, without those that no step led to."""
    std: tuple[float, ...]
    """The same, divided by the number of rows."""


def describe_arrays(
    sums: Mapping[str, Sequence[Sums]], names: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Any]]:
    """What a manifest's configuration gains: `{"arrays": {name: facts}}`, or nothing where nothing was logged.

    Args:
        sums: of the shards of each split; means are of `train`, or of everything where there is none.
        names: of the columns, for the arrays that have some; else they are numbered.
    """
    every = [part for parts in sums.values() for part in parts]
    together = add_sums(sums.get("train") or every)
    facts = {name: _facts(name, together[name], names.get(name)) for name in sorted(together, key=_place)}
    return {"arrays": {name: to_dict(one) for name, one in facts.items()}} if facts else {}


def _facts(name: str, sums: ColumnSums, names: Sequence[str] | None) -> ArrayFacts:
    columns, rows = len(sums.total), max(1, sums.rows)
    mean = np.array(sums.total) / rows
    variance = np.maximum(np.array(sums.squares) / rows - mean**2, 0)
    flat = MEMBERS[name][1] == 1
    return ArrayFacts(
        () if flat else (columns,),
        tuple(names or ([name] if flat else [f"{name}_{column}" for column in range(columns)])),
        tuple(np.round(mean, 6).tolist()),
        tuple(np.round(np.sqrt(variance), 6).tolist()),
    )
