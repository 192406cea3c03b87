"""Contextualized world models: video shards, pre-training, fine-tuning and the Hugging Face Hub.

Importing this package costs milliseconds: the public names below load their module, and torch, on first use
(PEP 562).
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.3.0"

_PUBLIC = {
    "from_pretrained": "cwm_hub.hub",
    "save_pretrained": "cwm_hub.hub",
    "push_to_hub": "cwm_hub.hub",
    "create_model": "cwm_hub.models.registry",
    "list_models": "cwm_hub.models.registry",
    "VideoWorldModel": "cwm_hub.models.video_world_model",
    "ActionWorldModel": "cwm_hub.models.action_world_model",
    "DreamerAgent": "cwm_hub.agents.dreamer",
    "ClipBatch": "cwm_hub.clips",
    "ClipLoader": "cwm_hub.clips",
    "make_env": "cwm_hub.envs",
}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from cwm_hub.agents.dreamer import DreamerAgent as DreamerAgent
    from cwm_hub.clips import ClipBatch as ClipBatch
    from cwm_hub.clips import ClipLoader as ClipLoader
    from cwm_hub.envs import make_env as make_env
    from cwm_hub.hub import from_pretrained as from_pretrained
    from cwm_hub.hub import push_to_hub as push_to_hub
    from cwm_hub.hub import save_pretrained as save_pretrained
    from cwm_hub.models.action_world_model import ActionWorldModel as ActionWorldModel
    from cwm_hub.models.registry import create_model as create_model
    from cwm_hub.models.registry import list_models as list_models
    from cwm_hub.models.video_world_model import VideoWorldModel as VideoWorldModel


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'cwm_hub' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
