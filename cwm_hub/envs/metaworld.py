"""Meta-world 3.1 (v3) tasks as pixel environments, by the paper's protocol (arXiv 2305.18499, section 5).

Numbers are not comparable with the paper's to the point: it used Meta-world v2 on mujoco-py 2.0; v3 keeps the
v2 rewards on new bindings, and button-press-topdown-wall's reward and success threshold differ.
"""

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from cwm_hub.config import nearest
from cwm_hub.envs.pixel_env import Outcome, PixelEnv
from cwm_hub.envs.rendering import FrameRenderer, QualityName, gl_problem, use_headless_gl

EPISODE_FRAMES = 500
CAMERA = "corner"


def make(task: str, *, image_size: int, quality: QualityName) -> "Metaworld":
    """A task of the suite, the paper's six and every other of the installed Meta-world."""
    return Metaworld(task, image_size=image_size, quality=quality)


class Metaworld:
    """One task with a new goal every episode, seen by the `corner` camera the right way up.

    Episodes last 500 frames and never terminate; `info["success"]` is 1.0 on the frames that solve the task.
    """

    action_size = 4
    frames_per_second = 80.0
    episode_frames = EPISODE_FRAMES

    def __init__(self, task: str, *, image_size: int, quality: QualityName = "auto"):
        self.task = task
        self.env = _bare(task)
        # The XML's corner camera is rolled by 180 degrees; mujoco-py returned GL's bottom-up buffer, so that the
        # paper's frames are today's flipped vertically.
        self._renderer = FrameRenderer(
            self.env.model,
            self.env.data,
            camera=CAMERA,
            image_size=image_size,
            quality=quality,
            flip_vertical=True,
        )

    def reset(self, seed: int | None) -> dict[str, Any]:
        """Draws a new goal; the same seed gives the same goal and frame whatever came before."""
        if seed is not None:
            self.env.seed(seed)  # SawyerXYZEnv.reset ignores its own seed
        self.env.reset()
        self._settle()
        return {"success": 0.0}

    def step(self, action: Float[np.ndarray, "A"]) -> Outcome:
        """One control step of five physics steps."""
        _, reward, _, truncated, info = self.env.step(action)
        return Outcome(float(reward), truncated=bool(truncated), info={"success": float(info["success"])})

    def draw(self) -> UInt8[np.ndarray, "H W 3"]:
        """The frame of the present state."""
        return self._renderer()

    def close(self) -> None:
        """Frees the GL context."""
        self._renderer.close()

    def scripted_action(self) -> Float[np.ndarray, "A"]:
        """What Meta-world's hand-written expert of this task does in the present state (it reads the state)."""
        from metaworld.policies import ENV_POLICY_MAP

        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # "Constant(s) may be too high": hence the clip below
            expert: Any = ENV_POLICY_MAP[f"{self.task}-v3"]
            action = expert().get_action(self.env._get_obs())
        return np.clip(action, -1, 1).astype(np.float32)

    def _settle(self) -> None:
        """Moves everything to where reset put it.

        `reset_model` edits body and site positions after its last `mj_forward`: without this the first frame
        shows the object or the goal of the episode before.
        """
        import mujoco

        mujoco.mj_forward(self.env.model, self.env.data)
        self.env._prev_obs = self.env._get_curr_obs_combined_no_goal()


def task_names() -> list[str]:
    """Every task of the installed Meta-world, the paper's six among them."""
    if gl_problem() is None:  # importing metaworld imports mujoco
        use_headless_gl()
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    return sorted(name.removesuffix("-v3") for name in ALL_V3_ENVIRONMENTS)


def scripted_clip(
    task: str,
    *,
    seed: int,
    frames: int = 40,
    action_repeat: int = 3,
    image_size: int = 64,
    quality: QualityName = "close",
    action_noise: float = 0.1,
) -> UInt8[np.ndarray, "T H W 3"]:
    """The task's scripted expert at work, with seeded Gaussian noise on its actions so that clips differ."""
    simulator = Metaworld(task, image_size=image_size, quality=quality)
    env = PixelEnv(simulator, image_size=image_size, action_repeat=action_repeat)
    noise = np.random.default_rng(seed)
    try:
        clip = [env.reset(seed=seed)[0]]
        while len(clip) < frames:
            action = simulator.scripted_action() + action_noise * noise.standard_normal(4)
            clip.append(env.step(np.clip(action, -1, 1).astype(np.float32))[0])
    finally:
        env.close()
    return np.stack(clip)


def _bare(task: str) -> Any:
    """The bare v3 task, drawing a fresh goal from its own generator at each reset.

    `gym.make("Meta-World/...")` cannot do this: its goals are 50 pickled ones, or a single one for ever.
    """
    use_headless_gl()
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    if f"{task}-v3" not in ALL_V3_ENVIRONMENTS:
        raise ValueError(f"unknown Meta-world task {task!r}{nearest(task, task_names())}")
    env = ALL_V3_ENVIRONMENTS[f"{task}-v3"]()
    env._freeze_rand_vec, env.seeded_rand_vec = False, True
    env._set_task_called, env._partially_observable = True, False
    del env.sawyer_observation_space  # cached for the other observability
    env.seed(0)
    return env
