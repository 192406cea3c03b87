"""LeRobot's own tables, formats v2.0, v2.1 and v3.0: cameras, episodes, their tasks, and where their frames lie.

v2.x   meta/episodes.jsonl, meta/tasks.jsonl                 a file for each episode of each camera
v3.0   meta/episodes/*/*.parquet, meta/tasks.parquet         many episodes one after another in a file
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataprep.sources.lerobot_logs import logged_columns
from dataprep.sources.repository import Repository
from dataprep.sources.text_files import read_json, read_rows

INFO = "meta/info.json"
FOLDERS = ("meta", "data", "videos")
TEMPLATES = {
    2: {
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    },
    3: {
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    },
}
"""Where files are by format, if info.json does not say."""


@dataclass(frozen=True)
class Camera:
    """A feature that holds pictures."""

    key: str
    """`observation.images.front`."""
    is_video: bool
    """False: png pictures in the parquet files."""
    is_depth: bool


@dataclass(frozen=True)
class Info:
    """`meta/info.json`, as far as frames are concerned."""

    version: str
    """`v2.1`, `v3.0`, ..."""
    fps: float
    robot_type: str
    total_episodes: int | None
    cameras: tuple[Camera, ...]
    splits: Mapping[str, str]
    """`{"train": "0:6"}`: ranges of episodes; empty: all are `train`."""
    data_path: str
    video_path: str
    chunk_episodes: int
    """Episodes of a v2.x chunk."""
    logged: Mapping[str, Sequence[str]]
    """Columns of what was logged beside the frames, by the name of our array: `{"action": ["x", "y"]}`."""

    @property
    def major(self) -> int:
        """2 or 3."""
        return int(self.version[1])


@dataclass(frozen=True)
class Episode:
    """One episode."""

    index: int
    length: int
    """Frames of each camera."""
    tasks: tuple[str, ...]
    row: Mapping[str, Any]
    """The table's row: in v3.0 it says where the frames are."""


@dataclass(frozen=True)
class Place:
    """Where an episode of one camera lies."""

    file: str
    """Below the root of the data set; "" where the table names none."""
    start: float = 0.0
    """Of the first frame in the file, by the time in the table, in frames."""
    stop: float | None = None
    """Of the first frame after it; None where the table does not tell."""

    @property
    def length(self) -> int | None:
        """Whole frames between the two: borders drift, and the difference of two drifts little."""
        return None if self.stop is None else round(self.stop - self.start)


def lerobot_version(folder: Path) -> str | None:
    """The codebase version that `folder/meta/info.json` names; None where it is no LeRobot data set."""
    try:
        info = json.loads((folder / INFO).read_bytes())
    except (OSError, ValueError):
        return None
    version = info.get("codebase_version") if isinstance(info, dict) else None
    return version if isinstance(version, str) else None


