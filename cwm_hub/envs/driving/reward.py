"""What a frame of driving is worth and when it ends: pure functions of where the car is and how it moves.

The reward of the paper's CARLA task (arXiv 2305.18499, appendix; its code's configuration): progress along the lane, less for
who drives beside its middle, minus collisions and steering. Distances in metres, speeds in metres a second, impulses in
newton seconds, a frame is 0.05 s.
"""

from typing import NamedTuple

FRAME_SECONDS = 0.05
EPISODE_FRAMES = 1000
CENTRING_BORDER = 1.75
"""Metres from the lane's middle within which nothing is lost: half a lane."""
CENTRING_COEFFICIENT = 1.5
COLLISION_COEFFICIENT = 1e-3
COLLISION_CLIP = 10.0
STEERING_COEFFICIENT = 1.0
STUCK_SPEED = 0.02
STUCK_PERIOD = 100
"""Frames between two questions whether the car stands."""
SETTLING_FRAMES = 20
"""First frames, in which a car that was dropped into the ground shows."""
CLOSED_ROADS = (22, 34, 7, 15)
"""Town04's roads that leave the highway."""


class Motion(NamedTuple):
    """One frame of the car, as the rules see it."""

    along: float
    """Speed along the lane, m/s."""
    offset: float
    """Distance from the lane's middle, m."""
    impulse: float
    """Of all collisions in the frame, N s."""
    steer: float
    """Action, -1 to 1."""


class Reward(NamedTuple):
    """The parts of a frame's reward; costs are positive."""

    progress: float
    collision: float
    steering: float

    @property
    def total(self) -> float:
        """Progress minus both costs."""
        return self.progress - self.collision - self.steering


class Car(NamedTuple):
    """What decides whether the episode is over."""

    road: int | None
    """Number of the road below, None off the map."""
    road_ahead: bool
    """Whether the lane goes on."""
    speed: float
    """m/s."""
    height: float
    """m above the road."""
    climb: float
    """m/s upwards."""


def driving_reward(motion: Motion) -> Reward:
    """`v dt / (1 + 1.5 max(0, d - 1.75)) - min(impulse / 1000, 10) - |steer|`, in parts."""
    beside = max(0.0, abs(motion.offset) - CENTRING_BORDER)
    return Reward(
        progress=motion.along * FRAME_SECONDS / (1 + CENTRING_COEFFICIENT * beside),
        collision=min(COLLISION_COEFFICIENT * motion.impulse, COLLISION_CLIP),
        steering=STEERING_COEFFICIENT * abs(motion.steer),
    )


def why_over(car: Car, frame: int) -> str | None:
    """Why the episode ends with this frame, counted from 1; None where it goes on."""
    if car.road is None:
        return "off the map"
    if not car.road_ahead:
        return "the road ends"
    if car.road in CLOSED_ROADS:
        return "left the highway"
    if frame >= STUCK_PERIOD and frame % STUCK_PERIOD == 0 and car.speed < STUCK_SPEED:
        return "stands still"
    if frame <= SETTLING_FRAMES and (car.height > 0.5 or car.climb > 1.0):
        return "was thrown into the air"
    return None
