"""`cwm-dataprep ssv2`: Something-Something-v2, videos named by id and the label files in either naming style.

    LABELS/{labels,train,validation,test}.json   or   LABELS/something-something-v2-{labels,...}.json
    VIDEOS/<id>.webm                             or   VIDEOS/20bn-something-something-v2/<id>.webm

Videos that were converted to another container of `SUFFIXES` are taken where there is no webm. `train` and `validation` list `{"id", "label", "template", ...}`; the class is the template without its brackets, looked
up in `labels` (class name -> index, as a string). `test` lists ids only.
"""

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cwm_hub.command_line import how_many
from dataprep.command_line import add_options, option, read_options
from dataprep.official_lists import OFFICIAL_LISTS, official_counts
from dataprep.sharding.command import add_arguments as add_common_arguments
from dataprep.sharding.command import make_shards, shard_config
from dataprep.sharding.ledger import Origin
from dataprep.sharding.plan import Failure, Listing, SourceVideo
from dataprep.sharding.worker import open_file
from dataprep.sources.id_lists import IdOptions, id_facts, keep_listed
from dataprep.sources.labels import number_classes
from dataprep.sources.text_files import read_json

SPLITS = tuple(OFFICIAL_LISTS["ssv2"])
LICENCE = "Something-Something-v2 research licence (Qualcomm); videos and frames may not be redistributed"
PREFIX = "something-something-v2-"
FOLDER = "20bn-something-something-v2"
SUFFIXES = (".webm", ".mp4", ".mkv", ".avi", ".mov")
"""The data set's own, then those that it is converted to; the first that is there is used."""


@dataclass(frozen=True)
class Ssv2Options:
    """Options of this sub-command."""

    videos: str = option(metavar="DIR")
    """Folder of <id>.webm (or .mp4) files."""
    labels: str = option(metavar="DIR")
    """Folder of the label files."""
    splits: tuple[Literal["train", "validation", "test"], ...] = ()
    """Only these; none given: all that have a label file."""
    paper_exact: bool = False
    """As the paper: bicubic squash to 64, every frame."""


