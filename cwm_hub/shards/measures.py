"""What is measured of a clip's frames before they are encoded: columns of the index, for filters and statistics.

    motion   mean absolute difference of successive frames: a noisy still camera has more of it than a thin robot arm
    luma     mean pixel
    frozen   share of the frames that repeat the one before, in stretches of at least `FROZEN_SECONDS`
    black    share of the frames without a cell brighter than `BLACK`
    moving   share of the picture that moves, beyond its noise and per second (see `moving`)

The doubled frames of a slower video are stretches too short to count as frozen; a night with one lamp is not black.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cwm_hub.shards.cells import Cells, frame_cells
from cwm_hub.shards.codecs import Frames
from cwm_hub.shards.moving import moving_share

MEASURES_VERSION = "2"
"""Raised where the same frames would be measured otherwise; stands in the manifest's `versions`."""

FROZEN_CHANGE = 0.03
"""Mean absolute difference, 0-255 units, up to which a frame repeats the one before: what a re-encoded repetition has."""
FROZEN_SECONDS = 1 / 3

FRAMES_AT_ONCE = 8

BLACK = 24.0
"""Mean of a cell, 0-255 units."""


class Measures(NamedTuple):
    """As the fields of `ClipRow` say, rounded to four digits."""

    motion: float
    luma: float
    frozen: float
    black: float
    moving: float


def measure_clip(
    frames: Frames, fps: float, cuts: Sequence[int] = (), *, cells: Cells | None = None
) -> Measures:
    """Measure u8 frames [T, H, W, 3] at `fps` frames a second; `cuts` begin new shots, and are no motion.

    `cells` are those of the frames, where the caller has them already.
    """
    cells = frame_cells(frames) if cells is None else cells
    changes, values = _changes(frames), frames[0].size
    return Measures(
        motion=round(int(changes.sum()) / max(1, len(changes) * values), 4),
        luma=round(int(_sums(frames.reshape(len(frames), -1)).sum()) / frames.size, 4),
        frozen=round(_frozen_share(changes <= FROZEN_CHANGE * values, fps), 4),
        black=round(float((cells.max(axis=(1, 2)) < BLACK).mean()), 4),
        moving=round(moving_share(cells, fps, cuts), 4),
    )


def _changes(frames: Frames) -> NDArray[np.uint64]:
    """Sum of absolute differences of frames 1, 2, ... from the one before each; a few at a time stay in the cache."""
    flat = frames.reshape(len(frames), -1)
    changes = np.empty(len(frames) - 1, np.uint64)
    for start in range(0, len(changes), FRAMES_AT_ONCE):
        later = flat[start + 1 : start + 1 + FRAMES_AT_ONCE]
        earlier = flat[start : start + len(later)]
        change = np.maximum(later, earlier)
        change -= np.minimum(later, earlier)
        changes[start : start + len(later)] = _sums(change)
    return changes


def _sums(rows: NDArray[np.uint8]) -> NDArray[np.unsignedinteger]:
    """Of each row; 32-bit ones are exact below 2^24 values, and a third of the time of floats."""
    return rows.sum(axis=1, dtype=np.uint32 if rows.shape[1] < 1 << 24 else np.uint64).astype(np.uint64)


def _frozen_share(repeats: NDArray[np.bool_], fps: float) -> float:
    """Of frames 1, 2, ..., given which of them repeat the one before."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], repeats, [False]])))
    lengths = edges[1::2] - edges[::2]
    return float(lengths[lengths >= fps * FROZEN_SECONDS].sum() / max(1, len(repeats)))
