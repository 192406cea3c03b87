"""Compare one whole update of our agent with the official code's, in float64: `python tests/update_parity_check.py DIR`.

DIR holds, at any depth, configurations NAME: `NAME_float64.safetensors` (inputs, weights, what came out) and
`NAME.json` (sizes and settings), with the official three weight files in `NAME/`, beside it, or in `../NAME/`
(see tests/fixtures/README.md). How our update is made determinate stands in `official_update.py`.

Prints the largest relative error of each kind and exits 1 where one is above 1e-6; a tensor that is missing, of another
shape or not finite has an infinite error. An error is relative to the tensor's largest value (per row in
`grad_l2` and `new_sum`, which hold one parameter a row), and absolute where the official gradient is zero in exact
arithmetic. `step/...` is the change that an optimiser made, new less old: it shows what hides in the last digits of `new/...`.

Where we differ from the official code on purpose:
- The official critic regresses targets to which the actor's entropy term was added in place; ours regresses the pure
  lambda returns. Wherever `clean/X` is stored it is compared in place of `X`.
- Our critic, discount and weights stop at the last state that has a target: of their I + 1 stored rows the first I.
"""

import math
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from official_update import GROUPS, Case, Seen, Tensors, find_cases, make_agent, our_names, watch_update
from safetensors.torch import load_file
from torch import Tensor

from cwm_hub.agents.dreamer import DreamerAgent
from cwm_hub.agents.replay import SequenceBatch

TOLERANCE = 1e-6
INPUTS = {"image", "action", "reward", "is_first", "is_terminal", "ib_projection"}
ROWS = ("grad_l2/", "new_sum/")
"""Kinds with one parameter a row."""
SHORTER = ("imag/value", "imag/discount", "imag/weight")
"""Without the row of the bootstrap, whose value by the critic and whose weight nothing asks for."""


def errors(case: Case) -> dict[str, float]:
    """Error of every stored tensor, infinite where ours is missing, of another shape or not finite."""
    golden = load_file(case.data)
    agent = make_agent(case, golden)
    before = {name: tensor.clone() for name, tensor in agent.state_dict().items()}
    batch = SequenceBatch(
        image=golden["image"].numpy(),
        action=golden["action"].numpy(),
        reward=golden["reward"].numpy(),
        is_first=golden["is_first"].bool().numpy(),
        is_terminal=golden["is_terminal"].bool().numpy(),
    )
    seen = watch_update(agent, batch)
    ours = dict(world_outputs(seen, agent, golden)) | dict(behaviour_outputs(seen))
    ours |= dict(parameter_outputs(case, seen, agent, golden))
    found = {}
    for name, official in golden.items():
        if name in INPUTS or name.startswith("w/") or f"clean/{name}" in golden:
            continue
        value = ours.get(name.removeprefix("clean/"))
        if name in SHORTER:
            official = official[: len(ours["imag/target"])]
        found[name] = error(case, name, value, official)
        place = name.removeprefix("clean/").partition("/")[2]
        if value is not None and name.removeprefix("clean/").startswith("new/"):
            old = joined(before, *place.split("/", 1))
            step = name.replace("new/", "step/")
            found[step] = error(case, step, value - old, official - old)
    return {name: value if math.isfinite(value) else math.inf for name, value in found.items()}


def error(case: Case, name: str, ours: Tensor | None, official: Tensor) -> float:
    """Largest absolute error over the largest absolute value."""
    if ours is None or ours.shape != official.shape:
        return math.inf
    ours, official = ours.double(), official.double()
    difference = (ours.detach() - official).abs()
    if name.replace("step/", "grad/") in case.zero_gradients:
        return float(difference.max())
    if name.removeprefix("clean/").startswith("new_sum/"):  # a sum may cancel: over the sum of magnitudes
        return float((difference / official[:, 1:].clamp(min=1e-12)).max())
    if name.removeprefix("clean/").startswith("grad_l2/"):
        zero = official < 1e-9 * official.max()
        return float((difference / official.masked_fill(zero, 1)).max())
    return float(difference.max() / official.abs().max().clamp(min=1e-12))


def world_outputs(seen: Seen, agent: DreamerAgent, golden: Tensors) -> Iterator[tuple[str, Tensor]]:
    """What the world model's update computed."""
    batch = golden["reward"].shape
    output = seen.last("observe")[1]
    yield "embed", seen.last("encoder")[1].unflatten(0, batch)
    yield "af_feat", output.video_feature
    yield "feat", output.feature
    for name, state in (("af_post", output.video_posterior), ("post", output.posterior)):
        yield f"{name}_logit", state.logits
        yield f"{name}_deter", state.deter
        yield f"{name}_stoch", state.stoch
    yield "af_prior_logit", output.video_prior.logits
    yield "prior_logit", output.prior.logits

    for arguments, (loss, value) in seen.calls["balanced_kl"]:
        if arguments[0] is output.posterior:
            yield "kl_value", value
        elif arguments[0] is output.video_posterior:
            yield "loss/af_kl", loss[None]
    mean = seen.last("decoder")[1].unflatten(0, batch)
    frames = golden["image"].double() / 255 - 0.5
    yield "image_loss_per_frame", 0.5 * (mean - frames).square().sum((-3, -2, -1))
    yield "reward_pred", seen.calls["behavioural_head"][0][1]
    yield "aux_reward_pred", seen.last("representative_head")[1]
    metrics = seen.metrics
    for name, ours in (
        ("kl", "kl_loss"),
        ("image", "image_loss"),
        ("reward", "behavioural_reward_loss"),
        ("aux_reward", "representative_reward_loss"),
        ("total", "loss"),
    ):
        yield f"loss/{name}", metrics[ours][None]

    target = seen.last("loss")[0][3]
    yield "behavioural_target", target
    yield "behavioural_length", torch.tensor([target.shape[1]])
    assert agent.bonus is not None
    yield "bonus_mean_raw", (metrics["intrinsic_bonus"] * (metrics["bonus_magnitude"] + 1e-8))[None]
    yield "bonus_mag", agent.bonus.magnitude[None]
    yield "queue_after", agent.bonus.queue
    yield "queue_step_after", agent.bonus.filled[None]


