"""`cwm-dataprep folder`: any tree of video files, with optional labels and splits from a csv or jsonl file.

A file counts as a video by its suffix and is then judged by its content. Links are followed; a file met a second time
(by link or hard link) is skipped as `duplicate`, a link that leads nowhere or back to itself is a failure with that
reason. Whatever has another suffix, or none, is counted in the summary and otherwise left alone; so is what has a video's
name for another reason, by its first bytes: the companions of macOS (`._x.mp4`), TypeScript in `.ts`.
"""

import argparse
import csv
import errno
import hashlib
import json
import os
import re
import stat
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cwm_hub.config import check_range
from dataprep.command_line import add_options, option, positional, read_options
from dataprep.decode.video_file import has_only_the_name
from dataprep.sharding.command import add_arguments as add_common_arguments
from dataprep.sharding.command import dataset_name, make_shards, shard_config
from dataprep.sharding.ledger import Origin
from dataprep.sharding.plan import SPLITS, Failure, Listing, SourceVideo, printable
from dataprep.sharding.worker import open_file

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
    """csv (with a header) or jsonl: path, and label, label_text, split where known."""
    name: str | None = None
    """Of the data set; none: the directory's."""
    validation_share: float = option(0.0, metavar="SHARE")
    """Of the videos without a split, chosen by a hash of the path."""

    def __post_init__(self) -> None:
        check_range(self, "validation_share", at_least=0, below=1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this sub-command's options."""
    add_options(parser, FolderOptions)
    add_options(parser, Origin)
    add_common_arguments(parser, videos_per_shard=64)


def run(args: argparse.Namespace) -> int:
    """List, plan, shard; returns the exit code."""
    options = read_options(FolderOptions, args)
    directory = Path(options.directory)
    labels = {} if options.labels is None else read_labels(Path(options.labels))
    listing = list_videos(directory, labels=labels, validation_share=options.validation_share)
    name = options.name or dataset_name(directory.resolve().name, default="folder")
    config = shard_config(args, name, {"validation_share": options.validation_share})
    return make_shards(args, listing, config, opener=open_file, origin=read_options(Origin, args))


@dataclass(frozen=True, slots=True)
class Label:
    """What a labels file says of one video."""

    label: int = -1
    label_text: str = ""
    split: str | None = None


def list_videos(
    directory: Path, *, labels: dict[str, Label] | None = None, validation_share: float = 0.0
) -> Listing:
    """Every video below `directory`, sorted by the bytes of its path.

    Args:
        directory: the input folder.
        labels: by path below the folder (as `printable` writes it), from `read_labels`.
        validation_share: of the videos without a split.

    Raises:
        ValueError: the directory is missing or no directory.
    """
    if not directory.is_dir():
        raise ValueError(
            f"{directory} is no directory" if directory.exists() else f"there is no directory {directory}"
        )
    labels = labels or {}
    tree = _Tree()
    tree.walk(os.path.abspath(directory))  # noqa: PTH100  (resolve() would hide the name the user gave)
    sources = []
    for relative, path, size in sorted(tree.files, key=lambda file: os.fsencode(file[0])):
        shown = printable(relative)
        label = labels.get(shown, Label())
        split = label.split or _split(shown, validation_share)
        sources.append(
            SourceVideo(video_id(relative), path, shown, split, label.label, label.label_text, size)
        )
    unknown = sorted(
        set(labels) - {source.source_path for source in sources} - {f.source_path for f in tree.failures}
    )
    tree.failures.extend(Failure(path, "missing_file", "named in the labels file") for path in unknown)
    return Listing(
        tuple(sources),
        tuple(sorted(tree.failures, key=lambda f: f.source_path)),
        tuple(_notes(tree, sources, labels)),
    )


def video_id(relative: str) -> str:
    """A key from a path below the input folder: readable, and distinct for any two paths by its hash."""
    digest = hashlib.sha256(os.fsencode(relative)).hexdigest()[:10]
    words = re.sub(r"[^a-z0-9_]+", "-", os.path.splitext(relative)[0].lower()).strip("-_")  # noqa: PTH122
    return f"{words[-60:].lstrip('-_')}-{digest}" if words else digest


def read_labels(path: Path) -> dict[str, Label]:
    """Labels by video path from a csv with a header, or jsonl; columns `path`, `label`, `label_text`, `split`.

    A label that is no integer is taken as the text, and the texts are then numbered in alphabetical order.

    Raises:
        ValueError: the file cannot be read, has no `path`, or names an unknown split.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the labels file {path}: {error}") from error
    try:
        rows = (
            [json.loads(line) for line in text.splitlines() if line.strip()]
            if path.suffix == ".jsonl"
            else list(csv.DictReader(text.splitlines()))
        )
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: damaged {path.suffix.removeprefix('.')} line: {error}") from error
    if not rows:
        raise ValueError(f"{path} lists no video: expected a csv with a header that has `path`, or a .jsonl")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not isinstance(row.get("path"), str) or not row["path"]:
            raise ValueError(f"{path}: row {number} has no `path`")
    labels: dict[str, Label] = {}
    classes = sorted({str(row["label"]) for row in rows if _is_text(row.get("label"))})
    for number, row in enumerate(rows, start=1):
        split = row.get("split") or None
        if split not in (None, *SPLITS):
            raise ValueError(f"{path}: row {number} has split {split!r}, expected {', '.join(SPLITS)}")
        label, label_text = row.get("label"), row.get("label_text") or ""
        if _is_text(label):
            label, label_text = classes.index(str(label)), label_text or str(label)
        labels[os.path.normpath(row["path"])] = Label(
            -1 if label in (None, "") else int(label), str(label_text), split
        )
    return labels


def _is_text(label: object) -> bool:
    return label not in (None, "") and not re.fullmatch(r"-?\d+", str(label))


def _split(shown: str, validation_share: float) -> str:
    draw = int.from_bytes(hashlib.sha256(shown.encode()).digest()[:8]) / 2**64
    return "validation" if draw < validation_share else "train"


def _notes(tree: "_Tree", sources: list[SourceVideo], labels: dict[str, Label]) -> Iterator[str]:
    if tree.others:
        yield f"{tree.others} files without a video suffix were left alone"
    if tree.namesakes:
        yield f"{tree.namesakes} files that only bear a video's name (macOS companions, TypeScript) were left alone"
    unlabelled = sum(source.source_path not in labels for source in sources)
    if labels and unlabelled:
        yield f"{unlabelled} videos are not in the labels file"


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
            self._fail(prefix.rstrip("/"), "unreadable", error.strerror or str(error))
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
                self._fail(relative, "link_loop" if loop else "missing_file", f"link: {error.strerror}")
            return
        if stat.S_ISDIR(status.st_mode):
            if self._is_new(status, relative):
                self._folders.append((entry.path, f"{relative}/"))
        elif not is_video:
            self.others += 1
        elif not stat.S_ISREG(status.st_mode):
            self._fail(relative, "not_a_file", "a FIFO, socket or device")
        elif has_only_the_name(Path(entry.path)):
            self.namesakes += 1
        elif self._is_new(status, relative):
            self.files.append((relative, entry.path, status.st_size))

    def _is_new(self, status: os.stat_result, relative: str) -> bool:
        before = self._seen.setdefault((status.st_dev, status.st_ino), relative)
        if before == relative:
            return True
        inside = before == "" or relative.startswith(f"{before}/")
        self._fail(
            relative, "link_loop" if inside else "duplicate", f"the same as {before or 'the input folder'}"
        )
        return False

    def _fail(self, relative: str, reason: str, detail: str) -> None:
        self.failures.append(Failure(printable(relative), reason, printable(detail)))
