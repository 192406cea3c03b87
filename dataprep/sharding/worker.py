"""The unit of work: one shard from its source videos, in whatever process or machine it runs.

    open -> frames -> pieces of at most `max_clip_frames` -> encode -> spool -> tar -> fsync -> rename -> state file

A source is taken whole or not at all (damage may show only at its end), so its encoded clips wait in a spool until the
reader has finished. The state file, written last, is the commit marker: a shard without one is done again.
"""

import contextlib
import dataclasses
import functools
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from cwm_hub.shards.arrays import Arrays, ColumnSums, Sums
from cwm_hub.shards.codecs import Frames
from cwm_hub.shards.index import ClipRow, make_row
from cwm_hub.shards.manifest import ShardRecord
from cwm_hub.shards.storage import Root
from cwm_hub.shards.writer import EncodedClip, ShardWriter
from dataprep.decode.cuts import find_cuts
from dataprep.decode.frames import open_video
from dataprep.decode.video_file import VideoError
from dataprep.sharding.plan import SKIPS, Failure, Plan, ShardConfig, ShardTask, SourceVideo, stretch
from dataprep.sharding.recordings import digest_ends

ROW_FIELDS = tuple(field.name for field in dataclasses.fields(ClipRow))
SPOOL_BYTES = 16 << 20
"""Encoded clips of one source beyond this go to a temporary file."""
SECONDS_BETWEEN_SIGNS = 0.1
"""At least, between two signs of life of a reader: each is a message to another process."""


class FrameReader(Protocol):
    """What an opener returns: iterated once inside its `with` block, u8 [H, W, 3] frames of one size.

    Where it has an attribute `arrays`, they were logged beside the frames: a row for each that is yielded.
    """

    alive: Callable[[], None]
    """Set by the worker and called by the reader whenever it has decoded something, whether that is kept or not."""

    @property
    def output_fps(self) -> float:
        """Frames per second of what is yielded."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def __iter__(self) -> Iterator[Frames]: ...


Opener = Callable[[SourceVideo, ShardConfig], FrameReader]
"""Opens a source for reading; a module-level function, because workers unpickle it. It raises `VideoError`."""


def open_file(source: SourceVideo, config: ShardConfig) -> FrameReader:
    """The plain opener: `source.path` is a video file."""
    return open_video(source.path, config.decode)


class OutputError(OSError):
    """The output cannot be written (full, read-only, gone); `strerror` is one sentence."""


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life, counted from the start of the shard."""

    videos: int = 0
    """Sources finished; the next one is being worked on."""
    clips: int = 0
    frames: int = 0
    bytes: int = 0
    failures: int = 0
    """Skips, such as videos that are too short, are none."""

    def __add__(self, other: "Beat") -> "Beat":
        return Beat(
            self.videos + other.videos,
            self.clips + other.clips,
            self.frames + other.frames,
            self.bytes + other.bytes,
            self.failures + other.failures,
        )


@dataclass(frozen=True)
class ShardJob:
    """Everything a process needs to write one shard."""

    task: ShardTask
    config: ShardConfig
    root: Root
    """Of the output."""
    opener: Opener
    plan_hash: str
    quarantined: Mapping[str, Failure] = field(default_factory=dict)
    """Sources not to be touched, by id: they killed or hung a worker, or gave no clip when a shard that is mended was written."""

    def without(self, source: SourceVideo, failure: Failure) -> "ShardJob":
        """The same job with one more source quarantined."""
        return dataclasses.replace(self, quarantined={**self.quarantined, source.id: failure})


def make_jobs(
    tasks: Iterable[ShardTask],
    plan: Plan,
    *,
    root: Root,
    opener: Opener,
    left_out: Mapping[str, Failure] | None = None,
) -> list[ShardJob]:
    """The jobs of some of a plan's tasks; `left_out` are videos that are not to be touched, by id."""
    return [ShardJob(task, plan.config, root, opener, plan.hash, left_out or {}) for task in tasks]


