"""Pixel environments by name: `make_env("metaworld:reach")`, `make_env("dummy")`.

All speak gymnasium's API with uint8 [H, W, 3] observations and actions in [-1, 1]. A simulator is imported only
when one of its tasks is made.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cwm_hub.envs.rendering import QualityName, resolve_quality

if TYPE_CHECKING:
    import gymnasium


@dataclass(frozen=True)
class EnvConfig:
    """A task and how it is seen."""

    name: str = "metaworld:reach"
    """`metaworld:<task>` or `dummy`."""
    image_size: int = 64
    """Side of the square frame in pixels (paper: 64)."""
    action_repeat: int = 1
    """Environment frames per agent step; rewards are summed, the last frame is drawn (paper: 1 on Meta-world)."""
    episode_frames: int | None = None
    """Episode length in environment frames; None keeps the task's own (Meta-world 500, at most; dummy 20)."""
    render_quality: QualityName | Literal["auto"] = "auto"
    """exact, close, fast or flat; `auto` is exact on a GPU and close where the CPU draws. MuJoCo tasks only."""


def make_env(
    name: str,
    *,
    image_size: int = 64,
    action_repeat: int = 1,
    episode_frames: int | None = None,
    render_quality: QualityName | Literal["auto"] = "auto",
) -> "gymnasium.Env[Any, Any]":
    """An environment of `EnvConfig`'s fields; every reset needs its own seed to be reproducible.

    Raises:
        ValueError: the name is not one of `list_envs()`' forms.
        RenderingError: the task needs headless GL and this machine has none.
    """
    domain, _, task = name.partition(":")
    if episode_frames is not None and episode_frames % action_repeat:
        raise ValueError(
            f"episode_frames={episode_frames} is not a multiple of action_repeat={action_repeat}"
        )
    env: gymnasium.Env[Any, Any]
    if domain == "dummy" and not task:
        from cwm_hub.envs.dummy import EPISODE_FRAMES, DummyEnv

        frames = episode_frames or EPISODE_FRAMES
        env = DummyEnv(image_size=image_size, action_repeat=action_repeat, episode_frames=frames)
    elif domain == "metaworld" and task:
        from cwm_hub.envs.metaworld import MetaworldEnv

        quality = resolve_quality(render_quality)
        env = MetaworldEnv(task, image_size=image_size, quality=quality, action_repeat=action_repeat)
    else:
        raise ValueError(f"unknown environment {name!r}: expected one of {', '.join(list_envs())}")
    if episode_frames is None or domain == "dummy":
        return env
    from gymnasium.wrappers import TimeLimit

    return TimeLimit(env, episode_frames // action_repeat)


def list_envs() -> list[str]:
    """The names of the paper's tasks and the dummy; `metaworld:` takes every other Meta-world task too."""
    from cwm_hub.envs.metaworld import TASKS

    return ["dummy", *(f"metaworld:{task}" for task in TASKS)]
