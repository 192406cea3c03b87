"""Compare our models with the official code's outputs: `python tests/parity_check.py DIR`.

DIR holds the official three weight files, `config.json` with the sizes and `golden.safetensors` with inputs and
outputs (see tests/fixtures/README.md). Prints the largest error of every output relative to the output's largest
value, and exits 1 where one is above 1e-5.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cwm_hub.agents.actor_critic import lambda_return
from cwm_hub.agents.intrinsic import IntrinsicBonus, IntrinsicConfig
from cwm_hub.hub.official_names import RSSM_FILE, Part, StateDict, to_ours
from cwm_hub.hub.official_weights import load_official
from cwm_hub.models.action_world_model import ActionWorldModel, ActionWorldModelConfig
from cwm_hub.models.frame_model import image_loss
from cwm_hub.models.heads import HeadConfig, PolicyHead, ScalarHead
from cwm_hub.models.rssm import balanced_kl

TOLERANCE = 1e-5
INPUTS = {"image", "action", "is_first", "actor_action", "lr_reward", "lr_value", "lr_discount"}
INPUTS |= {"ib_feat1", "ib_feat2", "ib_projection", "ib_reward"}
HEAD_NAMES = ((r"^dense(\d)", r"mlp.dense.\1"), (r"^out\.std", "std"))


def head_weights(golden: dict[str, Tensor], name: str, *, output: str) -> dict[str, Tensor]:
    """State dict of one of our heads from the official tensors `w/<name>/...`."""
    weights = {}
    for key, tensor in golden.items():
        if key.startswith(f"w/{name}/"):
            ours = key.removeprefix(f"w/{name}/")
            for pattern, replacement in (*HEAD_NAMES, (r"^out\.out", output)):
                ours = re.sub(pattern, replacement, ours)
            weights[ours] = tensor
    return weights


def part_weights(state: StateDict, part: tuple[Part, ...]) -> dict[str, Tensor]:
    """Tensors of an official file under our names, below the module that they are of."""
    ((_, prefix, _),) = part
    return {name.removeprefix(prefix): tensor for name, tensor in to_ours(state, part).items()}


def load_world_model(directory: Path, golden: dict[str, Tensor], sizes: dict) -> ActionWorldModel:
    """The whole stacked model with the official weights."""
    video = load_official(directory, stoch=sizes["stoch"], classes=sizes["discrete"])
    rssm = replace(video.config.rssm, action_size=sizes["fill_action"])
    config = ActionWorldModelConfig(
        action_size=sizes["action_dim"],
        frame=video.config.frame,
        video_rssm=video.config.rssm,
        rssm=rssm,
        heads=HeadConfig(sizes["mlp_layers"], sizes["mlp_units"]),
    )
    model = ActionWorldModel.from_video_world_model(video, config=config).eval()
    prefix = "w/rssm/"
    model.rssm.load_state_dict(
        part_weights(
            {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}, RSSM_FILE
        )
    )
    model.behavioural_head.load_state_dict(head_weights(golden, "reward", output="out"))
    assert model.representative_head is not None
    model.representative_head.load_state_dict(head_weights(golden, "aux_reward", output="out"))
    return model


@torch.no_grad()
def our_outputs(directory: Path, golden: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Every output of `golden`, computed by our code from the inputs of `golden`."""
    sizes = json.loads((directory / "config.json").read_text())
    model = load_world_model(directory, golden, sizes)
    video, action, is_first = golden["image"], golden["action"], golden["is_first"].bool()
    yield "embed", model.frame_model.encode(video)

    output = model.observe(video, action, is_first, sample=False)
    assert output.video_posterior is not None and output.video_prior is not None
    for name, state in (("af_post", output.video_posterior), ("post", output.posterior)):
        yield f"{name}_deter", state.deter
        yield f"{name}_stoch", state.stoch
        yield f"{name}_logit", state.logits
    yield "af_prior_logit", output.video_prior.logits
    yield "af_prior_stoch", output.video_prior.stoch
    yield "prior_logit", output.prior.logits
    assert output.video_feature is not None
    yield "af_feat", output.video_feature
    yield "feat", output.feature
    yield "af_kl_loss", balanced_kl(output.video_posterior, output.video_prior)[0][None]
    for free in (0, 1):
        loss, value = balanced_kl(output.posterior, output.prior, free_nats=float(free))
        yield f"kl_loss_free{free}", loss[None]
    yield "kl_value", value

    tokens = model.frame_model.encode_context(video[:, :1])
    if model.frame_model.context_encoder is not None:
        image = video[:, 0].float() / 255 - 0.5
        for stride, context in model.frame_model.context_encoder.maps(image).items():
            yield f"context_{video.shape[-1] // stride}", context
    mean = model.frame_model.decode(output.feature, tokens)
    yield "recon", mean
    yield "image_loss", image_loss(mean, video)[None]

    future = model.rssm.imagine(output.posterior.select((slice(None), 2)), action[:, 3:], sample=False)
    yield "openl_deter", future.deter
    yield "openl_logit", future.logits

    yield "reward_mean", model.behavioural_reward(output.feature)
    yield "aux_reward_mean", model.representative_reward(output.feature)
    yield from behaviour_outputs(golden, sizes)


