"""Driving by hand: the reward and the ends of an episode, lanes beside CARLA's own reader, weather, and the small world."""

import math
import os

import numpy as np
import pytest

from cwm_hub.envs import gl_problem, make_env
from cwm_hub.envs.driving.reward import Car, Motion, driving_reward, why_over
from cwm_hub.envs.driving.road_map import LANE_WIDTH, CarlaRoadMap, StripMap
from cwm_hub.envs.driving.weather import WEATHERS, changing_weather, weather_of_task
from cwm_hub.envs.driving.world import Driving, Snapshot

needs_gl = pytest.mark.skipif(gl_problem() is not None, reason=str(gl_problem()))


@pytest.mark.parametrize(
    ("motion", "parts"),
    [
        # 20 m/s for 0.05 s in the lane: 1 m.
        (Motion(20, 1.75, 0, 0), (1.0, 0.0, 0.0)),
        # A metre and three quarters beyond the border: 1 / (1 + 1.5 * 1) of it, on either side.
        (Motion(20, 2.75, 0, 0), (0.4, 0.0, 0.0)),
        (Motion(20, -2.75, 0, 0), (0.4, 0.0, 0.0)),
        # 2,500 N s cost 2.5, and 40,000 no more than 10; steering costs its size.
        (Motion(0, 0, 2500, -0.3), (0.0, 2.5, 0.3)),
        (Motion(-2, 0, 40000, 1), (-0.1, 10.0, 1.0)),
    ],
)
def test_reward_worked_out_by_hand(motion: Motion, parts: tuple[float, float, float]) -> None:
    reward = driving_reward(motion)
    assert reward == pytest.approx(parts)
    assert reward.total == pytest.approx(parts[0] - parts[1] - parts[2])


FINE = Car(road=45, road_ahead=True, speed=10, height=0.0, climb=0.0)


@pytest.mark.parametrize(
    ("car", "frame", "why"),
    [
        (FINE, 7, None),
        (FINE._replace(road=None), 7, "off the map"),
        (FINE._replace(road_ahead=False), 7, "the road ends"),
        (FINE._replace(road=22), 7, "left the highway"),
        (FINE._replace(speed=0.019), 100, "stands still"),
        (FINE._replace(speed=0.019), 300, "stands still"),
        (FINE._replace(speed=0.019), 99, None),
        (FINE._replace(speed=0.019), 101, None),
        (FINE._replace(speed=0.02), 100, None),
        (FINE._replace(height=0.51), 20, "was thrown into the air"),
        (FINE._replace(climb=1.01), 20, "was thrown into the air"),
        (FINE._replace(height=0.51, climb=3), 21, None),
    ],
)
def test_what_ends_an_episode(car: Car, frame: int, why: str | None) -> None:
    assert why_over(car, frame) == why


def test_lanes_of_the_strip_lie_where_they_must() -> None:
    road = StripMap(((100.0, 0.0), (50 * math.pi, 1 / 100)))  # east, then a quarter of a circle to the left
    assert road.pose(-1, 50) == pytest.approx((50, -1.75, 0))
    assert road.pose(-4, 50) == pytest.approx((50, -12.25, 0))
    # At the end it points north, at (200, 100); the lanes lie to the east of the reference line.
    assert road.pose(-2, road.length) == pytest.approx((200 + 5.25, 100, math.pi / 2))
    for lane, station, offset in ((-1, 30, 0.4), (-3, 99, -1.2), (-4, 150, 1.0), (-2, 250, 0.0)):
        x, y, heading = road.pose(lane, station, offset=offset)
        place = road.locate(x, y)
        assert place is not None
        assert (place.lane, place.station, place.offset, place.heading) == pytest.approx(
            (lane, station, offset, heading)
        )
    assert road.locate(50, 40) is None
    assert road.locate(-20, -2) is None
    assert road.locate(20, 1.0).lane == -1 and road.locate(20, 1.0).offset == pytest.approx(
        2.75
    )  # left of the road
    assert not road.locate(*road.pose(-1, road.length - 0.5)[:2]).road_ahead


