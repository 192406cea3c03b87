"""Which split a video goes to, so that what shows the same scene at the same time is never in two splits.

Videos belong together where their bytes are equal, and where their paths differ only by the words that name a camera or
a part (`front/ep1.mp4` and `wrist/ep1.mp4`, `talk_part1.mp4` and `talk_part2.mp4`) or by the chapter in a GoPro's file name.
"""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cwm_hub.command_line import how_many
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
GOPRO_CHAPTER = re.compile(r"(?<![a-z0-9])(?:g([hx])\d\d|gopr|gp\d\d)(?=\d{4}$)")
"""GX010042, GX020042, ...; of older cameras GOPR0042, GP010042, ...: chapters of the recording 0042."""

END_BYTES = 1 << 16

DEFAULT_SHARE = 0.1
"""Of the recordings, held out where nobody says how many."""
FEWEST_RECORDINGS = 3
"""Of which one is held out where nobody says so: of two it would be half of what there is to learn from."""
FEW_FILES = 1000
"""Of which each is looked at before some are held out; of more, the few that give no clip matter little."""


@dataclass(frozen=True, slots=True)
class File:
    """One listed video."""

    shown: str
    """Its name here: the path below the input folder."""
    path: str
    """Where it is."""
    bytes: int


def parse_group_by(text: str) -> re.Pattern[str]:
    """What `--group-by` says; ValueError where it is no regular expression."""
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"--group-by {text!r} is no regular expression: {error}") from error


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
    whole = GOPRO_CHAPTER.sub(lambda chapter: f"g{chapter[1] or 'p'}", stem.lower())
    common = CAMERA_OR_PART.sub("", whole)
    # "part_0001.mp4" at the top says nothing of what it is a part of
    return f"{common}{suffix}" if common != stem.lower() and re.search(r"[a-z0-9]", common) else shown


def hold_out(recordings: Iterable[str], validation_share: float) -> set[str]:
    """Those that go to `validation`: this share by a hash of the name, but of two or more at least one, and never all.

    >>> len(hold_out(["a", "b"], 0.001)), len(hold_out(["a", "b"], 0.999)), len(hold_out(["a"], 0.999))
    (1, 1, 0)
    """
    drawn = sorted((_draw(name), name) for name in set(recordings))
    count = sum(draw < validation_share for draw, _ in drawn)
    count = min(max(count, 1), len(drawn) - 1) if validation_share and drawn else 0
    return {name for _, name in drawn[:count]}


def draw_held_out(
    recordings: Collection[str], validation_share: float | None, *, has_validation: bool, grows: bool
) -> set[str]:
    """Those that go to `validation` of the recordings that are in no split yet.

    Args:
        recordings: Their names.
        validation_share: None: `DEFAULT_SHARE` of `FEWEST_RECORDINGS` or more.
        has_validation: The data set names a validation split of its own: then nothing is drawn unless asked for.
        grows: They are new to a set that is there: each is drawn by itself, as it would have been at the beginning of a
            large set.
    """
    if validation_share is None:
        enough = grows or len(recordings) >= FEWEST_RECORDINGS
        validation_share = DEFAULT_SHARE if enough and not has_validation else 0.0
    if grows:
        return {name for name in recordings if _draw(name) < validation_share}
    return hold_out(recordings, validation_share)


def held_out(drawn: int, recordings: int, noun: str = "recording") -> str:
    """What was drawn where nobody said how many."""
    return f"held out for validation: {drawn:,} of {how_many(recordings, noun)} (--validation-share 0: none)"


def _draw(recording: str) -> float:
    """A number in [0, 1) that is the name's own."""
    return int.from_bytes(hashlib.sha256(recording.encode()).digest()[:8]) / 2**64


@dataclass(frozen=True)
class Splits:
    """What `choose_splits` found."""

    split: dict[str, str]
    """By path."""
    leaks: dict[str, str]
    """Path to the path of its copy in a split that is held out: the user gave them different splits."""
    notes: tuple[str, ...] = ()
    recordings: Mapping[str, str] = field(default_factory=dict)
    """Recording of each file that is known to be of one with others, or would be, by path."""


