"""What `road:highway` looks like: a stretch of road that is laid anew round the car for every frame, drawn by MuJoCo.

One compiled model: a fixed number of road pieces, lane marks, trees and cars, whose places follow the car along the map. A road of
any length costs the same, about 10 ms a frame on a CPU core.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from cwm_hub.envs.driving.road_map import LANE_WIDTH, LANES, StripMap
from cwm_hub.envs.driving.weather import Weather
from cwm_hub.envs.rendering import FrameRenderer, QualityName, load_triton_first, use_headless_gl

if TYPE_CHECKING:
    from cwm_hub.envs.driving.kinematic import Traffic

PIECE = 6.0
"""Metres of road that one box shows."""
BEHIND, PIECES = 1, 40
TREES, TREE_EVERY = 24, 12.0
CAMERA_AHEAD, CAMERA_HEIGHT, CAMERA_DEGREES = 1.6, 1.7, 60
"""Of the paper's camera: metres before the car's middle and above the road, width of the view."""
MARKS = (0, *LANES)
GREY, GRASS = np.array([0.3, 0.3, 0.32]), np.array([0.28, 0.4, 0.2])
CLEAR_SKY, GREY_SKY, RED_SKY = (
    np.array([0.45, 0.65, 0.95]),
    np.array([0.6, 0.62, 0.65]),
    np.array([0.95, 0.6, 0.35]),
)


class Scenery:
    """Road, marks, trees, cars and light round a car."""

    def __init__(self, road_map: StripMap, *, cars: int, image_size: int, quality: QualityName):
        use_headless_gl()
        load_triton_first()
        import mujoco

        self._map, self._mujoco = road_map, mujoco
        self._model = mujoco.MjModel.from_xml_string(_scene(cars))
        self._model.geom_sameframe[:] = 0  # all were compiled at the origin, and would stay there
        self._data = mujoco.MjData(self._model)
        ids = {
            kind: np.array([self._model.geom(f"{kind}{i}").id for i in range(count)])
            for kind, count in (
                ("road", PIECES),
                *((f"mark{mark}_", PIECES) for mark in MARKS),
                ("tree", TREES),
                ("car", cars),
                ("cabin", cars),
            )
        }
        self._geoms = ids
        mujoco.mj_forward(self._model, self._data)
        self._renderer = FrameRenderer(
            self._model, self._data, camera="bonnet", image_size=image_size, quality=quality, fog=True
        )

    def repaint(self, draw: np.random.Generator, weather: Weather) -> None:
        """Other cars in other colours, and the light of the weather."""
        for car in self._geoms["car"]:
            self._model.geom_rgba[car, :3] = draw.uniform(0.1, 0.9, 3)
        self.set_weather(weather)

    def set_weather(self, weather: Weather) -> None:
        """Light, the haze that stands for the sky's colour and the rain, and the wet of the road."""
        high = math.sin(math.radians(max(weather.sun_altitude, 0.0)))
        cloud, rain = weather.cloudiness / 100, weather.precipitation / 100
        evening = max(0.0, 1 - weather.sun_altitude / 40)
        sky = (1 - evening) * CLEAR_SKY + evening * RED_SKY
        sky = ((1 - cloud) * sky + cloud * GREY_SKY) * (0.35 + 0.65 * high) ** 0.5
        bright = (0.35 + 0.65 * high) * (1 - 0.4 * cloud)
        self._model.vis.headlight.ambient[:] = 0.3 + 0.35 * bright
        self._model.vis.headlight.diffuse[:] = 0.1
        self._model.light_diffuse[0] = bright * (
            (1 - evening) * np.ones(3) + evening * np.array([1.0, 0.7, 0.5])
        )
        self._model.light_dir[0] = [-math.cos(math.radians(weather.sun_altitude)), 0.3, -max(high, 0.05)]
        self._model.geom_rgba[self._geoms["road"], :3] = GREY * (
            1 - 0.5 * weather.precipitation_deposits / 100
        )
        self._model.geom_rgba[self._model.geom("ground").id, :3] = GRASS
        self._model.geom_rgba[self._model.geom("sky").id, :3] = sky
        extent = self._model.stat.extent
        self._model.vis.rgba.fog[:3] = sky
        self._model.vis.map.fogstart = 30 * (1 - 0.8 * rain) / extent
        self._model.vis.map.fogend = (240 - 130 * rain - 8 * weather.fog_density) / extent

    def draw(self, x: float, y: float, heading: float, traffic: "Traffic") -> UInt8[np.ndarray, "H W 3"]:
        """The view from a car at this place; everything lies round it, with the camera at the origin."""
        place = self._map.locate(x, y)
        station = place.station if place is not None else 0.0
        self._lay_road(station, x, y)
        for car, (lane, where) in enumerate(zip(traffic.lane, traffic.station, strict=True)):
            pose = self._map.pose(int(lane), float(where))
            for kind, height in (("car", 0.65), ("cabin", 1.25)):
                self._put(self._geoms[kind][car], pose.x - x, pose.y - y, height, pose.heading)
        camera = self._model.camera("bonnet").id
        ahead = np.array([math.cos(heading), math.sin(heading), 0.0])
        self._model.cam_pos[camera] = CAMERA_AHEAD * ahead + [0, 0, CAMERA_HEIGHT]
        self._mujoco.mju_euler2Quat(
            self._model.cam_quat[camera], np.array([math.pi / 2, heading - math.pi / 2, 0.0]), "xyz"
        )
        sky = self._model.geom("sky").id
        self._put(sky, 260 * ahead[0], 260 * ahead[1], 60.0, heading)
        self._mujoco.mj_kinematics(self._model, self._data)
        self._mujoco.mj_camlight(self._model, self._data)
        return self._renderer()

    def close(self) -> None:
        """Frees the GL context."""
        self._renderer.close()

    def _lay_road(self, station: float, x: float, y: float) -> None:
        first = math.floor(station / PIECE) - BEHIND
        for i in range(PIECES):
            middle = (first + i + 0.5) * PIECE
            pose = self._map.pose(LANES[-1], middle, offset=LANE_WIDTH * 1.5)
            self._put(self._geoms["road"][i], pose.x - x, pose.y - y, -0.05, pose.heading)
            for mark in MARKS:
                geom = self._geoms[f"mark{mark}_"][i]
                line = self._map.pose(-1, middle, offset=LANE_WIDTH * (mark + 0.5))
                shown = mark in (MARKS[0], MARKS[-1]) or (first + i) % 2 == 0  # inner lines are dashed
                self._put(geom, line.x - x, line.y - y, 0.01 if shown else -1.0, line.heading)
        first_tree = math.floor(station / TREE_EVERY)
        for i in range(TREES):
            number = first_tree + i
            side = 1 if number % 2 else -1
            beside = 9 + 6 * ((number * 7919) % 13) / 13
            offset = side * (LANE_WIDTH * 2 + beside)
            pose = self._map.pose(-2, number * TREE_EVERY, offset=offset - LANE_WIDTH / 2)
            self._put(self._geoms["tree"][i], pose.x - x, pose.y - y, 2.5, pose.heading)

    def _put(self, geom: int, x: float, y: float, z: float, heading: float) -> None:
        self._model.geom_pos[geom] = x, y, z
        self._model.geom_quat[geom] = math.cos(heading / 2), 0, 0, math.sin(heading / 2)


