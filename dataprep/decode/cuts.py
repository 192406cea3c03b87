"""Hard cuts between the shots of a video: where the picture changes at once, and not as it has been changing.

    distance of a frame from the one before it    half the mean squared difference of their normalised cells: 0 for the same
                                                  picture, about 1 for two that have nothing to do with each other
    a cut                                         a distance above `LEAST`, and `OUTSTANDING` times as large as every other one
                                                  within `AROUND_SECONDS`

Normalised, a picture has the mean 0 and the deviation 1, so that fades, flicker and exposure change nothing. A flash ends as
suddenly as it begins, a pan changes as much in the next frame: neither stands out. Dissolves and wipes are not found.
Measured in docs/motion.md.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from cwm_hub.shards.cells import Cells, frame_cells
from cwm_hub.shards.codecs import Frames

LEAST = 0.12
OUTSTANDING = 3.0
AROUND_SECONDS, AROUND_FRAMES = 0.2, 3
"""The larger of the two counts, so that a flash is not taken for two cuts; shots that are shorter are not found."""
FLAT = 4.0
"""Deviation of the cells, 0-255 units, below which a picture is not stretched any more: it is black, or a wall."""


def find_cuts(frames: Frames, fps: float) -> tuple[int, ...]:
    """Numbers of the frames that begin a new shot, ascending; frame 0 is none.

    Args:
        frames: u8 [T, H, W, 3], small ones are as good.
        fps: frames per second.
    """
    if len(frames) < 2:
        return ()
    distance = _distances(frame_cells(frames))
    around = max(AROUND_FRAMES, round(fps * AROUND_SECONDS))
    padded = np.pad(distance, around)
    before = sliding_window_view(padded, around)[: len(distance)].max(axis=1)
    after = sliding_window_view(padded, around)[around + 1 :].max(axis=1)
    found = (distance > LEAST) & (distance > OUTSTANDING * np.maximum(before, after))
    return tuple((np.flatnonzero(found) + 1).tolist())


def _distances(cells: Cells) -> NDArray[np.float32]:
    """Of frames 1, 2, ... from the one before each, [T - 1]."""
    pictures = cells.reshape(len(cells), -1)
    pictures = pictures - pictures.mean(axis=1, keepdims=True)
    deviation = np.sqrt(np.einsum("tc,tc->t", pictures, pictures) / pictures.shape[1])
    pictures /= np.maximum(deviation, FLAT)[:, None]
    change = np.diff(pictures, axis=0)
    return np.einsum("tc,tc->t", change, change) / (2 * change.shape[1])
