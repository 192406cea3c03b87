"""Weather of a driving task by CARLA's names and numbers, and the weather that changes."""

import math
import re
from typing import NamedTuple

from cwm_hub.config import nearest


class Weather(NamedTuple):
    """CARLA's parameters, in its units."""

    sun_altitude: float
    """Degrees above the horizon."""
    cloudiness: float
    """Per cent, as all below."""
    precipitation: float = 0.0
    precipitation_deposits: float = 0.0
    """Water on the road."""
    wind_intensity: float = 10.0
    fog_density: float = 2.0


WEATHERS = {
    f"{name}{time}": Weather(altitude, *numbers)
    for time, altitude in (("Noon", 45.0), ("Sunset", 15.0))
    for name, numbers in {
        "Clear": (5.0, 0.0, 0.0, 10.0, 2.0),
        "Cloudy": (60.0, 0.0, 0.0, 10.0, 3.0),
        "Wet": (5.0, 0.0, 50.0, 10.0, 3.0),
        "WetCloudy": (60.0, 0.0, 50.0, 10.0, 3.0),
        "SoftRain": (20.0, 30.0, 50.0, 30.0, 3.0),
        "MidRain": (60.0, 60.0, 60.0, 60.0, 3.0),
        "HardRain": (100.0, 100.0, 90.0, 100.0, 7.0),
    }.items()
}
"""The fourteen presets of CARLA 0.9, its `MidRainyNoon` as `MidRainNoon`; fog of wet sunsets is 2 there."""
CHANGING = "Changing"
DAY_SECONDS = 240.0
STORM_SECONDS = 180.0


def weather_of_task(task: str) -> str:
    """`highway` is ClearNoon, `highway_wet_sunset` WetSunset, `highway_changing` changes.

    Raises:
        ValueError: the task is none of these.
    """
    words = re.split("[_-]", task)
    name = "".join(word.capitalize() for word in words[1:]) or "ClearNoon"
    if words[0] != "highway" or name not in (*WEATHERS, CHANGING):
        tasks = [*(f"highway_{_snake(weather)}" for weather in (*WEATHERS, CHANGING)), "highway"]
        raise ValueError(
            f"unknown driving task {task!r}{nearest(task, tasks)}: highway, or highway_ and a weather"
        )
    return name


def changing_weather(seconds: float, *, phase: float) -> Weather:
    """Sun and storm as smooth waves of different length, so that no two minutes are alike.

    Args:
        seconds: since the episode began.
        phase: share of both periods that an episode begins with, 0 to 1.
    """
    sun = math.sin(2 * math.pi * (seconds / DAY_SECONDS + phase))
    storm = max(0.0, math.sin(2 * math.pi * (seconds / STORM_SECONDS + 3 * phase)))
    return Weather(
        sun_altitude=35.0 + 30.0 * sun,
        cloudiness=100.0 * min(1.0, 1.2 * storm),
        precipitation=100.0 * max(0.0, storm - 0.3) / 0.7,
        precipitation_deposits=90.0 * storm,
        wind_intensity=10.0 + 80.0 * storm,
        fog_density=2.0 + 8.0 * storm,
    )


def weather_at(name: str, seconds: float, *, phase: float) -> Weather:
    """The weather of this name at this moment."""
    return changing_weather(seconds, phase=phase) if name == CHANGING else WEATHERS[name]


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
