"""Checkpoint format v1: a directory that is also a Hub model repository.

    config.json         model_type, format_version, cwm_hub_version and the model's whole config
    model.safetensors   every parameter and buffer, and nothing else
    train.json          how the weights came to be: recipe, command, parents by hash, versions, time
    scorecard.json      how well they predict, with the protocol that measured it
    prediction.mp4      truth beside prediction
    README.md           the model card, made from the above

`model_type` picks the class from `MODEL_TYPES`; the config must be that class's and the tensors must be exactly its
own. No code and no pickle is ever read. Checkpoints outlive the code that wrote them by their `format_version`: an
older one is migrated step by step, a newer one is refused.
"""

import dataclasses
import functools
import hashlib
import importlib
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import torch
from torch import nn

import cwm_hub
from cwm_hub.config import ConfigError, from_dict, nearest
from cwm_hub.hub.files import read_json
from cwm_hub.hub.weights import check_weights, read_weights
from cwm_hub.hub_client.errors import HubError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MODEL_TYPES = {
    "video_world_model": "cwm_hub.models.video_world_model:VideoWorldModel",
    "action_world_model": "cwm_hub.models.action_world_model:ActionWorldModel",
    "dreamer_agent": "cwm_hub.agents.dreamer:DreamerAgent",
    "drqv2_agent": "cwm_hub.agents.drqv2:DrQV2Agent",
}
"""`model_type` to its class, which is imported when a checkpoint asks for it.

A class belongs here when it is a torch module, is built by `cls(config)` with the config's dataclass as the
annotation, and keeps it as `.config`.
"""

FORMAT_VERSION = 1
"""Version of the checkpoint format that this code writes, the highest that it reads."""

MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""From a version to the function that turns its `config.json` into the next version's."""

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
TRAIN = "train.json"
SCORECARD = "scorecard.json"

SUFFIXES = (".gif", ".json", ".md", ".mp4", ".png", ".safetensors", ".yaml")
"""What a checkpoint may hold. Pickles are not among them: loading one runs its author's code."""


