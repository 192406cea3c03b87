"""`cwm-dataprep hub-dataset`: a Hugging Face data set that holds videos, from the Hub or a local folder of that form.

Two forms are met. Where a row names a file of the repository (folders of videos), the row is listed and a worker fetches
the file when its turn comes. Where the bytes are inside (parquet, WebDataset tars), rows are streamed once, in order,
into `--cache`, from which the workers read; what was fetched is not fetched again by a rerun. `--limit` stops the stream
after that many rows of each split.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from cwm_hub.shards.storage import Root, write_whole
from dataprep.command_line import add_options, option, positional, read_options
from dataprep.decode.frames import open_video
from dataprep.decode.video_file import VideoError
from dataprep.sharding.command import add_arguments as add_common_arguments
from dataprep.sharding.command import dataset_name, make_shards, shard_config
from dataprep.sharding.dry_run import PROBE_VIDEOS
from dataprep.sharding.ledger import Origin
from dataprep.sharding.plan import SPLITS, Failure, Listing, ShardConfig, SourceVideo, printable
from dataprep.sharding.recordings import File, find_copies, find_leaks
from dataprep.sharding.worker import FrameReader
from dataprep.sources.folder import video_id
from dataprep.sources.labels import SPLIT_NAMES, number_classes
from dataprep.sources.lerobot_tables import lerobot_version, version_on_hub
from dataprep.sources.video2dataset import find_tars, load_tars

LISTING = "listing.json"


@dataclass(frozen=True)
class Request:
    """What is read of which data set; another request does not reuse a cache."""

    dataset: str = positional("DATASET")
    """Hub id (owner/name) or a local folder."""
    config: str | None = None
    """The data set's configuration, where it has several."""
    revision: str | None = None
    """Branch, tag or commit."""
    splits: tuple[str, ...] = option((), metavar="SPLIT")
    """Names as the data set gives them; none given: all."""
    column: str | None = None
    """Of the videos; none: the only video column."""
    label_column: str | None = option(None, metavar="COLUMN")
    """Class; json.label reaches into a dict; none: label."""
    text_column: str | None = option(None, metavar="COLUMN")
    """Caption; none: the class's name."""
    limit: int | None = None
    """Rows of each split, from the first."""


@dataclass(frozen=True)
class HubOptions:
    """Options of this sub-command beside the request."""

    cache: str | None = option(None, metavar="DIR")
    """Where streamed videos wait; none: OUT/.state/videos."""
    name: str | None = None
    """Of the set that is written; none: the data set's."""


