"""The official code's stored updates and our agent brought to the same point; spies on what its update passes on.

A case is one configuration of the form that tests/fixtures/README.md describes. `watch_update` runs
`DreamerAgent.update_on` itself on the stored batch. From outside only what is random is replaced: the latents' Gumbel
noise by zeros and the imagined action by the policy's mode, while dropout and the choice of the context frame are
settings. `Tensor.float` becomes `Tensor.double`. One number is added: the official reward normaliser of imagination is
switched off but still divides by 1 + 1e-8, which ours has no place for.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from parity_check import head_weights, part_weights
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cwm_hub.agents import actor_critic, dreamer
from cwm_hub.agents.actor_critic import ActorCriticConfig, ActorCriticLoss, Imagination
from cwm_hub.agents.dreamer import DreamerAgent, DreamerConfig
from cwm_hub.agents.intrinsic import IntrinsicConfig
from cwm_hub.agents.replay import SequenceBatch
from cwm_hub.hub.official_names import DECODER_FILE, ENCODER_FILE, RSSM_FILE
from cwm_hub.hub.official_weights import OFFICIAL_FILES, load_official
from cwm_hub.models import action_world_model, rssm
from cwm_hub.models.action_world_model import ActionWorldModelConfig
from cwm_hub.models.distributions import TruncatedNormal
from cwm_hub.models.heads import HeadConfig

REWARD_DIVISOR = 1 + 1e-8
"""Of imagined rewards, in the official code."""
SUFFIX = "_float64.safetensors"
PLACES = {
    "encoder": "world_model.frame_model",
    "decoder": "world_model.frame_model",
    "af_rssm": "world_model.video_rssm",
    "rssm": "world_model.rssm",
    "reward": "world_model.behavioural_head",
    "aux_reward": "world_model.representative_head",
    "actor": "behaviour.actor",
    "critic": "behaviour.critic",
    "slow_critic": "behaviour.slow_critic",
}
"""Where the official modules live in our agent."""
GROUPS = {
    "enc_model": ("pretrained", ("encoder", "af_rssm")),
    "model": ("new", ("rssm", "decoder", "reward", "aux_reward")),
    "actor": ("actor", ("actor",)),
    "critic": ("critic", ("critic",)),
}
"""The official optimisers: our name, and their modules."""

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """One stored update."""

    name: str
    data: Path
    weights: Path
    sizes: dict[str, Any]
    settings: dict[str, Any]
    parameters: dict[str, list[str]]
    """Official parameter names of every module, in the order of `grad_l2` and `new_sum`."""
    zero_gradients: frozenset[str]


def find_cases(directory: Path) -> list[Case]:
    """Every configuration below a directory."""
    cases = []
    for data in sorted(directory.rglob(f"*{SUFFIX}")):
        name = data.name.removesuffix(SUFFIX)
        described = json.loads((data.parent / f"{name}.json").read_text())
        cases.append(
            Case(
                str(data.parent.relative_to(directory) / name),
                data,
                _weights_folder(data.parent, name, described["weights"]),
                described["weights"],
                described["update"],
                described["update"]["parameters_sorted"],
                frozenset(described["zero_gradients"]),
            )
        )
    return cases


def _weights_folder(parent: Path, name: str, sizes: dict[str, Any]) -> Path:
    """The nearest folder with the three weight files, of the sizes that the update was computed with."""
    candidates = (parent / name, parent, parent.parent / name, parent.parent)
    for folder in candidates:
        if all((folder / file).is_file() for file in OFFICIAL_FILES):
            config = folder / "config.json"
            told = json.loads(config.read_text()) if config.is_file() else sizes
            if all(sizes.get(key, value) == value for key, value in told.items()):
                return folder
    raise SystemExit(f"{parent / name}: no folder of {', '.join(map(str, candidates))} has its weight files")


def make_agent(case: Case, golden: Tensors) -> DreamerAgent:
    """Our agent with the stored weights and settings, in float64, just before its second update."""
    sizes, settings = case.sizes, case.settings
    video = load_official(case.weights, stoch=sizes["stoch"], classes=sizes["discrete"])
    frame = video.config.frame
    if frame.context is not None:
        context = replace(frame.context, frame="first", dropout=0.0, token_dropout=0.0, augmentation="none")
        frame = replace(frame, context=context)
    heads = HeadConfig(sizes["mlp_layers"], sizes["mlp_units"])
    world = ActionWorldModelConfig(
        action_size=golden["action"].shape[-1],
        frame=frame,
        video_rssm=video.config.rssm,
        rssm=replace(video.config.rssm, action_size=sizes["fill_action"]),
        heads=heads,
        concat_embed=settings["concat_embed"],
        free_nats=settings["free"],
    )
    config = DreamerConfig(
        world=world,
        behaviour=ActorCriticConfig(heads=heads, imagined_steps=settings["horizon"]),
        intrinsic=IntrinsicConfig(
            beta=settings["beta"],
            queue_size=settings["queue_size"],
            projection_size=settings["queue_dim"],
            k=settings["k"],
            window_frames=settings["seq_length"],
        ),
        held_updates=0,
        precision="float32",
    )
    agent = DreamerAgent.from_video_world_model(video, config)
    for module in ("rssm", "reward", "aux_reward", "actor", "critic", "slow_critic"):
        prefix = f"w/{module}/"
        keys = [key.removeprefix(prefix) for key in golden if key.startswith(prefix)]
        ours = {name: golden[prefix + key] for key in keys for name in our_names(module, key)}
        agent.load_state_dict(ours | {n: t for n, t in agent.state_dict().items() if n not in ours})
        assert len(ours) == len(list(agent.get_submodule(PLACES[module]).parameters()))
    assert agent.bonus is not None
    agent.bonus.projection.copy_(golden["ib_projection"])
    agent.updates = 1  # the slow critic is copied before the first update only
    return agent.double()


def our_names(module: str, key: str) -> list[str]:
    """Our names of an official tensor, to be joined along the first axis (attention stacks what we keep apart)."""
    one = {key: torch.empty(3)}
    if module == "encoder":
        names = part_weights(one, ENCODER_FILE)
    elif module == "decoder":
        names = part_weights(one, DECODER_FILE)
    elif module in ("rssm", "af_rssm"):
        names = part_weights(one, RSSM_FILE)
    else:
        output = "mean" if module == "actor" else "out"
        names = head_weights({f"w/{module}/{key}": one[key]}, module, output=output)
    return [f"{PLACES[module]}.{name}" for name in names]


@dataclass
class Seen:
    """What the spies noted in one update."""

    calls: dict[str, list[tuple[tuple, Any]]]
    """`(arguments, result)` of each call, by name."""
    gradients: Tensors
    """By parameter, before clipping."""
    critic_gradients: list[Tensor]
    """What reached the critic's predictions."""
    metrics: Tensors

    def last(self, name: str) -> tuple[tuple, Any]:
        """The latest call."""
        return self.calls[name][-1]


