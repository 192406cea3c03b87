"""Named agents: a comparison differs in one word. `agent_preset("dreamerv2-cnn", action_size=4)`.

Every preset of a world model is one of an agent: a video world model becomes the lower of two stacked RSSMs, with dual
reward heads and the intrinsic bonus; one with actions is DreamerV2 from scratch. Model-free agents have their own names.
"""

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatch
from typing import Any

from cwm_hub.agents.dreamer import DreamerConfig
from cwm_hub.agents.drqv2 import DrQV2Config
from cwm_hub.agents.intrinsic import IntrinsicConfig
from cwm_hub.config import nearest
from cwm_hub.models.action_world_model import ActionWorldModelConfig
from cwm_hub.models.registry import list_models, model_config, stacked
from cwm_hub.models.video_world_model import VideoWorldModelConfig

MODEL_FREE: Mapping[str, Mapping[str, Any]] = {
    "drqv2": {},
    "drqv2-tiny": {"image_size": 32, "hidden_units": 128, "batch_transitions": 64, "noise_updates": 1000},
}
"""Name to what differs from `DrQV2Config`'s defaults."""


def list_agents(pattern: str = "*") -> list[str]:
    """Names of the agents that match a shell pattern, sorted."""
    return sorted(name for name in (*list_models(), *MODEL_FREE) if fnmatch(name, pattern))


def agent_preset(name: str, *, action_size: int) -> DreamerConfig | DrQV2Config:
    """Configuration of a named agent with new weights.

    Args:
        name: one of `list_agents()`.
        action_size: numbers in an action of the environment.

    Raises:
        ValueError: no such name.
    """
    if name in MODEL_FREE:
        return DrQV2Config(action_size=action_size, **MODEL_FREE[name])
    if name not in list_models():
        hint = nearest(name, list_agents()) or f"; there are {', '.join(list_agents())}"
        raise ValueError(f"no agent named {name!r}{hint}")
    model = model_config(name)
    if isinstance(model, VideoWorldModelConfig):
        return stacked_agent(model, action_size=action_size)
    return agent_on(replace(model, action_size=action_size, video_kl_scale=0.0))


def stacked_agent(video: VideoWorldModelConfig, *, action_size: int) -> DreamerConfig:
    """The paper's agent on a video world model: its networks, and an action RSSM of the same sizes on top."""
    return agent_on(stacked(video, action_size=action_size))


def agent_on(world: ActionWorldModelConfig) -> DreamerConfig:
    """The paper's agent on a world model with actions; the bonus is there where a video RSSM is."""
    return DreamerConfig(world=world, intrinsic=None if world.video_rssm is None else IntrinsicConfig())
