"""Writes a checkpoint directory, whole or not at all."""

import contextlib
import functools
import glob
import json
import os
import secrets
import shutil
import time
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch
import torch
from torch import nn

import cwm_hub
from cwm_hub.config import to_dict
from cwm_hub.hub import model_card
from cwm_hub.hub.checkpoint import (
    CONFIG,
    FORMAT_VERSION,
    MODEL_TYPES,
    SCORECARD,
    SUFFIXES,
    TRAIN,
    WEIGHTS,
    Checkpoint,
    CheckpointError,
)
from cwm_hub.hub.files import local_file, local_path
from cwm_hub.hub_client.cards import CARD, merged
from cwm_hub.hub_client.secrets import without_secrets
from cwm_hub.shards.storage import commit_folder

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ABANDONED_SECONDS = 3600.0
"""After this long without a change, an unfinished folder is that of a process that was killed."""


def save_pretrained(
    model: nn.Module,
    directory: str | os.PathLike[str],
    *,
    train: Mapping[str, Any] | None = None,
    scorecard: Mapping[str, Any] | None = None,
    assets: Mapping[str, Path] | None = None,
    card: bool = True,
    replace_card: bool = False,
    licence: str | None = None,
    name: str | None = None,
) -> Path:
    """Writes a checkpoint directory, whole or not at all; an older checkpoint at that place is replaced.

    Everything is written and synced beside the target and then renamed, so that a reader never sees half of it.

    Args:
        model: an instance of one of `MODEL_TYPES`; a compiled one is saved under its plain names.
        directory: the target, which must not exist, be empty, or hold a checkpoint.
        train: what `train.json` says about how the weights came to be.
        scorecard: what `scorecard.json` says about how well they predict.
        assets: further files by the name they get, e.g. {"prediction.mp4": path}.
        card: write README.md; of the one that is there, what people wrote into it stays.
        replace_card: let nothing of it stay.
        licence: of the weights, as the Hub names licences; by default what the shards behind them allow.
        name: how the card tells people to load the model; the directory by default.

    Raises:
        CheckpointError: the target holds something else or cannot be written, or an asset cannot be published.
    """
    target = checked_target(directory)
    model = getattr(model, "_orig_mod", model)
    header = {
        "model_type": _model_type(model),
        "format_version": FORMAT_VERSION,
        "cwm_hub_version": cwm_hub.__version__,
        "config": to_dict(typing.cast("DataclassInstance", model.config)),
    }
    with _replacing(target) as staging:
        _write_json(staging / CONFIG, header)
        safetensors.torch.save_file(_plain_tensors(model), staging / WEIGHTS, metadata={"format": "pt"})
        (staging / WEIGHTS).chmod((staging / CONFIG).stat().st_mode)  # safetensors keeps it to its owner
        for file, content in ((TRAIN, train), (SCORECARD, scorecard)):
            if content is not None:
                _write_json(staging / file, without_secrets(content))
        for file, source in (assets or {}).items():
            _copy_asset(Path(source), staging, file)
        if card:
            text = card_of(staging, name=name or os.fspath(directory), licence=licence)
            there = target / CARD
            old = there.read_text(encoding="utf-8") if there.is_file() and not replace_card else None
            (staging / CARD).write_text(merged(old, text, kind="model"), encoding="utf-8")
    return target


def card_of(directory: Path, *, name: str, licence: str | None = None) -> str:
    """The card of a checkpoint directory, made from its other files.

    Args:
        directory: the checkpoint.
        name: how the card tells people to load the model.
        licence: as in `save_pretrained`.
    """
    parameters = Checkpoint(name, None, functools.partial(local_file, directory)).parameters()
    return model_card.model_card(directory, name=name, parameters=parameters, licence=licence)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _model_type(model: nn.Module) -> str:
    place = f"{type(model).__module__}:{type(model).__qualname__}"
    for model_type, known in MODEL_TYPES.items():
        if known == place:
            return model_type
    raise CheckpointError(
        f"a {type(model).__name__} has no model_type: cwm_hub publishes {', '.join(MODEL_TYPES)}"
    )


def _plain_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict on the CPU, row-major, under the names it has without `torch.compile`."""
    return {
        key.replace("_orig_mod.", ""): tensor.detach().to("cpu", copy=True).contiguous()
        for key, tensor in model.state_dict().items()
    }


def checked_target(directory: str | os.PathLike[str]) -> Path:
    """The whole path of a directory that may be written to.

    Raises:
        CheckpointError: it is a file, or holds something else than a checkpoint.
    """
    target = local_path(directory).resolve()
    if target.exists() and not target.is_dir():
        raise CheckpointError(f"{target} is a file; a checkpoint is a directory")
    entries = sorted(target.iterdir()) if target.exists() else []
    if not entries:
        return target
    strangers = [entry.name for entry in entries if not entry.is_file() or entry.suffix not in SUFFIXES]
    if strangers or not (target / CONFIG).is_file():
        example = f" ({strangers[0]})" if strangers else ""
        raise CheckpointError(
            f"{target} holds files that are not a checkpoint's{example}; save somewhere else"
        )
    return target


def _copy_asset(source: Path, folder: Path, name: str) -> None:
    target = folder / name
    if target.parent != folder or name in (CONFIG, WEIGHTS, TRAIN, SCORECARD, CARD):
        raise CheckpointError(f"asset {name!r} is no name for a further file of the checkpoint")
    if target.suffix not in SUFFIXES:
        raise CheckpointError(
            f"asset {target.name} may not be published: a checkpoint holds only {' '.join(SUFFIXES)}"
        )
    if not source.is_file():
        raise CheckpointError(f"asset {target.name}: no such file: {source}")
    shutil.copyfile(source, target)


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A fresh directory beside `target`, which takes its place when the block ends well and vanishes when not."""
    for abandoned in target.parent.glob(f".{glob.escape(target.name)}.new-*"):  # by a process that was killed
        if time.time() - abandoned.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(abandoned, ignore_errors=True)
    staging = target.with_name(f".{target.name}.new-{secrets.token_hex(4)}")
    try:
        staging.mkdir(parents=True)
        yield staging
        commit_folder(staging, target)
    except (OSError, safetensors.SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"cannot write {target}: {reason}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
