"""Where the shots of a video change: hard cuts, and dissolves from one picture into another.

    distance of a frame from the one before it    half the mean squared difference of their normalised cells: 0 for the same
                                                  picture, about 1 for two that have nothing to do with each other
    a cut                                         a distance above `LEAST`, and `OUTSTANDING` times as large as every other one
                                                  within `AROUND_SECONDS`, of which `SPREAD` of all cells have a part
    a dissolve                                    two pictures as far apart as `APART`, and between them frames that are mixtures
                                                  of the two in even steps: such frames lack contrast, for two pictures that have
                                                  nothing to do with each other half of their variance in the middle

Normalised, a picture has the mean 0 and the deviation 1, so that fades, flicker and exposure change nothing. A flash ends as
suddenly as it begins, a pan changes as much in the next frame: neither stands out. A thing that jumps before a still
background (robots at 10 frames a second) changes few cells. What moves keeps its contrast, so that no pan and no cloud is a
dissolve. A dissolve is two cuts: its first mixed frame and the first one after it. Wipes and fades through black are not found.
Measured in docs/motion.md.
"""

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from cwm_hub.shards.cells import FLAT, Cells, normalise

LEAST = 0.12
OUTSTANDING = 3.0
SPREAD, CHANGED = 0.2, 0.25
"""Share of the cells that change by so many deviations. Joins of real clips: 0.29 at least; jumping things: 0.09 at most."""
AROUND_SECONDS, AROUND_FRAMES = 0.2, 3
"""The larger of the two counts, so that a flash is not taken for two cuts; shots that are shorter are not found."""

MIXED_FRAMES = (5, 8, 12, 18, 26, 38)
"""Between two frames that are looked at for a dissolve: about as long as it, or a part of it."""
APART = 0.4
"""Distance of the two, of `SPREAD` cells too, neither of which is nearly `FLAT`: black is a mixture of anything with itself."""
LACKING = 0.5
"""Least share of the contrast that a mixture lacks."""
UNEXPLAINED, UNEVEN = 0.15, 0.2
"""Largest share of the change that is no mixture, and how far a frame's may be from its even step."""
STILL = 1 / 3
"""Of the even step: less is no part of a dissolve any more."""


def find_cuts(cells: Cells, fps: float) -> tuple[int, ...]:
    """Numbers of the frames that begin a new shot, or a dissolve into one, ascending; frame 0 is none.

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
    cuts = {*(np.flatnonzero(found) + 1).tolist(), *(cut for both in find_dissolves(cells) for cut in both)}
    return tuple(sorted(cuts - {0, len(cells)}))


def _changes(cells: Cells) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """(distance, share of the cells that changed) of frames 1, 2, ... from the one before each, both [T - 1]."""
    pictures, _ = normalise(cells)
    change = np.diff(pictures, axis=0)
    distance = np.einsum("tc,tc->t", change, change) / (2 * change.shape[1])
    return distance, (np.abs(change) > CHANGED).mean(axis=1)


def find_dissolves(cells: Cells) -> list[tuple[int, int]]:
    """(first mixed frame, first one after it) of each dissolve; no two overlap."""
    pictures = cells.reshape(len(cells), -1)
    pictures = pictures - pictures.mean(axis=1, keepdims=True)
    fits = sorted(
        (uneven, start, stop)
        for frames in MIXED_FRAMES
        for start in _candidates(pictures, frames + 1)
        for uneven, stop in [(_unevenness(pictures[start : start + frames + 2]), start + frames + 1)]
        if uneven < UNEVEN
    )
    found: list[tuple[int, int]] = []
    for _, start, stop in fits:
        first, end = _extent(pictures, start, stop)
        if all(end <= other or first >= other_end for other, other_end in found):
            found.append((first, end))
    return found


def _candidates(pictures: Cells, apart: int) -> Iterator[int]:
    """Frames that are another picture than the one `apart` frames later, with one of less contrast in the middle."""
    energy = np.einsum("tc,tc->t", pictures, pictures)
    one, other, middle = energy[:-apart], energy[apart:], energy[apart // 2 : len(energy) - -(-apart // 2)]
    product = np.einsum("tc,tc->t", pictures[:-apart], pictures[apart:])
    lacking = (one + other) / 2 - middle > LACKING * (one + other - 2 * product) / 4
    flattest = np.minimum(one, other) < (2 * FLAT) ** 2 * pictures.shape[1]
    return iter(np.flatnonzero(lacking & ~flattest & (product < (1 - APART) * np.sqrt(one * other))).tolist())


def _unevenness(pictures: Cells) -> float:
    """Largest distance of a share of the last picture in those between from an even step; infinite if they are no mixtures."""
    one, other = pictures[0], pictures[-1]
    scaled = one / one.std() - other / other.std()
    if (np.abs(scaled) > CHANGED).mean() <= SPREAD:
        return np.inf
    change, between = other - one, pictures[1:-1]
    whole = change @ change
    shares = (between - one) @ change / whole
    rest = between - one - shares[:, None] * change
    lacks = (1 - shares) * (one @ one) + shares * (other @ other) - np.einsum("tc,tc->t", between, between)
    inner = slice(len(between) // 4, len(between) - len(between) // 4)
    if (np.einsum("tc,tc->t", rest, rest) > UNEXPLAINED * whole).any() or (
        lacks < LACKING * shares * (1 - shares) * whole
    )[inner].any():
        return np.inf
    return float(np.abs(shares - np.arange(1, len(between) + 1) / (len(between) + 1)).max())


def _extent(pictures: Cells, start: int, stop: int) -> tuple[int, int]:
    """From the middle of two frames as far as the share of the second one grows."""
    change = pictures[stop] - pictures[start]
    shares = (pictures - pictures[start]) @ change / (change @ change)
    grows = np.diff(shares) > STILL / (stop - start)  # of frame n into frame n + 1
    middle = (start + stop) // 2
    before, after = np.flatnonzero(~grows[:middle]), np.flatnonzero(~grows[middle:])
    first = before[-1] + 2 if len(before) else 0
    return int(first), int(middle + after[0] if len(after) else len(pictures))
