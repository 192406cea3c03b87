"""`cwm-dataprep lerobot`: a LeRobot data set (v2.0, v2.1, v3.0), from a folder or the Hub, without the `lerobot` package.

One source video is one episode of one camera. In v3.0 many episodes lie one after another in a file; their borders are
counted in frames (see `lerobot_frames`) and the file is decoded once for all that a shard holds of it. The camera is part
of a clip's key and of its `source_path`, `episode_000003/observation.images.front`.
"""

import argparse
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cwm_hub.command_line import how_many
from cwm_hub.config import check_range
from cwm_hub.hub_client.cards import front_matter
from cwm_hub.shards.storage import Root
from dataprep.command_line import add_options, option, positional, read_options
from dataprep.sharding.additions import settled_splits
from dataprep.sharding.command import add_arguments as add_common_arguments
from dataprep.sharding.command import dataset_name, make_shards, shard_config
from dataprep.sharding.ledger import Origin
from dataprep.sharding.plan import SPLITS, Failure, Listing, SourceVideo, plain_letters
from dataprep.sharding.recordings import draw_held_out, held_out
from dataprep.sources.labels import SPLIT_NAMES
from dataprep.sources.lerobot_frames import open_episode
from dataprep.sources.lerobot_tables import (
    FOLDERS,
    Camera,
    Episode,
    Info,
    find_data,
    find_video,
    read_episodes,
    read_info,
    read_tasks,
)
from dataprep.sources.repository import Repository, open_repository