def test_carlas_own_reader_sees_the_same_lanes() -> None:
    carla = pytest.importorskip("carla")
    road = StripMap()
    theirs = CarlaRoadMap(carla.Map("strip", road.to_opendrive()))
    draw = np.random.default_rng(0)
    for _ in range(60):
        lane, station = int(draw.integers(-4, 0)), float(draw.uniform(5, road.length - 5))
        x, y, _ = road.pose(lane, station, offset=float(draw.uniform(-1.7, 1.7)))
        here, there = road.locate(x, y), theirs.locate(x, y)
        assert (here.road, here.lane, here.road_ahead) == (there.road, there.lane, there.road_ahead)
        assert here.station == pytest.approx(there.station, abs=0.3)  # CARLA searches along an arc in steps
        assert here.offset == pytest.approx(there.offset, abs=0.05)
        assert math.cos(here.heading - there.heading) == pytest.approx(1, abs=1e-4)


def test_weather_has_carlas_numbers() -> None:
    carla = pytest.importorskip("carla")
    assert len(WEATHERS) == 14
    for name, weather in WEATHERS.items():
        theirs = getattr(carla.WeatherParameters, name.replace("MidRainNoon", "MidRainyNoon"))
        assert weather.sun_altitude == theirs.sun_altitude_angle
        for field in ("cloudiness", "precipitation", "precipitation_deposits", "wind_intensity"):
            assert getattr(weather, field) == getattr(theirs, field), (name, field)
        assert weather.fog_density == pytest.approx(theirs.fog_density, abs=1)


def test_weather_by_the_name_of_the_task() -> None:
    assert weather_of_task("highway") == "ClearNoon"
    assert weather_of_task("highway_wet_cloudy_sunset") == "WetCloudySunset"
    assert weather_of_task("highway-changing") == "Changing"
    with pytest.raises(ValueError, match="did you mean 'highway_wet_noon'"):
        weather_of_task("highway_wet_non")


def test_changing_weather_changes_smoothly_within_bounds_and_has_a_storm() -> None:
    hours = [changing_weather(seconds, phase=0.2) for seconds in np.arange(0, 720, 0.05)]
    values = np.array(hours)
    assert (values >= 0).all() and (values[:, 1:] <= 100).all() and (values[:, 0] <= 90).all()
    assert np.abs(np.diff(values, axis=0)).max() < 1.0
    assert np.ptp(values[:, 0]) > 50 and values[:, 2].max() > 90 and values[:, 2].min() == 0


class Rails:
    """A world by hand: the car goes 1 m along the second lane in every frame, and bumps once."""

    road_map = StripMap(((1000.0, 0.0),))

    def __init__(self, impulses: dict[int, float]):
        self.frame, self.impulses, self.asked = 0, impulses, []

    def reset(self, *, lane, seed, weather) -> Snapshot:
        self.frame, self.lane = 0, lane
        return self._now()

    def tick(self, *, steer, throttle, brake, weather) -> Snapshot:
        self.frame += 1
        self.asked.append((steer, throttle, brake))
        return self._now()

    def _now(self) -> Snapshot:
        x, y, _ = self.road_map.pose(-2, 900.0 + self.frame)
        return Snapshot(x, y, (20.0, 0.0), 0.0, 0.0, self.impulses.get(self.frame, 0.0))

    def draw(self):
        return np.zeros((4, 4, 3), np.uint8)

    def close(self) -> None:
        pass


def test_the_task_sums_its_rules_frame_by_frame() -> None:
    world = Rails({2: 3000.0})
    env = Driving(world, weather="ClearNoon")
    env.reset(seed=0)
    first = env.step(np.array([0.25, 0.5]))
    second = env.step(np.array([-0.5, -0.75]))
    assert first.reward == pytest.approx(1.0 - 0.25)
    assert second.reward == pytest.approx(1.0 - 3.0 - 0.5)
    assert world.asked == [(0.25, 0.5, 0.0), (-0.5, 0.0, 0.75)]  # throttle above zero, brake below
    assert second.info["distance_metres"] == pytest.approx(2.0)
    while not (outcome := env.step(np.zeros(2))).terminated:
        pass
    assert (world.frame, outcome.info["end"]) == (99, "the road ends")  # a metre before the end, 1000 m


