"""`cwm-dataprep youtube-driving`: the driving videos of ACO, as extracted frames, as their zip, or as mp4 files.

    --frames DIR       dir-0/1.jpg, dir-0/2.jpg, ..., dir-1/...      or the folder above (newytb/dir-0/...)
    --frames X.zip     the same inside a zip, read in place: 8.6 million files are never unpacked
    --videos DIR       mp4 files; --list names those to use (csv or jsonl as for `folder`)

A folder is cut into runs wherever its numbers jump; a run is one source video. Of each run the first 99 frames are
dropped (title cards) and then those kept whose number is a multiple of 5, centre square, cv2's bilinear where
`--paper-exact`. Steering (`--meta`, lines `dir-0/1.jpg VALUE`) goes to `meta/steering.parquet`, a row for each stored
frame: source, frame (as `start_frame` counts), steering.
"""

import argparse
import dataclasses
import os
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cwm_hub.config import check_range
from cwm_hub.shards.storage import Root
from dataprep.command_line import add_options, option, read_options
from dataprep.decode.pictures import FolderStore, PictureReader, ZipStore
from dataprep.decode.zip_directory import read_directory
from dataprep.official_lists import official_counts
from dataprep.sharding.command import add_arguments as add_common_arguments
from dataprep.sharding.command import make_shards, shard_config
from dataprep.sharding.ledger import Origin
from dataprep.sharding.plan import Listing, ShardConfig, SourceVideo
from dataprep.sharding.worker import FrameReader, open_file
from dataprep.sources.folder import list_videos as list_folder
from dataprep.sources.id_lists import IdOptions, id_facts, keep_listed
from dataprep.sources.labels import read_labels
from dataprep.sources.text_files import read_text, split_lines

LICENCE = "YouTube videos of several owners, listed by ACO; frames may not be redistributed"
USUAL: dict[str, Any] = {"fit": "center-crop", "stride": 5, "skip_head": 99}
"""How the paper decodes every run."""
NATIVE_FPS = 20.0
"""Of the extracted frames: not written down anywhere, from 8.6 million frames of about 120 hours."""
STEERING = "meta/steering.parquet"

FRAME = re.compile(r"(?:.*/)?dir-(?P<dir>\d+)/(?P<number>\d+)\.jpg")


Place = tuple[Any, ...]
"""What finds a frame: (folder, bytes), or (offset, packed bytes, method) in a zip."""


@dataclass
class Folder:
    """One dir-<k>: the numbers of all its frames, and the places of those that the stride may keep."""

    numbers: "array[int]" = field(default_factory=lambda: array("q"))
    places: dict[int, Place] = field(default_factory=dict)

    def add(self, number: int, stride: int, place: Place) -> None:
        """Take in one frame; millions of them must fit in memory."""
        self.numbers.append(number)
        if number % stride == 0:
            self.places[number] = place


@dataclass(frozen=True)
class Run:
    """Frames of one folder whose numbers follow each other without a gap."""

    directory: int
    index: int
    """Of the run in its folder."""
    numbers: range
    kept: dict[int, Place]
    """The frames that are used, in order."""

    @property
    def id(self) -> str:
        """`ytb_dir-07_0`."""
        return f"ytb_dir-{self.directory:02d}_{self.index}"


@dataclass(frozen=True)
class DrivingOptions:
    """Options of this sub-command."""

    frames: str | None = option(None, metavar="PATH")
    """Folder or zip of dir-<k>/<number>.jpg; this or --videos."""
    videos: str | None = option(None, metavar="DIR")
    """Folder of mp4 files."""
    list: str | None = option(None, metavar="FILE")
    """With --videos: csv or jsonl of the paths to use, split optional."""
    meta: str | None = option(None, metavar="FILE")
    """With --frames: meta.txt, lines of path and steering."""
    native_fps: float = option(NATIVE_FPS, metavar="RATE")
    """Of the extracted frames before the stride."""
    paper_exact: bool = False
    """As the paper: centre square, cv2's bilinear to 64, first 99 frames of a run dropped, every fifth kept."""

    def __post_init__(self) -> None:
        if (self.videos is None) == (self.frames is None):
            raise ValueError("give one of --videos and --frames")
        if self.videos and self.meta:
            raise ValueError("--meta tells the steering of extracted frames: give --frames with it")
        if self.frames and self.list:
            raise ValueError("--list names mp4 files: give --videos with it")
        check_range(self, "native_fps", above=0)


