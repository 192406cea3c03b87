"""`cwm-dataprep folder`: any tree of video files, with optional labels and splits from a csv or jsonl file.

A file counts as a video by its suffix and is then judged by its content. Links are followed; a file met a second time
(by link or hard link) is skipped as `duplicate`, a link that leads nowhere or back to itself is a failure with that
reason. Whatever has another suffix, or none, is counted in the summary and otherwise left alone; so is what has a video's
name for another reason, by its first bytes: the companions of macOS (`._x.mp4`), TypeScript in `.ts`.
"""

import argparse
import errno
import hashlib
import os
import re
import stat
import unicodedata
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cwm_hub.command_line import how_many
from cwm_hub.config import check_range
from cwm_hub.shards.extra_columns import parse_columns
from cwm_hub.shards.storage import Root
from dataprep.command_line import add_options, option, positional, read_options
from dataprep.decode.first_look import is_surely_unusable
from dataprep.decode.video_file import has_only_the_name
from dataprep.sharding.additions import settled_splits
from dataprep.sharding.command import add_arguments as add_common_arguments
from dataprep.sharding.command import dataset_name, make_shards, shard_config
from dataprep.sharding.ledger import Origin
from dataprep.sharding.plan import Failure, Listing, SourceVideo, plain_letters, printable
from dataprep.sharding.recordings import File, choose_splits, parse_group_by
from dataprep.sharding.worker import open_file
from dataprep.sources.labels import Label, Labels, read_labels
from dataprep.sources.lerobot_tables import lerobot_version

VIDEO_SUFFIXES = frozenset(
    (
        ".mp4 .m4v .mov .qt .3gp .3g2 .mj2 .webm .mkv .avi .flv .f4v .wmv .asf .mpg .mpeg .mpe .m1v .m2v .vob .ts .mts "
        ".m2ts .mxf .ogv .rm .rmvb .dv .h264 .264 .h265 .265 .hevc .ivf .obu .y4m .nut .mjpeg .mjpg .gif"
    ).split()
)


@dataclass(frozen=True)
class FolderOptions:
    """Options of this sub-command."""

    directory: str = positional("DIR")
    """Searched for videos with all its folders."""
    labels: str | None = option(None, metavar="FILE")
    """csv (with a header) or jsonl: path, and label, label_text, split where known; other columns are kept in the
    index."""
    name: str | None = None
    """Of the data set; none: the directory's."""
    validation_share: float | None = option(None, metavar="SHARE")
    """Of the recordings without a split, chosen by a hash of the path; none: a tenth, and at least one, where there are
    three or more and the labels file names no validation split."""
    group_by: str | None = option(None, metavar="REGEX")
    """What of a path names its recording, which is kept in one split; none: the path without words for cameras and parts,
    such as left, cam2, part1."""

    def __post_init__(self) -> None:
        if self.validation_share is not None:
            check_range(self, "validation_share", at_least=0, below=1)
        parse_group_by(self.group_by or "")


