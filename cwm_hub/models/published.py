"""The way to and from the Hub as methods of a model: `VideoWorldModel.from_pretrained`, `model.push_to_hub`.

The functions behind them are the package's public ones, which it finds by name when a method is called: the hub knows
the models, and no model knows where in the library the Hub is spoken to.
"""

import os
from pathlib import Path
from typing import Any, TypeVar, cast

from torch import nn

PublishedT = TypeVar("PublishedT", bound="Published")


class Published:
    """Methods for models that `cwm_hub.hub.checkpoint.MODEL_TYPES` lists."""

    source: str | None = None
    """Directory, embedded name or Hub id that it was loaded from; None for a new model."""
    revision: str | None = None
    """Commit on the Hub that it was loaded at."""

    @classmethod
    def from_pretrained(
        cls: type[PublishedT], name_or_path: str | os.PathLike[str], **options: Any
    ) -> PublishedT:
        """Loads a checkpoint of this class; arguments and errors are those of `cwm_hub.from_pretrained`.

        Raises:
            CheckpointError: it holds a model of another class, which the message names.
        """
        from cwm_hub import from_pretrained

        return from_pretrained(name_or_path, expect=cast(type[nn.Module], cls), **options)

    def save_pretrained(self, directory: str | os.PathLike[str], **options: Any) -> Path:
        """Writes a checkpoint directory; arguments and errors are those of `cwm_hub.save_pretrained`."""
        from cwm_hub import save_pretrained

        return save_pretrained(cast(nn.Module, self), directory, **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Uploads the model and returns its address; arguments and errors are those of `cwm_hub.push_to_hub`."""
        from cwm_hub import push_to_hub

        return push_to_hub(cast(nn.Module, self), repo_id, **options)
