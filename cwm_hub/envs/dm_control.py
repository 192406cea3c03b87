"""DeepMind Control suite tasks (arXiv 1801.00690) as pixel environments: `dmc:walker_run`, any task of the suite."""

from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from cwm_hub.config import nearest
from cwm_hub.envs.pixel_env import Outcome
from cwm_hub.envs.rendering import (
    FrameRenderer,
    QualityName,
    RenderingError,
    load_triton_first,
    use_headless_gl,
)


def make(task: str, *, image_size: int, quality: QualityName, camera: int | str = 0) -> "DmControl":
    """A task of the suite by `domain_task`, seen by one of its cameras (0: the one that follows from the side)."""
    return DmControl(task, image_size=image_size, quality=quality, camera=camera)


class DmControl:
    """One task with its own reward, in [0, 1] a frame, and its own clock (1000 frames for most)."""

    def __init__(self, task: str, *, image_size: int, quality: QualityName, camera: int | str = 0):
        self.env = load_task(task)
        physics = self.env.physics
        spec = self.env.action_spec()
        self._low, self._high = spec.minimum, spec.maximum
        self._renderer = FrameRenderer(
            physics.model.ptr, physics.data.ptr, camera=camera, image_size=image_size, quality=quality
        )
        self.action_size = int(spec.shape[0])
        self.frames_per_second = 1 / float(self.env.control_timestep())
        limit = float(self.env._step_limit)
        self.episode_frames = round(limit) if np.isfinite(limit) else None

    def reset(self, seed: int | None) -> dict[str, Any]:
        """Draws the start of an episode."""
        if seed is not None:
            self.env.task._random = np.random.RandomState(seed)
        self.env.reset()
        return {}

    def step(self, action: Float[np.ndarray, "A"]) -> Outcome:
        """One control step."""
        now = self.env.step(self._low + (action.astype(np.float64) + 1) / 2 * (self._high - self._low))
        return Outcome(
            float(now.reward),
            terminated=now.last() and now.discount == 0,
            truncated=now.last() and now.discount != 0,
        )

    def draw(self) -> UInt8[np.ndarray, "H W 3"]:
        """The frame of the present state."""
        return self._renderer()

    def close(self) -> None:
        """Frees the GL context."""
        self._renderer.close()


def load_task(task: str) -> Any:
    """dm_control's own environment of `domain_task` (or `domain-task`).

    Raises:
        ValueError: the suite has no such task.
        RenderingError: dm_control is not installed.
    """
    use_headless_gl()
    load_triton_first()
    try:
        from dm_control import suite
    except ImportError as error:
        raise RenderingError("dmc and dmcr tasks need dm_control: pip install 'cwm-hub[envs]'") from error
    tasks = {f"{domain}_{name}": (domain, name) for domain, name in suite.ALL_TASKS}
    name = task.replace("-", "_")
    if name not in tasks:
        raise ValueError(f"unknown task {task!r} of the DeepMind Control suite{nearest(name, tasks)}")
    return suite.load(*tasks[name])
