"""What the official ContextWM code (thuml/ContextWM) saved, into our models: strictly, and without running a pickle.

    encoder_variables*.pt, rssm_variables*.pt, decoder_variables*.pt    a pre-trained model, at the end or at a step
    variables*.pt with an actor                                         a fine-tuned agent, or one of DreamerV2
    variables*.pt without                                               a pre-training run's whole state

The star is a suffix such as `_s1150001`. Sizes are read off the tensors, ResNet and plain CNN alike; only how S*K splits into
latents and classes is not there, and none of the settings of learning, which stay at our defaults.
"""

import contextlib
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from cwm_hub.agents.actor_critic import ActorCriticConfig
from cwm_hub.agents.dreamer import DreamerAgent, DreamerConfig
from cwm_hub.agents.intrinsic import IntrinsicConfig
from cwm_hub.hub.files import local_path
from cwm_hub.hub.official_names import (
    AGENT,
    DECODER_FILE,
    ENCODER_FILE,
    PRETRAINED,
    RSSM_FILE,
    ConvertError,
    StateDict,
    to_ours,
)
from cwm_hub.models.action_world_model import ActionWorldModelConfig
from cwm_hub.models.context import ContextConfig
from cwm_hub.models.frame_model import FrameModelConfig
from cwm_hub.models.heads import HeadConfig
from cwm_hub.models.resnet import LATENT_STRIDE
from cwm_hub.models.rssm import RSSMConfig
from cwm_hub.models.video_world_model import VideoWorldModel, VideoWorldModelConfig

OFFICIAL_FILES = ("encoder_variables.pt", "rssm_variables.pt", "decoder_variables.pt")
WHOLE_FILE = "variables.pt"
ACTOR = "_task_behavior."
EXPLORER = "_expl_behavior."
"""With greedy exploration, the only kind that the official code has whole, the actor's tensors once more."""
REWARD_NORM = "_task_behavior.rewnorm.mag"
"""Divides imagined rewards; the official configurations keep it at 1, and we have none."""

ModelT = TypeVar("ModelT", bound=nn.Module)


def load_official(
    directory: str | Path, *, stoch: int = 32, classes: int = 32, suffix: str | None = None
) -> VideoWorldModel | DreamerAgent:
    """Reads what the official code saved in a folder.

    Args:
        directory: the folder.
        stoch: number of categorical latents S.
        classes: classes K of each latent.
        suffix: of the files, such as `_s1150001`; needed where there are several and none is without.

    Returns:
        In evaluation mode, the pre-trained model where its three files are there, and else what `variables.pt` holds.

    Raises:
        ConvertError: a file is missing or not a state dict, or a tensor is missing, extra or misshapen.
    """
    files = [_read(path) for path in official_files(directory, suffix=suffix)]
    where = str(directory)
    if len(files) == 1 and any(name.startswith(ACTOR) for name in files[0]):
        return _agent(files[0], where, stoch=stoch, classes=classes)
    if len(files) == 1:
        encoder, rssm, decoder = (
            _below(files[0], part) for part, *_ in (PRETRAINED[0], PRETRAINED[2], PRETRAINED[1])
        )
        weights = to_ours(files[0], PRETRAINED)
    else:
        encoder, rssm, decoder = files
        weights = to_ours(rssm, RSSM_FILE) | to_ours(encoder, ENCODER_FILE) | to_ours(decoder, DECODER_FILE)
    config = official_config(encoder, rssm, decoder, stoch=stoch, classes=classes)
    return _filled(VideoWorldModel(config), weights, where)


def official_files(directory: str | Path, *, suffix: str | None = None) -> list[Path]:
    """The files of a folder that make one model: three, or one.

    Raises:
        ConvertError: there are none, or several models and no suffix to choose one by.
    """
    directory = local_path(directory)
    found = {}
    for names in (OFFICIAL_FILES, (WHOLE_FILE,)):
        stems = [name.removesuffix(".pt") for name in names]
        for first in sorted(directory.glob(f"{stems[0]}*.pt")):
            tail = first.name.removeprefix(stems[0]).removesuffix(".pt")
            files = [directory / f"{stem}{tail}.pt" for stem in stems]
            if tail not in found and all(file.is_file() for file in files):
                found[tail] = files
    wanted = suffix if suffix is not None else "" if "" in found or len(found) != 1 else next(iter(found))
    if wanted in found:
        return found[wanted]
    if found:
        raise ConvertError(
            f"{directory} has models of the suffixes {', '.join(repr(tail) for tail in found)}: say which by suffix"
        )
    raise ConvertError(
        f"{directory}: there is no {OFFICIAL_FILES[0]}; an official model is {', '.join(OFFICIAL_FILES)}, or {WHOLE_FILE}"
    )


def official_config(
    encoder: StateDict, rssm: StateDict, decoder: StateDict, *, stoch: int = 32, classes: int = 32
) -> VideoWorldModelConfig:
    """Sizes of an official model, read off its tensors.

    Raises:
        ConvertError: a tensor that tells a size is missing, or the latents do not have `stoch * classes` units.
    """
    with _sizes_of("model"):
        return VideoWorldModelConfig(
            frame=_frame_config(encoder, decoder), rssm=_rssm_config(rssm, stoch=stoch, classes=classes)
        )


