"""Named models: `list_models("context*")`, `create_model("contextwm-tiny")`. A baseline is a configuration."""

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatch
from typing import Any

from torch import nn

from cwm_hub.config import nearest, override
from cwm_hub.models.action_world_model import ActionWorldModel, ActionWorldModelConfig
from cwm_hub.models.context import ContextConfig
from cwm_hub.models.frame_model import FrameModelConfig
from cwm_hub.models.heads import HeadConfig
from cwm_hub.models.rssm import RSSMConfig
from cwm_hub.models.video_world_model import VideoWorldModel, VideoWorldModelConfig

TINY_RSSM = RSSMConfig(stoch=16, classes=16, deter=256, hidden=256)
TINY_FRAME = FrameModelConfig(image_size=32, depth=16)
SMALL_FRAME = FrameModelConfig(depth=16, layers=1)
MINI_RSSM = RSSMConfig(stoch=8, classes=8, deter=64, hidden=64)
MINI_FRAME = FrameModelConfig(image_size=32, depth=8, layers=1)
MINI_HEADS = HeadConfig(layers=2, units=64)
DEBUG_RSSM = RSSMConfig(stoch=4, classes=4, deter=16, hidden=16)
DEBUG_FRAME = FrameModelConfig(image_size=32, depth=4, layers=1)
DEBUG_HEADS = HeadConfig(layers=1, units=16)


def _video(frame: FrameModelConfig, rssm: RSSMConfig, context: ContextConfig | None) -> VideoWorldModelConfig:
    return VideoWorldModelConfig(frame=replace(frame, context=context), rssm=rssm)


def stacked(video: VideoWorldModelConfig, *, action_size: int, **changes: Any) -> ActionWorldModelConfig:
    """The paper's world model of fine-tuning on a video world model: its networks, and an action RSSM of the same sizes."""
    return ActionWorldModelConfig(
        action_size=action_size, frame=video.frame, video_rssm=video.rssm, rssm=video.rssm, **changes
    )


PRESETS: Mapping[str, VideoWorldModelConfig | ActionWorldModelConfig] = {
    # The paper's sizes: 64 pixels, 25.65 M and 23.83 M parameters.
    "contextwm": _video(FrameModelConfig(), RSSMConfig(), ContextConfig()),
    "contextwm-concat": _video(FrameModelConfig(), RSSMConfig(), ContextConfig(mixing="concat")),
    "plainwm": _video(FrameModelConfig(), RSSMConfig(), None),
    # Sizes that train on two CPU cores: 32 pixels.
    "contextwm-tiny": _video(TINY_FRAME, TINY_RSSM, ContextConfig()),
    "contextwm-concat-tiny": _video(TINY_FRAME, TINY_RSSM, ContextConfig(mixing="concat")),
    "plainwm-tiny": _video(TINY_FRAME, TINY_RSSM, None),
    # 64 pixels on a CPU, 1.76 M and 1.64 M parameters: an hour is 6,000 updates of 8 x 16 frames (configs/pretrain/small.yaml).
    "contextwm-small": _video(SMALL_FRAME, TINY_RSSM, ContextConfig()),
    "plainwm-small": _video(SMALL_FRAME, TINY_RSSM, None),
    # Sizes of which an agent learns `scenes` within minutes on one CPU core: 32 pixels.
    "contextwm-mini": _video(MINI_FRAME, MINI_RSSM, ContextConfig(heads=2)),
    "plainwm-mini": _video(MINI_FRAME, MINI_RSSM, None),
    # The least that still has every part, for tests.
    "contextwm-debug": _video(DEBUG_FRAME, DEBUG_RSSM, ContextConfig(heads=2)),
    "plainwm-debug": _video(DEBUG_FRAME, DEBUG_RSSM, None),
    # Fine-tuning's world model, for pre-training on logged clips: the video RSSM goes on learning as one of video. The
    # action size is the data's.
    "action-contextwm": stacked(
        _video(FrameModelConfig(), RSSMConfig(), ContextConfig()), action_size=4, video_kl_scale=1.0
    ),
    "action-contextwm-tiny": stacked(
        _video(TINY_FRAME, TINY_RSSM, ContextConfig()), action_size=4, video_kl_scale=1.0
    ),
    "action-contextwm-small": stacked(
        _video(SMALL_FRAME, TINY_RSSM, ContextConfig()), action_size=4, video_kl_scale=1.0
    ),
    "action-contextwm-mini": stacked(
        _video(MINI_FRAME, MINI_RSSM, ContextConfig(heads=2)),
        action_size=4,
        heads=MINI_HEADS,
        video_kl_scale=1.0,
    ),
    "action-contextwm-debug": stacked(
        _video(DEBUG_FRAME, DEBUG_RSSM, ContextConfig(heads=2)),
        action_size=4,
        heads=DEBUG_HEADS,
        video_kl_scale=1.0,
    ),
    # From scratch, with actions: one RSSM, one reward head. The action size is the environment's.
    "dreamerv2": ActionWorldModelConfig(action_size=4, video_rssm=None, dual_reward=False),
    "dreamerv2-cnn": ActionWorldModelConfig(
        action_size=4, frame=FrameModelConfig(backbone="cnn"), video_rssm=None, dual_reward=False
    ),
    "dreamerv2-cnn-tiny": ActionWorldModelConfig(
        action_size=4,
        frame=replace(TINY_FRAME, backbone="cnn"),
        video_rssm=None,
        rssm=TINY_RSSM,
        heads=HeadConfig(layers=2, units=128),
        dual_reward=False,
    ),
    "dreamerv2-tiny": ActionWorldModelConfig(
        action_size=4,
        frame=TINY_FRAME,
        video_rssm=None,
        rssm=TINY_RSSM,
        heads=HeadConfig(layers=2, units=128),
        dual_reward=False,
    ),
    "dreamerv2-mini": ActionWorldModelConfig(
        action_size=4,
        frame=MINI_FRAME,
        video_rssm=None,
        rssm=MINI_RSSM,
        heads=MINI_HEADS,
        dual_reward=False,
    ),
}


def list_models(pattern: str = "*") -> list[str]:
    """Names of the presets that match a shell pattern, sorted."""
    return sorted(name for name in PRESETS if fnmatch(name, pattern))


def model_config(
    name: str, *, overrides: Mapping[str, Any] | None = None
) -> VideoWorldModelConfig | ActionWorldModelConfig:
    """Configuration of a preset with some values replaced.

    Args:
        name: one of `list_models()`.
        overrides: nested or dotted keys, such as `{"rssm.deter": 256}` or `{"frame": {"context": None}}`.

    Raises:
        ValueError: no such preset, or no such key.
    """
    if name not in PRESETS:
        hint = nearest(name, PRESETS) or f"; there are {', '.join(sorted(PRESETS))}"
        raise ValueError(f"no model named {name!r}{hint}")
    return override(PRESETS[name], overrides or {}, where=f"model {name}")


def create_model(name: str, *, overrides: Mapping[str, Any] | None = None) -> nn.Module:
    """Build a preset with new weights.

    Args:
        name: one of `list_models()`.
        overrides: as in `model_config`.

    Raises:
        ValueError: no such preset, or no such key.
    """
    config = model_config(name, overrides=overrides)
    return VideoWorldModel(config) if isinstance(config, VideoWorldModelConfig) else ActionWorldModel(config)