EXAMPLES = (
    "cwm-dataprep ssv2 --videos VIDEOS --labels LABELS --paper-exact --out shards/ssv2",
    "cwm-dataprep ssv2 --videos VIDEOS --labels LABELS --out shards/ssv2 --shard-range 0/32",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this sub-command's options."""
    add_options(parser, Ssv2Options)
    add_options(parser, IdOptions)
    add_common_arguments(parser, videos_per_shard=330)


def run(args: argparse.Namespace) -> int:
    """List, plan, shard; returns the exit code."""
    options, ids = read_options(Ssv2Options, args), read_options(IdOptions, args).ids
    listing = list_videos(Path(options.videos), Path(options.labels), options.splits or SPLITS)
    listing = keep_listed(listing, ids, listed_id)
    exact = {"size": 64, "resize": "bicubic", "fit": "squash", "stride": 1, "fps": None}
    config = shard_config(
        args,
        "ssv2",
        {"paper_exact": options.paper_exact} | id_facts(ids),
        **(exact if options.paper_exact else {}),
    )
    return make_shards(args, listing, config, opener=open_file, origin=Origin(LICENCE, redistributable=False))


def list_videos(videos: Path, labels: Path, splits: Sequence[str] = SPLITS) -> Listing:
    """The videos that the label files name, in the order of their numeric ids within each split.

    Raises:
        ValueError: a directory or `train` list is missing, a label file is damaged, or an id is in two splits.
    """
    for directory in (videos, labels):
        if not directory.is_dir():
            raise ValueError(f"there is no directory {directory}")
    files = _find_videos(videos)
    classes = _read_classes(labels)
    sources: list[SourceVideo] = []
    failures: list[Failure] = []
    listed: dict[str, str] = {}
    counts: dict[str, int] = {}
    for split in splits:
        entries = _read_list(labels, split)
        if entries is None:
            continue
        counts[split] = len(entries)
        for entry in entries:
            video, label, text = _parse(entry, split, classes)
            if video in listed:
                raise ValueError(f"video {video} is listed in {listed[video]} and again in {split}")
            listed[video] = split
            if video not in files:
                failures.append(Failure(f"{video}.webm", "missing_file", f"named in the {split} list"))
                continue
            path, size = files[video]
            relative = os.path.relpath(path, videos)
            sources.append(SourceVideo(f"ssv2_{video.zfill(6)}", path, relative, split, label, text, size))
    if not counts:
        raise ValueError(f"{labels} holds no train.json, validation.json or test.json, nor {PREFIX}*.json")
    return Listing(
        tuple(sorted(sources, key=lambda source: source.id)),
        tuple(failures),
        tuple(_notes(files, listed, sources, classes)),
        {split: official for split, official in official_counts("ssv2").items() if split in counts},
    )


def listed_id(name: str) -> str | None:
    """`78687` or `78687.webm` -> `ssv2_078687`."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    video = stem if suffix in SUFFIXES else name
    return f"ssv2_{video.zfill(6)}" if video.isdecimal() else None


def _find_videos(directory: Path) -> dict[str, tuple[str, int]]:
    """Absolute path and size of every video, by id."""
    folder = directory / FOLDER if (directory / FOLDER).is_dir() else directory
    with os.scandir(folder.absolute()) as entries:
        files = [
            (SUFFIXES.index(suffix), stem, entry)
            for entry in entries
            for stem, suffix in [os.path.splitext(entry.name.lower())]  # noqa: PTH122
            if suffix in SUFFIXES and not stem.startswith(".") and entry.is_file()
        ]
        files.sort(key=lambda file: -file[0])  # the data set's own suffix comes last, and stays
        return {stem: (entry.path, entry.stat().st_size) for _, stem, entry in files}


def _read_json(labels: Path, stem: str) -> Any:
    """The label file of either name, None where there is neither."""
    for path in (labels / f"{stem}.json", labels / f"{PREFIX}{stem}.json"):
        if path.is_file():
            return read_json(path)
    return None


def _read_list(labels: Path, split: str) -> list[Any] | None:
    entries = _read_json(labels, split)
    if entries is not None and not isinstance(entries, list):
        raise ValueError(f"{labels}: the {split} list is no json array")
    return entries


def _read_classes(labels: Path) -> dict[str, int]:
    classes = _read_json(labels, "labels")
    if classes is None:
        return {}
    if not isinstance(classes, dict):
        raise ValueError(f"{labels}: the labels file is no json object of class name to index")
    try:
        numbers = number_classes(list(classes.values()))
    except ValueError as error:
        raise ValueError(f"{labels}: the labels file: {error}") from error
    for name, (number, word) in zip(classes, numbers, strict=True):
        if word or number < 0:
            raise ValueError(f"{labels}: the labels file gives {name!r} no index, but {classes[name]!r}")
    return {name: number for name, (number, _) in zip(classes, numbers, strict=True)}


def _parse(entry: Any, split: str, classes: dict[str, int]) -> tuple[str, int, str]:
    """(id, class index or -1, class name or "")."""
    if not isinstance(entry, dict) or not str(entry.get("id", "")).isdigit():
        raise ValueError(f"the {split} list has an entry without a numeric id: {entry!r}")
    name = str(entry.get("template", "")).replace("[", "").replace("]", "")
    return str(entry["id"]), classes.get(name, -1), name


def _notes(
    files: dict[str, Any], listed: dict[str, str], sources: list[SourceVideo], classes: dict[str, int]
) -> list[str]:
    notes = []
    converted = Counter(os.path.splitext(source.path)[1].lower() for source in sources)  # noqa: PTH122
    for suffix in SUFFIXES[1:]:
        if converted[suffix]:
            notes.append(f"{converted[suffix]} videos are {suffix} files, not the data set's own .webm")
    extra = len(files.keys() - listed.keys())
    if extra:
        notes.append(
            f"{how_many(extra, 'video is in no list and was', 'videos are in no list and were')} left alone"
        )
    if not classes:
        notes.append("there is no labels file: every label is -1")
    unknown = sum(source.label == -1 and source.split != "test" for source in sources) if classes else 0
    if unknown:
        notes.append(
            f"{how_many(unknown, 'video has a', 'videos have a')} template that the labels file does not list: their label is -1"
        )
    return notes
