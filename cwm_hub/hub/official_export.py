"""Our models as files that the official ContextWM code (thuml/ContextWM) loads: the way back of `official_weights`."""

from pathlib import Path

import torch
from torch import Tensor, nn

from cwm_hub.agents.dreamer import DreamerAgent
from cwm_hub.hub.files import local_path
from cwm_hub.hub.official_names import (
    AGENT,
    DECODER_FILE,
    ENCODER_FILE,
    RSSM_FILE,
    ConvertError,
    to_official,
)
from cwm_hub.hub.official_weights import ACTOR, EXPLORER, OFFICIAL_FILES, REWARD_NORM, WHOLE_FILE
from cwm_hub.models.frame_model import FrameModelConfig
from cwm_hub.models.video_world_model import VideoWorldModel

HEADS = 4
"""Attention heads of the official code, which are not in its files."""


def export_official(model: nn.Module, directory: str | Path, *, suffix: str = "") -> list[Path]:
    """Writes the official files of a pre-trained model or of an agent, bit for bit the tensors that `load_official` took.

    One number differs in its last digits: the bonus's running magnitude, which the official code keeps in float64 and we
    in float32.

    Args:
        model: a `VideoWorldModel` or a `DreamerAgent`.
        directory: made where there is none; files of these names there are replaced, each whole or not at all.
        suffix: before `.pt`, such as `_s1150001`.

    Returns:
        The files.

    Raises:
        ConvertError: the official code has no such model, the suffix is none, or the disk takes no more.
    """
    if not isinstance(model, VideoWorldModel | DreamerAgent):
        raise ConvertError(f"the official code has no {type(model).__name__}")
    files = _pretrained(model) if isinstance(model, VideoWorldModel) else {WHOLE_FILE: _agent(model)}
    paths = [local_path(directory) / f"{name.removesuffix('.pt')}{suffix}.pt" for name in files]
    if paths[0].parent != local_path(directory):
        raise ConvertError(f"a suffix is a part of a file's name, such as _s1150001, got {suffix!r}")
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    for path, weights in zip(paths, files.values(), strict=True):
        part = path.with_name(f".{path.name}.part")
        try:
            torch.save({key: tensor.detach().cpu().clone() for key, tensor in weights.items()}, part)
            part.replace(path)
        except RuntimeError as error:  # torch's for a disk that takes no more
            raise ConvertError(f"cannot write {path}: {str(error).splitlines()[0]}") from error
        finally:
            part.unlink(missing_ok=True)
    return paths


def _pretrained(model: VideoWorldModel) -> dict[str, dict[str, Tensor]]:
    _check_frame(model.config.frame)
    if model.config.objective.kind != "reconstruction":
        raise ConvertError(f"the official code has no objective {model.config.objective.kind!r}")
    state = model.state_dict()
    encoders = {k: v for k, v in state.items() if k.split(".")[1] in ("encoder", "context_encoder")}
    decoder = {k: v for k, v in state.items() if k.startswith("frame_model.decoder.")}
    rssm = {k: v for k, v in state.items() if k.startswith("rssm.")}
    parts = (
        to_official(encoders, ENCODER_FILE),
        to_official(rssm, RSSM_FILE),
        to_official(decoder, DECODER_FILE),
    )
    return dict(zip(OFFICIAL_FILES, parts, strict=True))


def _agent(agent: DreamerAgent) -> dict[str, Tensor]:
    _check_frame(agent.config.world.frame)
    if agent.config.world.continue_head:
        raise ConvertError("the official code's discount head means another thing than our continue head")
    ours = {name: tensor for name, tensor in agent.state_dict().items() if name != "bonus.filled"}
    state = to_official(ours, AGENT)
    for name in [name for name in state if name.endswith("intr_rewnorm.mag")]:
        state[name] = state[name].double()
    state[REWARD_NORM] = torch.ones((), dtype=torch.float64)
    twins = {
        name.replace(ACTOR, EXPLORER, 1): tensor for name, tensor in state.items() if name.startswith(ACTOR)
    }
    return state | twins


def _check_frame(frame: FrameModelConfig) -> None:
    context = frame.context
    foreign = {
        f"norm {frame.norm!r}": frame.backbone == "resnet" and frame.norm != "batch",
        "plain convolutions at other than 64 pixels": frame.backbone == "cnn" and frame.image_size != 64,
        "this context encoder": context is not None and context.encoder != "resnet",
        "this mixing of the context": context is not None and context.mixing != "attention",
        "several context frames": context is not None and context.frames != 1,
        f"other than {HEADS} attention heads": context is not None and context.heads != HEADS,
    }
    found = [what for what, there in foreign.items() if there]
    if found:
        raise ConvertError(f"the official code's models have no {', no '.join(found)}")