EXAMPLES = (
    "cwm-dataprep folder VIDEOS --out shards/mine",
    "cwm-dataprep folder VIDEOS --labels labels.csv --size 128 --fps 10 --dry-run --out shards/mine",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this sub-command's options."""
    add_options(parser, FolderOptions)
    add_options(parser, Origin)
    add_common_arguments(parser, videos_per_shard=64)


def run(args: argparse.Namespace) -> int:
    """List, plan, shard; returns the exit code."""
    options = read_options(FolderOptions, args)
    directory = Path(options.directory)
    labels = None if options.labels is None else read_labels(Path(options.labels))
    group_by = None if options.group_by is None else re.compile(options.group_by)
    settled = settled_splits(Root.parse(args.out)) if args.append or args.retry_failures else None
    name = options.name or dataset_name(directory.resolve().name, default="folder")
    facts = {"validation_share": options.validation_share}
    config = shard_config(args, name, facts | ({"group_by": options.group_by} if options.group_by else {}))
    listing = list_videos(
        directory,
        labels=labels,
        validation_share=options.validation_share,
        group_by=group_by,
        settled=settled,
        min_frames=config.decode.fewest_source_frames,
    )
    return make_shards(args, listing, config, opener=open_file, origin=read_options(Origin, args))


def list_videos(
    directory: Path,
    *,
    labels: Labels | None = None,
    validation_share: float | None = 0.0,
    group_by: re.Pattern[str] | None = None,
    settled: Mapping[str, str] | None = None,
    min_frames: int = 1,
) -> Listing:
    """Every video below `directory`, sorted by the bytes of its path.

    Args:
        directory: the input folder.
        labels: by path below the folder (as `printable` writes it), from `read_labels`.
        validation_share: of the recordings without a split; None: see `recordings.choose_splits`.
        group_by: what of a path names its recording; None: see `recordings`.
        settled: splits of what a set holds already, by path.
        min_frames: of a video that gives a clip; one that has fewer is not counted where some are held out.

    Raises:
        ValueError: the directory is missing or no directory, it is a LeRobot data set, or no label is of a video that is
            there.
    """
    if not directory.is_dir():
        raise ValueError(
            f"{directory} is no directory" if directory.exists() else f"there is no directory {directory}"
        )
    _refuse_lerobot(directory)
    tree = _Tree()
    tree.walk(os.path.abspath(directory))  # noqa: PTH100  (resolve() would hide the name the user gave)
    for home in tree.meta_folders:
        _refuse_lerobot(home)
    tree.files.sort(key=lambda file: os.fsencode(file[0]))
    files = [File(printable(relative), path, size) for relative, path, size in tree.files]
    known = {file.shown for file in files} | {failure.source_path for failure in tree.failures}
    labels = None if labels is None else replace(labels, by_path=_as_spelled(labels.by_path, known))
    given = (labels or Labels()).by_path
    unknown = sorted(set(given) - known)
    if given and files and len(unknown) == len(given):
        raise ValueError(
            f"no path of the labels file is below {directory}: it says {unknown[0]!r}, "
            f"the folder holds {files[0].shown!r}"
        )
    asked = {path: label.split for path, label in given.items() if label.split and path in known}
    splits = choose_splits(
        files,
        asked,
        validation_share=validation_share,
        group_by=group_by,
        settled=settled,
        is_unusable=lambda file: is_surely_unusable(Path(file.path), min_frames=min_frames),
    )
    sources, extra = [], []
    for file, (relative, *_) in zip(files, tree.files, strict=True):
        if file.shown in splits.leaks:
            copy = splits.leaks[file.shown]
            tree.fail(relative, "duplicate", f"the same bytes as {copy}, of another split")
            continue
        label, split = given.get(file.shown, Label()), splits.split[file.shown]
        texts = (file.shown, split, label.label, label.label_text)
        name = splits.recordings.get(file.shown, "")
        sources.append(SourceVideo(video_id(relative), file.path, *texts, file.bytes, recording=name))
        extra.append((sources[-1].id, dict(label.extra)))
    tree.failures.extend(Failure(path, "missing_file", "named in the labels file") for path in unknown)
    return Listing(
        tuple(sources),
        tuple(sorted(tree.failures, key=lambda f: f.source_path)),
        (*_notes(tree, sources, labels, unknown), *splits.notes),
        columns=parse_columns(extra),
    )


def _as_spelled(given: Mapping[str, Label], known: set[str]) -> dict[str, Label]:
    """Labels by the folder's own spelling: a letter and its accent are one character here, and two on a Mac."""
    spelled: dict[str, list[str]] = {}
    for path in known:
        spelled.setdefault(unicodedata.normalize("NFC", path), []).append(path)
    alike = {path: spelled.get(unicodedata.normalize("NFC", path), []) for path in given}
    return {
        found[0] if path not in known and len(found) == 1 and found[0] not in given else path: given[path]
        for path, found in alike.items()
    }


def video_id(relative: str) -> str:
    """A key from a path below the input folder: readable, and distinct for any two paths by its hash."""
    digest = hashlib.sha256(os.fsencode(relative)).hexdigest()[:10]
    stem = plain_letters(os.path.splitext(relative)[0])  # noqa: PTH122
    words = re.sub(r"[^a-z0-9_]+", "-", stem).strip("-_")
    return f"{words[-60:].lstrip('-_')}-{digest}" if words else digest


def _refuse_lerobot(folder: Path) -> None:
    """Refuse `folder` if it is, or is a part of, a LeRobot data set, whose video files hold many episodes each."""
    for home in (folder.absolute(), *list(folder.absolute().parents)[:3]):
        version = lerobot_version(home)
        if version is not None:
            raise ValueError(
                f"{home} is a LeRobot data set ({version}), whose files hold episodes one after another: "
                f"use `cwm-dataprep lerobot {home}`"
            )


def _notes(
    tree: "_Tree", sources: list[SourceVideo], labels: Labels | None, unknown: list[str]
) -> Iterator[str]:
    if tree.others:
        yield f"{how_many(tree.others, 'file without a video suffix was', 'files without a video suffix were')} left alone"
    if tree.namesakes:
        yield f"{how_many(tree.namesakes, 'file that only bears', 'files that only bear')} a video's name (macOS companions, TypeScript), left alone"
    if labels is None:
        return
    yield from labels.notes
    unlabelled = sum(source.source_path not in labels.by_path for source in sources)
    if unlabelled:
        yield f"{how_many(unlabelled, 'video is', 'videos are')} not in the labels file"
    if unknown:
        yield f"{how_many(len(unknown), 'path of the labels file matches', 'paths of the labels file match')} no video, such as {unknown[0]!r}"


@dataclass
class _Tree:
    """A walk that follows links after everything else, enters no directory twice and notes what it cannot use."""

    files: list[tuple[str, str, int]] = field(default_factory=list)
    """(path below the top, absolute path, bytes)."""
    failures: list[Failure] = field(default_factory=list)
    others: int = 0
    """Files left alone for their suffix."""
    namesakes: int = 0
    """Files left alone because a video's suffix is all they have of one."""
    meta_folders: list[Path] = field(default_factory=list)
    """Folders that hold a folder `meta`."""
    _folders: list[tuple[str, str]] = field(default_factory=list)
    """To be entered: (absolute path, path below the top that is "" or ends in a slash)."""
    _links: deque["tuple[os.DirEntry[str], str]"] = field(default_factory=deque)
    """To be looked at when no folder is left, so that a file's own name comes before a link to it."""
    _seen: dict[tuple[int, int], str] = field(default_factory=dict)

    def walk(self, top: str) -> None:
        """Take in everything below the directory `top`."""
        self._is_new(os.stat(top), "")  # noqa: PTH116
        self._folders.append((top, ""))
        while self._folders or self._links:
            if self._folders:
                self._enter(*self._folders.pop())
            else:
                self._take(*self._links.popleft())

    def _enter(self, folder: str, prefix: str) -> None:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            self.fail(prefix.rstrip("/"), "unreadable", error.strerror or str(error))
            return
        for entry in entries:
            if entry.is_symlink():
                self._links.append((entry, f"{prefix}{entry.name}"))
            else:
                self._take(entry, f"{prefix}{entry.name}")

    def _take(self, entry: "os.DirEntry[str]", relative: str) -> None:
        is_video = os.path.splitext(entry.name)[1].lower() in VIDEO_SUFFIXES  # noqa: PTH122
        try:
            status = entry.stat()
        except OSError as error:
            loop = error.errno == errno.ELOOP
            if is_video or loop:
                self.fail(relative, "link_loop" if loop else "missing_file", f"link: {error.strerror}")
            return
        if stat.S_ISDIR(status.st_mode):
            if self._is_new(status, relative):
                self._folders.append((entry.path, f"{relative}/"))
                if entry.name == "meta":
                    self.meta_folders.append(Path(entry.path).parent)
        elif not is_video:
            self.others += 1
        elif not stat.S_ISREG(status.st_mode):
            self.fail(relative, "not_a_file", "a FIFO, socket or device")
        elif has_only_the_name(Path(entry.path)):
            self.namesakes += 1
        elif self._is_new(status, relative):
            self.files.append((relative, entry.path, status.st_size))

    def _is_new(self, status: os.stat_result, relative: str) -> bool:
        before = self._seen.setdefault((status.st_dev, status.st_ino), relative)
        if before == relative:
            return True
        inside = before == "" or relative.startswith(f"{before}/")
        self.fail(
            relative, "link_loop" if inside else "duplicate", f"the same as {before or 'the input folder'}"
        )
        return False

    def fail(self, relative: str, reason: str, detail: str) -> None:
        """Note what cannot be used."""
        self.failures.append(Failure(printable(relative), reason, printable(detail)))
