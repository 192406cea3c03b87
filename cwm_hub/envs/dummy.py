"""A pixel task small enough to solve in minutes, whose best return is known in closed form.

A red bar is steered sideways towards a green one. The reward falls with the distance, so that going straight is
best at every step.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from cwm_hub.envs.pixel_env import Outcome

EPISODE_FRAMES = 20
SPEED = 0.25
BEST_REWARD = 10.0
GOAL_RADIUS = 0.1
BAR_WIDTH = 0.3
MARGIN = 1.3
BACKGROUND = 0.1


def make(task: str, *, image_size: int, quality: str) -> "Dummy":
    """The one task of this suite; it is drawn without GL, so that `quality` says nothing."""
    if task:
        raise ValueError(f"unknown environment 'dummy:{task}': dummy has no tasks, unlike metaworld:reach")
    return Dummy(image_size=image_size)


class Dummy:
    """One action moves the red bar by up to 0.25 per frame on [-1, 1]; no physics, no GL.

    Reward of a frame: 10 - 10 * |red - green|, from -10 to 10 (10 is also Meta-world's best). `info["success"]` is
    1.0 within 0.1 of the goal. Both bars are drawn anew at each reset; everything after is deterministic.
    """

    action_size = 1
    frames_per_second = 10.0
    episode_frames = EPISODE_FRAMES

    def __init__(self, *, image_size: int):
        self.pixels = np.linspace(-MARGIN, MARGIN, image_size)
        self.bar = self.goal = 0.0
        self._random = np.random.default_rng()

    def reset(self, seed: int | None) -> dict[str, Any]:
        """Draws the bar and the goal."""
        if seed is not None:
            self._random = np.random.default_rng(seed)
        self.bar, self.goal = map(float, self._random.uniform(-1, 1, 2))
        return {"success": self._success()}

    def step(self, action: Float[np.ndarray, "A"]) -> Outcome:
        """Moves the bar."""
        self.bar = float(np.clip(self.bar + SPEED * action[0], -1, 1))
        reward = BEST_REWARD * (1 - abs(self.bar - self.goal))
        return Outcome(reward, info={"success": self._success()})

    def draw(self) -> UInt8[np.ndarray, "H W 3"]:
        """The bar in red, the goal in green, both soft, on dark grey."""
        frame = np.full((len(self.pixels), len(self.pixels), 3), BACKGROUND)
        for channel, centre in enumerate((self.bar, self.goal)):
            frame[..., channel] += (1 - BACKGROUND) * np.exp(
                -((self.pixels - centre) ** 2) / (2 * BAR_WIDTH**2)
            )
        return (255 * frame).round().astype(np.uint8)

    def close(self) -> None:
        """Nothing is held."""

    def best_action(self) -> Float[np.ndarray, "A"]:
        """The optimal action here: straight at the goal, at full speed."""
        return np.clip([(self.goal - self.bar) / SPEED], -1, 1).astype(np.float32)

    def best_return(self, frames: int = EPISODE_FRAMES) -> float:
        """The highest return to be had from here in so many frames, in closed form."""
        distance = np.maximum(0, abs(self.goal - self.bar) - SPEED * np.arange(1, frames + 1))
        return float(BEST_REWARD * (1 - distance).sum())

    def _success(self) -> float:
        return float(abs(self.bar - self.goal) < GOAL_RADIUS)
