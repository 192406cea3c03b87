"""How a decoded frame must be turned and mirrored to stand upright: the whole of a display matrix, not only its angle.

A display matrix sends the stored point (x, y) to (a x + c y, b x + d y), x to the right and y down. Cameras write only
the eight ways in which a rectangle lands on itself; any other is taken for the nearest of them, because a tilt is part
of the picture.

The container's matrix comes with every frame. One from the bitstream (SEI) comes with one frame and holds until the next
one comes. (By ITU-T H.264, D.2.27, a coded sequence would have to repeat it; FFmpeg writes it before the first key frame
only.) Where a frame has both, the container's counts.
"""

from __future__ import annotations

import math
import struct
from typing import Any, NamedTuple

from av.sidedata.sidedata import SideDataContainer, Type
from av.video.frame import VideoFrame


class Orientation(NamedTuple):
    """What brings a frame upright: first the mirror, then the turn."""

    mirrored: bool = False
    """Left and right are exchanged."""
    rotation: int = 0
    """Degrees counter-clockwise: 0, 90, 180 or 270."""


UPRIGHT = Orientation()

FILTERS: dict[Orientation, list[tuple[str, str | None]]] = {
    Orientation(False, 0): [],
    Orientation(False, 90): [("transpose", "cclock")],
    Orientation(False, 180): [("hflip", None), ("vflip", None)],
    Orientation(False, 270): [("transpose", "clock")],
    Orientation(True, 0): [("hflip", None)],
    Orientation(True, 90): [("hflip", None), ("transpose", "cclock")],
    Orientation(True, 180): [("vflip", None)],
    Orientation(True, 270): [("hflip", None), ("transpose", "clock")],
}
"""FFmpeg's filters for each."""


def orientation_of(frame: VideoFrame, held: Orientation | None) -> Orientation:
    """The orientation of a frame, where the one decoded before it had `held` (None: it is the first)."""
    if held is None or frame.key_frame or frame.rotation:  # looking costs 10 us
        # Not `frame.side_data`: the frame would keep it and it the frame, until the garbage collector finds the two.
        found: Any = SideDataContainer(frame)  # type: ignore[call-arg]
        for data in found:
            if data.type is Type.DISPLAYMATRIX:
                return read_matrix(bytes(data))
    return held or UPRIGHT


def read_matrix(data: bytes) -> Orientation:
    """The nearest orientation to FFmpeg's display matrix: nine native 32-bit integers, row by row.

    >>> read_matrix(struct.pack("9i", -65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30))
    Orientation(mirrored=True, rotation=0)
    """
    a, b, _, c, d, *_ = struct.unpack("9i", data[:36])
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    # Now a turn: (a, b) is where the stored x axis points, y down.
    degrees = math.degrees(math.atan2(c - b, a + d))
    return Orientation(mirrored, round(degrees / 90) * 90 % 360)