def _scene(cars: int) -> str:
    """MJCF: boxes without physics, one light, one camera."""
    box = '<geom name="{}" type="box" size="{} {} {}" rgba="{} 1" contype="0" conaffinity="0"/>'.format
    width = LANE_WIDTH * len(LANES) / 2 + 1.5
    geoms = [
        '<geom name="ground" type="plane" size="400 400 1" pos="0 0 -0.1" rgba=".3 .4 .2 1" contype="0" conaffinity="0"/>',
        box("sky", 1, 400, 120, ".5 .7 .9"),
        *(box(f"road{i}", PIECE * 0.52, width, 0.05, ".3 .3 .3") for i in range(PIECES)),
        *(
            box(
                f"mark{mark}_{i}",
                PIECE / 2 if mark in (MARKS[0], MARKS[-1]) else PIECE / 3,
                0.1,
                0.01,
                ".9 .9 .9",
            )
            for mark in MARKS
            for i in range(PIECES)
        ),
        *(box(f"tree{i}", 0.5, 0.5, 2.5, ".15 .3 .1") for i in range(TREES)),
        *(box(f"car{i}", 2.0, 0.9, 0.45, ".5 .5 .5") for i in range(cars)),
        *(box(f"cabin{i}", 1.0, 0.8, 0.3, ".1 .1 .12") for i in range(cars)),
    ]
    return (
        '<mujoco><visual><map znear="0.002" zfar="4"/><quality shadowsize="0"/></visual><statistic extent="100" center="0 0 0"/>'
        f'<worldbody><light name="sun" directional="true" castshadow="false"/>{"".join(geoms)}'
        f'<camera name="bonnet" fovy="{CAMERA_DEGREES}"/></worldbody></mujoco>'
    )
