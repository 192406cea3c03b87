"""`carla:highway`: the paper's task on a CARLA server, through CARLA's own client (>= 0.9.13, extra `[carla]`).

Town04's highway, 20 other cars under the traffic manager, synchronous steps of 0.05 s. Start a server of the client's version,
`./CarlaUE4.sh -RenderOffScreen`, and a second one for evaluation: `--env.options.port 2000 --evaluation_options.port 2010`. Deviations from
the official environment: lanes come from the client's map, so that no file of the server is replaced; the other cars are asked for
once; every draw follows from the seed of the episode. Tested against a server only where one runs (`CARLA_PORT`).
"""

import math
import queue
from typing import Any

import numpy as np
from jaxtyping import UInt8

from cwm_hub import missing_extra
from cwm_hub.envs.driving.reward import FRAME_SECONDS
from cwm_hub.envs.driving.road_map import CarlaRoadMap
from cwm_hub.envs.driving.weather import Weather, weather_of_task
from cwm_hub.envs.driving.world import Driving, Snapshot

TOWN = "Town04"
ROAD, STATION = 45, 100.0
"""Where the car begins."""
TRAFFIC_ROADS = (45, 103, 46, 659, 47, 558, 48)
CARS = 20
SLOWER_PERCENT = 30.0
"""How much slower than allowed the others drive."""
EGO = "vehicle.audi.a2"
CAMERA_PLACE = (1.6, 0.0, 1.7)
CAMERA_DEGREES = 60
TIMEOUT_SECONDS = 30.0


class CarlaError(ValueError):
    """The server is not there, is of another version, or does not do what it was asked."""


def make(
    task: str,
    *,
    image_size: int,
    quality: str,
    host: str = "localhost",
    port: int = 2000,
    seed_traffic: bool = True,
) -> Driving:
    """`highway`, in ClearNoon, or `highway_wet_sunset` and so on; `quality` is the server's affair.

    Raises:
        ValueError: an unknown weather.
        CarlaError: no server answers at host and port.
        ImportError: the client is not installed.
    """
    weather = weather_of_task(task)
    return Driving(
        CarlaWorld(host=host, port=port, image_size=image_size, seed_traffic=seed_traffic), weather=weather
    )