def watch_update(agent: DreamerAgent, batch: SequenceBatch) -> Seen:
    """Run the agent's own update, made determinate, with spies on what it calls."""
    seen = Seen(defaultdict(list), {}, [], {})
    world, behaviour = agent.world_model, agent.behaviour
    behaviour_loss = _spy(behaviour.loss, seen.calls["behaviour_loss"])

    def divided(line: Imagination, reward: Tensor, *others: Any) -> ActorCriticLoss:
        return behaviour_loss(line, reward / REWARD_DIVISOR, *others)

    with ExitStack() as stack:
        stack.enter_context(_determinate())
        stack.enter_context(patch.object(behaviour, "loss", divided))
        for owner, name in (
            (world, "observe"),
            (world, "loss"),
            (world.rssm, "img_step"),
            (dreamer, "imagine"),
            (action_world_model, "balanced_kl"),
            (actor_critic, "lambda_return"),
            (actor_critic, "gaussian_loss"),
        ):
            spy = _spy(getattr(owner, name), seen.calls[name])
            stack.enter_context(patch.object(owner, name, spy))
        for module in (
            "world_model.frame_model.encoder",
            "world_model.frame_model.decoder",
            "world_model.behavioural_head",
            "world_model.representative_head",
            "behaviour.actor",
            "behaviour.slow_critic",
            "behaviour.critic",
        ):
            note = _note_output(seen.calls[module.rpartition(".")[2]])
            stack.callback(agent.get_submodule(module).register_forward_hook(note).remove)
        stack.callback(behaviour.critic.register_forward_hook(_note_gradient(seen.critic_gradients)).remove)
        trained = [(name, p) for name, p in agent.named_parameters() if p.requires_grad]
        for name, parameter in trained:
            stack.callback(_on_gradient(parameter, seen.gradients, name).remove)
        seen.metrics = agent.update_on(batch)
    return seen


@contextmanager
def _determinate() -> Iterator[None]:
    """Modes for draws and doubles for floats; nothing else of the product is touched."""

    def no_noise(shape: tuple[int, ...], **_: Any) -> Tensor:
        return torch.zeros(shape)

    with (
        patch.object(rssm, "gumbel_noise", no_noise),
        patch.object(TruncatedNormal, "rsample", lambda policy, generator=None: policy.mode),
        patch.object(Tensor, "float", Tensor.double),
    ):
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)


def _spy(function: Callable, calls: list) -> Callable:
    def called(*arguments: Any, **named: Any) -> Any:
        result = function(*arguments, **named)
        calls.append((arguments, result))
        return result

    return called


def _note_output(calls: list) -> Callable:
    return lambda _module, inputs, output: calls.append((inputs, output))


def _note_gradient(gradients: list[Tensor]) -> Callable:
    def note(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
        output.register_hook(gradients.append)

    return note


def _on_gradient(parameter: nn.Parameter, gradients: Tensors, name: str) -> RemovableHandle:
    """Keeps a copy of what the backward pass leaves, before an optimiser clips it."""

    def note(filled: Tensor) -> None:
        assert filled.grad is not None
        gradients[name] = filled.grad.clone()

    return parameter.register_post_accumulate_grad_hook(note)
