"""The frames of one episode of one LeRobot camera: a stretch of a video file, or pictures in the rows of a parquet file.

What was logged beside them comes along, see `lerobot_logs`.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dataprep.decode.frames import DecodeSettings
from dataprep.decode.pictures import PictureReader
from dataprep.decode.stretch import LongVideo, StretchReader, kept_frames
from dataprep.decode.video_file import VideoError
from dataprep.sharding.plan import ShardConfig, SourceVideo
from dataprep.sharding.worker import FrameReader
from dataprep.sources.lerobot_logs import read_logged
from dataprep.sources.repository import fetch

MOST_RATE_ERROR = 0.05
"""Share by which a file's frame rate may differ from info.json's: clocks of a millisecond round it."""


def open_episode(source: SourceVideo, config: ShardConfig) -> FrameReader:
    """Opener of an episode: a stretch of a video file, or rows of a parquet file."""
    options: dict[str, Any] = dict(source.options)
    path, settings, fps = fetch(source.path), config.decode, float(config.source["fps"])
    episode, length = options["episode"], options["length"]
    kept, columns = kept_frames(length, fps, settings), config.source["arrays"]
    reader: PictureReader | StretchReader
    if "column" in options:
        store = RowStore(path, options["column"], episode, length)
        reader = PictureReader(store, kept, settings, fps=(settings.fps or fps) / settings.stride)
    else:
        video = _long_video(str(path), settings)
        if video.rate is not None and abs(video.rate / fps - 1) > MOST_RATE_ERROR:
            detail = f"the file has {video.rate:g} frames a second, info.json says {fps:g}"
            raise VideoError("wrong_rate", detail)
        start = _first_frame(video.frame_count, options)
        reader = StretchReader(video, settings, start=start, length=length, fps=fps)
    if columns:
        rows = (
            path
            if "column" in options
            else fetch(source.path.removesuffix(options["file"]) + options["rows"])
        )
        reader.arrays = read_logged(rows, columns, episode=episode, length=length, kept=kept)
    return reader


@functools.lru_cache(maxsize=1)
def _long_video(path: str, settings: DecodeSettings) -> LongVideo:
    """The file that the worker is at: the next episode goes on where this one ends."""
    return LongVideo(path, settings)


def _first_frame(frames_in_file: int, options: Mapping[str, Any]) -> int:
    """Number of the episode's first frame in its file.

    Where the file holds just the frames of its episodes, lengths are summed: times that drift over many short episodes
    move no border. Else (frames of a deleted episode are still there) the times say it, if they agree with the length.
    """
    length, counted, timed = (options[name] for name in ("length", "counted", "timed"))
    if frames_in_file == options["file_frames"]:
        return counted
    if timed is None:
        detail = f"the file has {frames_in_file} frames, its episodes {options['file_frames']}"
        raise VideoError("wrong_length", detail)
    if timed + length > frames_in_file:
        detail = f"frames {timed} to {timed + length} of a file that has {frames_in_file}"
        raise VideoError("truncated", detail)
    return timed


class RowStore:
    """The pictures of one episode by their frame number; only the row groups that hold the episode are read."""

    def __init__(self, path: Path, column: str, episode: int, length: int):
        """Read the episode's rows.

        Raises:
            VideoError: The file is damaged or lacks a column, or the episode has not just `length` rows.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._pictures: dict[int, Any] = {}
        try:
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    episodes = file.read_row_group(group, ["episode_index"])["episode_index"].to_numpy()
                    rows = np.flatnonzero(episodes == episode)
                    if len(rows):
                        table = file.read_row_group(group, [column, "frame_index"]).take(pa.array(rows))
                        numbers = table["frame_index"].to_pylist()
                        self._pictures.update(zip(numbers, table[column].to_pylist(), strict=True))
        except (OSError, KeyError, pa.ArrowException) as error:
            raise VideoError("unreadable", f"{path.name}: {' '.join(str(error).split())}") from error
        if sorted(self._pictures) != list(range(length)):
            detail = f"{len(self._pictures)} rows by their frame_index, {length} by its length"
            raise VideoError("wrong_length", detail)

    def read(self, number: int) -> bytes:
        """The picture of frame `number`; OSError where the row has none."""
        picture = self._pictures[number]
        data = picture.get("bytes") if isinstance(picture, dict) else picture
        if not isinstance(data, bytes):
            raise OSError("the row holds no picture")
        return data

    def close(self) -> None:
        """Nothing is held open."""
