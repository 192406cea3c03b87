"""What only a file's header says of its pictures: Dolby Vision, and the `colr` box of an mp4's sample entry.

FFmpeg reads both and hands on part of it. Only headers of boxes are read, inside the bounds of the box around them, so a
damaged file costs nothing and proves nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

WAY_TO_ENTRIES = ("mdia", "minf", "stbl", "stsd")
VISUAL_ENTRY_BYTES = 78  # of fields between a sample entry's header and its boxes
DOLBY_ENTRIES = ("dvh1", "dvhe", "dva1", "dvav", "dav1")
DOLBY_BOXES = ("dvcC", "dvvC", "dvwC")
MOST_BOXES = 10_000
MATROSKA_HEAD_BYTES = 1 << 16


class SampleEntry(NamedTuple):
    """Of one video track; every field may be unsaid."""

    dolby_vision_alone: bool = False
    """Dolby Vision whose base layer means nothing to other decoders: profile 5, or a name that only Dolby's know."""
    primaries: int = 2
    """This and the next two are of ITU-T H.273, where 2 is unspecified."""
    transfer: int = 2
    matrix: int = 2


def read_sample_entry(file: Path, *, track: int, container: str) -> SampleEntry:
    """What the header says of track number `track` (its id, which is FFmpeg's id of the stream)."""
    with file.open("rb") as handle:
        if "matroska" in container:
            return SampleEntry(dolby_vision_alone=_matroska_dolby_vision(handle.read(MATROSKA_HEAD_BYTES)))
        if "mov" in container:
            return _mp4_entry(handle, track, file.stat().st_size)
    return SampleEntry()


def _mp4_entry(handle: BinaryIO, track: int, end: int) -> SampleEntry:
    for _, moov, moov_end in find_boxes(handle, 0, end, "moov"):
        for _, start, stop in find_boxes(handle, moov, moov_end, "trak"):
            if _track_id(handle, start, stop) != track:
                continue
            for name in WAY_TO_ENTRIES:
                _, start, stop = next(find_boxes(handle, start, stop, name), ("", 0, 0))
            for name, entry, entry_end in find_boxes(handle, start + 8, stop):
                return _visual_entry(handle, name, entry + VISUAL_ENTRY_BYTES, entry_end)
    return SampleEntry()


def _track_id(handle: BinaryIO, start: int, stop: int) -> int:
    for _, header, _ in find_boxes(handle, start, stop, "tkhd"):
        data = _read(handle, header, 24)
        if len(data) == 24:
            return int.from_bytes(data[20:24] if data[0] == 1 else data[12:16])
    return -1


def _visual_entry(handle: BinaryIO, name: str, start: int, stop: int) -> SampleEntry:
    alone = name in DOLBY_ENTRIES
    colour = (2, 2, 2)
    for box, first, _ in find_boxes(handle, start, stop):
        data = _read(handle, first, 10)
        if box in DOLBY_BOXES and len(data) >= 5:
            alone = _has_no_base(data)
        elif box == "colr" and data[:4] in (b"nclx", b"nclc") and len(data) == 10:
            colour = struct.unpack(">3H", data[4:])
    return SampleEntry(alone, *colour)


def _has_no_base(configuration: bytes) -> bool:
    """Of a Dolby Vision configuration record: profile 5, or no signal that other decoders can show (from profile 8 on)."""
    profile, compatibility = configuration[2] >> 1, configuration[4] >> 4
    return profile == 5 or (profile >= 8 and compatibility == 0)


def _matroska_dolby_vision(head: bytes) -> bool:
    """BlockAddIDType `dvcC` or `dvvC`, and the record in BlockAddIDExtraData after it."""
    for name in (b"dvcC", b"dvvC"):
        kind = head.find(b"\x41\xe7\x84" + name)
        data = head.find(b"\x41\xed", kind, kind + 64)
        if kind >= 0 and data >= 0:
            return _has_no_base(head[data + 3 : data + 8].ljust(5, b"\0"))
    return False


def find_boxes(
    handle: BinaryIO, start: int, end: int, wanted: str | None = None
) -> Iterator[tuple[str, int, int]]:
    """(name, start of the content, end) of the boxes, or those of one name, that lie between two offsets."""
    for _ in range(MOST_BOXES):
        header = _read(handle, start, 16) if start + 8 <= end else b""
        if len(header) < 8:
            return
        size, name, content = int.from_bytes(header[:4]), header[4:8].decode("latin-1"), start + 8
        if size == 1 and len(header) == 16:
            size, content = int.from_bytes(header[8:]), start + 16
        stop = end if size == 0 else start + size
        if stop < content or stop > end:
            return
        if wanted in (None, name):
            yield name, content, stop
        start = stop


def _read(handle: BinaryIO, offset: int, size: int) -> bytes:
    handle.seek(offset)
    return handle.read(size)
