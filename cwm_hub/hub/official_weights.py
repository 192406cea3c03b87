"""Weights of the official ContextWM code (thuml/ContextWM) into our models, strictly, by a table of names.

The official code saves three state dicts per pre-trained model: `encoder_variables.pt` (image encoder, and the
context encoder under `cond_`), `rssm_variables.pt` (the action-free RSSM) and `decoder_variables.pt`. Sizes are
read off the tensors; only how S*K splits into latents and classes is not there.
"""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from cwm_hub.models.context import ContextConfig
from cwm_hub.models.frame_model import FrameModelConfig
from cwm_hub.models.resnet import LATENT_STRIDE
from cwm_hub.models.rssm import RSSMConfig
from cwm_hub.models.video_world_model import VideoWorldModel, VideoWorldModelConfig

StateDict = Mapping[str, Tensor]
OFFICIAL_FILES = ("encoder_variables.pt", "rssm_variables.pt", "decoder_variables.pt")

# (pattern of the official name, our name); the first that matches counts.
RESIDUAL = (
    (r"res_block\.0\.", "conv1."),
    (r"res_block\.1\.", "norm1."),
    (r"res_block\.3\.", "conv2."),
    (r"res_block\.4\.", "norm2."),
    (r"identity\.", "project."),
)
ENCODER = (
    (r"^cond_convin\.(.*)", r"context_encoder.stem.\1"),
    (r"^cond_res(\d)\.stack\.(\d)\.(.*)", r"context_encoder.stages.\1.\2.\3"),
    (r"^convin\.(.*)", r"encoder.stem.\1"),
    (r"^res(\d)\.stack\.(\d)\.(.*)", r"encoder.stages.\1.\2.\3"),
)
DECODER = (
    (r"^convin\.(.*)", r"decoder.input.\1"),
    (r"^convout\.(.*)", r"decoder.output.\1"),
    (r"^res(\d)\.stack\.0\.q_pos_emb$", r"decoder.stages.\1.mixer.query_position"),
    (r"^res(\d)\.stack\.0\.kv_pos_emb$", r"decoder.stages.\1.mixer.key_position"),
    (r"^res(\d)\.stack\.0\.cross_attention\.att\.out_proj\.(.*)", r"decoder.stages.\1.mixer.output.\2"),
    (r"^res(\d)\.stack\.0\.norm_cross_att\.(.*)", r"decoder.stages.\1.mixer.norm.\2"),
    (r"^res(\d)\.stack\.(\d)\.(.*)", r"decoder.stages.\1.layers.\2.\3"),
)
RSSM_NAMES = (
    (r"^_cell\._layer\.(.*)", r"cell.gates.\1"),
    (r"^_cell\._norm\.(.*)", r"cell.norm.\1"),
    (r"^img_in\.(.*)", r"img_in.\1"),
    (r"^img_out_0\.(.*)", r"prior_hidden.\1"),
    (r"^img_dist_0\.(.*)", r"prior_logits.\1"),
    (r"^obs_out\.(.*)", r"posterior_hidden.\1"),
    (r"^obs_dist\.(.*)", r"posterior_logits.\1"),
)
STACKED_ATTENTION = re.compile(r"^res(\d)\.stack\.0\.cross_attention\.att\.in_proj_(weight|bias)$")


class ConvertError(ValueError):
    """Official weights that are missing, unreadable, or of a shape this code does not know."""


def load_official(directory: str | Path, *, stoch: int = 32, classes: int = 32) -> VideoWorldModel:
    """Read a pre-trained model as the official code saved it.

    Args:
        directory: folder with the three `*_variables.pt` files.
        stoch: number of categorical latents S of that model.
        classes: classes K of each latent.

    Returns:
        The model in evaluation mode, `contextwm` or `plainwm` by what the files hold.

    Raises:
        ConvertError: a file is missing or not a state dict, or a tensor is missing, extra or misshapen.
    """
    encoder, rssm, decoder = (_read(Path(directory) / name) for name in OFFICIAL_FILES)
    config = official_config(encoder, rssm, decoder, stoch=stoch, classes=classes)
    weights = {f"frame_model.{name}": tensor for name, tensor in frame_weights(encoder, decoder).items()}
    weights |= {f"rssm.{name}": tensor for name, tensor in rssm_weights(rssm).items()}
    model = VideoWorldModel(config)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ConvertError(f"{directory}: the official weights do not fit: {error}") from error
    return model.eval()


def official_config(
    encoder: StateDict, rssm: StateDict, decoder: StateDict, *, stoch: int = 32, classes: int = 32
) -> VideoWorldModelConfig:
    """Sizes of an official model, read off its tensors.

    Raises:
        ConvertError: a tensor that tells a size is missing, or the latents do not have `stoch * classes` units.
    """
    try:
        depth = encoder["convin.weight"].shape[0]
        latents = rssm["obs_dist.weight"].shape[0]
        hidden, slot = rssm["img_in.weight"].shape
        deter = rssm["img_out_0.weight"].shape[1]
        side = (decoder["convin.weight"].shape[0] // (4 * depth)) ** 0.5
    except KeyError as error:
        raise ConvertError(f"not a model of the official code: there is no tensor {error}") from error
    if latents != stoch * classes:
        raise ConvertError(
            f"the model has {latents} latent units, not {stoch} x {classes}: give stoch and classes"
        )
    layers = len({name.split(".")[2] for name in encoder if name.startswith("res0.stack.")})
    contextual = any(name.startswith("cond_") for name in encoder)
    return VideoWorldModelConfig(
        frame=FrameModelConfig(
            image_size=LATENT_STRIDE * round(side),
            depth=depth,
            layers=layers,
            context=ContextConfig() if contextual else None,
        ),
        rssm=RSSMConfig(stoch=stoch, classes=classes, deter=deter, hidden=hidden, action_size=slot - latents),
    )


def frame_weights(encoder: StateDict, decoder: StateDict) -> dict[str, Tensor]:
    """State dict of a `FrameModel` from the official encoder and decoder."""
    weights = _rename(encoder, ENCODER)
    plain = {}
    for name, tensor in decoder.items():
        stacked = STACKED_ATTENTION.match(name)
        if stacked is None:
            plain[name] = tensor
            continue
        mixer, part = f"decoder.stages.{stacked[1]}.mixer", stacked[2]
        width = len(tensor) // 3
        weights[f"{mixer}.query.{part}"] = tensor[:width]
        weights[f"{mixer}.key_value.{part}"] = tensor[width:]
    return weights | _rename(plain, DECODER)


def rssm_weights(rssm: StateDict) -> dict[str, Tensor]:
    """State dict of an `RSSM` from an official one."""
    return _rename(rssm, RSSM_NAMES)


def _rename(weights: StateDict, table: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in weights.items():
        for pattern, replacement in table:
            ours, count = re.subn(pattern, replacement, name)
            if count:
                break
        else:
            raise ConvertError(f"no place for the official tensor {name!r} of shape {list(tensor.shape)}")
        for pattern, replacement in RESIDUAL:
            ours = re.sub(pattern, replacement, ours)
        renamed[ours] = tensor
    return renamed


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ConvertError(
            f"{path.parent}: there is no {path.name}; an official model is {', '.join(OFFICIAL_FILES)}"
        )
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError) as error:
        raise ConvertError(f"{path}: not a PyTorch state dict, or a damaged one") from error
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise ConvertError(f"{path}: not a state dict of tensors")
    return weights
