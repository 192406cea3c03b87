"""Small LeRobot data sets made on the spot, whose frames show their number in their file or episode."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from made_videos import counting_frames, write_video
from PIL import Image

KEY = "observation.images.top"


def write_info(root: Path, version: str, **changes: Any) -> None:
    """`meta/info.json` at 10 frames a second with one camera."""
    features = {KEY: {"dtype": "video", "shape": [48, 64, 3]}}
    (root / "meta").mkdir(parents=True, exist_ok=True)
    info = {"codebase_version": version, "fps": 10, "robot_type": "arm", "features": features}
    (root / "meta/info.json").write_text(json.dumps(info | changes))


def write_rows(root: Path, rows: Sequence[dict[str, Any]]) -> None:
    """`meta/episodes` of v3.0."""
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)


def episode_row(
    index: int, length: int, start: float, stop: float | None = None, **changes: Any
) -> dict[str, Any]:
    """A row of v3.0: the episode lies in file 0 of the one camera, from `start` to `stop` seconds."""
    stop = start + length / 10 if stop is None else stop
    place = {"chunk_index": 0, "file_index": 0, "from_timestamp": start, "to_timestamp": stop}
    data = {"data/chunk_index": 0, "data/file_index": 0}
    row = {"episode_index": index, "length": length, "tasks": ["lift"]} | data
    return row | {f"videos/{KEY}/{name}": value for name, value in place.items()} | changes


def write_v3(root: Path, rows: Sequence[dict[str, Any]], *, frames: int, **info: Any) -> Path:
    """A v3.0 set of one video file with so many frames; returns the file."""
    write_info(root, "v3.0", **info)
    write_rows(root, rows)
    return write_video(root / f"videos/{KEY}/chunk-000/file-000.mp4", counting_frames(frames), fps=10)


def write_logs(root: Path, lengths: Sequence[int], columns: dict[str, Sequence[Any]]) -> None:
    """`data` of v3.0 with these columns over all rows, and their features in `meta/info.json`."""
    info = json.loads((root / "meta/info.json").read_text())
    for name, values in columns.items():
        kind = "bool" if isinstance(values[0], bool) else "float32"
        width = len(values[0]) if isinstance(values[0], list) else 1
        info["features"].setdefault(name, {"dtype": kind, "shape": [width], "names": None})
    (root / "meta/info.json").write_text(json.dumps(info))
    index = {"episode_index": [n for n, length in enumerate(lengths) for _ in range(length)]}
    index["frame_index"] = [i for length in lengths for i in range(length)]
    (root / "data/chunk-000").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(index | columns), root / "data/chunk-000/file-000.parquet")


def write_pictures(root: Path, version: str, lengths: Sequence[int]) -> None:
    """A set whose camera is png in parquet: one file in v3.0, one for each episode in v2.1."""
    feature = {KEY: {"dtype": "image", "shape": [48, 64, 3]}}
    write_info(root, version, features=feature)
    tables = []
    for index, length in enumerate(lengths):
        pictures = [{"bytes": png(frame), "path": None} for frame in counting_frames(length)]
        columns = {KEY: pictures, "episode_index": [index] * length, "frame_index": list(range(length))}
        tables.append(pa.table(columns))
    (root / "data/chunk-000").mkdir(parents=True)
    if version == "v3.0":
        place = {"data/chunk_index": 0, "data/file_index": 0, "tasks": ["lift"]}
        write_rows(root, [{"episode_index": i, "length": n} | place for i, n in enumerate(lengths)])
        pq.write_table(pa.concat_tables(tables), root / "data/chunk-000/file-000.parquet", row_group_size=40)
    else:
        lines = [{"episode_index": i, "length": n, "tasks": ["lift"]} for i, n in enumerate(lengths)]
        (root / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        for index, table in enumerate(tables):
            pq.write_table(table, root / f"data/chunk-000/episode_{index:06d}.parquet")


def png(frame: np.ndarray) -> bytes:
    """A picture as a file."""
    sink = io.BytesIO()
    Image.fromarray(frame).save(sink, "PNG")
    return sink.getvalue()
