"""What will be written, decided before the first frame is decoded: sources -> shards, and a hash of it all.

A source module (`ssv2`, `folder`, ...) makes a `Listing`; `make_plan` deals its videos to shards by a seeded shuffle.
The same listing and configuration give the same plan on every machine, so that any process may write any shard and a
rerun can tell whether it continues the same work.
"""

import hashlib
import heapq
import json
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from cwm_hub.command_line import how_many
from cwm_hub.config import check_range, to_dict
from cwm_hub.shards.codecs import CODECS, Codec
from cwm_hub.shards.manifest import shard_name
from dataprep.decode.frames import DecodeSettings

LATIN = re.compile(r"LATIN SMALL LETTER ([A-Z]+)(?: WITH .*)?")
"""Unicode's names of letters such as LATIN SMALL LETTER O WITH STROKE."""
SPLITS = ("train", "validation", "test")
WINDOW_FRAMES = 25
"""Of the paper's training windows: shorter videos are never drawn."""
SKIPS = ("too_short", "duplicate")
"""Reasons that are listed among the failures and not counted as such: nothing is wrong with the file."""


@dataclass(frozen=True, slots=True)
class SourceVideo:
    """One video of the input: the unit that is decoded, fails or succeeds as a whole."""

    id: str
    """Stable and unique key, `[a-z0-9_-]{1,80}`; clips are called `id` or `id_c000`, `id_c001`, ..."""
    path: str
    """What the opener opens: an absolute path or any locator it understands."""
    source_path: str
    """Path below the input folder for people, index and failures: see `printable`."""
    split: str = "train"
    """One of `SPLITS`."""
    label: int = -1
    """Class index, -1 where unknown."""
    label_text: str = ""
    """Class or caption, "" where unknown."""
    bytes: int = 0
    """Size of the source on disk, part of the plan hash: a replaced file is another plan."""
    options: tuple[tuple[str, Any], ...] = ()
    """Whatever else the opener needs for this video (json values), part of the plan hash."""
    camera: str = ""
    """Which of several cameras of one recording; told apart by the id too."""
    recording: str = ""
    """What videos of one scene at one time share, for the index; "" where this one is alone."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A source that gave no clip: a line of `meta/failures.jsonl`."""

    source_path: str
    """As in `SourceVideo`."""
    reason: str
    """One word: a key of `frames.REASONS`, `crash`, `timeout`, or a class named by the source module."""
    detail: str = ""
    """A clause for people."""


@dataclass(frozen=True)
class Listing:
    """What a source module found."""

    sources: tuple[SourceVideo, ...]
    """Videos to shard, in a stable order."""
    failures: tuple[Failure, ...] = ()
    """What listing already had to refuse: link loops, videos that the official list names and the folder lacks."""
    notes: tuple[str, ...] = ()
    """Sentences for the summary: what was ignored and why."""
    official_counts: Mapping[str, int] = field(default_factory=dict)
    """Videos of each split by the data set's own lists, reported beside ours."""
    columns: Mapping[str, Mapping[str, str | float | None]] = field(default_factory=dict)
    """Columns of the user's own for the index: by name, the value of each source by its id. No part of the plan hash."""
    share_files: bool = False
    """Videos with one `path` lie in that file one after another, in the order of their ids: they are dealt to a shard
    together, up to `videos_per_shard` of them, so that its worker decodes the file once."""


@dataclass(frozen=True)
class ShardConfig:
    """Everything that decides the bytes of the shards; kept in the manifest and compared on resume."""

    name: str
    """Short name of the data set, as the manifest gives it: `ssv2`, `human36m`, ..."""
    codec: Codec = "h264"
    """Form of a clip: an mp4 that decodes fast, a JPEG film strip, or raw pixels."""
    decode: DecodeSettings = field(default_factory=DecodeSettings)
    """Output size, resize, rate and limits."""
    max_clip_frames: int = 256
    """A longer video becomes pieces of this many frames."""
    overlap_frames: int = 24
    """Frames shared by successive pieces: one less than a training window, so that no window is lost."""
    keep_cuts: bool = False
    """Look for no cuts between shots: training windows may cross them."""
    videos_per_shard: int = 64
    """Source videos dealt to one shard."""
    seed: int = 0
    """Of the shuffle that deals videos to shards."""
    limit: int | None = None
    """Only this many videos of each split, chosen by the same shuffle; None: all."""
    source: dict[str, Any] = field(default_factory=dict)
    """What the source module was asked beyond this, json values only; `arrays` names the columns of what its openers give
    beside the frames."""

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise ValueError(f"unknown codec {self.codec!r}, expected one of {', '.join(CODECS)}")
        check_range(self, "max_clip_frames", "videos_per_shard", at_least=1)
        check_range(self, "overlap_frames", at_least=0, below=self.max_clip_frames)
        if self.limit is not None:
            check_range(self, "limit", at_least=1)
        if self.codec == "h264" and self.decode.size % 2:
            raise ValueError(f"h264 needs an even size, got {self.decode.size}")
        if self.codec == "jpeg" and self.decode.size * self.max_clip_frames > 65_535:
            raise ValueError(
                f"a JPEG film strip holds {65_535 // self.decode.size} frames of {self.decode.size} pixels: "
                f"lower max_clip_frames from {self.max_clip_frames}"
            )


@dataclass(frozen=True, slots=True)
class ShardTask:
    """The unit of work: one tar from these videos, in this order."""

    split: str
    index: int
    count: int
    """Shards of the split."""
    sources: tuple[SourceVideo, ...]

    @property
    def file(self) -> str:
        """`data/train-00000-of-00004.tar`."""
        return shard_name(self.split, self.index, self.count)

    @property
    def state_file(self) -> str:
        """The commit marker beside it, `.state/shards/train-00000-of-00004.json`."""
        return f".state/shards/{self.file.removeprefix('data/').removesuffix('.tar')}.json"


