"""Contextualized world models: video shards, pre-training, fine-tuning and the Hugging Face Hub.

Importing this package, or one of its rooms, costs milliseconds: the public names load their module, and torch, on
first use (PEP 562).
"""

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

__version__ = "0.3.0"

if TYPE_CHECKING:
    from cwm_hub.agents.dreamer import DreamerAgent as DreamerAgent
    from cwm_hub.agents.drqv2 import DrQV2Agent as DrQV2Agent
    from cwm_hub.clips.loader import ClipBatch as ClipBatch
    from cwm_hub.clips.loader import ClipLoader as ClipLoader
    from cwm_hub.clips.resize import resize as resize
    from cwm_hub.envs.table import make_env as make_env
    from cwm_hub.hub.official_weights import load_official as load_official
    from cwm_hub.hub.pretrained import from_pretrained as from_pretrained
    from cwm_hub.hub.pretrained import push_to_hub as push_to_hub
    from cwm_hub.hub.saving import save_pretrained as save_pretrained
    from cwm_hub.models.action_world_model import ActionWorldModel as ActionWorldModel
    from cwm_hub.models.registry import create_model as create_model
    from cwm_hub.models.registry import list_models as list_models
    from cwm_hub.models.video_world_model import VideoWorldModel as VideoWorldModel


EXTRAS = {
    "data": ("datasets", "imagehash", "webdataset"),
    "train": (
        "accelerate",
        "markdown_it",
        "matplotlib",
        "scipy",
        "timm",
        "torchmetrics",
        "yaml",
    ),
    "envs": ("dm_control", "gymnasium", "metaworld", "mujoco"),
    "carla": ("carla",),
    "demo": ("gradio",),
    "figures": ("sklearn",),
    "h5": ("h5py",),
    "ray": ("ray",),
    "s3": ("s3fs",),
    "tensorboard": ("tensorboard",),
    "trackio": ("trackio",),
}
"""Extra of the package -> modules that it brings."""


def missing_extra(error: ImportError) -> str:
    """One sentence: what is not installed, and which extra brings it; the error's own words where none does."""
    module = (error.name or "").partition(".")[0]
    extra = next((name for name, modules in EXTRAS.items() if module in modules), None)
    if extra is None or not isinstance(error, ModuleNotFoundError):
        return str(error)
    return f"{module} is not installed: pip install 'cwm-hub[{extra}]'"


def lazy_names(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package whose public names load their module on first use.

    Args:
        package: its `__name__`.
        modules: public name -> module that defines it.
    """

    def load(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(importlib.import_module(modules[name]), name)
        except ModuleNotFoundError as error:
            raise ImportError(f"{package}.{name}: {missing_extra(error)}", name=error.name) from error

    return load, lambda: sorted(modules), list(modules)


__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "from_pretrained": "cwm_hub.hub.pretrained",
        "save_pretrained": "cwm_hub.hub.saving",
        "push_to_hub": "cwm_hub.hub.pretrained",
        "load_official": "cwm_hub.hub.official_weights",
        "create_model": "cwm_hub.models.registry",
        "list_models": "cwm_hub.models.registry",
        "VideoWorldModel": "cwm_hub.models.video_world_model",
        "ActionWorldModel": "cwm_hub.models.action_world_model",
        "DreamerAgent": "cwm_hub.agents.dreamer",
        "DrQV2Agent": "cwm_hub.agents.drqv2",
        "ClipBatch": "cwm_hub.clips.loader",
        "ClipLoader": "cwm_hub.clips.loader",
        "make_env": "cwm_hub.envs.table",
        "resize": "cwm_hub.clips.resize",
    },
)