EXAMPLES = (
    "cwm-dataprep hub-dataset owner/name --out shards/clips",
    "cwm-dataprep hub-dataset owner/name --splits train --column video --limit 1000 --out shards/clips",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this sub-command's options."""
    add_options(parser, Request, leave_out=("limit",))
    add_options(parser, HubOptions)
    add_options(parser, Origin)
    add_common_arguments(parser, videos_per_shard=64)


def run(args: argparse.Namespace) -> int:
    """List or stream, plan, shard; returns the exit code."""
    dataset = os.path.abspath(args.dataset) if Path(args.dataset).is_dir() else args.dataset  # noqa: PTH100
    request = read_options(Request, args, dataset=dataset)
    name = args.name or dataset_name(Path(args.dataset).name, default="hub-dataset")
    asked = {"dataset": args.dataset, "config": args.config, "revision": args.revision, "column": args.column}
    config = shard_config(args, name, asked)
    with contextlib.ExitStack() as stack:
        cache = _cache(args)
        listing = None if cache is None else read_listing(request, cache)
        if listing is None and args.dry_run:
            probe = stack.enter_context(tempfile.TemporaryDirectory(prefix="cwm-dataprep-"))
            listing = list_rows(request, Path(probe), most_fetched=PROBE_VIDEOS)
        elif listing is None:
            assert cache is not None
            listing = list_rows(request, cache)
            write_listing(request, listing, cache)
        return make_shards(args, listing, config, opener=open_row, origin=read_options(Origin, args))


def _cache(args: argparse.Namespace) -> Path | None:
    """Where streamed videos wait; None in a dry run that has no such place."""
    home = Root.parse(args.out).home
    if args.cache is None and home is None and not args.dry_run:
        raise ValueError("a remote --out has no place for streamed videos: give --cache")
    if args.cache is not None:
        return Path(args.cache)
    return None if home is None else home / ".state" / "videos"


def list_rows(request: Request, cache: Path, *, most_fetched: int | None = None) -> Listing:
    """A source video for each row; videos whose bytes are inside rows are written to the cache.

    Args:
        request: What to read.
        cache: Local folder.
        most_fetched: Videos of each split that are taken out of rows, None for all; rows after these are not seen.

    Raises:
        ValueError: The data set cannot be opened, has no (or several) video columns, or an unknown split, or
            `label_column` holds no classes.
    """
    rows: list[tuple[SourceVideo, Any]] = []
    failures: list[Failure] = []
    notes: list[str] = []
    if find_tars(Path(request.dataset)):
        request = dataclasses.replace(request, text_column=request.text_column or "txt")
        notes.append(
            "a folder of video2dataset: its .tar files are read, the parquet files beside them are not"
        )
    for split, dataset in _load(request).items():
        column = _video_column(dataset, request.column)
        fetched = 0
        for source, text in _stream(request, split, dataset, column, cache, failures):
            if fetched == most_fetched:
                notes.append(
                    f"{split}: rows after the first {fetched} were not fetched; what follows is without them"
                )
                break
            rows.append((source, text))
            fetched += Path(source.path).is_relative_to(cache.absolute())
    try:
        classes = number_classes([label for _, (label, _) in rows])
    except ValueError as error:
        if request.label_column is not None:
            raise ValueError(f"column {request.label_column}: {error}") from error
        notes.append(f"every label is -1, because column label holds no classes: {error}")
        classes = [(-1, "")] * len(rows)
    sources = [
        dataclasses.replace(source, label=label, label_text=str(text or word))
        for (source, (_, text)), (label, word) in zip(rows, classes, strict=True)
    ]
    kept, copies = _without_copies(sources)
    return Listing(tuple(kept), (*failures, *copies), tuple(notes))


def _without_copies(sources: Sequence[SourceVideo]) -> tuple[list[SourceVideo], list[Failure]]:
    """What is left without local files whose bytes are in a split further from training too, and those."""
    splits = {source.id: source.split for source in sources}
    if len(set(splits.values())) < 2:
        return list(sources), []
    local = (File(source.id, source.path, source.bytes) for source in sources if "://" not in source.path)
    leaks = find_leaks(find_copies(local), splits)
    shown = {source.id: source.source_path for source in sources}
    copies = [
        Failure(shown[one], "duplicate", f"the same bytes as {shown[other]}, of another split")
        for one, other in leaks.items()
    ]
    return [source for source in sources if source.id not in leaks], copies


def read_listing(request: Request, cache: Path) -> Listing | None:
    """What `list_rows` found for the same request before, if its videos are still there."""
    try:
        kept = json.loads((cache / LISTING).read_text())
    except FileNotFoundError:
        return None
    sources = tuple(SourceVideo(**source) for source in kept["sources"])
    here = all("://" in source.path or Path(source.path).is_file() for source in sources)
    if kept["request"] != json.loads(json.dumps(dataclasses.asdict(request))) or not here:
        return None
    return Listing(sources, tuple(Failure(**failure) for failure in kept["failures"]))


def write_listing(request: Request, listing: Listing, cache: Path) -> None:
    """Keep a listing for the next run."""
    kept = {
        "request": dataclasses.asdict(request),
        "sources": [dataclasses.asdict(source) for source in listing.sources],
        "failures": [dataclasses.asdict(failure) for failure in listing.failures],
    }
    write_whole(cache / LISTING, json.dumps(kept).encode())


def open_row(source: SourceVideo, config: ShardConfig) -> FrameReader:
    """Opener of a row: a local file, or a file of the repository, fetched now."""
    if "://" not in source.path:
        return open_video(source.path, config.decode)
    filesystem, remote = fsspec.core.url_to_fs(source.path)
    # The open video outlives its name. Over NFS it keeps one, which goes with the supervisor's folder.
    with tempfile.TemporaryDirectory(prefix="cwm-dataprep-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "video"
        try:
            filesystem.get_file(remote, str(path))
        except FileNotFoundError as error:
            raise VideoError("missing_file", f"no such file: {source.path}") from error
        return open_video(path, config.decode)


def _load(request: Request) -> Mapping[str, Any]:
    """The streamed data set of each split that was asked for."""
    import datasets

    folder = Path(request.dataset)
    version = (
        lerobot_version(folder) if folder.is_dir() else version_on_hub(request.dataset, request.revision)
    )
    if version is not None:
        raise ValueError(
            f"{request.dataset} is a LeRobot data set ({version}), whose files may hold many episodes each: "
            f"use `cwm-dataprep lerobot {request.dataset}`"
        )
    tars = find_tars(folder)
    try:
        loaded = (
            load_tars(tars)
            if tars
            else datasets.load_dataset(
                request.dataset, request.config, revision=request.revision, streaming=True
            )
        )
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"cannot open the data set {request.dataset}: {reason}") from error
    unknown = [split for split in request.splits if split not in loaded]
    if unknown:
        raise ValueError(f"{request.dataset} has no split {unknown[0]!r}, but {', '.join(loaded)}")
    return {split: loaded[split] for split in request.splits or loaded}


def _video_column(dataset: Any, asked: str | None) -> str:
    import datasets

    columns = dict(dataset.features or next(iter(dataset.take(1)), {}))  # text formats tell no features
    if asked is not None:
        if columns and asked not in columns:
            raise ValueError(f"the data set has no column {asked!r}, but {', '.join(columns)}")
        return asked
    videos = [name for name, feature in columns.items() if isinstance(feature, datasets.Video)]
    if len(videos) != 1:
        found = (
            f"{len(videos)} video columns"
            if videos
            else f"no video column among {', '.join(columns) or 'none'}"
        )
        tars = " (videos in tars beside parquet files are read from a local folder)" if not videos else ""
        raise ValueError(f"the data set has {found}: name one with --column{tars}")
    return videos[0]


def _stream(
    request: Request, split: str, dataset: Any, column: str, cache: Path, failures: list[Failure]
) -> Iterator[tuple[SourceVideo, Any]]:
    """(source without its label, raw label and text) of each row; bytes go to the cache."""
    import datasets

    ours = SPLIT_NAMES.get(split, split)
    if ours not in SPLITS:
        raise ValueError(f"split {split!r} is none of {', '.join(SPLITS)}: choose others with --splits")
    feature = (dataset.features or {}).get(column)
    if isinstance(feature, datasets.Video):
        dataset = dataset.cast_column(column, datasets.Video(decode=False))
    names = getattr((dataset.features or {}).get(request.label_column or "label"), "names", None)
    rows = dataset if request.limit is None else dataset.take(request.limit)
    for number, row in enumerate(rows):
        video = {"bytes": row[column]} if isinstance(row[column], bytes) else row[column] or {}
        data, path = video.get("bytes"), video.get("path")
        shown = printable(f"{split}/{row.get('__key__') or _file_name(path) or format(number, '08d')}")
        if data is None and path is None:
            failures.append(Failure(shown, "missing_file", f"row {number} has no video"))
            continue
        source_id = video_id(f"{split}/{number:08d}-{shown.partition('/')[2]}")
        if data is not None:
            path, size = _keep(cache / split / source_id, data), len(data)
        else:
            size = 0 if "://" in str(path) else Path(str(path)).stat().st_size
        label = _reach(row, request.label_column or "label")
        text = _reach(row, request.text_column) if request.text_column else None
        if text is None and names is not None and isinstance(label, int) and 0 <= label < len(names):
            text = names[label]
        yield SourceVideo(source_id, str(path), shown, ours, bytes=size), (label, text)


def _keep(path: Path, data: bytes) -> str:
    """Write a streamed video unless it is there already; the name carries its contents' hash."""
    target = path.with_name(f"{path.name}-{hashlib.sha256(data).hexdigest()[:16]}").absolute()
    if not target.is_file():
        write_whole(target, data)
    return str(target)


def _reach(row: Mapping[str, Any], column: str) -> Any:
    """`json.label` is row["json"]["label"]; None where there is none."""
    value: Any = row
    for name in column.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _file_name(path: str | None) -> str:
    return str(path).replace("\\", "/").rpartition("/")[2] if path else ""