@dataclass(frozen=True)
class Plan:
    """Every shard that will be written, and the hash that names this work."""

    config: ShardConfig
    tasks: tuple[ShardTask, ...]
    listed_failures: tuple[Failure, ...]
    sources_hash: str
    """sha256 of all listed videos by id: paths below the input, sizes, splits, labels, options."""
    sources: tuple[SourceVideo, ...] = ()
    """All listed videos, those beyond `ShardConfig.limit` too."""

    @property
    def hash(self) -> str:
        """sha256 of configuration and sources: the same hash means the same bytes (with the same libraries)."""
        text = json.dumps([to_dict(self.config), self.sources_hash], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def videos(self) -> int:
        """Source videos in all shards."""
        return sum(len(task.sources) for task in self.tasks)

    def __iter__(self) -> Iterator[ShardTask]:
        return iter(self.tasks)


def make_plan(listing: Listing, config: ShardConfig) -> Plan:
    """Deal the listed videos to shards: shuffled by `config.seed` within each split, then cut into equal shares.

    Raises:
        ValueError: no video, two with one id, or an unknown split.
    """
    if not listing.sources:
        reasons = count_reasons(Counter(failure.reason for failure in listing.failures))
        raise ValueError("no video found" + (f" that could be read ({reasons})" if reasons else ""))
    ids = {source.id for source in listing.sources}
    if len(ids) != len(listing.sources):
        raise ValueError(
            f"{how_many(len(listing.sources) - len(ids), 'source video shares its', 'source videos share their')} id with another one"
        )
    by_split: dict[str, list[SourceVideo]] = {split: [] for split in SPLITS}
    for source in listing.sources:
        if source.split not in by_split:
            raise ValueError(
                f"{source.source_path}: unknown split {source.split!r}, expected {', '.join(SPLITS)}"
            )
        by_split[source.split].append(source)
    tasks: list[ShardTask] = []
    digest = hashlib.sha256()
    for split, sources in by_split.items():
        sources.sort(key=lambda source: source.id)
        for source in sources:
            digest.update(_identity(source))
        units = _runs(sources, config.videos_per_shard) if listing.share_files else [[s] for s in sources]
        random.Random(f"{config.seed}-{split}").shuffle(units)
        shards = _deal(units, min(len(sources), config.limit or len(sources)), config.videos_per_shard)
        tasks.extend(ShardTask(split, i, len(shards), shard) for i, shard in enumerate(shards))
    every = tuple(source for sources in by_split.values() for source in sources)
    return Plan(config, tuple(tasks), listing.failures, digest.hexdigest(), every)


def _runs(sources: Sequence[SourceVideo], most: int) -> list[list[SourceVideo]]:
    """The videos of each file, cut into equal runs of at most `most`."""
    by_file: dict[str, list[SourceVideo]] = {}
    for source in sources:
        by_file.setdefault(source.path, []).append(source)
    runs = []
    for parts in by_file.values():
        count = -(-len(parts) // most)
        edges = [len(parts) * i // count for i in range(count + 1)]
        runs += [parts[start:stop] for start, stop in pairwise(edges)]
    return runs


def _deal(units: Sequence[Sequence[SourceVideo]], videos: int, most: int) -> list[tuple[SourceVideo, ...]]:
    """The first `videos` of all units, each unit to the shard that holds fewest so far."""
    shards: list[list[SourceVideo]] = [[] for _ in range(-(-videos // most))]
    filled = [(0, index) for index in range(len(shards))]
    for unit in units:
        taken = unit[:videos]
        videos -= len(taken)
        if taken:
            count, index = heapq.heappop(filled)
            shards[index] += taken
            heapq.heappush(filled, (count + len(taken), index))
    return [tuple(shard) for shard in shards]


def count_reasons(reasons: Mapping[str, int]) -> str:
    """`3 truncated, 1 crash`: most frequent first."""
    return ", ".join(
        f"{count} {reason}" for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    )


def extent(source: SourceVideo) -> int:
    """What tells a replaced video from the one that was sharded: its frames where the listing counts them (a LeRobot file
    grows with its episodes), else its bytes."""
    return dict(source.options).get("length", source.bytes)


def stretch(source: SourceVideo) -> tuple[int, int | None]:
    """First and last byte of a video's pictures in a zip, which may grow behind them; else all of its file."""
    places = dict(source.options).get("places")
    return (min(one[1] for one in places), max(one[1] + one[2] for one in places)) if places else (0, None)


def printable(path: str) -> str:
    """A path as text that json, parquet and terminals can carry: bytes that are not UTF-8 become `\\xNN`."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def plain_letters(text: str) -> str:
    """In lower case, Latin letters without their marks; what has no such letter stays.

    >>> plain_letters("Größe Łódź")
    'grosse lodz'
    """
    split = unicodedata.normalize("NFKD", text.casefold())
    names = {c: LATIN.fullmatch(unicodedata.name(c, "")) for c in set(split) if not c.isascii()}
    bases = {c: found[1].lower() if found else c for c, found in names.items()}
    return "".join(bases.get(c, c) for c in split if not unicodedata.combining(c))


def _identity(source: SourceVideo) -> bytes:
    parts = (
        source.id,
        source.source_path,
        source.split,
        source.label,
        source.label_text,
        source.bytes,
        source.options,
    )
    return json.dumps(parts).encode() + b"\n"
