"""`model.safetensors` against the model that the config describes: judged by its header, before either takes memory."""

from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from cwm_hub.hub_client.errors import HubError

FLOATS = ("F64", "F32", "F16", "BF16")
WHOLES = ("I64", "I32", "I16", "I8", "U8", "BOOL")


def check_weights(path: Path, model_class: type[nn.Module], config: Any, *, where: str) -> None:
    """Refuses a file whose tensors are not the model's, by name, shape and kind of number.

    The model is built on torch's `meta` device, where tensors have shapes and no memory: a config that describes
    hundreds of gigabytes beside a small file costs nothing.

    Args:
        path: the safetensors file.
        model_class: of the model.
        config: what it is built from.
        where: the file in the user's words.

    Raises:
        HubError: it does not fit.
        safetensors.SafetensorError: it is no whole safetensors file.
    """
    with safetensors.safe_open(path, "pt") as file:
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        shapes = {key: tuple(part.get_shape()) for key, part in slices.items()}
        kinds = {key: str(part.get_dtype()) for key, part in slices.items()}
    try:
        with torch.device("meta"):
            expected = model_class(config).state_dict()
    except RuntimeError as error:
        raise HubError(f"{where}: its config describes no model: {' '.join(str(error).split())}") from error
    both = expected.keys() & shapes.keys()
    complaints = [
        _complaint("missing", expected.keys() - shapes.keys()),
        _complaint("unknown", shapes.keys() - expected.keys()),
        _complaint("of another shape", {key for key in both if tuple(expected[key].shape) != shapes[key]}),
        _complaint(
            "of another kind of number", {key for key in both if not _same_kind(expected[key], kinds[key])}
        ),
    ]
    if any(complaints):
        does_not_fit = f"{where} does not fit the {model_class.__name__} of its config.json: "
        raise HubError(does_not_fit + "; ".join(filter(None, complaints)))


def read_weights(path: Path, *, where: str) -> dict[str, Tensor]:
    """The tensors, all finite.

    Raises:
        HubError: one holds a number that is not finite.
    """
    tensors = safetensors.torch.load_file(path)
    ruined = {
        key for key, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()
    }
    if ruined:
        raise HubError(f"{where} is ruined: {_complaint('with numbers that are not finite', ruined)}")
    return tensors


def _same_kind(expected: Tensor, kind: str) -> bool:
    return kind in (FLOATS if expected.is_floating_point() else WHOLES)


def _complaint(what: str, keys: set[str]) -> str:
    if not keys:
        return ""
    shown = ", ".join(sorted(keys)[:3]) + (", ..." if len(keys) > 3 else "")
    return f"{len(keys)} tensor{'s' if len(keys) > 1 else ''} {what} ({shown})"