CheckpointError = HubError
"""What is wrong with a checkpoint, or with the way to it, is one error for whoever asked for it."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """One checkpoint at one revision, found but not yet read; every file comes from that same revision."""

    name: str
    """Directory, embedded name or Hub id, as the user gave it."""
    revision: str | None
    """Commit hash on the Hub, None for a directory."""
    fetch: Callable[[str], Path]
    """Local path of one of its files, downloaded where need be; FileNotFoundError when it has no such file."""
    mend: Callable[[str], bool] = lambda file: False
    """Whether the local copy of a file was other than the published one and has been fetched anew."""
    damaged: Callable[[], list[str]] = list
    """Names of the files whose local copy is other than the published one; a directory has nothing to compare with."""

    @functools.cached_property
    def header(self) -> dict[str, Any]:
        """`config.json`, migrated to this version's format.

        Raises:
            CheckpointError: it is missing, is not JSON, or has a format that this version does not read.
        """
        try:
            path = self.fetch(CONFIG)
        except FileNotFoundError as error:
            raise CheckpointError(f"{self} has no {CONFIG}: it is not a cwm_hub checkpoint") from error
        where = f"{self}/{CONFIG}"
        try:
            return migrate(read_json(path, where=where), where=where)
        except CheckpointError:
            if not self.mend(CONFIG):
                raise
            return migrate(read_json(self.fetch(CONFIG), where=where), where=where)

    @functools.cached_property
    def model_class(self) -> type[nn.Module]:
        """The class that `model_type` names."""
        model_type = self.header.get("model_type")
        if not isinstance(model_type, str) or model_type not in MODEL_TYPES:
            hint = nearest(str(model_type), MODEL_TYPES) or f" (it knows {', '.join(MODEL_TYPES)})"
            raise CheckpointError(f"{self}/{CONFIG}: this cwm_hub knows no model_type {model_type!r}{hint}")
        module, name = MODEL_TYPES[model_type].split(":")
        return getattr(importlib.import_module(module), name)

    def config(self) -> "DataclassInstance":
        """The model's config.

        Raises:
            CheckpointError: an entry that the class's config does not have, or of another type.
        """
        where = f"{self}/{CONFIG}"
        try:
            return from_dict(_config_class(self.model_class), self.header.get("config"), where=where)
        except OverflowError as error:
            raise CheckpointError(f"{where}: {error}") from error
        except ConfigError as error:
            writer = self.header.get("cwm_hub_version")
            foreign = writer != cwm_hub.__version__
            versions = f" (written by cwm_hub {writer}, read by {cwm_hub.__version__})" if foreign else ""
            raise CheckpointError(f"{error}{versions}") from error

    def load(self, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> nn.Module:
        """The model in eval mode, with every tensor from the file and none left at its initial value.

        Args:
            device: where it is put.
            dtype: of its weights; float32 by default.

        The global random state is left as it was: loading a model does not change a seeded run.
        """
        config = self.config()
        tensors = self._tensors(config)
        with torch.random.fork_rng(devices=[]):
            model = self.model_class(_without_downloads(config))
        model.config = config  # type: ignore[assignment]
        model.source, model.revision = self.name, self.revision  # type: ignore[assignment]
        model.load_state_dict(tensors, strict=True)
        return model.to(device, dtype).eval()

    def identity(self) -> dict[str, Any]:
        """What an artefact made from this checkpoint names as its parent: name, revision, type and weights' hash."""
        with self._weights().open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {
            "name": self.name,
            "revision": self.revision,
            "model_type": self.header["model_type"],
            "weights_sha256": digest,
        }

    def parameters(self) -> int:
        """How many numbers are learned, by the config alone: nothing is downloaded but that."""
        with torch.device("meta"):
            model = self.model_class(_without_downloads(self.config()))
        return sum(parameter.numel() for parameter in model.parameters())

    def weights_bytes(self) -> int:
        """Size of the weights' file."""
        return self._weights().stat().st_size

    def read(self, file: str) -> dict[str, Any] | None:
        """A JSON file of the checkpoint (`train.json`, `scorecard.json`), or None when it has none."""
        try:
            return read_json(self.fetch(file), where=self.where(file))
        except FileNotFoundError:
            return None

    def where(self, file: str) -> str:
        """What a sentence calls one of its files, that of a run folder by where it lies."""
        return f"{self}/{file}" if self.revision else str(self.fetch(file))

    def __str__(self) -> str:
        return f"{self.name}@{self.revision[:12]}" if self.revision else self.name

    def _weights(self) -> Path:
        try:
            return self.fetch(WEIGHTS)
        except FileNotFoundError as error:
            raise CheckpointError(f"{self} has no {WEIGHTS}: the checkpoint is incomplete") from error

    def _tensors(self, config: "DataclassInstance") -> dict[str, torch.Tensor]:
        where = f"{self}/{WEIGHTS}"

        def read() -> dict[str, torch.Tensor]:
            path = self._weights()
            check_weights(path, self.model_class, _without_downloads(config), where=where)
            return read_weights(path, where=where)

        try:
            try:
                return read()
            except (CheckpointError, safetensors.SafetensorError):
                if not self.mend(WEIGHTS):
                    raise
                return read()
        except safetensors.SafetensorError as error:
            raise CheckpointError(f"{where} is not a whole safetensors file: {error}") from error


def migrate(header: Mapping[str, Any], *, where: str = CONFIG) -> dict[str, Any]:
    """Brings a checkpoint's `config.json` to `FORMAT_VERSION`.

    Raises:
        CheckpointError: the version is missing, is not a positive integer, or is newer than this code reads.
    """
    migrated = dict(header)
    version = migrated.get("format_version")
    if type(version) is not int or version < 1:
        raise CheckpointError(
            f"{where}: expected a format_version from 1 to {FORMAT_VERSION}, got {version!r}"
        )
    if version > FORMAT_VERSION:
        writer = migrated.get("cwm_hub_version", "a newer version")
        raise CheckpointError(
            f"{where}: format_version {version} (written by cwm_hub {writer}) is newer than {FORMAT_VERSION}, the newest "
            "that this cwm_hub reads; upgrade cwm-hub"
        )
    for step in range(version, FORMAT_VERSION):
        migrated = MIGRATIONS[step](migrated) | {"format_version": step + 1}
    return migrated


def _without_downloads(config: Any) -> Any:
    """The config with every `pretrained` off: no initial weights are fetched that the checkpoint's own replace."""
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return config
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.init}
    changes = {name: name != "pretrained" and _without_downloads(value) for name, value in values.items()}
    return dataclasses.replace(config, **changes)


def _config_class(model_class: type[nn.Module]) -> type["DataclassInstance"]:
    return typing.get_type_hints(model_class.__init__)["config"]
