"""Hard cuts between the shots of a video: where the picture changes at once, and not as it has been changing.

    distance of a frame from the one before it    half the mean squared difference of their normalised cells: 0 for the same
                                                  picture, about 1 for two that have nothing to do with each other
    a cut                                         a distance above `LEAST`, and `OUTSTANDING` times as large as every other one
                                                  within `AROUND_SECONDS`, of which `SPREAD` of all cells have a part

Normalised, a picture has the mean 0 and the deviation 1, so that fades, flicker and exposure change nothing. A flash ends as
suddenly as it begins, a pan changes as much in the next frame: neither stands out. A thing that jumps before a still
background (robots at 10 frames a second) changes few cells. Dissolves and wipes are not found.
Measured in docs/motion.md.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from cwm_hub.shards.cells import Cells, normalise

LEAST = 0.12
OUTSTANDING = 3.0
SPREAD, CHANGED = 0.2, 0.25
"""Share of the cells that change by so many deviations. Joins of real clips: 0.29 at least; jumping things: 0.09 at most."""
AROUND_SECONDS, AROUND_FRAMES = 0.2, 3
"""The larger of the two counts, so that a flash is not taken for two cuts; shots that are shorter are not found."""


def find_cuts(cells: Cells, fps: float) -> tuple[int, ...]:
    """Numbers of the frames that begin a new shot, ascending; frame 0 is none.

    Args:
        cells: of its frames, [T, rows, columns].
        fps: frames per second.
    """
    if len(cells) < 2:
        return ()
    distance, spread = _changes(cells)
    around = max(AROUND_FRAMES, round(fps * AROUND_SECONDS))
    padded = np.pad(distance, around)
    before = sliding_window_view(padded, around)[: len(distance)].max(axis=1)
    after = sliding_window_view(padded, around)[around + 1 :].max(axis=1)
    found = (distance > LEAST) & (spread > SPREAD) & (distance > OUTSTANDING * np.maximum(before, after))
    return tuple((np.flatnonzero(found) + 1).tolist())


def _changes(cells: Cells) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """(distance, share of the cells that changed) of frames 1, 2, ... from the one before each, both [T - 1]."""
    pictures, _ = normalise(cells)
    change = np.diff(pictures, axis=0)
    distance = np.einsum("tc,tc->t", change, change) / (2 * change.shape[1])
    return distance, (np.abs(change) > CHANGED).mean(axis=1)
