"""A pixel task small enough to solve in minutes, whose best return is known in closed form.

A red bar is steered sideways towards a green one. The reward falls with the distance, so that going straight is
best at every step.
"""

from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Float, UInt8

EPISODE_FRAMES = 20
SPEED = 0.25
BEST_REWARD = 10.0
GOAL_RADIUS = 0.1
BAR_WIDTH = 0.3
MARGIN = 1.3
BACKGROUND = 0.1


class DummyEnv(gymnasium.Env[UInt8[np.ndarray, "H W 3"], Float[np.ndarray, "A"]]):
    """One action moves the red bar by up to 0.25 per frame on [-1, 1]; no simulator, no GL.

    Reward of a frame: 10 - 10 * |red - green|, from -10 to 10 (10 is also Meta-world's best). `info["success"]` is
    1.0 within 0.1 of the goal. Both bars are drawn anew at each reset; everything after is deterministic.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  (gymnasium's own convention)
    render_mode = "rgb_array"

    def __init__(self, *, image_size: int = 32, action_repeat: int = 1, episode_frames: int = EPISODE_FRAMES):
        self._action_repeat, self._episode_frames = action_repeat, episode_frames
        self._pixels = np.linspace(-MARGIN, MARGIN, image_size)
        self._bar = self._goal = 0.0
        self._frame = 0
        self.observation_space = gymnasium.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[UInt8[np.ndarray, "H W 3"], dict[str, Any]]:
        """Draws the bar and the goal."""
        super().reset(seed=seed)
        self._bar, self._goal = map(float, self.np_random.uniform(-1, 1, 2))
        self._frame = 0
        return self.render(), {"success": self._success()}

    def step(
        self, action: Float[np.ndarray, "A"]
    ) -> tuple[UInt8[np.ndarray, "H W 3"], float, bool, bool, dict[str, Any]]:
        """Moves the bar; rewards of repeated frames are summed."""
        total, success = 0.0, 0.0
        for _ in range(self._action_repeat):
            self._bar = float(np.clip(self._bar + SPEED * np.clip(action[0], -1, 1), -1, 1))
            self._frame += 1
            total += BEST_REWARD * (1 - abs(self._bar - self._goal))
            success = max(success, self._success())
        return self.render(), total, False, self._frame >= self._episode_frames, {"success": success}

    def render(self) -> UInt8[np.ndarray, "H W 3"]:
        """The bar in red, the goal in green, both soft, on dark grey."""
        frame = np.full((len(self._pixels), len(self._pixels), 3), BACKGROUND)
        for channel, centre in enumerate((self._bar, self._goal)):
            frame[..., channel] += (1 - BACKGROUND) * np.exp(
                -((self._pixels - centre) ** 2) / (2 * BAR_WIDTH**2)
            )
        return (255 * frame).round().astype(np.uint8)

    def best_action(self) -> Float[np.ndarray, "A"]:
        """The optimal action here: straight at the goal, at full speed."""
        return np.clip([(self._goal - self._bar) / SPEED], -1, 1).astype(np.float32)

    def best_return(self) -> float:
        """The highest return still to be had from here, in closed form, with one frame per action."""
        frames = np.arange(1, self._episode_frames - self._frame + 1)
        distance = np.maximum(0, abs(self._goal - self._bar) - SPEED * frames)
        return float(BEST_REWARD * (1 - distance).sum())

    def _success(self) -> float:
        return float(abs(self._bar - self._goal) < GOAL_RADIUS)