def _agent(state: StateDict, where: str, *, stoch: int, classes: int) -> DreamerAgent:
    """The agent of a whole state; what we have no place for must be what it is for everybody, or is refused."""
    weights = {name: tensor for name, tensor in state.items() if not name.startswith(EXPLORER)}
    for name in state.keys() - weights.keys():
        twin = state.get(name.replace(EXPLORER, ACTOR, 1))
        if twin is None or not torch.equal(twin, state[name]):
            raise ConvertError(
                f"{where}: the agent explores by an actor of its own ({name}), which we do not have"
            )
    norm = weights.pop(REWARD_NORM, torch.ones(()))
    if not torch.equal(norm.float(), torch.ones(())):
        raise ConvertError(f"{where}: imagined rewards are divided by {norm.item()} and ours are not")
    renamed = to_ours(weights, AGENT)
    if "bonus.queue" in renamed:
        renamed["bonus.filled"] = (renamed["bonus.queue"] != 0).any(1).sum()
    with _sizes_of("agent"):
        config = _agent_config(weights, stoch=stoch, classes=classes)
    return _filled(DreamerAgent(config), renamed, where)


def _agent_config(weights: StateDict, *, stoch: int, classes: int) -> DreamerConfig:
    encoder, decoder = _below(weights, "wm.encoder."), _below(weights, "wm.heads.decoder.")
    action = _rssm_config(_below(weights, "wm.rssm."), stoch=stoch, classes=classes)
    lower = _below(weights, "wm.af_rssm.")
    video = _rssm_config(lower, stoch=stoch, classes=classes) if lower else None
    seen = weights["wm.rssm.obs_out.weight"].shape[1] - action.deter
    bonus = _below(weights, "wm.intr_bonus.")
    world = ActionWorldModelConfig(
        action_size=len(weights[f"{ACTOR}actor.out.out.bias"]),
        frame=_frame_config(encoder, decoder),
        video_rssm=video,
        rssm=action,
        heads=_head_config(_below(weights, "wm.heads.reward.")),
        concat_embed=video is not None and seen != video.stoch * video.classes + video.deter,
        dual_reward="wm.heads.aux_reward.out.out.bias" in weights,
    )
    return DreamerConfig(
        world=world,
        behaviour=ActorCriticConfig(heads=_head_config(_below(weights, f"{ACTOR}actor."))),
        intrinsic=IntrinsicConfig(queue_size=len(bonus["queue"]), projection_size=bonus["queue"].shape[1])
        if bonus
        else None,
    )


def _frame_config(encoder: StateDict, decoder: StateDict) -> FrameModelConfig:
    if "conv0.weight" in encoder:
        return FrameModelConfig(backbone="cnn", depth=len(encoder["conv0.weight"]))
    depth = len(encoder["convin.weight"])
    side = (len(decoder["convin.weight"]) // (4 * depth)) ** 0.5
    contextual = any(name.startswith("cond_") for name in encoder)
    return FrameModelConfig(
        image_size=LATENT_STRIDE * round(side),
        depth=depth,
        layers=len({name.split(".")[2] for name in encoder if name.startswith("res0.stack.")}),
        context=ContextConfig() if contextual else None,
    )


def _rssm_config(rssm: StateDict, *, stoch: int, classes: int) -> RSSMConfig:
    latents = len(rssm["obs_dist.weight"])
    if latents != stoch * classes:
        raise ConvertError(
            f"the model has {latents} latent units, not {stoch} x {classes}: give stoch and classes"
        )
    hidden, inputs = rssm["img_in.weight"].shape
    deter = rssm["img_out_0.weight"].shape[1]
    return RSSMConfig(stoch=stoch, classes=classes, deter=deter, hidden=hidden, action_size=inputs - latents)


def _head_config(head: StateDict) -> HeadConfig:
    layers = sum(name.startswith("dense") and name.endswith("weight") for name in head)
    return HeadConfig(layers=layers, units=len(head["dense0.weight"])) if layers else HeadConfig(layers=0)


def _below(weights: StateDict, prefix: str) -> dict[str, Tensor]:
    """The tensors of one module, by their names in it."""
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


@contextlib.contextmanager
def _sizes_of(what: str) -> Iterator[None]:
    """Says what is wrong with tensors of which no size can be read."""
    try:
        yield
    except KeyError as error:
        raise ConvertError(f"not a {what} of the official code: there is no tensor {error}") from error
    except (IndexError, TypeError, ZeroDivisionError) as error:
        raise ConvertError(
            f"not a {what} of the official code: its tensors have other shapes ({error})"
        ) from error


def _filled(model: ModelT, weights: StateDict, where: str) -> ModelT:
    expected = model.state_dict()
    for name, tensor in weights.items():
        if name in expected and tensor.is_floating_point() != expected[name].is_floating_point():
            raise ConvertError(f"{where}: {name} holds {tensor.dtype}, expected {expected[name].dtype}")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ConvertError(f"{where}: {name} holds numbers that are not finite")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ConvertError(f"{where}: the official weights do not fit: {reason[:400]}") from error
    return model.eval()


def _read(path: Path) -> dict[str, Tensor]:
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError) as error:
        raise ConvertError(f"{path}: not a PyTorch state dict, or a damaged one") from error
    if not isinstance(weights, dict) or not all(
        isinstance(name, str)
        and isinstance(tensor, Tensor)
        and tensor.layout == torch.strided
        and not tensor.is_meta
        for name, tensor in weights.items()
    ):
        raise ConvertError(f"{path}: not a state dict of tensors")
    return weights