def behaviour_outputs(seen: Seen) -> Iterator[tuple[str, Tensor]]:
    """What the update of actor and critic computed; time first."""
    arguments, line = seen.last("imagine")
    start = arguments[2]
    states = [start] + [state for _, state in seen.calls["img_step"]]
    (_, value, discount, _), target = seen.last("lambda_return")
    policy = seen.last("actor")[1]
    prediction = seen.last("critic")[1]
    critic_target = seen.last("gaussian_loss")[0][1]
    yield "imag/feat", line.feature
    yield "imag/logit", torch.stack([state.logits for state in states])
    yield "imag/action", torch.cat([torch.zeros_like(line.action[:1]), line.action])
    yield "imag/reward", seen.last("behaviour_loss")[0][1]
    yield "imag/slow_value", value
    yield "imag/value", prediction
    yield "imag/discount", discount
    # The loss is a mean of weight * (prediction - target)^2 / 2.
    yield "imag/weight", seen.critic_gradients[-1] * prediction.numel() / (prediction - critic_target)
    yield "imag/target", target
    yield "imag/critic_target", critic_target
    yield "imag/policy_mean", policy.mean
    yield "imag/policy_std", policy.std
    yield "imag/entropy", policy.entropy()
    yield "loss/actor", seen.metrics["actor_loss"][None]
    yield "loss/critic", seen.metrics["critic_loss"][None]
    yield "entropy_mean", seen.metrics["policy_entropy"][None]


def parameter_outputs(
    case: Case, seen: Seen, agent: DreamerAgent, golden: Tensors
) -> Iterator[tuple[str, Tensor]]:
    """Gradients before clipping, their norms, and what the optimisers and BatchNorm made of the weights."""
    after = agent.state_dict()
    for group, (optimiser, modules) in GROUPS.items():
        yield f"grad_norm/{group}", seen.metrics[f"{optimiser}_grad_norm"][None]
        names = [our_names(module, key) for module in modules for key in case.parameters[module]]
        absent = sum(any(name not in seen.gradients for name in ours) for ours in names)
        yield f"grad_none/{group}", torch.tensor([absent, len(names)])
    zeros = {name: torch.zeros_like(p) for name, p in agent.named_parameters()}
    gradients = zeros | seen.gradients
    for module, keys in case.parameters.items():
        yield f"grad_l2/{module}", torch.stack([joined(gradients, module, key).norm() for key in keys])
        new = [joined(after, module, key) for key in keys]
        yield f"new_sum/{module}", torch.stack([torch.stack([t.sum(), t.abs().sum()]) for t in new])
    for name in golden:
        kind, _, place = name.removeprefix("clean/").partition("/")
        if kind in ("grad", "new", "bn_after"):
            value = joined(gradients if kind == "grad" else after, *place.split("/", 1))
            yield f"{kind}/{place}", value.reshape(golden[name].shape)


def joined(tensors: Tensors, module: str, key: str) -> Tensor:
    """An official tensor out of ours."""
    parts = [tensors[name] for name in our_names(module, key)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def table(found: dict[str, float]) -> dict[str, tuple[float, str]]:
    """Largest error of each kind, and the tensor it belongs to; a kind is a name without its last part."""
    kinds: dict[str, tuple[float, str]] = defaultdict(lambda: (-1.0, ""))
    for name, value in found.items():
        parts = name.removeprefix("clean/").split("/")
        kind = "/".join(parts[:2]) if parts[0] in ("grad", "new", "step", "bn_after") else name
        kinds[kind] = max(kinds[kind], (value, name))
    return kinds


def main(arguments: list[str]) -> int:
    """Print a table for each configuration; 0 where every error is within the tolerance."""
    cases = find_cases(Path(arguments[0])) if len(arguments) == 1 else []
    if not cases:
        print(
            "usage: python tests/update_parity_check.py DIR, where DIR holds NAME_float64.safetensors",
            file=sys.stderr,
        )
        return 2
    passed = True
    for case in cases:
        found = errors(case)
        print(f"{case.name} (weights of {case.weights})")
        for kind, (value, name) in table(found).items():
            print(f"  {kind:28s} {value:.1e}{'' if value <= TOLERANCE else f'  ABOVE {TOLERANCE}: {name}'}")
        worst = max(found.values())
        passed &= worst <= TOLERANCE
        print(f"  {len(found)} tensors compared, largest relative error {worst:.1e}")
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
