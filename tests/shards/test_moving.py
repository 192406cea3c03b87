"""What counts as motion: small movers do at every frame rate; grain, flicker, fades and cuts do not."""

import numpy as np
import pytest
from made_scenes import add_noise, arm, gain, pan, real, scene, still

from cwm_hub.shards.cells import frame_cells
from cwm_hub.shards.measures import measure_clip
from cwm_hub.shards.moving import STILL, moving_share

RATES = (10, 25, 60)
ROOM = scene(3)


def moving(frames: np.ndarray, fps: float, cuts: tuple[int, ...] = ()) -> float:
    return moving_share(frame_cells(frames), fps, cuts)


def swinging(fps: float, *, noise: float = 1.0) -> np.ndarray:
    """Two seconds of an arm that is two pixels thin, 1.5 % of the picture."""
    length = round(2 * fps)
    return add_noise(arm(ROOM, length, fps=fps, radians_a_second=1.0, thickness=2, value=250), noise)


def test_a_jumping_square_by_hand() -> None:
    """A square of 2x2 cells jumps by its own width: it leaves four cells of 256 and enters four."""
    frames = np.full((12, 32, 32, 3), 60, np.uint8)
    for number in range(12):
        left = 4 * (number % 6)
        frames[number, 8:12, left : left + 4] = 200
    assert moving(frames, 2.5) == 8 / 256  # successive frames are compared
    # three and four frames later it is in two other places: what changed both times is where it was
    assert moving(frames[:6], 10) == 4 / 256
    assert moving(frames[:1], 10) == 0.0


@pytest.mark.parametrize("fps", RATES)
def test_what_does_not_move(fps: int) -> None:
    length = 2 * fps
    at_rest = still(ROOM, length)
    number = np.arange(length)
    for name, frames in {
        "a picture": at_rest,
        "grain": add_noise(at_rest, 8),
        "much grain": add_noise(still(scene(4, contrast=0.5), length), 12),
        "flicker": add_noise(gain(at_rest, 1 + 0.1 * np.sin(2.1 * number)), 2),
        "exposure": add_noise(gain(at_rest, np.linspace(1, 0.5, length)), 2),
        "fade to black": gain(at_rest, np.linspace(1, 0, length)),
        "black": add_noise(np.zeros_like(at_rest), 2),
    }.items():
        assert moving(frames, fps) < STILL / 3, name


@pytest.mark.parametrize("fps", RATES)
def test_what_moves(fps: int) -> None:
    for noise in (0.0, 1.0, 4.0):
        assert 2 * STILL < moving(swinging(fps, noise=noise), fps) < 0.08
    wide = scene(5, width=256)
    assert moving(pan(wide, 2 * fps, pixels_a_frame=5 / fps), fps) > 0.1
    assert moving(pan(wide, 2 * fps, pixels_a_frame=40 / fps), fps) > 0.5


def test_a_frame_rate_changes_little() -> None:
    for values in (
        [moving(swinging(fps), fps) for fps in RATES],
        [moving(real("balance_single_cam1.mp4")[::step], 60 / step) for step in (1, 2, 4)],
        [moving(real("hand_cup_1.webm")[::step], 25 / step) for step in (1, 2)],
    ):
        assert max(values) < 1.3 * min(values)


def test_cuts_are_no_motion() -> None:
    slides = add_noise(np.concatenate([still(scene(seed), 25) for seed in range(3)]), 2)
    assert moving(slides, 25, (25, 50)) == 0.0
    assert moving(slides, 25) > 0.1


def test_an_arm_is_told_from_grain_where_the_mean_difference_is_not() -> None:
    grainy, robot = add_noise(still(ROOM, 50), 4), swinging(25, noise=0)
    assert measure_clip(robot, 25).motion < measure_clip(grainy, 25).motion / 5
    assert measure_clip(grainy, 25).moving < STILL < measure_clip(robot, 25).moving