EXAMPLES = (
    "cwm-dataprep youtube-driving --frames frames.zip --paper-exact --out shards/driving",
    "cwm-dataprep youtube-driving --frames FRAMES --meta meta.txt --out shards/driving",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this sub-command's options."""
    add_options(parser, DrivingOptions)
    add_options(parser, IdOptions)
    add_common_arguments(parser, videos_per_shard=2, **USUAL)


def run(args: argparse.Namespace) -> int:
    """List, plan, shard, write the steering; returns the exit code."""
    options, ids = read_options(DrivingOptions, args), read_options(IdOptions, args).ids
    facts: dict[str, Any] = {
        "form": "videos" if options.videos else "frames",
        "native_fps": options.native_fps,
    }
    facts |= {"paper_exact": options.paper_exact} | id_facts(ids)
    exact: dict[str, Any] = {"size": 64, "resize": "official", **USUAL} if options.paper_exact else {}
    config = shard_config(args, "youtube-driving", facts, **exact)
    origin = Origin(LICENCE, redistributable=False)
    if options.videos:
        if ids:
            raise ValueError("--ids names runs of extracted frames: give --list with --videos")
        listing = list_videos(Path(options.videos), Path(options.list) if options.list else None)
        return make_shards(args, listing, config, opener=open_file, origin=origin)
    if config.decode.fps is not None:
        raise ValueError("--fps resamples videos; frames are thinned with --stride")
    frames = Path(options.frames or "")
    runs = list(list_runs(frames, skip_head=config.decode.skip_head, stride=config.decode.stride))
    steering = read_steering(Path(options.meta)) if options.meta else None
    listing = keep_listed(list_sources(frames, runs), ids, listed_id)
    code = make_shards(args, listing, config, opener=open_run, origin=origin)
    if steering is not None and not args.dry_run:
        used = {source.id for source in listing.sources}
        Root.parse(args.out).write(
            STEERING, steering_bytes((one for one in runs if one.id in used), steering)
        )
    return code


def list_videos(directory: Path, listed: Path | None) -> Listing:
    """The mp4 files of a folder, or those of them that a list names.

    Raises:
        ValueError: The folder or the list is missing.
    """
    labels = None if listed is None else read_labels(listed)
    found = list_folder(directory, labels=labels)
    sources = [
        dataclasses.replace(source, id=f"ytb_{source.id}", label=-1, label_text="")
        for source in found.sources
        if labels is None or source.source_path in labels.by_path
    ]
    ignored = len(found.sources) - len(sources)
    notes = (*found.notes, f"these {ignored} were left alone") if ignored else found.notes
    return dataclasses.replace(
        found, sources=tuple(sources), notes=notes, official_counts=official_counts("youtube-driving")
    )


def list_runs(frames: Path, *, skip_head: int, stride: int) -> Iterator[Run]:
    """The runs of a folder or zip, in the order of directory and number.

    Raises:
        ValueError: It is missing, damaged, or holds no dir-<k>/<number>.jpg.
    """
    if not frames.exists():
        raise ValueError(f"there is no folder or zip {frames}")
    found = _in_folder(frames, stride) if frames.is_dir() else _in_zip(frames, stride)
    if not found:
        raise ValueError(f"{frames} holds no frame named dir-<k>/<number>.jpg")
    for directory, folder in sorted(found.items()):
        for index, numbers in enumerate(split_runs(folder.numbers)):
            kept = {number: folder.places[number] for number in numbers[skip_head:] if number % stride == 0}
            yield Run(directory, index, numbers, kept)


def split_runs(numbers: Iterable[int]) -> list[range]:
    """Cut numbers into ranges wherever one is missing.

    >>> split_runs([7, 1, 2, 3, 8])
    [range(1, 4), range(7, 9)]
    """
    runs: list[range] = []
    for number in sorted(numbers):
        if runs and number == runs[-1].stop:
            runs[-1] = range(runs[-1].start, number + 1)
        else:
            runs.append(range(number, number + 1))
    return runs


def list_sources(frames: Path, runs: Iterable[Run]) -> Listing:
    """A source video for each run, with what its opener needs of the kept frames."""
    sources = []
    for one in runs:
        shown = f"dir-{one.directory}/{one.numbers.start}-{one.numbers.stop - 1}.jpg"
        options: tuple[tuple[str, Any], ...]
        if frames.is_dir():
            path = next((place[0] for place in one.kept.values()), "")
            options = (("numbers", list(one.kept)),)
        else:
            path = str(frames.absolute())
            options = (("places", [[number, *place] for number, place in one.kept.items()]),)
        size = sum(place[1] for place in one.kept.values())
        sources.append(SourceVideo(one.id, path, shown, bytes=size, options=options))
    return Listing(tuple(sources), official_counts=official_counts("youtube-driving"))


def listed_id(name: str) -> str | None:
    """`dir-7_0` -> `ytb_dir-07_0`."""
    match = re.fullmatch(r"dir-(\d+)_(\d+)", name)
    return f"ytb_dir-{int(match[1]):02d}_{int(match[2])}" if match else None


def open_run(source: SourceVideo, config: ShardConfig) -> FrameReader:
    """Opener of a run's pictures."""
    options: dict[str, Any] = dict(source.options)
    fps = config.source["native_fps"] / config.decode.stride
    if "places" in options:
        numbers = [place[0] for place in options["places"]]
        return PictureReader(ZipStore(source.path, options["places"]), numbers, config.decode, fps=fps)
    return PictureReader(FolderStore(source.path, "%d.jpg"), options["numbers"], config.decode, fps=fps)


def read_steering(meta: Path) -> dict[tuple[int, int], float]:
    """Steering by (directory, number).

    Raises:
        ValueError: The file is missing, or a line is not a path and a number.
    """
    steering = {}
    for count, line in enumerate(split_lines(read_text(meta)), start=1):
        name, _, value = line.strip().rpartition(" ")
        match = FRAME.fullmatch(name)
        if match is None:
            raise ValueError(
                f"{meta}, line {count}: expected dir-<k>/<number>.jpg and a value, got {line.strip()!r}"
            )
        try:
            steering[int(match["dir"]), int(match["number"])] = float(value)
        except ValueError as error:
            raise ValueError(f"{meta}, line {count}: {error}") from error
    return steering


def steering_bytes(runs: Iterable[Run], steering: dict[tuple[int, int], float]) -> bytes:
    """`meta/steering.parquet`: a row for each stored frame whose steering is known."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    sources: list[str] = []
    frames: list[int] = []
    values: list[float] = []
    for one in runs:
        for frame, number in enumerate(one.kept):
            value = steering.get((one.directory, number))
            if value is not None:
                sources.append(one.id)
                frames.append(frame)
                values.append(value)
    table = pa.table(
        {
            "source": pa.array(sources, pa.string()),
            "frame": pa.array(frames, pa.int64()),
            "steering": pa.array(values, pa.float32()),
        }
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _in_folder(frames: Path, stride: int) -> dict[int, Folder]:
    found: dict[int, Folder] = {}
    for path, folders, _ in os.walk(frames):
        folders.sort()
        match = re.fullmatch(r"dir-(\d+)", Path(path).name)
        if match is None:
            continue
        home = str(Path(path).absolute())
        with os.scandir(home) as entries:
            for entry in entries:
                stem, _, suffix = entry.name.rpartition(".")
                if suffix == "jpg" and stem.isdecimal() and str(int(stem)) == stem and entry.is_file():
                    folder = found.setdefault(int(match[1]), Folder())
                    folder.add(int(stem), stride, (home, entry.stat().st_size))
    return found


def _in_zip(path: Path, stride: int) -> dict[int, Folder]:
    found: dict[int, Folder] = {}
    try:
        for entry in read_directory(path):
            match = FRAME.fullmatch(entry.name)
            if match:
                folder = found.setdefault(int(match["dir"]), Folder())
                folder.add(int(match["number"]), stride, (entry.offset, entry.packed_bytes, entry.method))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    return found