@dataclass(frozen=True)
class ShardState:
    """The commit marker of a shard: what became of each of its sources."""

    plan_hash: str
    record: ShardRecord | None
    """None where no source gave a clip: then there is no tar."""
    rows: tuple[ClipRow, ...]
    failures: tuple[Failure, ...]
    sums: Sums = field(default_factory=dict)
    """Of the arrays beside the clips."""
    ends: Mapping[str, str] = field(default_factory=dict)
    """`recordings.digest_ends` by the id of each source that lies in a local file which does not grow, for `replaced`."""

    def to_json(self) -> bytes:
        """Compact json; rows and failures are arrays in the order of their fields."""
        return json.dumps(
            {
                "plan_hash": self.plan_hash,
                "record": None if self.record is None else dataclasses.astuple(self.record),
                "rows": [dataclasses.astuple(row) for row in self.rows],
                "failures": [dataclasses.astuple(failure) for failure in self.failures],
                "sums": {name: dataclasses.astuple(sums) for name, sums in self.sums.items()},
                "ends": dict(self.ends),
            }
        ).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read what `to_json` wrote."""
        values: dict[str, Any] = json.loads(data)
        return cls(
            plan_hash=values["plan_hash"],
            record=None if values["record"] is None else ShardRecord(*values["record"]),
            rows=tuple(
                make_row(dict(zip(ROW_FIELDS, row, strict=False))) for row in values["rows"]
            ),  # older: fewer
            failures=tuple(Failure(*failure) for failure in values["failures"]),
            sums={
                name: ColumnSums(rows, tuple(total), tuple(squares))
                for name, (rows, total, squares) in values["sums"].items()
            },
            ends=dict(values.get("ends", {})),
        )


def write_shard(job: ShardJob, report: Callable[[Beat], None]) -> ShardState:
    """Write the shard and its state file; calls `report` before each source and while one is decoded.

    Raises:
        OutputError: the output cannot be written.
    """
    home = job.root.home
    failures: list[Failure] = []
    ends: dict[str, str] = {}
    with output_errors(job.root), tempfile.TemporaryDirectory(prefix="cwm-dataprep-") as scratch:
        path = (Path(scratch) if home is None else home) / job.task.file
        writer = ShardWriter(path, codec=job.config.codec)
        try:
            _write_sources(job, writer, failures, ends, report)
        except BaseException:
            writer.abort()
            raise
        if writer.rows:
            writer.close()
        else:
            writer.abort()
        if home is None and writer.record is not None:
            job.root.upload(job.task.file, path)
        state = ShardState(
            job.plan_hash, writer.record, tuple(writer.rows), tuple(failures), writer.sums, ends
        )
        job.root.write(job.task.state_file, state.to_json())
    return state


def remove_leftovers(root: Root, tasks: Sequence[ShardTask]) -> None:
    """Remove the temporary files that killed workers left of these shards below a local root."""
    home = root.home
    files = [Path(file) for task in tasks for file in (task.file, task.state_file)]
    if home is None:
        return
    names = {file.name for file in files}
    for folder in {home / file.parent for file in files}:
        for path in folder.glob(".tmp-*"):
            if path.name.removeprefix(".tmp-").rpartition(".")[0] in names:
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def output_errors(root: Root) -> Iterator[None]:
    """What the operating system says of the output ends the run with a sentence."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(error.errno, f"cannot write to {root}: {error.strerror or error}") from error


def _write_sources(
    job: ShardJob,
    writer: ShardWriter,
    failures: list[Failure],
    ends: dict[str, str],
    report: Callable[[Beat], None],
) -> None:
    beat = Beat()
    report(beat)
    for source in job.task.sources:
        with _Spool() as spool:
            failure = job.quarantined.get(source.id)
            if failure is None:
                failure = _spool_source(source, job, spool, functools.partial(report, beat))
            if failure is None:
                _add_source(source, spool, writer)
                # A length says that the file may be shared, and grow: see `extent`.
                if "length" not in dict(source.options):
                    with contextlib.suppress(OSError):  # it is no local one
                        ends[source.id] = digest_ends(source.path, *stretch(source))
            else:
                failures.append(failure)
        written = writer.rows[beat.clips :]
        beat += Beat(
            videos=1,
            clips=len(written),
            frames=sum(row.num_frames for row in written),
            bytes=sum(row.size for row in written),
            failures=int(failure is not None and failure.reason not in SKIPS),
        )
        report(beat)


def _spool_source(
    source: SourceVideo, job: ShardJob, spool: "_Spool", alive: Callable[[], None]
) -> Failure | None:
    try:
        with source_errors(), job.opener(source, job.config) as reader:
            reader.alive = _at_most_every(SECONDS_BETWEEN_SIGNS, alive)
            spool.arrays = getattr(reader, "arrays", None)
            lacks = [name for name in job.config.source.get("arrays", ()) if name not in (spool.arrays or ())]
            if lacks:
                what = f"no {' and no '.join(lacks)} beside the frames, which the plan promises"
                raise VideoError("bad_rows", what)
            for start, frames in cut_pieces(reader, job.config):
                cutter = None if job.config.keep_cuts else find_cuts
                clip = EncodedClip.encode(
                    frames, codec=job.config.codec, fps=reader.output_fps, find_cuts=cutter
                )
                spool.append(start, clip)
                alive()
    except VideoError as error:
        return Failure(source.source_path, error.reason, error.detail)
    if not spool.clips:
        return Failure(source.source_path, "zero_frames", "no frame was kept")
    for name, values in (spool.arrays or {}).items():
        if len(values) != spool.frames:
            detail = f"{spool.frames} frames and {len(values)} rows of {name}"
            return Failure(source.source_path, "wrong_length", detail)
    return None


