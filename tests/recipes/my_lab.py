"""Another person's module: an environment of twenty lines that the recipe takes by its place."""

from typing import Any

import gymnasium
import numpy as np


class Lamp(gymnasium.Env):
    """The picture's brightness follows the action; 12 steps an episode."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(0, 255, (20, 20, 3), np.uint8)
    action_space = gymnasium.spaces.Box(-3.0, 3.0, (2,), np.float32)
    render_mode = "rgb_array"

    def __init__(self, look: int = 1):
        self.look = look

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.steps, self.level = 0, int(self.np_random.integers(256))
        return self.render(), {"visual_seed": np.int64(self.look)}

    def step(self, action):
        self.steps += 1
        self.level = int(np.clip(self.level + 20 * action[0], 0, 255))
        return self.render(), self.level / 255, False, self.steps == 12, {}

    def render(self):
        return np.full((20, 20, 3), self.level, np.uint8)


def lamp(task: str, *, image_size: int, quality: str, look: int = 1) -> gymnasium.Env:
    """The maker."""
    return Lamp(look)


def nothing(task: str, *, image_size: int, quality: str) -> list:
    """A maker that makes no environment."""
    return []


def undrawable(task: str, *, image_size: int, quality: str) -> gymnasium.Env:
    """One that draws with what is not installed."""

    class Undrawable(Lamp):
        observation_space = gymnasium.spaces.Box(0, 1, (2,), np.float32)

        def render(self):
            raise gymnasium.error.DependencyNotInstalled("no pygame")

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
            return np.zeros(2, np.float32), {}

    return Undrawable()
