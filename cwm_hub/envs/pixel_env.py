"""One gymnasium environment for every simulator: action repeat, time limit, spaces and frames in one place.

Timeline with action_repeat = 2 (f: simulator frames, only every second one is drawn):

    f      0        1        2        3        4
    step   reset             1                 2
    drawn  x                 x                 x
    reward                   r1 + r2           r3 + r4
"""

from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np
from jaxtyping import Float, UInt8


class Outcome(NamedTuple):
    """What one simulated frame brought."""

    reward: float
    terminated: bool = False
    """The task itself ended the episode: nothing can follow."""
    truncated: bool = False
    """The simulator's own clock ended it."""
    info: dict[str, Any] = {}  # noqa: RUF012  (never written to)
    """`success`, 0.0 or 1.0, where the task knows one; whatever else the simulator tells."""


class Simulator(Protocol):
    """A task that counts, repeats and draws nothing by itself; what `register_env`'s makers return.

    A gymnasium environment may be returned in its place: `gym_adapter` then plays this part.
    """

    @property
    def action_size(self) -> int:
        """Numbers of an action, each in [-1, 1]."""

    @property
    def frames_per_second(self) -> float:
        """Simulated frames of a second, for films."""

    @property
    def episode_frames(self) -> int | None:
        """Frames after which an episode is cut; None where only the task ends it."""

    def reset(self, seed: int | None) -> dict[str, Any]:
        """Begins an episode that follows from the seed alone, whatever came before; None draws on."""

    def step(self, action: Float[np.ndarray, "A"]) -> Outcome:
        """Simulates one frame."""

    def draw(self) -> UInt8[np.ndarray, "H W 3"]:
        """The present state as a square picture."""

    def close(self) -> None:
        """Frees what the simulator holds."""


class PixelEnv(gymnasium.Env[UInt8[np.ndarray, "H W 3"], Float[np.ndarray, "A"]]):
    """A simulator by gymnasium's API: uint8 [H, W, 3] frames, actions in [-1, 1]."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  (gymnasium's own convention)
    render_mode = "rgb_array"

    def __init__(
        self,
        simulator: Simulator,
        *,
        image_size: int,
        action_repeat: int = 1,
        episode_frames: int | None = None,
    ):
        self.simulator = simulator
        self._action_repeat = action_repeat
        self._episode_frames = episode_frames or simulator.episode_frames
        self._frame = 0
        self.metadata = self.metadata | {"render_fps": round(simulator.frames_per_second / action_repeat, 3)}
        self.observation_space = gymnasium.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (simulator.action_size,), np.float32)

    @property
    def most_steps(self) -> int | None:
        """Of an episode; None where nothing but the task or a wrapper below limits it."""
        return None if self._episode_frames is None else -(-self._episode_frames // self._action_repeat)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[UInt8[np.ndarray, "H W 3"], dict[str, Any]]:
        """Begins an episode; the same seed gives the same one, whatever came before."""
        super().reset(seed=seed)
        info = self.simulator.reset(seed)
        self._frame = 0
        return self.render(), info

    def step(
        self, action: Float[np.ndarray, "A"]
    ) -> tuple[UInt8[np.ndarray, "H W 3"], float, bool, bool, dict[str, Any]]:
        """Repeats the action, sums the rewards, keeps a success, and draws the last frame only."""
        total, success, action = 0.0, 0.0, np.clip(action, -1, 1)
        for _ in range(self._action_repeat):
            reward, terminated, truncated, info = self.simulator.step(action)
            self._frame += 1
            total += float(reward)
            success = max(success, float(info.get("success", 0.0)))
            truncated = truncated or self._frame == self._episode_frames
            if terminated or truncated:
                break
        info = dict(info) | ({"success": success} if "success" in info else {})
        return self.render(), total, terminated, truncated, info

    def render(self) -> UInt8[np.ndarray, "H W 3"]:
        """The frame of the present state."""
        return self.simulator.draw()

    def close(self) -> None:
        """Frees the simulator."""
        self.simulator.close()
