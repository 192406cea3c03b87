"""Frames as coarse cells: what is measured of a clip is measured on these, at a few microseconds a frame."""

import numpy as np
from numpy.typing import NDArray

from cwm_hub.shards.codecs import Frames

Cells = NDArray[np.float32]

GRID = 16
"""Cells of a side of a frame, up to 31 where its size is not a multiple; a cell of a 64-px frame is 4x4 pixels."""
FLAT = 4.0
"""Deviation of the cells, 0-255 units, below which a picture is not stretched any more: it is black, or a wall."""


def frame_cells(frames: Frames) -> Cells:
    """Mean of all pixels and channels in each cell, [T, rows, columns], 0-255.

    The noise of single pixels averages out, what is as large as a cell stays. Rows and columns that fill no cell are left
    out, at the bottom and at the right.
    """
    count, height, width, _ = frames.shape
    high, wide = max(1, height // GRID), max(1, width // GRID)
    rows, columns = height // high, width // wide
    lines = frames[:, : rows * high, : columns * wide].reshape(count, rows, high, columns * wide * 3)
    sums: NDArray[np.unsignedinteger] = lines[:, :, 0].astype(np.uint32 if high > 85 else np.uint16)
    for line in range(1, high):
        sums += lines[:, :, line]
    mean = np.kron(np.eye(columns), np.full((wide * 3, 1), 1 / (high * wide * 3))).astype(np.float32)
    return (sums.reshape(-1, columns * wide * 3).astype(np.float32) @ mean).reshape(count, rows, columns)


def normalise(cells: Cells) -> tuple[Cells, NDArray[np.float32]]:
    """Each picture with the mean 0 and the deviation 1, less where it is `FLAT`, as [T, cells]; and its deviation, [T]."""
    pictures = cells.reshape(len(cells), -1)
    pictures = pictures - pictures.mean(axis=1, keepdims=True)
    deviation = np.sqrt(np.einsum("tc,tc->t", pictures, pictures) / pictures.shape[1])
    pictures /= np.maximum(deviation, FLAT)[:, None]
    return pictures, deviation