class CarlaWorld:
    """A server in synchronous mode with one car of ours."""

    def __init__(self, *, host: str, port: int, image_size: int, seed_traffic: bool = True):
        try:
            import carla
        except ModuleNotFoundError as error:
            raise ImportError(missing_extra(error), name="carla") from error
        self._carla, self._image_size, self._seed_traffic = carla, image_size, seed_traffic
        self._client = carla.Client(host, port)
        self._client.set_timeout(TIMEOUT_SECONDS)
        try:
            self._world = self._client.get_world()
            if not self._world.get_map().name.endswith(TOWN):
                self._world = self._client.load_world(TOWN)
        except RuntimeError as error:
            raise CarlaError(
                f"no CARLA server answers at {host}:{port}: start one there, or give --env.options"
            ) from error
        self._settings_before = self._world.get_settings()
        settings = self._world.get_settings()
        settings.synchronous_mode, settings.fixed_delta_seconds = True, FRAME_SECONDS
        self._world.apply_settings(settings)
        self._traffic = self._client.get_trafficmanager(port + 6000)
        self._traffic.set_synchronous_mode(True)
        self._traffic.global_percentage_speed_difference(SLOWER_PERCENT)
        self._carla_map = self._world.get_map()
        self.road_map = CarlaRoadMap(self._carla_map)
        self._actors: list[Any] = []
        self._ego: Any = None
        self._images: queue.Queue[Any] = queue.Queue()
        self._impulse = 0.0
        self._frame: UInt8[np.ndarray, "H W 3"] = np.zeros((image_size, image_size, 3), np.uint8)

    def reset(self, *, lane: int, seed: int, weather: Weather) -> Snapshot:
        """Puts our car on its lane and the others round it, and waits until they stand on their wheels."""
        self._destroy()
        draw = np.random.default_rng(seed)
        self._world.set_weather(self._parameters(weather))
        self._ego = self._spawn(EGO, self._place(ROAD, lane, STATION))
        if self._seed_traffic:
            self._traffic.set_random_device_seed(int(draw.integers(2**31)))
        self._spawn_traffic(draw, lane)
        self._attach_sensors()
        for _ in range(10):
            self._ego.apply_control(self._carla.VehicleControl(brake=1.0))
            self._tick()
        return self._snapshot()

    def tick(self, *, steer: float, throttle: float, brake: float, weather: Weather) -> Snapshot:
        """One synchronous step of the server."""
        self._world.set_weather(self._parameters(weather))
        self._ego.apply_control(self._carla.VehicleControl(throttle=throttle, steer=steer, brake=brake))
        self._impulse = 0.0
        self._tick()
        return self._snapshot()

    def draw(self) -> UInt8[np.ndarray, "H W 3"]:
        """The camera's last picture."""
        return self._frame

    def close(self) -> None:
        """Takes our actors away and gives the server its own settings back."""
        self._destroy()
        self._world.apply_settings(self._settings_before)

    def _tick(self) -> None:
        number = self._world.tick()
        try:
            while (image := self._images.get(timeout=TIMEOUT_SECONDS)).frame < number:
                pass  # of a step before
        except queue.Empty as error:
            raise CarlaError(
                f"the camera gave no picture for {TIMEOUT_SECONDS:.0f} seconds: does the server render?"
            ) from error
        pixels = np.frombuffer(image.raw_data, np.uint8).reshape(image.height, image.width, 4)
        self._frame = np.ascontiguousarray(pixels[..., 2::-1])  # BGRA, and the server's own memory

    def _snapshot(self) -> Snapshot:
        place, velocity = self._ego.get_location(), self._ego.get_velocity()
        waypoint = self._carla_map.get_waypoint(place)
        ground = waypoint.transform.location.z if waypoint is not None else place.z
        return Snapshot(
            place.x, -place.y, (velocity.x, -velocity.y), place.z - ground, velocity.z, self._impulse
        )

    def _place(self, road: int, lane: int, station: float) -> Any:
        waypoint = self._carla_map.get_waypoint_xodr(road, lane, station)
        if waypoint is None:
            raise CarlaError(
                f"the server's map has no road {road} with a lane {lane} at {station:.0f} m: is it {TOWN}?"
            )
        transform = waypoint.transform
        transform.location.z += 0.3  # above the ground, or it is refused
        return transform

    def _spawn(self, blueprint: str, transform: Any) -> Any:
        kind = self._world.get_blueprint_library().find(blueprint)
        if kind.has_attribute("role_name"):
            kind.set_attribute("role_name", "hero")
        actor = self._world.try_spawn_actor(kind, transform)
        if actor is None:
            raise CarlaError(f"{blueprint} cannot be put on its lane: something stands there")
        self._actors.append(actor)
        return actor

    def _spawn_traffic(self, draw: np.random.Generator, ego_lane: int) -> None:
        kinds = [
            k
            for k in self._world.get_blueprint_library().filter("vehicle.*")
            if int(k.get_attribute("number_of_wheels")) == 4
        ]
        for _ in range(CARS):
            road, lane = int(draw.choice(TRAFFIC_ROADS)), int(draw.integers(-4, 0))
            station = float(draw.uniform(5, 200))
            waypoint = self._carla_map.get_waypoint_xodr(road, lane, station)
            beside_ego = road == ROAD and lane == ego_lane and abs(station - STATION) < 15
            if waypoint is None or beside_ego:
                continue
            transform = waypoint.transform
            transform.location.z += 0.3
            actor = self._world.try_spawn_actor(kinds[int(draw.integers(len(kinds)))], transform)
            if actor is not None:
                actor.set_autopilot(True, self._traffic.get_port())
                self._actors.append(actor)

    def _attach_sensors(self) -> None:
        carla, library = self._carla, self._world.get_blueprint_library()
        camera = library.find("sensor.camera.rgb")
        for name, value in (
            ("image_size_x", self._image_size),
            ("image_size_y", self._image_size),
            ("fov", CAMERA_DEGREES),
        ):
            camera.set_attribute(name, str(value))
        eye = self._world.spawn_actor(
            camera, carla.Transform(carla.Location(*CAMERA_PLACE)), attach_to=self._ego
        )
        bumper = self._world.spawn_actor(
            library.find("sensor.other.collision"), carla.Transform(), attach_to=self._ego
        )
        self._images = queue.Queue()
        eye.listen(self._images.put)
        bumper.listen(self._note_collision)
        self._actors += [eye, bumper]

    def _note_collision(self, event: Any) -> None:
        impulse = event.normal_impulse
        self._impulse += math.sqrt(impulse.x**2 + impulse.y**2 + impulse.z**2)

    def _parameters(self, weather: Weather) -> Any:
        return self._carla.WeatherParameters(
            sun_altitude_angle=weather.sun_altitude,
            **{name: getattr(weather, name) for name in Weather._fields if name != "sun_altitude"},
        )

    def _destroy(self) -> None:
        """Sensors first: one that outlives its car keeps the server from ticking."""
        for actor in reversed(self._actors):
            if hasattr(actor, "stop"):
                actor.stop()
            actor.destroy()
        self._actors = []
