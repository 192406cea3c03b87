"""What is measured of a clip's frames before they are encoded: columns of the index, for filters and statistics.

motion   mean absolute difference of successive frames
luma     mean pixel
frozen   share of the frames that repeat the one before, in stretches of at least `FROZEN_SECONDS`; doubled frames of a
         slower video are shorter, so a share that is not 0 says that the picture stood
black    share of the frames without a cell brighter than `BLACK`: a night with one lamp is not black
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cwm_hub.shards.cells import frame_cells
from cwm_hub.shards.codecs import Frames

MEASURES_VERSION = "1"
"""Raised where the same frames would be measured otherwise; stands in the manifest's `versions`."""

FROZEN_CHANGE = 0.03
"""Mean absolute difference, 0-255 units, up to which a frame repeats the one before: what a re-encoded repetition has."""
FROZEN_SECONDS = 1 / 3

BLACK = 24.0
"""Mean of a cell, 0-255 units."""


class Measures(NamedTuple):
    """As the fields of `ClipRow` say, rounded to four digits."""

    motion: float
    luma: float
    frozen: float
    black: float


def measure_clip(frames: Frames, fps: float) -> Measures:
    """Measure u8 frames [T, H, W, 3] at `fps` frames a second."""
    change = np.maximum(frames[1:], frames[:-1])
    change -= np.minimum(frames[1:], frames[:-1])
    changes = _frame_sums(change)
    return Measures(
        motion=round(int(changes.sum()) / max(1, change.size), 4),
        luma=round(int(_frame_sums(frames).sum()) / frames.size, 4),
        frozen=round(_frozen_share(changes / frames[0].size <= FROZEN_CHANGE, fps), 4),
        black=round(float((frame_cells(frames).max(axis=(1, 2)) < BLACK).mean()), 4),
    )


def _frame_sums(frames: Frames) -> NDArray[np.uint64]:
    """Sum of each frame; 32-bit sums a row are exact, and a third of the time of floats."""
    return frames.sum(axis=(2, 3), dtype=np.uint32).sum(axis=1, dtype=np.uint64)


def _frozen_share(repeats: NDArray[np.bool_], fps: float) -> float:
    """Of frames 1, 2, ..., given which of them repeat the one before."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], repeats, [False]])))
    lengths = edges[1::2] - edges[::2]
    return float(lengths[lengths >= fps * FROZEN_SECONDS].sum() / max(1, len(repeats)))
