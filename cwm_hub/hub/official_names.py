"""Names of tensors in the official ContextWM code (thuml/ContextWM) beside ours, read in either direction.

In a template `#` is a number and `*` the rest of the name. The official attention keeps query, key and value in one tensor
where we have two, so those are split and joined here too.
"""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

StateDict = Mapping[str, Tensor]
Names = tuple[tuple[str, str], ...]
"""(official template, our template); the first that matches counts."""
Part = tuple[str, str, Names]
"""(prefix in the official file, our prefix, the names below them)."""

RESIDUAL = (
    ("res_block.0.", "conv1."),
    ("res_block.1.", "norm1."),
    ("res_block.3.", "conv2."),
    ("res_block.4.", "norm2."),
    ("identity.", "project."),
)
"""Inside a residual layer."""
ENCODER: Names = (
    ("cond_convin.*", "context_encoder.stem.*"),
    ("cond_res#.stack.#.*", "context_encoder.stages.#.#.*"),
    ("convin.*", "encoder.stem.*"),
    ("res#.stack.#.*", "encoder.stages.#.#.*"),
    ("conv#.*", "encoder.layers.#.*"),  # plain CNN
)
DECODER: Names = (
    ("convin.*", "decoder.input.*"),
    ("convout.*", "decoder.output.*"),
    ("res#.stack.0.q_pos_emb", "decoder.stages.#.mixer.query_position"),
    ("res#.stack.0.kv_pos_emb", "decoder.stages.#.mixer.key_position"),
    ("res#.stack.0.cross_attention.att.out_proj.*", "decoder.stages.#.mixer.output.*"),
    ("res#.stack.0.norm_cross_att.*", "decoder.stages.#.mixer.norm.*"),
    ("res#.stack.#.*", "decoder.stages.#.layers.#.*"),
    ("conv#.*", "decoder.layers.#.*"),  # plain CNN
)
RSSM_NAMES: Names = (
    ("_cell._layer.*", "cell.gates.*"),
    ("_cell._norm.*", "cell.norm.*"),
    ("img_in.*", "img_in.*"),
    ("img_out_0.*", "prior_hidden.*"),
    ("img_dist_0.*", "prior_logits.*"),
    ("obs_out.*", "posterior_hidden.*"),
    ("obs_dist.*", "posterior_logits.*"),
)
HEAD: Names = (("dense#.*", "mlp.dense.#.*"), ("out.out.*", "out.*"))
ACTOR: Names = (("dense#.*", "mlp.dense.#.*"), ("out.out.*", "mean.*"), ("out.std.*", "std.*"))
BONUS: Names = (
    ("random_projection_matrix", "projection"),
    ("queue", "queue"),
    ("intr_rewnorm.mag", "magnitude"),
)

ENCODER_FILE: tuple[Part, ...] = (("", "frame_model.", ENCODER),)
RSSM_FILE: tuple[Part, ...] = (("", "rssm.", RSSM_NAMES),)
DECODER_FILE: tuple[Part, ...] = (("", "frame_model.", DECODER),)
PRETRAINED: tuple[Part, ...] = (
    ("wm.encoder.", "frame_model.", ENCODER),
    ("wm.heads.decoder.", "frame_model.", DECODER),
    ("wm.rssm.", "rssm.", RSSM_NAMES),
)
"""The whole state of a pre-training run, `variables.pt`."""
AGENT: tuple[Part, ...] = (
    ("wm.encoder.", "world_model.frame_model.", ENCODER),
    ("wm.heads.decoder.", "world_model.frame_model.", DECODER),
    ("wm.af_rssm.", "world_model.video_rssm.", RSSM_NAMES),
    ("wm.rssm.", "world_model.rssm.", RSSM_NAMES),
    ("wm.heads.reward.", "world_model.behavioural_head.", HEAD),
    ("wm.heads.aux_reward.", "world_model.representative_head.", HEAD),
    ("_task_behavior.actor.", "behaviour.actor.", ACTOR),
    ("_task_behavior.critic.", "behaviour.critic.", HEAD),
    ("_task_behavior._target_critic.", "behaviour.slow_critic.", HEAD),
    ("wm.intr_bonus.", "bonus.", BONUS),
)
"""The whole state of a fine-tuned or DreamerV2 agent, `variables.pt`."""

OFFICIAL_ATTENTION = re.compile(r"(?P<stage>.*res\d+)\.stack\.0\.cross_attention\.att\.in_proj_(?P<kind>\w+)")
OUR_ATTENTION = re.compile(
    r"(?P<mixer>.*decoder\.stages\.\d+\.mixer)\.(?P<part>query|key_value)\.(?P<kind>\w+)"
)


class ConvertError(ValueError):
    """Weights that are missing, unreadable, or such that one of the two codes has no place for them."""


def to_ours(weights: StateDict, parts: Sequence[Part]) -> dict[str, Tensor]:
    """The same tensors under our names.

    Raises:
        ConvertError: a name that is in no part.
    """
    renamed = {}
    for name, tensor in weights.items():
        stacked = OFFICIAL_ATTENTION.fullmatch(name)
        if stacked is None:
            renamed[_renamed(name, tensor, parts, official=True)] = tensor
            continue
        like = f"{stacked['stage']}.stack.0.cross_attention.att.out_proj.{stacked['kind']}"
        mixer = _renamed(like, tensor, parts, official=True).removesuffix(f".output.{stacked['kind']}")
        width = len(tensor) // 3
        renamed[f"{mixer}.query.{stacked['kind']}"] = tensor[:width]
        renamed[f"{mixer}.key_value.{stacked['kind']}"] = tensor[width:]
    return renamed


def to_official(weights: StateDict, parts: Sequence[Part]) -> dict[str, Tensor]:
    """The same tensors under the official names.

    Raises:
        ConvertError: a name that is in no part.
    """
    renamed = {}
    for name, tensor in weights.items():
        ours = OUR_ATTENTION.fullmatch(name)
        if ours is None:
            renamed[_renamed(name, tensor, parts, official=False)] = tensor
        elif ours["part"] == "query":
            like = _renamed(f"{ours['mixer']}.output.{ours['kind']}", tensor, parts, official=False)
            stacked = torch.cat([tensor, weights[f"{ours['mixer']}.key_value.{ours['kind']}"]])
            renamed[like.replace(f"out_proj.{ours['kind']}", f"in_proj_{ours['kind']}")] = stacked
    return renamed


def _renamed(name: str, tensor: Tensor, parts: Sequence[Part], *, official: bool) -> str:
    """The other code's name of a tensor; `official` says that `name` is the official one."""
    for prefixes in parts:
        here, there = prefixes[:2] if official else prefixes[1::-1]
        if not name.startswith(here):
            continue
        for pair in prefixes[2]:
            source, target = pair if official else pair[::-1]
            found = re.fullmatch(
                re.escape(source).replace(r"\#", r"(\d+)").replace(r"\*", "(.+)"), name[len(here) :]
            )
            if found is None:
                continue
            values = iter(found.groups())
            other = re.sub(r"[#*]", lambda _, values=values: next(values), target)  # type: ignore[misc]
            for one, two in RESIDUAL if ".stack." in pair[0] else ():
                other = other.replace(one, two) if official else other.replace(two, one)
            return there + other
    code = "official" if official else "our"
    raise ConvertError(f"no place for the {code} tensor {name!r} of shape {list(tensor.shape)}")
