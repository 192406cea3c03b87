"""The driving task: one set of rules over two worlds, CARLA's and a kinematic one."""

from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, UInt8

from cwm_hub.envs.driving.reward import (
    EPISODE_FRAMES,
    FRAME_SECONDS,
    Car,
    Motion,
    driving_reward,
    why_over,
)
from cwm_hub.envs.driving.road_map import LANES, RoadMap
from cwm_hub.envs.driving.weather import Weather, weather_at
from cwm_hub.envs.pixel_env import Outcome


class Snapshot(NamedTuple):
    """The car after a frame, in the coordinates of `road_map`."""

    x: float
    y: float
    velocity: tuple[float, float]
    """m/s along x and y."""
    height: float
    """m above the road."""
    climb: float
    """m/s upwards."""
    impulse: float
    """N s of all collisions in the frame."""


class World(Protocol):
    """What moves cars and draws them."""

    @property
    def road_map(self) -> RoadMap:
        """Its lanes."""

    def reset(self, *, lane: int, seed: int, weather: Weather) -> Snapshot:
        """Puts the car on a lane, others round it, as the seed has it."""

    def tick(self, *, steer: float, throttle: float, brake: float, weather: Weather) -> Snapshot:
        """Simulates 0.05 s."""

    def draw(self) -> UInt8[np.ndarray, "H W 3"]:
        """The view from the bonnet, square, 60 degrees wide."""

    def close(self) -> None:
        """Frees the world."""


class Driving:
    """As far along the highway as possible within 1000 frames of 0.05 s.

    Action: steering, then throttle above 0 and brake below. `info` has the parts of the reward, the distance and, at the end,
    why it ended. Lane, traffic and the phase of a changing weather follow from the seed.
    """

    action_size = 2
    frames_per_second = 1 / FRAME_SECONDS
    episode_frames: int | None = EPISODE_FRAMES

    def __init__(self, world: World, *, weather: str):
        self.world, self._weather = world, weather
        self._random = np.random.default_rng()
        self._frame, self._phase, self._distance = 0, 0.0, 0.0

    def reset(self, seed: int | None) -> dict[str, Any]:
        """Draws lane, traffic and weather."""
        if seed is not None:
            self._random = np.random.default_rng(seed)
        self._frame, self._distance = 0, 0.0
        self._phase = float(self._random.uniform())
        lane, traffic = int(self._random.choice(LANES)), int(self._random.integers(2**31))
        self.world.reset(lane=lane, seed=traffic, weather=self._now())
        return {"lane": lane}

    def step(self, action: Float[np.ndarray, "A"]) -> Outcome:
        """One frame."""
        steer, pedal = map(float, action)
        self._frame += 1
        snapshot = self.world.tick(
            steer=steer, throttle=max(0.0, pedal), brake=max(0.0, -pedal), weather=self._now()
        )
        place = self.world.road_map.locate(snapshot.x, snapshot.y)
        along, offset = 0.0, 0.0
        if place is not None:
            forward = np.array([np.cos(place.heading), np.sin(place.heading)])
            along, offset = float(forward @ np.array(snapshot.velocity)), place.offset
        self._distance += along * FRAME_SECONDS
        reward = driving_reward(Motion(along, offset, snapshot.impulse, steer))
        car = Car(
            place.road if place else None,
            bool(place and place.road_ahead),
            float(np.hypot(*snapshot.velocity)),
            snapshot.height,
            snapshot.climb,
        )
        end = why_over(car, self._frame)
        info = reward._asdict() | {"distance_metres": self._distance} | ({"end": end} if end else {})
        return Outcome(reward.total, terminated=end is not None, info=info)

    def draw(self) -> UInt8[np.ndarray, "H W 3"]:
        """The view from the bonnet."""
        return self.world.draw()

    def close(self) -> None:
        """Frees the world."""
        self.world.close()

    def _now(self) -> Weather:
        return weather_at(self._weather, self._frame * FRAME_SECONDS, phase=self._phase)
