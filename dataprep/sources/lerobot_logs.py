"""What a LeRobot data set logged beside the frames of an episode, as rows of the frames that it led to.

LeRobot's row holds a frame, the action taken there, and what followed; row t of ours holds what led to frame t:

    LeRobot row         0       1       2      ...  L-1
    action              a0      a1      a2          aL-1      taken at this frame
    next.reward         r1      r2      r3          rL        received for it; frame L was not recorded

    ours                0       1       2      ...  L-1
    action              0       a0      a1          aL-2
    reward              0       r1      r2          rL-1 + rL
    observation.state   s0      s1      s2          sL-1

Where frames are left out (another rate, stride), a kept frame has the last action before it, the sum of the rewards since
the kept frame before, and an end where there was one; the last one takes what comes after it too: an episode keeps its
return and its end. A frame that is kept several times has its action each time and its reward once.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cwm_hub.shards.arrays import MEMBERS, OF_A_STEP, Arrays
from dataprep.decode.video_file import VideoError

FEATURES = {
    "action": "action",
    "state": "observation.state",
    "reward": "next.reward",
    "is_terminal": "next.done",
}
"""LeRobot's name of each array."""

TRUNCATED = "next.truncated"
"""Where an episode was cut off by a limit and not ended by the task: such an end is none."""


def logged_columns(features: Mapping[str, Any]) -> dict[str, list[str]]:
    """Names of the columns of every array that the features of an info.json describe.

    Raises:
        KeyError, TypeError: a feature without dtype or shape.
    """
    found = {}
    for name, key in FEATURES.items():
        feature = features.get(key)
        if feature is not None and str(feature["dtype"]).startswith(("float", "int", "bool")):
            columns = int(np.prod(feature["shape"] or [1]))
            names = list(_texts(feature.get("names")))
            if MEMBERS[name][1] == 1:
                names = [name]
            found[name] = names if len(names) == columns else [f"{name}_{i}" for i in range(columns)]
    return found


def _texts(names: Any) -> Sequence[str]:
    """`["x", "y"]` of itself as of `{"motors": ["x", "y"]}`."""
    if isinstance(names, Mapping):
        names = list(names.values())
    if isinstance(names, (list, tuple)):
        return [text for name in names for text in _texts(name)]
    return [] if names is None else [str(names)]


def read_logged(
    path: Path, columns: Mapping[str, Sequence[str]], *, episode: int, length: int, kept: Sequence[int]
) -> Arrays:
    """The arrays of one episode, a row for each kept frame.

    Args:
        path: of the parquet file that holds the episode's rows.
        columns: names of the columns of each array that is wanted.
        episode: its number.
        length: its frames, before any is left out.
        kept: frames that are kept, ascending.

    Raises:
        VideoError: The file is damaged or lacks a column, the rows are not those of `length` frames, or hold what is no
            number.
    """
    table = _numbers(path, tuple(columns))
    rows = np.flatnonzero(table["episode_index"] == episode)
    rows = rows[np.argsort(table["frame_index"][rows], kind="stable")]
    if not np.array_equal(table["frame_index"][rows], np.arange(length)):
        detail = f"{len(rows)} rows of {path.name} by their frame_index, {length} by its length"
        raise VideoError("wrong_length", detail)
    arrays: dict[str, NDArray[Any]] = {}
    for name, names in columns.items():
        kind, dimensions = MEMBERS[name]
        values = table[FEATURES[name]][rows]
        if values.shape[1] != len(names) or not np.isfinite(values).all():
            found = (
                "numbers that are not finite"
                if values.shape[1] == len(names)
                else f"{values.shape[1]} columns"
            )
            raise VideoError(
                "bad_rows", f"{FEATURES[name]} has {found}, expected {len(names)} columns of numbers"
            )
        if name == "is_terminal" and TRUNCATED in table:
            values = values * (table[TRUNCATED][rows] == 0)
        arrays[name] = (values if dimensions == 2 else values[:, 0]).astype(kind)
    return keep_rows(arrays, kept)


def keep_rows(arrays: Arrays, kept: Sequence[int]) -> Arrays:
    """Rows in LeRobot's order, one a frame, as rows of the kept frames in ours; see the module.

    >>> keep_rows({"reward": np.array([1, 2, 3, 4], np.float32)}, [0, 2])["reward"].tolist()
    [0.0, 10.0]
    """
    frames = np.array(kept, np.int64)
    result: dict[str, NDArray[Any]] = {}
    for name, values in arrays.items():
        if not len(frames):
            result[name] = values[:0]
        elif name not in OF_A_STEP:
            result[name] = values[frames]
        elif name == "action":
            led_here = np.concatenate([np.zeros_like(values[:1]), values[:-1]])
            result[name] = led_here[frames]
            result[name][0] = 0  # where frames at the start are skipped too
        else:
            result[name] = _summed(values, frames).astype(values.dtype)
    return result


def _summed(values: NDArray[Any], frames: NDArray[np.int64]) -> NDArray[np.float64]:
    """What arrived since the kept frame before each; row t of `values` arrives at frame t + 1."""
    arrival = np.arange(1, len(values) + 1)
    first, last = (np.searchsorted(frames, arrival, side) for side in ("left", "right"))
    at = np.maximum(first, last - 1).clip(max=len(frames) - 1)  # of a frame kept several times the last
    weights = values * (arrival > frames[0])
    return np.bincount(at, weights=weights, minlength=len(frames)).astype(np.float64)


@functools.lru_cache(maxsize=1)
def _numbers(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Columns of a data file: [rows] of the two indices, [rows, columns] of the others; a file is read once."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = [FEATURES[name] for name in names]
    try:
        with pq.ParquetFile(path) as file:
            if "is_terminal" in names and TRUNCATED in file.schema_arrow.names:
                wanted.append(TRUNCATED)
            missing = sorted({*wanted, "episode_index", "frame_index"} - set(file.schema_arrow.names))
            if missing:
                raise VideoError("bad_rows", f"{path.name} has no column {missing[0]}")
            table = file.read([*wanted, "episode_index", "frame_index"])
        numbers = {name: _plain(table[name]) for name in wanted}
    except (OSError, pa.ArrowException) as error:
        raise VideoError("unreadable", f"{path.name}: {' '.join(str(error).split())}") from error
    return numbers | {name: table[name].to_numpy() for name in ("episode_index", "frame_index")}


def _plain(column: Any) -> NDArray[np.float64]:
    """A column of numbers or of equal lists of them as [rows, columns]; a null is nan.

    Raises:
        VideoError: Lists of different lengths, or no numbers.
    """
    import pyarrow as pa

    rows, values = len(column), column.combine_chunks()
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    while (
        pa.types.is_list(values.type)
        or pa.types.is_large_list(values.type)
        or pa.types.is_fixed_size_list(values.type)
    ):
        values = values.flatten()
    try:
        numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
        return numbers.reshape(rows, -1)
    except (pa.ArrowException, ValueError) as error:
        raise VideoError("bad_rows", f"not the same numbers in every row: {error}") from error
