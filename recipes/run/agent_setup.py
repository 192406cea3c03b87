"""The agent of a fine-tuning run before its first update: pre-trained or new, its preset, the run's settings on top."""

from dataclasses import fields, replace
from typing import Any

import torch

from cwm_hub.agents.agent import Agent
from cwm_hub.agents.dreamer import DreamerAgent, DreamerConfig
from cwm_hub.agents.drqv2 import DrQV2Agent, DrQV2Config
from cwm_hub.agents.presets import agent_on, agent_preset, stacked_agent
from cwm_hub.config import merged, override
from cwm_hub.hub.names import find_checkpoint
from cwm_hub.models.action_world_model import ActionWorldModel
from cwm_hub.models.video_world_model import VideoWorldModel
from recipes.run.finetune_settings import FinetuneConfig
from recipes.run.folder import RecipeError

PRETRAINED_HELD_UPDATES = 100
"""The paper's for Meta-world, as are all defaults."""
PREFIXES = {
    "encoder": ("frame_model.encoder.", "frame_model.context_encoder."),
    "video_rssm": ("video_rssm.",),
    "decoder": ("frame_model.decoder.",),
}
"""Part of `load` -> how its tensors' names begin."""
WITHOUT_VIDEO_RSSM = {
    "held_updates": "nothing is pre-trained",
    "intrinsic": "the bonus needs a video RSSM",
}
"""Why an agent without one does not have these settings."""


def new_agent(
    config: FinetuneConfig, action_size: int, device: torch.device
) -> tuple[Agent, dict[str, Any] | None]:
    """An agent before its first update, and what names the checkpoint it comes from.

    Raises:
        ValueError: both or neither of init and model; no such name; a checkpoint that is no video world model;
            settings that the agent does not have, or that do not fit the environment.
    """
    if (config.init is None) == (config.model is None):
        raise RecipeError(
            "give either init (a pre-trained checkpoint) or model (a preset that starts from new weights)"
        )
    if config.model is not None:
        settings = new_settings(config, action_size)
        agent = DrQV2Agent(settings) if isinstance(settings, DrQV2Config) else DreamerAgent(settings)
        return agent.to(device), None
    assert config.init is not None
    checkpoint = find_checkpoint(config.init)
    if not issubclass(checkpoint.model_class, (VideoWorldModel, ActionWorldModel)):
        raise RecipeError(
            f"{config.init} holds a {checkpoint.model_class.__name__}, fine-tuning starts from a VideoWorldModel or an "
            "ActionWorldModel"
        )
    model = checkpoint.load()
    assert isinstance(model, (VideoWorldModel, ActionWorldModel))
    settings = pretrained_settings(config, model, action_size)
    left = tuple(
        prefix for part, prefixes in PREFIXES.items() if part not in config.load for prefix in prefixes
    )
    if isinstance(model, VideoWorldModel) and not left:
        return DreamerAgent.from_video_world_model(model, settings).to(device), checkpoint.identity()
    agent = DreamerAgent(settings)
    world = agent.world_model
    new = {name: tensor.clone() for name, tensor in world.state_dict().items() if name.startswith(left)}
    world.take_over(model)
    world.load_state_dict(world.state_dict() | new)
    return agent.to(device), checkpoint.identity()


def pretrained_settings(
    config: FinetuneConfig, model: VideoWorldModel | ActionWorldModel, action_size: int
) -> DreamerConfig:
    """The configuration of an agent on a pre-trained model; one with actions keeps its networks, heads included."""
    if isinstance(model, VideoWorldModel):
        preset = stacked_agent(model.config, action_size=action_size)
    elif model.config.action_size == action_size:
        preset = agent_on(replace(model.config, video_kl_scale=0.0))  # as fine-tuning has it
    else:
        raise RecipeError(
            f"{config.init} takes actions of {model.config.action_size} numbers and {config.env.name} of {action_size}"
        )
    if preset.world.video_rssm is None:
        return dreamer_settings(config, preset, leave_out=WITHOUT_VIDEO_RSSM)
    return dreamer_settings(config, replace(preset, held_updates=PRETRAINED_HELD_UPDATES), leave_out={})


def new_settings(config: FinetuneConfig, action_size: int) -> DreamerConfig | DrQV2Config:
    """The configuration of an agent with new weights: `model`'s, the run's settings on top."""
    assert config.model is not None
    preset = agent_preset(config.model, action_size=action_size)
    if isinstance(preset, DrQV2Config):
        foreign = {field.name for field in fields(DreamerConfig)} - {field.name for field in fields(preset)}
        agent = override(preset, kept(config, dict.fromkeys(foreign, "DrQ-v2 has none")), where="agent")
        check_image_size(config, agent.image_size)
        return agent
    leave_out = {"held_updates": "nothing is pre-trained"}
    if preset.world.video_rssm is None:
        leave_out = WITHOUT_VIDEO_RSSM
    return dreamer_settings(config, preset, leave_out=leave_out)


def dreamer_settings(
    config: FinetuneConfig, preset: DreamerConfig, *, leave_out: dict[str, str]
) -> DreamerConfig:
    """The preset with the run's settings, but for those left out."""
    world = preset.world
    if world.frame.context is None:
        print(f"context_augmentation {config.context_augmentation} is left out: the model has no context")
    else:
        context = replace(world.frame.context, augmentation=config.context_augmentation)
        world = replace(world, frame=replace(world.frame, context=context))
    agent = override(replace(preset, world=world), kept(config, leave_out), where="agent")
    check_image_size(config, agent.world.frame.image_size)
    return agent


def kept(config: FinetuneConfig, leave_out: dict[str, str]) -> dict[str, Any]:
    """The run's settings of the agent, without those that this one does not have; says which these are.

    Args:
        config: the run's.
        leave_out: first word of a setting -> why this agent does not have it.
    """
    settings = merged(config.agent)
    left_out: dict[str, list[str]] = {}
    for name in settings:
        if (reason := leave_out.get(name.partition(".")[0])) is not None:
            left_out.setdefault(reason, []).append(name)
    for reason, names in left_out.items():
        print(f"left out of the agent's settings, as {reason}: {', '.join(names)}")
    dropped = {name for names in left_out.values() for name in names}
    return {name: value for name, value in settings.items() if name not in dropped}


def check_image_size(config: FinetuneConfig, image_size: int) -> None:
    """Refuse frames of another size than the agent's."""
    if image_size != config.env.image_size:
        raise RecipeError(
            f"the model sees {image_size} pixels a side and env.image_size is {config.env.image_size}: "
            f"set --env.image_size {image_size}"
        )
