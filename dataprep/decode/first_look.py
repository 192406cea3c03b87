"""What of a file can be known without a decoder, which may crash: that it surely gives no clip.

For the choice of what is held out, so that one damaged file of three is not it. A file that passes may still fail.
"""

from pathlib import Path
from typing import BinaryIO

from dataprep.decode.sample_entry import find_boxes
from dataprep.decode.video_file import is_text

WAY_TO_SIZES = ("mdia", "minf", "stbl", "stsz")
HEAD_BYTES = 4096
OTHERS = (
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"PK\x03\x04",
    b"%PDF",
    b"\x00\x05\x16\x07",
    b"\x00\x05\x16\x00",
    bytes(64),
)
"""How pictures, archives, documents, companions of macOS and holes begin."""


def is_surely_unusable(file: Path, *, min_frames: int) -> bool:
    """Whether a file is empty, begins as something else, or is an mp4 without its index or with fewer frames than that."""
    try:
        with file.open("rb") as handle:
            head = handle.read(HEAD_BYTES)
            if not head or head.startswith(OTHERS) or is_text(head):
                return True
            if head[4:8] != b"ftyp":
                return False
            size = file.stat().st_size
            fragments = any(find_boxes(handle, 0, size, "moof"))
            counts = [
                _frames(handle, start, stop)
                for _, moov, end in find_boxes(handle, 0, size, "moov")
                for _, start, stop in find_boxes(handle, moov, end, "trak")
            ]
    except OSError:
        return True
    return not fragments and max(counts, default=0) < min_frames


def _frames(handle: BinaryIO, start: int, stop: int) -> int:
    """Pictures of a track, 0 of one that has none."""
    _, mdia, end = next(find_boxes(handle, start, stop, "mdia"), ("", 0, 0))
    _, kind, _ = next(find_boxes(handle, mdia, end, "hdlr"), ("", 0, 0))
    handle.seek(kind + 8)
    if not end or handle.read(4) != b"vide":
        return 0
    for name in WAY_TO_SIZES:
        _, start, stop = next(find_boxes(handle, start, stop, name), ("", 0, 0))
    handle.seek(start + 8)
    return int.from_bytes(handle.read(4)) if stop else 0
