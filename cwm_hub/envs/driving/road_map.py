"""Lanes of a highway: where a car is in its lane, and where a lane runs; of a strip of our own or of CARLA's map.

Coordinates are OpenDRIVE's: metres, x east, y north, headings in radians against the clock. Lanes have OpenDRIVE's numbers,
-1 beside the middle to -4 at the right edge. CARLA's y points south: `CarlaRoadMap` turns it round.
"""

import math
from typing import Any, NamedTuple, Protocol

LANES = (-1, -2, -3, -4)
LANE_WIDTH = 3.5
STRIP = (
    (400.0, 0.0),
    (300.0, 1 / 600),
    (250.0, 0.0),
    (350.0, -1 / 450),
    (500.0, 0.0),
    (400.0, 1 / 800),
    (800.0, 0.0),
)
"""(length in m, curvature in 1/m) of the strip's pieces, straight on and round by arcs: 3 km."""


class LanePlace(NamedTuple):
    """Where a point is."""

    road: int
    lane: int
    station: float
    """Metres along the road."""
    offset: float
    """Metres to the left of the lane's middle."""
    heading: float
    """Of the lane."""
    road_ahead: bool
    """Whether the lane goes on from here."""


class Pose(NamedTuple):
    """A place and a direction."""

    x: float
    y: float
    heading: float


class RoadMap(Protocol):
    """What the rules ask of a map."""

    def locate(self, x: float, y: float) -> LanePlace | None:
        """The place in the nearest driving lane; None off the map."""


class StripMap:
    """A one-way highway of four lanes with gentle bends, written as OpenDRIVE by `to_opendrive`."""

    road = 45
    """Its number, that of the road where the paper's task begins."""

    def __init__(self, pieces: tuple[tuple[float, float], ...] = STRIP):
        self._pieces: list[tuple[float, float, float, Pose]] = []  # station, length, curvature, start
        station, pose = 0.0, Pose(0.0, 0.0, 0.0)
        for length, curvature in pieces:
            self._pieces.append((station, length, curvature, pose))
            pose = _along(pose, curvature, length)
            station += length
        self.length = station

    def pose(self, lane: int, station: float, *, offset: float = 0.0) -> Pose:
        """The middle of a lane at a station, or a point to the left of it; beyond the ends the road goes straight on."""
        piece = next((piece for piece in reversed(self._pieces) if piece[0] <= station), self._pieces[0])
        start, length, curvature, pose = piece
        inside = min(station - start, length)
        middle = _along(_along(pose, curvature, inside), 0.0, station - start - inside)
        left = LANE_WIDTH * (lane + 0.5) + offset
        return Pose(
            middle.x - left * math.sin(middle.heading),
            middle.y + left * math.cos(middle.heading),
            middle.heading,
        )

    def locate(self, x: float, y: float) -> LanePlace | None:
        """The place in the nearest lane; None more than two lanes beside the road, or beyond its ends."""
        station, left, heading = min(
            (found for piece in self._pieces if (found := _project(piece, x, y)) is not None),
            key=lambda found: abs(found[1]),
            default=(0.0, math.inf, 0.0),
        )
        if not (len(LANES) + 2) * -LANE_WIDTH <= left <= 2 * LANE_WIDTH:
            return None
        lane = min(-1, max(LANES[-1], math.floor(left / LANE_WIDTH)))
        offset = left - LANE_WIDTH * (lane + 0.5)
        return LanePlace(self.road, lane, station, offset, heading, station + 1 < self.length)

    def to_opendrive(self) -> str:
        """The strip as OpenDRIVE 1.4, for CARLA's own map reader."""
        geometry = "".join(
            f'<geometry s="{station}" x="{pose.x}" y="{pose.y}" hdg="{pose.heading}" length="{length}">'
            + (f'<arc curvature="{curvature}"/>' if curvature else "<line/>")
            + "</geometry>"
            for station, length, curvature, pose in self._pieces
        )
        lanes = "".join(
            f'<lane id="{lane}" type="driving" level="false"><width sOffset="0" a="{LANE_WIDTH}" b="0" c="0" d="0"/></lane>'
            for lane in LANES
        )
        return (
            '<?xml version="1.0"?><OpenDRIVE><header revMajor="1" revMinor="4" name="strip"/>'
            f'<road name="highway" length="{self.length}" id="{self.road}" junction="-1"><planView>{geometry}</planView>'
            '<lanes><laneSection s="0"><center><lane id="0" type="none" level="false"/></center>'
            f"<right>{lanes}</right></laneSection></lanes></road></OpenDRIVE>"
        )


class CarlaRoadMap:
    """CARLA's client-side map, of a server or read offline from OpenDRIVE text."""

    def __init__(self, carla_map: Any):
        self._map = carla_map

    def locate(self, x: float, y: float) -> LanePlace | None:
        """The place in the nearest driving lane, shoulders and exits counting as the lane beside them."""
        import carla

        waypoint = self._map.get_waypoint(
            carla.Location(x=x, y=-y), project_to_road=True, lane_type=carla.LaneType.Driving
        )
        if waypoint is None:
            return None
        middle, heading = waypoint.transform.location, -math.radians(waypoint.transform.rotation.yaw)
        ahead_x, ahead_y = x - middle.x, y + middle.y
        offset = -ahead_x * math.sin(heading) + ahead_y * math.cos(heading)
        return LanePlace(
            waypoint.road_id, waypoint.lane_id, waypoint.s, offset, heading, bool(waypoint.next(1.0))
        )


def _along(pose: Pose, curvature: float, length: float) -> Pose:
    """Where one comes out who follows a line or an arc for `length`."""
    heading = pose.heading + curvature * length
    if curvature == 0:
        return Pose(pose.x + length * math.cos(heading), pose.y + length * math.sin(heading), heading)
    x = pose.x + (math.sin(heading) - math.sin(pose.heading)) / curvature
    y = pose.y - (math.cos(heading) - math.cos(pose.heading)) / curvature
    return Pose(x, y, heading)


def _project(
    piece: tuple[float, float, float, Pose], x: float, y: float
) -> tuple[float, float, float] | None:
    """(station, metres to the left, heading) of a point seen from one piece; None where it lies beside its ends."""
    station, length, curvature, start = piece
    ahead = (x - start.x) * math.cos(start.heading) + (y - start.y) * math.sin(start.heading)
    left = -(x - start.x) * math.sin(start.heading) + (y - start.y) * math.cos(start.heading)
    if curvature:
        angle = (
            math.atan2(ahead, 1 / curvature - left)
            if curvature > 0
            else math.atan2(ahead, left - 1 / curvature)
        )
        radius = math.hypot(ahead, left - 1 / curvature)
        ahead = angle / abs(curvature)
        left = math.copysign(1, curvature) * (abs(1 / curvature) - radius)
    if not 0 <= ahead <= length:
        return None
    return station + ahead, left, start.heading + curvature * ahead
