"""Which split a video goes to, so that what shows the same scene at the same time is never in two splits.

Videos belong together where their bytes are equal, and where their paths differ only by the words that name a camera or
a part (`front/ep1.mp4` and `wrist/ep1.mp4`, `talk_part1.mp4` and `talk_part2.mp4`).
"""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataprep.sharding.plan import SPLITS

VIEW = "(?:left|right|front|back|rear|top|bottom|side|wrist|head|high|low|overhead|gripper|exterior)"
CAMERA_OR_PART = re.compile(
    r"(?<![a-z0-9])(?:"
    r"(?:cam|camera|view|angle|kinect|gopro|part|pt|segment|seg|chapter)[ _-]?\d+"
    r"|(?:cam|camera|view)[ _-]?[a-d]"
    rf"|(?:(?:cam|camera|view)[ _-])?{VIEW}(?:[ _-]{VIEW})*"
    r")(?![a-z0-9])"
)
"""In lower case, between characters that are no letters or digits."""

END_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class File:
    """One listed video."""

    shown: str
    """Its name here: the path below the input folder."""
    path: str
    """Where it is."""
    bytes: int


def recording(shown: str, group_by: re.Pattern[str] | None = None) -> str:
    """What videos of one recording have in common; the path itself where nothing tells.

    Args:
        shown: Path below the input folder.
        group_by: Its first match in the path names the recording, by its groups where it has some.

    >>> recording("ep1/cam_left.mp4") == recording("ep1/cam_right.mp4")
    True
    """
    if group_by is not None:
        match = group_by.search(shown)
        return shown if match is None else "\0".join(part or "" for part in match.groups() or (match[0],))
    stem, suffix = os.path.splitext(shown)  # noqa: PTH122
    common = CAMERA_OR_PART.sub("", stem.lower())
    # "part_0001.mp4" at the top says nothing of what it is a part of
    return f"{common}{suffix}" if common != stem.lower() and re.search(r"[a-z0-9]", common) else shown


def draw_split(recording: str, validation_share: float) -> str:
    """`validation` for this share of all recordings, by a hash of the name."""
    draw = int.from_bytes(hashlib.sha256(recording.encode()).digest()[:8]) / 2**64
    return "validation" if draw < validation_share else "train"


@dataclass(frozen=True)
class Splits:
    """What `choose_splits` found."""

    split: dict[str, str]
    """By path."""
    leaks: dict[str, str]
    """Path to the path of its copy in a split that is held out: the user gave them different splits."""
    notes: tuple[str, ...] = ()


def choose_splits(
    files: Sequence[File],
    given: Mapping[str, str],
    *,
    validation_share: float,
    group_by: re.Pattern[str] | None = None,
) -> Splits:
    """A split for every file; nothing is read where all go to `train`.

    Args:
        files: Every video.
        given: Splits that the user gave, by path; the rest of a recording follows.
        validation_share: Of the recordings without a split.
        group_by: See `recording`.
    """
    if not validation_share and not given:
        return Splits(dict.fromkeys((file.shown for file in files), "train"), {})
    key = {file.shown: recording(file.shown, group_by) for file in files}
    copies = find_copies(files)
    _join(key, copies)
    together: dict[str, list[str]] = defaultdict(list)
    for file in files:
        together[key[file.shown]].append(file.shown)
    splits: dict[str, str] = {}
    torn = 0
    for name, members in together.items():
        asked = {given[member] for member in members if member in given}
        torn += len(asked) > 1
        rest = min(asked) if asked else draw_split(name, validation_share)
        splits |= {member: given.get(member, rest) for member in members}
    return Splits(splits, find_leaks(copies, splits), tuple(_notes(copies, together, torn)))


def find_copies(files: Iterable[File]) -> list[list[str]]:
    """Paths of the files that share their bytes with another one; files that cannot be read are copies of none."""
    groups: list[list[File]] = [[file for file in files if file.bytes]]
    for measure in (lambda file: file.bytes, _ends, _whole):
        finer: list[list[File]] = []
        for group in groups:
            by_value: dict[object, list[File]] = defaultdict(list)
            for file in group:
                by_value[measure(file)].append(file)
            finer += [same for same in by_value.values() if len(same) > 1]
        groups = finer
    return [[file.shown for file in group] for group in groups]


def find_leaks(copies: Sequence[Sequence[str]], splits: Mapping[str, str]) -> dict[str, str]:
    """Copies to keep out, because the same bytes are in a split further from training: each with its copy there.

    >>> find_leaks([["a", "b"], ["c", "d"]], {"a": "train", "b": "validation", "c": "train", "d": "train"})
    {'a': 'b'}
    """
    leaks: dict[str, str] = {}
    for group in copies:
        kept = max(group, key=lambda shown: SPLITS.index(splits[shown]))
        leaks |= {shown: kept for shown in group if splits[shown] != splits[kept]}
    return leaks


def _ends(file: File) -> object:
    try:
        with Path(file.path).open("rb") as handle:
            head = handle.read(END_BYTES)
            handle.seek(max(0, file.bytes - END_BYTES))
            return hashlib.sha256(head + handle.read(END_BYTES)).digest()
    except OSError:  # the worker will say so
        return file.shown


def _whole(file: File) -> object:
    try:
        with Path(file.path).open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").digest()
    except OSError:
        return file.shown


def _join(key: dict[str, str], copies: Sequence[Sequence[str]]) -> None:
    """Give all recordings that share a copy one key."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while name in leader:
            name = leader[name]
        return name

    for group in copies:
        first, *others = sorted({find(key[shown]) for shown in group})
        leader.update(dict.fromkeys(others, first))
    for shown, name in key.items():
        key[shown] = find(name)


def _notes(
    copies: Sequence[Sequence[str]], together: Mapping[str, Sequence[str]], torn: int
) -> Iterable[str]:
    if copies:
        count = sum(len(group) - 1 for group in copies)
        yield f"{count} videos are copies of others, byte for byte ({copies[0][0]}, {copies[0][1]}): kept in one split"
    shared = [members for members in together.values() if len(members) > 1]
    if shared:
        yield f"{sum(map(len, shared))} videos are of {len(shared)} recordings with several cameras, parts or copies"
    if torn:
        yield f"{torn} recordings are in two splits, because the labels file says so"