@needs_gl
def test_the_small_world_drives_collides_and_slides_along_its_rails() -> None:
    env = make_env("road:highway", image_size=16, render_quality="flat")
    world = env.unwrapped.simulator.world
    env.reset(seed=1)
    for _ in range(100):
        *_, info = env.step(np.array([0.0, 1.0], np.float32))
    # Five seconds at full throttle: dv/dt = 4 (1 - v / 40) - 0.0005 v^2, so about 15.6 m/s and 42 m.
    assert world._speed == pytest.approx(15.6, abs=0.3)
    assert info["distance_metres"] == pytest.approx(42, abs=1)
    # A hard pull to the right ends in the rail: one collision when it is touched, none while sliding along it.
    costs = [env.step(np.array([1.0, 0.0], np.float32))[4]["collision"] for _ in range(60)]
    assert sum(cost > 0 for cost in costs) == 1
    place = world.road_map.locate(world._x, world._y)
    assert LANE_WIDTH * (place.lane + 0.5) + place.offset == pytest.approx(-4 * LANE_WIDTH - 1.5, abs=0.01)
    env.close()


@needs_gl
def test_who_drives_into_a_slower_car_pays_its_speed_difference() -> None:
    env = make_env("road:highway", image_size=16, render_quality="flat")
    world = env.unwrapped.simulator.world
    env.reset(seed=0)
    ego = world.road_map.locate(world._x, world._y)
    world.traffic.lane[:], world.traffic.station[:] = -1, -500.0
    world.traffic.lane[0], world.traffic.station[0] = ego.lane, ego.station + 10
    world.traffic.speed[0] = world.traffic.wish[0] = 4.0
    world._speed = 14.0
    costs = [env.step(np.zeros(2, np.float32))[4]["collision"] for _ in range(30)]
    assert [round(cost, 1) for cost in costs if cost > 0] == [
        10.0
    ]  # 1500 kg * 10 m/s = 15,000 N s, clipped at 10
    assert world._speed == pytest.approx(4.0, abs=0.1)
    env.close()


@needs_gl
def test_the_picture_shows_the_weather_and_the_road() -> None:
    def sky_and_road(task: str) -> tuple[float, float]:
        env = make_env(f"road:{task}", image_size=32, render_quality="flat")
        frame, _ = env.reset(seed=0)
        env.close()
        return frame[:8].mean(), frame[24:, 12:20].mean()

    noon, wet = sky_and_road("highway"), sky_and_road("highway_hard_rain_sunset")
    assert noon[0] > 1.3 * wet[0]
    assert noon[1] > 1.3 * wet[1]


@pytest.mark.skipif("CARLA_PORT" not in os.environ, reason="needs a CARLA server at CARLA_PORT")
def test_a_server_drives_by_the_same_rules() -> None:
    env = make_env("carla:highway", image_size=64, options={"port": int(os.environ["CARLA_PORT"])})
    frame, _ = env.reset(seed=0)
    assert frame.max() > 0
    for _ in range(40):
        frame, _, _, _, info = env.step(np.array([0.0, 0.7], np.float32))
    assert info["distance_metres"] > 3
    env.close()


def test_without_a_server_it_is_one_sentence() -> None:
    pytest.importorskip("carla")
    from cwm_hub.envs.driving import carla as adapter

    adapter.TIMEOUT_SECONDS, before = 0.5, adapter.TIMEOUT_SECONDS
    try:
        with pytest.raises(adapter.CarlaError, match="no CARLA server answers at localhost:9"):
            make_env("carla:highway", options={"port": 9})
    finally:
        adapter.TIMEOUT_SECONDS = before
