"""Named agents: a comparison differs in one word. `agent_preset("dreamerv2-cnn", action_size=4)`.

Every preset of a world model is one of an agent: a video world model becomes the lower of two stacked RSSMs, with dual
reward heads and the intrinsic bonus; one with actions is DreamerV2 from scratch.
"""

from dataclasses import replace

from cwm_hub.agents.dreamer import DreamerConfig
from cwm_hub.agents.intrinsic import IntrinsicConfig
from cwm_hub.models.action_world_model import ActionWorldModelConfig
from cwm_hub.models.registry import model_config
from cwm_hub.models.video_world_model import VideoWorldModelConfig


def agent_preset(name: str, *, action_size: int) -> DreamerConfig:
    """Configuration of a named agent with new weights.

    Args:
        name: contextwm, plainwm, dreamerv2, dreamerv2-cnn and their -tiny, or another of `list_models()`.
        action_size: numbers in an action of the environment.

    Raises:
        ValueError: no such name.
    """
    model = model_config(name)
    if isinstance(model, VideoWorldModelConfig):
        return stacked_agent(model, action_size=action_size)
    return DreamerConfig(world=replace(model, action_size=action_size), intrinsic=None)


def stacked_agent(video: VideoWorldModelConfig, *, action_size: int) -> DreamerConfig:
    """The paper's agent on a video world model: its networks, and an action RSSM of the same sizes on top."""
    world = ActionWorldModelConfig(
        action_size=action_size, frame=video.frame, video_rssm=video.rssm, rssm=video.rssm
    )
    return DreamerConfig(world=world, intrinsic=IntrinsicConfig())
