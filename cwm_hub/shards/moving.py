"""Which share of a picture moves: cells that change, within a third of a second, by more than the picture around them.

    brightness, contrast   are taken out of every frame: flicker, exposure and fades are no motion
    change of a cell       the smaller one of those after 0.3 and 0.4 s: what moves is elsewhere both times, flicker is not
    noise                  the median change of all cells: grain, and what a codec renews at a key frame, are all over the picture
    a moving cell          changes by more than six times the noise, and by more than 3; but where it changes by half the
                           picture's contrast it moves whatever the others do: in a pan all do

The unit is a share of the picture, and time is in seconds: a video at another frame rate or size has about the same
number. Chosen and measured with benchmarks/bench_motion.py, see docs/motion.md.
"""

from collections.abc import Sequence

import numpy as np

from cwm_hub.shards.cells import FLAT, Cells, normalise

STILL = 0.015
"""Share of the picture below which a clip counts as still: four cells of 256."""

LAG_SECONDS = (0.3, 0.4)
PAIRS_A_SECOND = 10
"""Of frames that are compared; of a faster video not every frame is."""
NOISE_FACTOR = 6.0
LEAST_CHANGE, MOST_CHANGE = 3.0, 10.0
"""Of a moving cell, 0-255 units: what is always asked, and what always suffices."""


def moving_share(cells: Cells, fps: float, cuts: Sequence[int] = ()) -> float:
    """Mean share, in [0, 1], of the cells [T, rows, columns] that move; frames on two sides of a cut are not compared."""
    pictures, deviation = normalise(cells)
    contrast = max(float(np.median(deviation)), FLAT)
    lags = sorted({min(max(1, round(fps * seconds)), len(cells) - 1) for seconds in LAG_SECONDS})
    start = np.arange(0, len(cells) - lags[-1], max(1, round(fps / PAIRS_A_SECOND)))
    shot = np.searchsorted(cuts, np.arange(len(cells)), side="right")
    start = start[shot[start] == shot[start + lags[-1]]]
    flat = deviation < FLAT  # black, or covered: nothing to compare a picture with
    start = start[flat[start] == flat[start + lags[-1]]]
    if not len(start):
        return 0.0
    changes = contrast * np.abs([pictures[start + lag] - pictures[start] for lag in lags])
    middle = changes.shape[2] // 2
    noise = np.partition(changes, middle, axis=2)[:, :, middle].max(
        axis=0
    )  # a sixth of the time of np.median
    suffices = max(LEAST_CHANGE, min(MOST_CHANGE, contrast / 2))
    least = np.clip(NOISE_FACTOR * noise, LEAST_CHANGE, suffices)
    return float((changes.min(axis=0) > least[:, None]).mean())