def version_on_hub(dataset: str, revision: str | None) -> str | None:
    """The same of a data set of the Hub; None too where the Hub does not answer."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        path = hf_hub_download(dataset, INFO, repo_type="dataset", revision=revision)
    except (HfHubHTTPError, OSError, ValueError):
        return None
    return lerobot_version(Path(path).parents[1])


def read_info(repository: Repository) -> Info:
    """Read `meta/info.json`.

    Raises:
        ValueError: There is none, it is of another format, or a field is missing or of another type.
    """
    if INFO not in repository.bytes:
        raise ValueError(f"{repository.place} is no LeRobot data set: it has no {INFO}")
    info = read_json(repository.read(INFO))
    version = str(info.get("codebase_version")) if isinstance(info, dict) else "none"
    if not re.fullmatch(r"v[23](\.\d+)*", version):
        raise ValueError(f"{repository.place}: codebase version {version}, expected v2.0, v2.1 or v3.0")
    major = int(version[1])
    try:
        features = {
            key: one for key, one in info.get("features", {}).items() if one["dtype"] in ("video", "image")
        }
        cameras = [Camera(key, one["dtype"] == "video", _is_depth(key, one)) for key, one in features.items()]
        return Info(
            version=version,
            fps=_rate(info["fps"]),
            robot_type=str(info.get("robot_type") or "unknown"),
            total_episodes=info.get("total_episodes"),
            cameras=tuple(sorted(cameras or _seen_cameras(repository, major), key=lambda camera: camera.key)),
            splits=dict(info.get("splits") or {}),
            data_path=str(info.get("data_path") or TEMPLATES[major]["data_path"]),
            video_path=str(info.get("video_path") or TEMPLATES[major]["video_path"]),
            chunk_episodes=int(info.get("chunks_size") or 1000),
            logged=logged_columns(info.get("features", {})),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{repository.place}/{INFO} is damaged: {type(error).__name__} {error}") from error


def _rate(fps: Any) -> float:
    """Frames a second; raises ValueError where they are none."""
    rate = float(fps)
    if not 0 < rate < math.inf:
        raise ValueError(f"fps is above 0 and finite, got {fps}")
    return rate


def read_episodes(repository: Repository, info: Info) -> list[Episode]:
    """Every episode, by its index.

    Raises:
        ValueError: There is no table, it is damaged, or an episode is in it twice.
    """
    rows = _parquet_rows(repository) if info.major == 3 else _jsonl_rows(repository, "meta/episodes.jsonl")
    if not rows:
        raise ValueError(f"{repository.place} lists no episode")
    episodes: dict[int, Episode] = {}
    for row in rows:
        try:
            index, length = int(row["episode_index"]), int(row.get("length") or 0)
            tasks = row.get("tasks") or []
            texts = tuple(str(task) for task in ([tasks] if isinstance(tasks, str) else tasks))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{repository.place}: an episode without index or length: {row!r:.200}"
            ) from error
        if index in episodes:
            raise ValueError(f"{repository.place}: the tables list episode {index} twice")
        episodes[index] = Episode(index, length, texts, row)
    return [episodes[index] for index in sorted(episodes)]


def read_tasks(repository: Repository, episodes: Iterable[Episode]) -> dict[str, int]:
    """Number of each task by its text; where no table says, in alphabetical order of those that episodes name."""
    tasks: dict[str, int] = {}
    if "meta/tasks.parquet" in repository.bytes:
        import pyarrow as pa

        table = _read_parquet(repository, "meta/tasks.parquet")
        texts = [
            f.name for f in table.schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)
        ]
        if "task_index" in table.column_names and texts:
            pairs = zip(table[texts[0]].to_pylist(), table["task_index"].to_pylist(), strict=True)
            tasks = {str(text): int(index) for text, index in pairs if index is not None}
    elif "meta/tasks.jsonl" in repository.bytes:
        rows = _jsonl_rows(repository, "meta/tasks.jsonl")
        tasks = {
            str(row["task"]): int(row["task_index"]) for row in rows if {"task", "task_index"} <= row.keys()
        }
    named = sorted({task for episode in episodes for task in episode.tasks})
    return tasks or {task: number for number, task in enumerate(named)}


def find_video(info: Info, episode: Episode, camera: Camera) -> Place:
    """Where the episode's frames lie in video files."""
    if info.major == 2:
        return Place(_fill(info.video_path, info, episode, key=camera.key))
    names = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
    chunk, file, start, stop = (_number(episode.row.get(f"videos/{camera.key}/{name}")) for name in names)
    if chunk is None or file is None or start is None:
        return Place("")
    return Place(
        _fill(info.video_path, info, episode, key=camera.key, place=(int(chunk), int(file))),
        start * info.fps,
        None if stop is None else stop * info.fps,
    )


def find_data(info: Info, episode: Episode) -> str:
    """The parquet file of the episode's rows; "" where the table names none."""
    if info.major == 2:
        return _fill(info.data_path, info, episode)
    chunk, file = (_number(episode.row.get(f"data/{name}")) for name in ("chunk_index", "file_index"))
    if chunk is None or file is None:
        return ""
    return _fill(info.data_path, info, episode, place=(int(chunk), int(file)))


def _number(value: Any) -> float | None:
    """None for what a table holds where there is no number."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _fill(
    template: str, info: Info, episode: Episode, *, key: str = "", place: tuple[int, int] = (0, 0)
) -> str:
    try:
        return template.format(
            video_key=key,
            episode_index=episode.index,
            episode_chunk=episode.index // info.chunk_episodes,
            chunk_index=place[0],
            file_index=place[1],
        )
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"{INFO}: the path template {template!r} cannot be filled: {error}") from error


def _is_depth(key: str, feature: Mapping[str, Any]) -> bool:
    details = feature.get("info") or feature.get("video_info") or {}
    flags = (details.get("video.is_depth_map"), details.get("is_depth_map"))
    return any(flags) or "depth" in re.split(r"[._-]", key.lower())


def _seen_cameras(repository: Repository, major: int) -> list[Camera]:
    """By the folders of the videos, where info.json lists no features."""
    part = 1 if major == 3 else 2
    names = [name.split("/") for name in repository.bytes if name.startswith("videos/")]
    keys = {parts[part] for parts in names if len(parts) == 4}
    return [Camera(key, True, _is_depth(key, {})) for key in keys]


def _jsonl_rows(repository: Repository, name: str) -> list[dict[str, Any]]:
    if name not in repository.bytes:
        raise ValueError(f"{repository.place} has no {name}")
    return read_rows(repository.read(name))


def _parquet_rows(repository: Repository) -> list[dict[str, Any]]:
    names = [name for name in sorted(repository.bytes) if re.fullmatch(r"meta/episodes/.*\.parquet", name)]
    rows: list[dict[str, Any]] = []
    for name in names:
        table = _read_parquet(repository, name)
        used: Sequence[str] = [column for column in table.column_names if not column.startswith("stats/")]
        rows += table.select(used).to_pylist()
    return rows


def _read_parquet(repository: Repository, name: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(repository.read(name)) as file:  # read_table loads pyarrow.dataset
            return file.read()
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{repository.place}/{name}: damaged parquet: {error}") from error
