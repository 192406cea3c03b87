"""The directory of a very large zip, entry by entry: `zipfile` would hold an object for each of its 8.6 million files.

Format: PKWARE APPNOTE 6.3, sections 4.3.12 (central directory), 4.3.14 to 4.3.16 (ends, zip64).
"""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

END = struct.Struct("<4s4H2LH")
END64_LOCATOR = struct.Struct("<4sLQL")
END64 = struct.Struct("<4sQ2H2L4Q")
ENTRY = struct.Struct("<4s6H3L5H2L")
MASK16, MASK32 = 0xFFFF, 0xFFFFFFFF
ZIP64_FIELD = 1


class ZipEntry(NamedTuple):
    """Where one packed file lies."""

    name: str
    offset: int
    """Of its local header."""
    packed_bytes: int
    method: int
    """0 stored, 8 deflated."""


def read_directory(path: Path) -> Iterator[ZipEntry]:
    """Every entry in the order of the directory; nothing but the directory is read.

    Raises:
        ValueError: no zip, a damaged or cut one, encrypted, or one of several disks.
    """
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise ValueError("empty file") from error
        with data:
            try:
                yield from _entries(data)
            except (struct.error, IndexError) as error:
                raise ValueError("its directory is damaged") from error


def _entries(data: mmap.mmap) -> Iterator[ZipEntry]:
    position, count = _locate(data)
    for _ in range(count):
        fields = ENTRY.unpack_from(data, position)
        magic, flags, method = fields[0], fields[3], fields[4]
        packed, unpacked = fields[8], fields[9]
        name_length, extra_length, comment_length, offset = *fields[10:13], fields[16]
        if magic != b"PK\x01\x02":
            raise ValueError("its directory is damaged")
        if flags & 1:
            raise ValueError("it is encrypted")
        start = position + ENTRY.size
        name = data[start : start + name_length].decode("utf-8", "replace")
        extra = data[start + name_length : start + name_length + extra_length]
        packed, offset = _zip64(extra, unpacked, packed, offset)
        yield ZipEntry(name, offset, packed, method)
        position = start + name_length + extra_length + comment_length


def _locate(data: mmap.mmap) -> tuple[int, int]:
    """(offset of the directory, number of entries)."""
    end = data.rfind(b"PK\x05\x06", max(0, len(data) - END.size - MASK16))
    if end < 0:
        raise ValueError("not a zip, or its end is cut off")
    _, disk, _, _, count, _, offset, _ = END.unpack_from(data, end)
    if disk not in (0, MASK16):
        raise ValueError("it is one of several disks: join them first")
    locator = end - END64_LOCATOR.size
    if locator >= 0 and data[locator : locator + 4] == b"PK\x06\x07":
        _, _, end64, _ = END64_LOCATOR.unpack_from(data, locator)
        fields = END64.unpack_from(data, end64)
        count, offset = fields[7], fields[9]
    return offset, count


def _zip64(extra: bytes, unpacked: int, packed: int, offset: int) -> tuple[int, int]:
    """(packed bytes, offset), from the extra field where they do not fit in 32 bits."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        if kind == ZIP64_FIELD:
            place = position + 4 + (8 if unpacked == MASK32 else 0)
            if packed == MASK32:
                (packed,) = struct.unpack_from("<Q", extra, place)
                place += 8
            if offset == MASK32:
                (offset,) = struct.unpack_from("<Q", extra, place)
            break
        position += 4 + length
    return packed, offset