def _at_most_every(seconds: float, action: Callable[[], None]) -> Callable[[], None]:
    """`action`, but calls that come sooner after the last one do nothing."""
    last = time.monotonic()

    def act() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= seconds:
            last = now
            action()

    return act


def cut_pieces(frames: Iterable[Frames], config: ShardConfig) -> Iterator[tuple[int, Frames]]:
    """(first frame, u8 [n, H, W, 3]) with n at most `max_clip_frames`; successive pieces share `overlap_frames`.

    One buffer holds every piece in turn: use a piece before asking for the next.
    """
    limit, overlap = config.max_clip_frames, config.overlap_frames
    buffer: Frames | None = None
    start = count = 0
    for frame in frames:
        if buffer is None:
            buffer = _piece_buffer(limit, *frame.shape)
        if count == limit:
            yield start, buffer
            buffer[:overlap] = buffer[limit - overlap :]
            start, count = start + limit - overlap, overlap
        buffer[count] = frame
        count += 1
    if buffer is not None:
        yield start, buffer[:count]


@functools.lru_cache(maxsize=1)
def _piece_buffer(*shape: int) -> Frames:
    """Room for a piece: a process cuts one video at a time, and new memory for each would cost a page fault for every 4 kB."""
    return np.empty(shape, np.uint8)


def _add_source(source: SourceVideo, spool: "_Spool", writer: ShardWriter) -> None:
    cuts = join_cuts([(start, clip.num_frames, clip.cuts) for start, clip in spool.clips])
    for number, (start, clip) in enumerate(spool):
        mine = tuple(cut - start for cut in cuts if start < cut < start + clip.num_frames)
        rows = slice(start, start + clip.num_frames)
        writer.add(
            dataclasses.replace(clip, cuts=mine),
            key=source.id if len(spool.clips) == 1 else f"{source.id}_c{number:03d}",
            split=source.split,
            source=source.id,
            source_path=source.source_path,
            source_frames=spool.frames,
            start_frame=start,
            label=source.label,
            label_text=source.label_text,
            camera=source.camera,
            recording=source.recording,
            arrays=None if spool.arrays is None else {k: v[rows] for k, v in spool.arrays.items()},
        )


def join_cuts(pieces: Sequence[tuple[int, int, tuple[int, ...]]]) -> list[int]:
    """Cuts of a whole video from those of its pieces (start, frames, cuts inside), in order.

    A cut is seen by what is around it: of two pieces that overlap, each is believed on its own side of the middle.
    """
    middles = [(start + count + following) // 2 for (start, count, _), (following, *_) in pairwise(pieces)]
    ends = [*middles, pieces[-1][0] + pieces[-1][1]]
    return [
        start + cut
        for (start, _, cuts), low, high in zip(pieces, [0, *middles], ends, strict=True)
        for cut in cuts
        if low <= start + cut < high
    ]


class _Spool:
    """Encoded clips of one source in order; their payloads beyond `SPOOL_BYTES` wait on disk."""

    def __init__(self) -> None:
        self.clips: list[tuple[int, EncodedClip]] = []
        """(start frame, clip without its payload)."""
        self.arrays: Arrays | None = None
        """Beside the frames of the whole source; None where nothing was logged."""
        self._sizes: list[int] = []
        self._file = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115  (closed by __exit__)

    @property
    def frames(self) -> int:
        """Of the source, so far."""
        start, last = self.clips[-1]
        return start + last.num_frames

    def append(self, start: int, clip: EncodedClip) -> None:
        try:
            self._file.write(clip.payload)
        except OSError as error:
            raise OutputError(
                error.errno, f"cannot write to {tempfile.gettempdir()}: {error.strerror}"
            ) from error
        self._sizes.append(len(clip.payload))
        self.clips.append((start, dataclasses.replace(clip, payload=b"")))

    def __iter__(self) -> Iterator[tuple[int, EncodedClip]]:
        self._file.seek(0)
        for (start, clip), size in zip(self.clips, self._sizes, strict=True):
            yield start, dataclasses.replace(clip, payload=self._file.read(size))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@contextlib.contextmanager
def source_errors() -> Iterator[None]:
    """What the operating system says of the source, and no decoder has put into words, is `unreadable`."""
    try:
        yield
    except (VideoError, OutputError):
        raise
    except OSError as error:
        raise VideoError("unreadable", error.strerror or str(error)) from error