def behaviour_outputs(golden: dict[str, Tensor], sizes: dict) -> Iterator[tuple[str, Tensor]]:
    """Actor, critic, lambda return and intrinsic bonus."""
    feature = golden["feat"]
    heads = HeadConfig(sizes["mlp_layers"], sizes["mlp_units"])
    critic: nn.Module = ScalarHead(feature.shape[-1], heads)
    critic.load_state_dict(head_weights(golden, "critic", output="out"))
    yield "critic_mean", critic(feature)
    actor = PolicyHead(feature.shape[-1], sizes["action_dim"], heads)
    actor.load_state_dict(head_weights(golden, "actor", output="mean"))
    policy = actor(feature)
    yield "actor_mean", policy.mean
    yield "actor_std", policy.std
    yield "actor_mode", policy.mode
    yield "actor_log_prob", policy.log_prob(golden["actor_action"])
    yield "actor_entropy", policy.entropy()
    yield "lr_return", lambda_return(golden["lr_reward"], golden["lr_value"], golden["lr_discount"], 0.95)

    intrinsic = sizes["intrinsic"]
    bonus = IntrinsicBonus(
        golden["ib_feat1"].shape[-1],
        IntrinsicConfig(
            beta=intrinsic["beta"],
            queue_size=intrinsic["queue_size"],
            projection_size=intrinsic["queue_dim"],
            k=intrinsic["k"],
            window_frames=intrinsic["seq_length"],
            momentum=intrinsic["momentum"],
        ),
    )
    bonus.projection.copy_(golden["ib_projection"])
    for call, name in enumerate(("ib_feat1", "ib_feat2", "ib_feat1"), start=1):
        reward = bonus(golden[name])
        total = golden["ib_reward"][:, : reward.shape[1]] + intrinsic["beta"] * reward
        yield f"ib_total_reward{call}", total


def relative_errors(directory: Path) -> dict[str, float]:
    """Largest absolute error of each output over the output's largest absolute value."""
    golden = load_file(directory / "golden.safetensors")
    expected = {name for name in golden if name not in INPUTS and not name.startswith("w/")}
    errors = {}
    for name, ours in our_outputs(directory, golden):
        official = golden[name]
        if ours.shape != official.shape:
            raise SystemExit(f"{name}: our shape {list(ours.shape)}, official {list(official.shape)}")
        errors[name] = float((ours - official).abs().max() / official.abs().max().clamp(min=1e-12))
    if expected != set(errors):
        raise SystemExit(f"outputs not compared: {', '.join(sorted(expected ^ set(errors)))}")
    return errors


def main(arguments: list[str]) -> int:
    """Print the table; 0 where every error is within the tolerance."""
    if len(arguments) != 1 or not Path(arguments[0], "golden.safetensors").is_file():
        print("usage: python tests/parity_check.py DIR, where DIR holds golden.safetensors", file=sys.stderr)
        return 2
    errors = relative_errors(Path(arguments[0]))
    for name, error in errors.items():
        print(f"{name:24s} {error:.2e}{'' if error <= TOLERANCE else '  ABOVE ' + str(TOLERANCE)}")
    worst = max(errors.values())
    print(f"{len(errors)} outputs compared, largest relative error {worst:.2e}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