def _episodes(text: str) -> range:
    start, colon, stop = text.partition(":")
    if not start.isdecimal() or (colon and not stop.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected a number or START:STOP, got {text!r}")
    return range(int(start), int(stop) if colon else int(start) + 1)


@dataclass(frozen=True)
class Request:
    """Which part of a data set is asked for."""

    cameras: tuple[str, ...] = option((), metavar="KEY")
    """Such as front or observation.images.front; none given: all but depth."""
    episodes: tuple[range, ...] = option((), metavar="N", parse=_episodes)
    """Numbers, or ranges START:STOP; none given: all."""
    max_episodes: int | None = None
    """Only the first N of them."""
    validation_share: float | None = option(None, metavar="SHARE")
    """Of the episodes that the data set calls train, chosen by a hash; none: a tenth, and at least one, where there are
    three or more and the data set has no validation split of its own."""
    state: bool = False
    """Write observation.state too, beside actions and rewards."""
    frames_only: bool = False
    """Write nothing that was logged beside the frames."""

    def __post_init__(self) -> None:
        if self.validation_share is not None:
            check_range(self, "validation_share", at_least=0, below=1)
        if self.max_episodes is not None:
            check_range(self, "max_episodes", at_least=1)
        if self.state and self.frames_only:
            raise ValueError("give either --state or --frames-only")


@dataclass(frozen=True)
class LeRobotOptions:
    """Options of this sub-command beside the request."""

    dataset: str = positional("DATASET")
    """Folder, or Hub id (owner/name)."""
    revision: str | None = None
    """Branch, tag or commit of the Hub; none: main."""
    name: str | None = None
    """Of the set that is written; none: the data set's."""


EXAMPLES = (
    "cwm-dataprep lerobot owner/name --out shards/robot",
    "cwm-dataprep lerobot FOLDER --cameras front --episodes 0:200 --out shards/front",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this sub-command's options."""
    add_options(parser, LeRobotOptions)
    add_options(parser, Request)
    add_options(parser, Origin)
    add_common_arguments(parser, videos_per_shard=64)


def run(args: argparse.Namespace) -> int:
    """List, plan, shard; returns the exit code."""
    options, request = read_options(LeRobotOptions, args), read_options(Request, args)
    origin = read_options(Origin, args)
    repository = open_repository(options.dataset, revision=options.revision, folders=FOLDERS)
    info = read_info(repository)
    facts = {
        "codebase_version": info.version,
        "fps": info.fps,
        "robot_type": info.robot_type,
        "cameras": [camera.key for camera in choose_cameras(info, request.cameras)],
        "validation_share": request.validation_share,
        "arrays": choose_arrays(info, request),
    }
    if repository.commit:
        facts |= {"dataset": repository.place, "commit": repository.commit}
    name = options.name or dataset_name(Path(options.dataset).resolve().name, default="lerobot")
    config = shard_config(args, name, facts)
    if origin.licence == Origin.licence:
        origin = dataclasses.replace(origin, licence=_card_licence(repository))
    adds = args.append or args.retry_failures
    settled = settled_splits(Root.parse(args.out)) if adds else {}
    fewest = config.decode.fewest_source_frames
    listing = list_episodes(repository, info, request, settled, min_frames=fewest)
    return make_shards(args, listing, config, opener=open_episode, origin=origin)


def choose_cameras(info: Info, asked: Sequence[str]) -> list[Camera]:
    """The cameras with these keys or last words; all but depth where none is asked for.

    Raises:
        ValueError: The data set has no such camera, or none at all.
    """
    usable = [camera for camera in info.cameras if not camera.is_depth]
    names = ", ".join(camera.key for camera in usable) or "none"
    if not usable:
        raise ValueError("the data set has no camera (a feature of dtype video or image)")
    for name in asked:
        if len([camera for camera in usable if _is_called(camera, name)]) != 1:
            raise ValueError(f"--cameras {name} is not one of the data set's cameras: {names}")
    return [camera for camera in usable if not asked or any(_is_called(camera, name) for name in asked)]


def choose_arrays(info: Info, request: Request) -> dict[str, Sequence[str]]:
    """The arrays that are asked for, with their columns.

    Raises:
        ValueError: The state is asked for and there is none.
    """
    if request.state and "state" not in info.logged:
        raise ValueError(
            "--state asks for observation.state, and the data set has no such feature of numbers"
        )
    return {
        name: columns
        for name, columns in info.logged.items()
        if not request.frames_only and (name != "state" or request.state)
    }


def list_episodes(
    repository: Repository,
    info: Info,
    request: Request,
    settled: Mapping[str, str] | None = None,
    *,
    min_frames: int = 1,
) -> Listing:
    """A source video for every episode of every camera that is asked for, and a failure for each that lacks its file.

    What a set holds already of an episode (`settled`: split by `source_path`) decides the split of its other cameras. An
    episode of fewer than `min_frames` gives no clip and is held out in no other's place.

    Raises:
        ValueError: The tables are damaged, an episode is in two splits, or none is left.
    """
    every = read_episodes(repository, info)
    tasks = read_tasks(repository, every)
    chosen = [e for e in every if not request.episodes or any(e.index in part for part in request.episodes)]
    chosen = chosen[: request.max_episodes]
    if not chosen:
        raise ValueError(f"none of the episodes asked for is in {repository.place}: it has {len(every)}")
    kept = {path.partition("/")[0]: split for path, split in (settled or {}).items()}
    own = _splits(info, chosen)
    train = [_recording(e.index) for e in chosen if own.get(e.index) == "train" and e.length >= min_frames]
    has_validation = any(
        _split_name(name) == "validation" and _range(str(text)) for name, text in info.splits.items()
    )
    drawn = draw_held_out(train, request.validation_share, has_validation=has_validation, grows=bool(kept))
    splits = {
        index: kept.get(name, "validation" if name in drawn else split)
        for index, split in own.items()
        for name in [_recording(index)]
    }
    sources: list[SourceVideo] = []
    failures: list[Failure] = []
    used: set[str] = set()
    arrays = choose_arrays(info, request)
    for camera in choose_cameras(info, request.cameras):
        frames = _frames_of_files(info, every, camera) if camera.is_video else {}
        name = _name(camera, info.cameras)
        for episode in chosen:
            found = _find(repository, info, episode, camera, frames, logged=bool(arrays))
            if episode.index not in splits:
                found = Failure(_shown(episode, camera), "no_split", "in no range of info.json's splits")
            if isinstance(found, Failure):
                failures.append(found)
                continue
            used.add(found.file)
            text = "; ".join(episode.tasks)
            label = tasks.get(episode.tasks[0], -1) if episode.tasks else -1
            shown, split = _shown(episode, camera), splits[episode.index]
            path = repository.locate(found.file)
            sources.append(
                SourceVideo(
                    f"{name}_{episode.index:06d}".lstrip("-"),
                    path,
                    shown,
                    split,
                    label,
                    text,
                    found.bytes,
                    found.options,
                    camera=camera.key,
                    recording=_recording(episode.index),
                )
            )
    logs = ", ".join(f"{name} ({len(columns)})" for name, columns in arrays.items())
    notes = [*_notes(repository, info, every, chosen, used), f"beside the frames: {logs or 'nothing'}"]
    if drawn and request.validation_share is None and not kept:
        notes.append(held_out(len(drawn), len(train), "episode"))
    return Listing(tuple(sources), tuple(failures), tuple(notes), share_files=True)


@dataclass(frozen=True)
class _Found:
    file: str
    bytes: int
    options: tuple[tuple[str, Any], ...]


def _find(
    repository: Repository,
    info: Info,
    episode: Episode,
    camera: Camera,
    frames: Mapping[str, "_FileFrames"],
    *,
    logged: bool,
) -> _Found | Failure:
    shown = _shown(episode, camera)
    place, rows = find_video(info, episode, camera), find_data(info, episode)
    file = place.file if camera.is_video else rows
    if episode.length < 1:
        return Failure(shown, "zero_frames", "an empty episode")
    if file not in repository.bytes:
        return Failure(shown, "missing_file", f"there is no {file}" if file else "its row names no file")
    if logged and rows not in repository.bytes:
        detail = f"there is no {rows} with its actions" if rows else "its row names no file with its actions"
        return Failure(shown, "missing_file", detail)
    its: tuple[tuple[str, Any], ...] = (("episode", episode.index), ("length", episode.length))
    if not camera.is_video:
        return _Found(file, 0, (("column", camera.key), *its, ("file_bytes", repository.bytes[file])))
    if place.length not in (None, episode.length):
        detail = f"{place.length} frames by its times, {episode.length} by its length"
        return Failure(shown, "wrong_length", detail)
    of_file = frames[file]
    size = repository.bytes[file] * episode.length // of_file.total
    return _Found(
        file,
        size,
        (
            *its,
            ("counted", of_file.starts[episode.index]),
            ("timed", None if place.stop is None else round(place.start)),
            ("file_frames", of_file.total if of_file.sound else -1),
            *((("file", file), ("rows", rows), ("rows_bytes", repository.bytes[rows])) if logged else ()),
        ),
    )


@dataclass
class _FileFrames:
    """The episodes of one video file, one after another."""

    starts: dict[int, int]
    total: int = 0
    sound: bool = True
    """Every episode is as long by its times as by its length, and begins where the one before it ends, give or take
    a frame."""
    stop: float | None = None
    """Of the last episode, by its times."""


def _frames_of_files(info: Info, episodes: Sequence[Episode], camera: Camera) -> dict[str, _FileFrames]:
    places = [(find_video(info, episode, camera), episode) for episode in episodes]
    files: dict[str, _FileFrames] = {}
    for place, episode in sorted(places, key=lambda one: (one[0].file, one[0].start, one[1].index)):
        frames = files.setdefault(place.file, _FileFrames({}))
        frames.starts[episode.index] = frames.total
        frames.total += episode.length
        frames.sound &= place.length in (None, episode.length)
        frames.sound &= frames.stop is None or abs(place.start - frames.stop) < 1
        frames.stop = place.stop
    return files


def _splits(info: Info, episodes: Sequence[Episode]) -> dict[int, str]:
    """Split by episode, for those that a range of info.json holds (all, where it has no ranges)."""
    splits: dict[int, str] = {}
    for name, text in (info.splits or {"train": f"0:{episodes[-1].index + 1}"}).items():
        part, ours = _range(str(text)), _split_name(name)
        for episode in (one for one in episodes if one.index in part):
            if ours not in SPLITS:
                raise ValueError(
                    f"info.json: split {name!r} is none of {', '.join(SPLITS)}: choose --episodes of others"
                )
            if splits.setdefault(episode.index, ours) != ours:
                raise ValueError(
                    f"info.json: episode {episode.index} is in {splits[episode.index]} and {ours}"
                )
    return splits


def _split_name(name: str) -> str:
    return SPLIT_NAMES.get(name, name)


def _notes(
    repository: Repository, info: Info, every: Sequence[Episode], chosen: Sequence[Episode], used: set[str]
) -> Iterator[str]:
    place = f"{repository.place} at commit {repository.commit}" if repository.commit else repository.place
    size = sum(repository.bytes[file] for file in used) / 1e6
    yield (
        f"{place}: LeRobot {info.version}, {info.fps:g} frames a second, {len(chosen)} of {how_many(len(every), 'episode')}, "
        f"{size:.1f} MB in {how_many(len(used), 'file')}"
    )
    depth = [camera.key for camera in info.cameras if camera.is_depth]
    if depth:
        yield f"depth is left out: {', '.join(depth)}"
    if info.total_episodes not in (None, len(every)):
        yield f"info.json promises {info.total_episodes} episodes, the tables list {len(every)}"
    taskless = sum(not episode.tasks for episode in chosen)
    if taskless:
        yield f"{how_many(taskless, 'episode has', 'episodes have')} no task: label -1"
    known = {find_video(info, e, camera).file for camera in info.cameras if camera.is_video for e in every}
    orphans = [name for name in repository.bytes if name.startswith("videos/") and name not in known]
    if orphans:
        yield f"{how_many(len(orphans), 'video file belongs to no episode and was', 'video files belong to no episode and were')} left alone, such as {min(orphans)}"


def _card_licence(repository: Repository) -> str:
    """What the data set's card says, `unknown` where it says nothing."""
    if "README.md" not in repository.bytes:
        return "unknown"
    text = repository.read("README.md").read_text(encoding="utf-8-sig", errors="replace")
    licence = front_matter(text).get("license")
    return " ".join(licence) if isinstance(licence, list) else str(licence or "unknown")


def _recording(episode: int) -> str:
    """The name of an episode, whatever the camera."""
    return f"episode_{episode:06d}"


def _shown(episode: Episode, camera: Camera) -> str:
    return f"{_recording(episode.index)}/{camera.key}"


def _name(camera: Camera, cameras: Sequence[Camera]) -> str:
    """How keys call a camera; those that differ by other letters, dots or capitals only are told apart by their bytes."""
    words = _words(camera)
    alike = [other for other in cameras if other.key.isascii() and _words(other) == words]
    return words if alike == [camera] else f"{words}-{hashlib.sha256(camera.key.encode()).hexdigest()[:6]}"


def _words(camera: Camera) -> str:
    letters = plain_letters(camera.key)
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in letters)[-60:].strip("-")


def _is_called(camera: Camera, name: str) -> bool:
    return name in (camera.key, camera.key.rpartition(".")[2])


def _range(text: str) -> range:
    start, _, stop = text.partition(":")
    if not (start.strip().isdecimal() and stop.strip().isdecimal()):
        raise ValueError(f"info.json: the split {text!r} is no range START:STOP of episodes")
    return range(int(start), int(stop))
