"""`road:highway`: the driving task on a simulator of a few lines, with a MuJoCo camera. It is not CARLA.

The map is a strip of four lanes, the reward and the ends of an episode are the paper's; the car is a bicycle model with a bound on
sideways acceleration, the others keep their lane and their distance, and the picture is flat-shaded. Good for trying an agent
at a hundred frames a second on a CPU core; no number from it is CARLA's.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from cwm_hub.envs.driving.reward import FRAME_SECONDS
from cwm_hub.envs.driving.road_map import LANE_WIDTH, LANES, StripMap
from cwm_hub.envs.driving.scenery import Scenery
from cwm_hub.envs.driving.weather import Weather, weather_of_task
from cwm_hub.envs.driving.world import Driving, Snapshot
from cwm_hub.envs.rendering import QualityName

START = 100.0
"""Metres along the road where the car begins, as in the paper."""
CARS = 20
MASS = 1500.0
"""kg: an impulse is mass times the change of speed."""
WHEELBASE = 2.5
MAX_WHEEL_ANGLE = 0.5
"""Radians at full steering."""
GRIP = 7.0
"""m/s2 sideways at most."""
ACCELERATION = 4.0
TOP_SPEED = 40.0
BRAKING = 8.0
CAR_LENGTH, CAR_WIDTH = 4.0, 1.8
CAR_SPEEDS = (14.0, 22.0)
"""m/s that others would drive at."""
TIME_GAP = 1.2
"""Seconds that others keep to the car ahead."""
EDGE = 1.5
"""Metres beyond the outer lanes' borders where the rails stand."""


def make(task: str, *, image_size: int, quality: QualityName) -> Driving:
    """`highway`, in ClearNoon, or `highway_wet_sunset` and so on."""
    weather = weather_of_task(task)
    return Driving(KinematicWorld(image_size=image_size, quality=quality), weather=weather)


class Traffic(NamedTuple):
    """The others, one entry a car."""

    lane: np.ndarray
    station: np.ndarray
    speed: np.ndarray
    wish: np.ndarray
    """Speed on an empty road."""


class KinematicWorld:
    """A car that turns as a bicycle does, on a strip with others that follow each other."""

    def __init__(self, *, image_size: int, quality: QualityName):
        self.road_map = StripMap()
        self._scenery = Scenery(self.road_map, cars=CARS, image_size=image_size, quality=quality)
        self._x = self._y = self._heading = self._speed = 0.0
        self._touching: frozenset[str] = frozenset()
        self.traffic = Traffic(*(np.zeros(CARS) for _ in Traffic._fields))

    def reset(self, *, lane: int, seed: int, weather: Weather) -> Snapshot:
        """Puts the car on its lane, standing, and the others before and behind it."""
        draw = np.random.default_rng(seed)
        self._x, self._y, self._heading = self.road_map.pose(lane, START)
        self._speed, self._touching = 0.0, frozenset()
        places = np.arange(-2, CARS - 2) * 18.0 + draw.uniform(-3, 3, CARS)
        lanes = draw.choice(LANES, CARS)
        near = (abs(places) < 15) & (lanes == lane)
        wish = draw.uniform(*CAR_SPEEDS, CARS)
        self.traffic = Traffic(lanes, START + places + 40 * near, wish.copy(), wish)
        self._scenery.repaint(draw, weather)
        return self._snapshot(0.0)

    def tick(self, *, steer: float, throttle: float, brake: float, weather: Weather) -> Snapshot:
        """Moves the car, then the others, then asks who touches whom."""
        push = ACCELERATION * throttle * (1 - self._speed / TOP_SPEED) - BRAKING * brake
        self._speed = max(0.0, self._speed + FRAME_SECONDS * (push - 0.0005 * self._speed**2))
        turn = (
            -self._speed / WHEELBASE * math.tan(MAX_WHEEL_ANGLE * steer)
        )  # positive steering is to the right
        bound = GRIP / max(self._speed, 1.0)
        self._heading += FRAME_SECONDS * min(bound, max(-bound, turn))
        self._x += FRAME_SECONDS * self._speed * math.cos(self._heading)
        self._y += FRAME_SECONDS * self._speed * math.sin(self._heading)
        self._move_traffic()
        impulse = self._collide()
        self._scenery.set_weather(weather)
        return self._snapshot(impulse)

    def draw(self) -> UInt8[np.ndarray, "H W 3"]:
        """The view from the bonnet."""
        return self._scenery.draw(self._x, self._y, self._heading, self.traffic)

    def close(self) -> None:
        """Frees the GL context."""
        self._scenery.close()

    def _snapshot(self, impulse: float) -> Snapshot:
        velocity = self._speed * math.cos(self._heading), self._speed * math.sin(self._heading)
        return Snapshot(self._x, self._y, velocity, 0.0, 0.0, impulse)

    def _move_traffic(self) -> None:
        """Every other car goes at its wish, or as the time gap to the one ahead in its lane allows."""
        lane, station, speed, wish = self.traffic
        ego = self.road_map.locate(self._x, self._y)
        ahead = station[None] - station[:, None]
        ahead = np.where((lane[None] == lane[:, None]) & (ahead > 0), ahead, np.inf).min(1)
        if ego is not None:
            to_ego = ego.station - station
            ahead = np.where((lane == ego.lane) & (to_ego > 0), np.minimum(ahead, to_ego), ahead)
        allowed = np.maximum(0.0, ahead - CAR_LENGTH - 2.0) / TIME_GAP
        change = np.clip(np.minimum(wish, allowed) - speed, -BRAKING * FRAME_SECONDS, 2.0 * FRAME_SECONDS)
        speed += change
        station += speed * FRAME_SECONDS

    def _collide(self) -> float:
        """Impulse of cars and rails that are touched from this frame on; a touch holds the car back."""
        place = self.road_map.locate(self._x, self._y)
        if place is None:
            return 0.0
        left = LANE_WIDTH * (place.lane + 0.5) + place.offset
        touched: dict[str, float] = {}
        others = LANE_WIDTH * (self.traffic.lane + 0.5)
        near = (abs(self.traffic.station - place.station) < CAR_LENGTH) & (abs(others - left) < CAR_WIDTH)
        for car in np.flatnonzero(near):
            touched[f"car {car}"] = abs(self._speed - self.traffic.speed[car])
            if self.traffic.station[car] > place.station:
                self._speed = min(self._speed, float(self.traffic.speed[car]))
        sideways = self._speed * math.sin(self._heading - place.heading)
        right_edge, left_edge = LANE_WIDTH * LANES[-1] - EDGE, EDGE
        if not right_edge < left < left_edge:
            touched["rail"] = abs(sideways)
            pose = self.road_map.pose(
                -1, place.station, offset=min(left_edge, max(right_edge, left)) + LANE_WIDTH / 2
            )
            self._x, self._y, self._heading = pose.x, pose.y, place.heading
            self._speed *= 0.9
        impulse = MASS * sum(speed for name, speed in touched.items() if name not in self._touching)
        self._touching = frozenset(touched)
        return impulse
