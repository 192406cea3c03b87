"""A pixel task small enough to solve in minutes, whose best return is known in closed form.

A red dot is steered on a dark square towards a green one. The axes are independent and the reward falls with
the distance along each, so that going straight is best at every step.
"""

from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Float, UInt8

EPISODE_FRAMES = 20
SPEED = 0.25
BEST_REWARD = 10.0
GOAL_RADIUS = 0.2
DOT_WIDTH = 0.4
MARGIN = 1.3
BACKGROUND = 0.1


class DummyEnv(gymnasium.Env[UInt8[np.ndarray, "H W 3"], Float[np.ndarray, "A"]]):
    """Two actions move the dot by up to 0.25 per frame on [-1, 1]^2; no simulator, no GL.

    Reward of a frame: 10 - 10 * mean over the axes of |dot - goal|, from -10 to 10 (10 is also Meta-world's best).
    `info["success"]` is 1.0 within 0.2 of the goal. Dot and goal are drawn anew at each reset; everything after is
    deterministic.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  (gymnasium's own convention)
    render_mode = "rgb_array"

    def __init__(self, *, image_size: int = 32, action_repeat: int = 1, episode_frames: int = EPISODE_FRAMES):
        self._action_repeat, self._episode_frames = action_repeat, episode_frames
        self._pixels = np.linspace(-MARGIN, MARGIN, image_size)
        self._dot = self._goal = np.zeros(2)
        self._frame = 0
        self.observation_space = gymnasium.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[UInt8[np.ndarray, "H W 3"], dict[str, Any]]:
        """Draws the dot and the goal."""
        super().reset(seed=seed)
        self._dot, self._goal = self.np_random.uniform(-1, 1, (2, 2))
        self._frame = 0
        return self.render(), {"success": self._success()}

    def step(
        self, action: Float[np.ndarray, "A"]
    ) -> tuple[UInt8[np.ndarray, "H W 3"], float, bool, bool, dict[str, Any]]:
        """Moves the dot; rewards of repeated frames are summed."""
        total, success = 0.0, 0.0
        for _ in range(self._action_repeat):
            self._dot = np.clip(self._dot + SPEED * np.clip(action, -1, 1), -1, 1)
            self._frame += 1
            total += BEST_REWARD * (1 - float(np.abs(self._dot - self._goal).mean()))
            success = max(success, self._success())
        return self.render(), total, False, self._frame >= self._episode_frames, {"success": success}

    def render(self) -> UInt8[np.ndarray, "H W 3"]:
        """The dot in red, the goal in green, as soft blobs on dark grey."""
        frame = np.full((len(self._pixels), len(self._pixels), 3), BACKGROUND)
        frame[..., 0] += (1 - BACKGROUND) * self._blob(self._dot)
        frame[..., 1] += (1 - BACKGROUND) * self._blob(self._goal)
        return (255 * frame).round().astype(np.uint8)

    def best_action(self) -> Float[np.ndarray, "A"]:
        """The optimal action here: straight at the goal, each axis at its own full speed."""
        return np.clip((self._goal - self._dot) / SPEED, -1, 1).astype(np.float32)

    def best_return(self) -> float:
        """The highest return still to be had from here, in closed form, with one frame per action."""
        frames = np.arange(1, self._episode_frames - self._frame + 1)[:, None]
        distance = np.maximum(0, np.abs(self._goal - self._dot) - SPEED * frames)
        return float(BEST_REWARD * (1 - distance.mean(1)).sum())

    def _success(self) -> float:
        return float(np.linalg.norm(self._dot - self._goal) < GOAL_RADIUS)

    def _blob(self, centre: Float[np.ndarray, "2"]) -> Float[np.ndarray, "H W"]:
        """A Gaussian bump; the second coordinate is the row."""
        column, row = (np.exp(-((self._pixels - c) ** 2) / (2 * DOT_WIDTH**2)) for c in centre)
        return row[:, None] * column[None, :]
