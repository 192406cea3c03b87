"""Writes the tars of a shard set: clips and their facts in, bytes that depend on nothing else out."""

import contextlib
import hashlib
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from cwm_hub.shards.arrays import (
    EXTENSION,
    OF_A_STEP,
    Arrays,
    ColumnSums,
    Sums,
    add_sums,
    decode_arrays,
    encode_arrays,
)
from cwm_hub.shards.cells import Cells, frame_cells
from cwm_hub.shards.codecs import CODECS, EXTENSIONS, Frames, ShardError, encode_clip
from cwm_hub.shards.index import ClipRow
from cwm_hub.shards.manifest import ShardRecord
from cwm_hub.shards.measures import Measures, measure_clip
from cwm_hub.shards.storage import fsync, sync, temporary_name

KEY = re.compile(r"[a-z0-9_-]{1,90}")
"""A sample's key: no dots (readers cut the name at the first one) and short enough for a plain ustar header."""


@dataclass(frozen=True, slots=True)
class EncodedClip:
    """A clip as it goes into a tar: payload bytes and what is known of the frames before they were encoded."""

    payload: bytes
    codec: str
    fps: float
    num_frames: int
    width: int
    height: int
    measures: Measures
    cuts: tuple[int, ...] = ()

    @classmethod
    def encode(
        cls,
        frames: Frames,
        *,
        codec: str,
        fps: float,
        find_cuts: Callable[[Cells, float], tuple[int, ...]] | None = None,
    ) -> Self:
        """Encode uint8 RGB frames [T, H, W, 3] as `encode_clip` does and measure them.

        Args:
            frames: of one video.
            codec: one of `CODECS`.
            fps: frames per second.
            find_cuts: tells from cells and rate which frames begin a new shot; None: the clip is one shot.
        """
        payload = encode_clip(frames, codec, fps)
        cells = frame_cells(frames)
        cuts = find_cuts(cells, fps) if find_cuts else ()
        measures = measure_clip(frames, fps, cuts, cells=cells)
        count, height, width, _ = frames.shape
        return cls(payload, codec, round(float(fps), 6), count, width, height, measures, cuts)


