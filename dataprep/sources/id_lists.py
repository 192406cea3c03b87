"""Official id lists (`--ids`): which videos a paper used, and in which split. One video a line, its name first:

    78687 54 19                            Something-Something-v2: id, frames, class
    S9_Directions_1.54138969 472 Directions    Human3.6M: name, frames, action
    dir-7_0 8976 None                      YouTube driving: folder and run, frames

A name that the folder lacks is a failure, a video that no list names is left alone.
"""

import argparse
import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cwm_hub.command_line import how_many
from dataprep.command_line import option
from dataprep.sharding.plan import SPLITS, Failure, Listing
from dataprep.sources.text_files import decode, split_lines


@dataclass(frozen=True)
class IdList:
    """A list as it was read."""

    path: Path
    split: str | None
    """That its videos are put into; None: theirs by the source."""
    frames: dict[str, int]
    """Frames by name, 0 where the line does not tell."""
    sha256: str


def read_id_list(text: str) -> IdList:
    """Read `FILE` or `SPLIT=FILE`; of each line the first word counts, and the second where it is a number.

    Raises:
        ArgumentTypeError: The file cannot be read, is empty, or names a video twice.
    """
    head, _, tail = text.partition("=")
    split, path = (head, Path(tail)) if tail and head in SPLITS else (None, Path(text))
    try:
        data = path.read_bytes()
        lines = [line.split() for line in split_lines(decode(data))]
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read the list {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise argparse.ArgumentTypeError(f"{path} is no list of names: {error}") from error
    if not lines:
        raise argparse.ArgumentTypeError(f"the list {path} names no video")
    twice = [name for name, count in Counter(words[0] for words in lines).items() if count > 1]
    if twice:
        raise argparse.ArgumentTypeError(f"the list {path} names {twice[0]} twice")
    frames = {words[0]: int(words[1]) if words[1:2] and words[1].isdecimal() else 0 for words in lines}
    return IdList(path, split, frames, hashlib.sha256(data).hexdigest())


@dataclass(frozen=True)
class IdOptions:
    """The option of every source that has official lists."""

    ids: tuple[IdList, ...] = option((), metavar="[SPLIT=]FILE", parse=read_id_list)
    """Official lists: use only their videos, in this split where one is named."""


def id_facts(lists: Sequence[IdList]) -> dict[str, Any]:
    """What the manifest's configuration says of the lists; nothing where there are none."""
    return {"ids": [[one.path.name, one.split or "", one.sha256] for one in lists]} if lists else {}


def keep_listed(listing: Listing, lists: Sequence[IdList], source_id: Callable[[str], str | None]) -> Listing:
    """The listing without the videos that no list names; unchanged where there is no list.

    Args:
        listing: What the source found.
        lists: Lists that share no video.
        source_id: Id of the source video that a list, or a failure's path, means; None where it means none.

    Raises:
        ValueError: A name is none of this data set's, or is in two lists.
    """
    if not lists:
        return listing
    split_of: dict[str, str | None] = {}
    name_of: dict[str, str] = {}
    for one in lists:
        for name in one.frames:
            video = source_id(name)
            if video is None:
                raise ValueError(f"{one.path} names {name!r}, which is no name of a video of this data set")
            if video in split_of:
                raise ValueError(f"{one.path} names {name}, which is named before as {name_of[video]}")
            split_of[video], name_of[video] = one.split, name
    sources = tuple(
        dataclasses.replace(source, split=split_of[source.id] or source.split)
        for source in listing.sources
        if source.id in split_of
    )
    failed = {failure: source_id(failure.source_path) for failure in listing.failures}
    failures = [failure for failure, video in failed.items() if video is None or video in split_of]
    absent = split_of.keys() - {source.id for source in sources} - set(failed.values())
    failures += [
        Failure(name_of[video], "missing_file", "named in the list of ids") for video in sorted(absent)
    ]
    counts: Counter[str] = Counter()
    split_here = {source.id: source.split for source in listing.sources}
    for video, split in split_of.items():
        counts[split or split_here.get(video, "train")] += 1
    return dataclasses.replace(
        listing,
        sources=sources,
        failures=tuple(failures),
        notes=(*listing.notes, *_notes(lists, left=len(listing.sources) - len(sources))),
        official_counts=dict(counts),
    )


def _notes(lists: Sequence[IdList], *, left: int) -> list[str]:
    notes = [
        f"{one.path.name}: {how_many(len(one.frames), 'video')}, {how_many(sum(one.frames.values()), 'frame')}"
        for one in lists
    ]
    return (
        [
            *notes,
            f"{how_many(left, 'video is in no list and was', 'videos are in no list and were')} left alone",
        ]
        if left
        else notes
    )
