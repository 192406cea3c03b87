"""What colour a frame's numbers mean: its own tags, and where it has none the container's.

A decoder tells what the bitstream says; that of an editor's or a phone's file is often silent, and the container speaks
(`colr` in mp4, `Colour` in Matroska). FFmpeg puts the container's word into the codec context when it opens a file, and
the first decoded frame may wipe it out there: so it is read before.

What nobody tags is decoded as FFmpeg does: BT.601 limited range, whatever the size. For HD, which mostly is BT.709, that
makes greens and reds a few levels too strong or weak; a guess by size would differ from the paper's frames.
"""

from __future__ import annotations

from typing import NamedTuple

from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from dataprep.decode.sample_entry import SampleEntry

UNSAID = (0, 2, 3)
"""Of ITU-T H.273's primaries and transfers: reserved, unspecified, reserved."""
UNSAID_MATRIX = (2, 3)
"""Of its matrices, where 0 is RGB."""


class ContainerColour(NamedTuple):
    """The container's word on colour; numbers of ITU-T H.273, and FFmpeg's of the range (0 is unsaid)."""

    primaries: int
    transfer: int
    matrix: int
    range: int

    @classmethod
    def read(cls, codec: VideoCodecContext, entry: SampleEntry) -> ContainerColour:
        """From a codec context that has decoded nothing yet, and the sample entry."""
        return cls(
            entry.primaries if codec.color_primaries in UNSAID else codec.color_primaries,
            entry.transfer if codec.color_trc in UNSAID else codec.color_trc,
            entry.matrix if codec.colorspace in UNSAID_MATRIX else codec.colorspace,
            codec.color_range,
        )

    def complete(self, frame: VideoFrame) -> None:
        """Write into a frame what it does not say itself."""
        if frame.color_primaries in UNSAID:
            frame.color_primaries = self.primaries
        if frame.color_trc in UNSAID:
            frame.color_trc = self.transfer
        if frame.colorspace in UNSAID_MATRIX and self.matrix != 0:
            frame.colorspace = self.matrix
        if frame.color_range == 0:
            frame.color_range = self.range