def choose_splits(
    files: Sequence[File],
    given: Mapping[str, str],
    *,
    validation_share: float | None,
    group_by: re.Pattern[str] | None = None,
    settled: Mapping[str, str] | None = None,
    is_unusable: Callable[[File], bool] = lambda file: False,
) -> Splits:
    """A split for every file; nothing is read where all go to `train`.

    Args:
        files: Every video.
        given: Splits that the user gave, by path; the rest of a recording follows.
        validation_share: Of the recordings without a split; None: see `draw_held_out`.
        group_by: See `recording`.
        settled: Splits of what a set holds already, by path: the rest of a recording follows, and the set grows.
        is_unusable: Tells what surely gives no clip; asked of no more than `FEW_FILES`. A recording of nothing else counts
            for none.
    """
    labelled, given = given, {**given, **(settled or {})}
    key = {file.shown: recording(file.shown, group_by) for file in files}
    if validation_share == 0 and not given:
        return Splits(dict.fromkeys(key, "train"), {}, recordings=_named(key))
    copies = find_copies(files)
    join_copies(key, copies)
    together: dict[str, list[str]] = defaultdict(list)
    for file in files:
        together[key[file.shown]].append(file.shown)
    asked = {name: {given[m] for m in members if m in given} for name, members in together.items()}
    unusable = {file.shown for file in files if len(files) <= FEW_FILES and is_unusable(file)}
    undecided = [n for n, splits in asked.items() if not splits and not unusable.issuperset(together[n])]
    has_validation = "validation" in labelled.values()
    drawn = draw_held_out(undecided, validation_share, has_validation=has_validation, grows=bool(settled))
    splits: dict[str, str] = {}
    for name, members in together.items():
        rest = min(asked[name]) if asked[name] else "validation" if name in drawn else "train"
        splits |= {member: given.get(member, rest) for member in members}
    notes = [*_notes(copies, together, sum(len(splits) > 1 for splits in asked.values()))]
    if settled:  # what is new is told by what adds it
        pass
    elif undecided and "validation" not in splits.values() and validation_share != 0:
        notes.append(too_few(len(undecided)))
    elif validation_share is None and drawn:
        notes.append(held_out(len(drawn), len(undecided)))
    return Splits(splits, find_leaks(copies, splits), tuple(notes), _named(key))


def _named(key: Mapping[str, str]) -> dict[str, str]:
    """Recordings as people read them, of the files whose own path does not name theirs."""
    shared = set(key.values()) & {name for shown, name in key.items() if name != shown}
    return {shown: name.replace("\0", " ") for shown, name in key.items() if name in shared}


def too_few(recordings: int) -> str:
    """Why nothing is held out of so few recordings, and how a part of them is."""
    if recordings == 2:
        return "no validation split: of 2 recordings one is held out with --validation-share 0.5"
    return (
        "no validation split: there is 1 recording; add another, cut the video into two files, or tell its videos apart "
        "with --group-by"
    )


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


def digest_ends(path: str | Path, start: int = 0, stop: int | None = None) -> str:
    """sha256 of the first and last `END_BYTES` and the size of a file, or of a stretch of it; OSError where it cannot be read."""
    with Path(path).open("rb") as handle:
        size = (os.fstat(handle.fileno()).st_size if stop is None else stop) - start
        ends = b"%d " % size
        for first in (0, max(0, size - END_BYTES)):
            handle.seek(start + first)
            ends += handle.read(min(size, END_BYTES))
        return hashlib.sha256(ends).hexdigest()


def _ends(file: File) -> object:
    try:
        return digest_ends(file.path)
    except OSError:  # the worker will say so
        return file.shown


def _whole(file: File) -> object:
    try:
        with Path(file.path).open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").digest()
    except OSError:
        return file.shown


def join_copies(key: dict[str, str], copies: Sequence[Sequence[str]]) -> None:
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
        yield f"{how_many(count, 'video is a copy of another', 'videos are copies of others')}, byte for byte ({copies[0][0]}, {copies[0][1]}): kept in one split"
    shared = [members for members in together.values() if len(members) > 1]
    if shared:
        yield f"{sum(map(len, shared))} videos are of {how_many(len(shared), 'recording')} with several cameras, parts or copies"
    if torn:
        yield f"{how_many(torn, 'recording is', 'recordings are')} in two splits, because the labels file says so"