class ShardWriter:
    """Writes one tar; it appears under its name only when complete, and `rows` then locate every clip in it.

    Use it as a context manager; leaving it by an exception removes what was written. The bytes depend on nothing but
    the clips and their order.

        with ShardWriter(root / shard_name("train", 0, 1), codec="h264") as writer:
            clip = EncodedClip.encode(frames, codec="h264", fps=10)
            writer.add(clip, key="reach_000", split="train", source="reach_000")
        writer.record, writer.rows
    """

    def __init__(self, path: str | Path, *, codec: str = "h264", name: str | None = None) -> None:
        """Open a temporary file beside `path`.

        Args:
            path: local path of the tar.
            codec: of every clip added, one of `CODECS`.
            name: how rows and record call the file; default: its last two parts, `data/FILE`.

        Raises:
            ShardError: unknown codec.
        """
        if codec not in CODECS:
            raise ShardError(f"unknown codec {codec!r}, expected one of {', '.join(CODECS)}")
        self.path = Path(path)
        self.codec = codec
        self.name = name if name is not None else "/".join(self.path.parts[-2:])
        self.rows: list[ClipRow] = []
        self.record: ShardRecord | None = None
        self.sums: Sums = {}
        """Of the arrays beside the clips, every frame of a source once."""
        self._counted: dict[str, int] = {}
        self._keys: set[str] = set()
        self._sha256 = hashlib.sha256()
        self._bytes = 0
        self._temporary = temporary_name(self.path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._temporary.open("wb")

    def add(
        self,
        clip: EncodedClip,
        *,
        key: str,
        split: str,
        source: str,
        source_path: str = "",
        source_frames: int | None = None,
        start_frame: int = 0,
        label: int = -1,
        label_text: str = "",
        camera: str = "",
        recording: str = "",
        arrays: Arrays | None = None,
    ) -> ClipRow:
        """Append a clip that was encoded with this writer's codec; the fields are those of `ClipRow`.

        `arrays` holds a row for each of its frames (see `arrays`); clips of one shard all have the same ones, or none.

        Raises:
            ShardError: as `append`.
        """
        row = ClipRow(
            key=key,
            split=split,
            shard="",
            offset=0,
            size=0,
            num_frames=clip.num_frames,
            fps=clip.fps,
            start_frame=start_frame,
            source=source,
            source_path=source_path,
            source_frames=clip.num_frames if source_frames is None else source_frames,
            label=label,
            label_text=label_text,
            width=clip.width,
            height=clip.height,
            codec=clip.codec,
            cuts=clip.cuts,
            **clip.measures._asdict(),
            camera=camera,
            recording=recording,
        )
        return self.append(row, clip.payload, b"" if arrays is None else encode_arrays(arrays))

    def append(self, row: ClipRow, payload: bytes, arrays: bytes = b"") -> ClipRow:
        """Append a clip as it stood in another shard; returns its row, which tells its place in this one.

        Raises:
            ShardError: the key is malformed or was used before in this shard, the codec differs, or the arrays do not fit
                the frames or the clips before.
        """
        if not KEY.fullmatch(row.key):
            raise ShardError(f"sample key {row.key!r} is not 1 to 90 of [a-z0-9_-]")
        if row.key in self._keys:
            raise ShardError(f"sample key {row.key!r} occurs twice in {self.name}")
        if row.codec != self.codec:
            raise ShardError(f"a {row.codec} clip cannot go into a {self.codec} shard")
        row = self._count_arrays(row, arrays)
        row = replace(row, shard=self.name, offset=self._bytes + tarfile.BLOCKSIZE, size=len(payload))
        self._add_member(f"{row.key}.{EXTENSIONS[row.codec]}", payload)
        if arrays:
            row = replace(row, arrays_offset=self._bytes + tarfile.BLOCKSIZE)
            self._add_member(f"{row.key}.{EXTENSION}", arrays)
        self._add_member(f"{row.key}.json", row.sample_json())
        self._keys.add(row.key)
        self.rows.append(row)
        return row

    def _count_arrays(self, row: ClipRow, data: bytes) -> ClipRow:
        """Check a clip's arrays and add them to the sums; the row as it names them."""
        arrays = decode_arrays(data) if data else {}
        row = replace(row, arrays=" ".join(arrays), arrays_offset=0, arrays_size=len(data))
        if self.rows and row.arrays != self.rows[0].arrays:
            others, mine = self.rows[0].arrays or "no arrays", row.arrays or "no arrays"
            raise ShardError(f"clip {row.key} has {mine} where the clips before it have {others}")
        for name, values in arrays.items():
            if len(values) != row.num_frames:
                raise ShardError(
                    f"clip {row.key} has {row.num_frames} frames and {len(values)} rows of {name}"
                )
        counted = max(self._counted.get(row.source, 0) - row.start_frame, 0)
        self._counted[row.source] = row.start_frame + row.num_frames
        part = {
            name: ColumnSums.of(values[counted or int(row.start_frame == 0 and name in OF_A_STEP) :])
            for name, values in arrays.items()
        }
        self.sums = add_sums([self.sums, part])
        return row

    def _add_member(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)  # mtime 0, uid 0, no owner
        member.size = len(data)
        self._write(member.tobuf(tarfile.USTAR_FORMAT))
        self._write(data)
        self._write(bytes(-len(data) % tarfile.BLOCKSIZE))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._sha256.update(data)
        self._bytes += len(data)

    def close(self) -> ShardRecord:
        """Finish the tar: two end blocks, fsync, rename; returns its record."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._file.flush()
        fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self.path)
        sync(self.path.parent)
        self.record = ShardRecord(
            file=self.name,
            samples=len(self.rows),
            frames=sum(row.num_frames for row in self.rows),
            bytes=self._bytes,
            sha256=self._sha256.hexdigest(),
        )
        return self.record

    def abort(self) -> None:
        """Drop what was written; the final name is not touched."""
        with contextlib.suppress(OSError):  # a full disk fails again on close
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
            return
        try:
            self.close()
        except OSError:
            self.abort()
            raise
