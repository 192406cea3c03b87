"""Anyone's gymnasium environment as a simulator with pixels: `gym:ID`, or what a maker returned.

Frames are, in this order: the observation, where it is a picture; MuJoCo's, drawn by our own renderer (gymnasium's
draws garbage where two tasks share a process); what `render()` of an `rgb_array` environment gives. Bounded actions
are rescaled to [-1, 1].
"""

from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from cwm_hub.envs.pixel_env import Outcome, Simulator
from cwm_hub.envs.rendering import FrameRenderer, QualityName, gl_problem, use_headless_gl

SIMULATOR = ("action_size", "frames_per_second", "episode_frames", "reset", "step", "draw", "close")
"""What a `Simulator` has."""


def make(task: str, *, image_size: int, quality: QualityName, **options: Any) -> "Gym":
    """`gymnasium.make(task, **options)`, seen as the module says; `camera` names one of a MuJoCo model.

    Raises:
        ValueError: gymnasium has no such environment or cannot make it.
    """
    camera = options.pop("camera", None)
    if gl_problem() is None:  # many of these need none
        use_headless_gl()
    try:
        made = gymnasium.make(task, render_mode="rgb_array", **options)
    except (gymnasium.error.Error, TypeError) as error:
        raise ValueError(f"gym:{task}: {' '.join(str(error).split())}") from error
    return Gym(made, image_size=image_size, quality=quality, camera=camera)


def as_simulator(
    made: "Simulator | gymnasium.Env[Any, Any]", *, image_size: int, quality: QualityName
) -> Simulator:
    """What a maker returned, as a simulator.

    Raises:
        ValueError: it is neither a gymnasium environment nor one.
    """
    if isinstance(made, gymnasium.Env):
        return Gym(made, image_size=image_size, quality=quality)
    missing = [name for name in SIMULATOR if not hasattr(made, name)]
    if missing:
        raise ValueError(
            f"the maker returned a {type(made).__name__}, expected a gymnasium environment, or an object that also has "
            f"{', '.join(missing)} (cwm_hub.envs.pixel_env.Simulator)"
        )
    return made


class Gym:
    """A gymnasium environment with continuous actions that draws itself, or that MuJoCo draws.

    Raises:
        ValueError: its actions are not a bounded vector of numbers, or nothing draws it.
    """

    def __init__(
        self,
        env: "gymnasium.Env[Any, Any]",
        *,
        image_size: int,
        quality: QualityName = "auto",
        camera: str | int | None = None,
    ):
        space = env.action_space
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1 or not space.is_bounded():
            raise ValueError(
                f"{env} has the actions {space}: the agents here act by bounded vectors, a Box of one axis"
            )
        self._env, self._image_size = env, image_size
        self._low, self._high = space.low.astype(np.float64), space.high.astype(np.float64)
        self._observation: Any = None
        self._renderer: FrameRenderer | None = None
        self.action_size = space.shape[0]
        self.frames_per_second = float(env.metadata.get("render_fps", 10))
        self.episode_frames = None  # gymnasium's TimeLimit is inside
        self._sees = _is_picture(env.observation_space)
        if not self._sees and _has_mujoco(env):
            simulator: Any = env.unwrapped
            self._renderer = FrameRenderer(
                simulator.model,
                simulator.data,
                camera=_own_camera(simulator) if camera is None else camera,
                image_size=image_size,
                quality=quality,
            )
        elif not self._sees and env.render_mode != "rgb_array":
            raise ValueError(
                f"nothing draws {env}: its observation is no uint8 picture, it is not MuJoCo's, and it was not made "
                'with render_mode="rgb_array"'
            )

    def reset(self, seed: int | None) -> dict[str, Any]:
        """Begins an episode."""
        self._observation, info = self._env.reset(seed=seed)
        return info

    def step(self, action: Float[np.ndarray, "A"]) -> Outcome:
        """One step with the action between the environment's own bounds."""
        wide = self._low + (np.asarray(action, np.float64) + 1) / 2 * (self._high - self._low)
        self._observation, reward, terminated, truncated, info = self._env.step(
            wide.astype(self._env.action_space.dtype)
        )
        return Outcome(float(reward), bool(terminated), bool(truncated), info)

    def draw(self) -> UInt8[np.ndarray, "H W 3"]:
        """The frame, square."""
        if self._renderer is not None:
            return self._renderer()
        try:
            frame: Any = self._observation if self._sees else self._env.render()
        except gymnasium.error.DependencyNotInstalled as error:
            raise ValueError(f"{self._env} cannot be drawn: {error}") from error
        return _square(frame, self._image_size)

    def close(self) -> None:
        """Closes the environment and the renderer."""
        if self._renderer is not None:
            self._renderer.close()
        self._env.close()


def _is_picture(space: Any) -> bool:
    return (
        isinstance(space, gymnasium.spaces.Box)
        and space.dtype == np.uint8
        and len(space.shape) == 3
        and space.shape[-1] == 3
    )


def _has_mujoco(env: Any) -> bool:
    return type(getattr(env.unwrapped, "model", None)).__module__.startswith("mujoco")


def _own_camera(simulator: Any) -> Any:
    """The camera that gymnasium takes by default: `track` of the model, or a free one as the environment sets it."""
    import mujoco

    model = simulator.model
    if mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, "track") >= 0:
        return "track"
    camera = mujoco.MjvCamera()
    camera.lookat[:] = np.median(simulator.data.geom_xpos, axis=0)
    camera.distance = model.stat.extent
    for name, value in (simulator.mujoco_renderer.default_cam_config or {}).items():
        if isinstance(value, np.ndarray):
            getattr(camera, name)[:] = value
        else:
            setattr(camera, name, value)
    return camera


def _square(frame: UInt8[np.ndarray, "Hs Ws 3"], side: int) -> UInt8[np.ndarray, "H W 3"]:
    """Squashed to a square by area, as data preparation scales frames."""
    if frame.shape == (side, side, 3):
        return np.ascontiguousarray(frame)
    return np.asarray(Image.fromarray(frame).resize((side, side), Image.Resampling.BOX))
