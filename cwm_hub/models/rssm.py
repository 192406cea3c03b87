"""Recurrent state-space model with discrete latents (DreamerV2, arXiv 2010.02193; APV, arXiv 2203.13880).

Axes: B batch, T frames of a clip, A action, E frame embedding, D deterministic state, S categorical latents,
K classes each, F feature = S*K + D.

    state t-1 --(stoch, action t)--> GRU --> deter t --> prior t       (img_step: what the past predicts)
                                               deter t, embed t --> posterior t    (obs_step: what the frame says)

`action[:, t]` is the action that led to frame t, and `is_first[:, t]` clears the state before step t.
Only what depends on the step before runs inside the scan of `observe`: the embedding's part of the posterior's
hidden layer, the sampling noise, the whole prior and the gradients of the scan's weights are computed for all frames at once.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cwm_hub.config import MOST_UNITS, check_range
from cwm_hub.models.draws import Generators, draw
from cwm_hub.models.initialise import init_xavier
from cwm_hub.models.recurrent import GRUCell, scan_linear


@dataclass(frozen=True)
class RSSMConfig:
    """Sizes of one RSSM; the defaults are the paper's."""

    stoch: int = 32
    """Number of categorical latents S."""
    classes: int = 32
    """Classes K of each latent."""
    deter: int = 1024
    """Width D of the deterministic state."""
    hidden: int = 1024
    """Width of the hidden layers before the GRU, the prior and the posterior."""
    action_size: int = 50
    """Width of the action slot. Shorter actions are padded with zeros, absent ones are zeros (APV's 50)."""

    def __post_init__(self):
        check_range(self, "stoch", "classes", "deter", "hidden", "action_size", at_least=1)
        check_range(self, "stoch", "classes", "deter", "hidden", "action_size", at_most=MOST_UNITS)


@dataclass(frozen=True, kw_only=True)
class KLConfig:
    """The KL between posterior and prior, part of both world models' configurations."""

    kl_scale: float = 1.0
    """Weight of the KL (APV used 0.1 in pre-training)."""
    kl_balance: float = 0.8
    """Share of the KL that trains the prior."""
    free_nats: float = 0.0
    """KL in nats below which it gives no gradient: 0 in pre-training and on Meta-world, 1 elsewhere."""

    def __post_init__(self):
        check_range(self, "kl_scale", "free_nats", at_least=0)
        check_range(self, "kl_balance", at_least=0, at_most=1)


class RSSMState(NamedTuple):
    """State of an RSSM at one step, or stacked over any leading axes."""

    deter: Float[Tensor, "*N D"]
    stoch: Float[Tensor, "*N S K"]
    """One-hot sample (or mode), with straight-through gradient to the logits."""
    logits: Float[Tensor, "*N S K"]

    @property
    def feature(self) -> Float[Tensor, "*N F"]:
        """What decoders, heads and objectives read: the flattened latents, then the deterministic state."""
        return torch.cat([self.stoch.flatten(-2), self.deter], -1)

    def select(self, index: Any) -> "RSSMState":
        """Index every part over the leading axes alike."""
        return RSSMState(*(part[index] for part in self))

    def repeat(self, count: int) -> "RSSMState":
        """Each state `count` times, one after the other: B states become B * count, for planners that try many futures."""
        return RSSMState(*(part.repeat_interleave(count, 0) for part in self))


def stack_states(states: list[RSSMState], dim: int) -> RSSMState:
    """Stack one state per step along a new axis `dim`."""
    return RSSMState(*(torch.stack(parts, dim) for parts in zip(*states, strict=True)))


def gumbel_noise(
    shape: tuple[int, ...], *, device: torch.device, generator: Generators = None
) -> Float[Tensor, "..."]:
    """Standard Gumbel noise in float32: `argmax(logits + noise)` is a draw from the categorical of the logits."""
    uniform = draw(torch.rand, shape, device=device, generator=generator)
    return -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))


def one_hot_latent(
    logits: Float[Tensor, "*N S K"], noise: Float[Tensor, "*N S K"] | None
) -> Float[Tensor, "*N S K"]:
    """One-hot latent, float32, with straight-through gradient: by Gumbel-max, or the mode where `noise` is None."""
    scores = logits.float() if noise is None else logits.float() + noise
    hard = F.one_hot(scores.argmax(-1), logits.shape[-1]).to(torch.float32)
    soft = torch.softmax(logits.float(), -1)
    return hard + soft - soft.detach()


def balanced_kl(
    posterior: RSSMState, prior: RSSMState, *, balance: float = 0.8, free_nats: float = 0.0
) -> tuple[Float[Tensor, ""], Float[Tensor, "*N"]]:
    """KL between posterior and prior with the two sides trained at different rates (DreamerV2, section 2.2).

    Args:
        balance: share of the loss that trains the prior; the rest trains the posterior.
        free_nats: lower bound in nats on each side's mean, below which it gives no gradient.

    Returns:
        The loss in nats, and the KL of every step in nats, summed over latents; both float32.
    """
    post, pri = posterior.logits.float(), prior.logits.float()
    trains_prior, trains_posterior = categorical_kl(post.detach(), pri), categorical_kl(post, pri.detach())
    prior_loss, posterior_loss = (kl.mean().clamp(min=free_nats) for kl in (trains_prior, trains_posterior))
    return balance * prior_loss + (1 - balance) * posterior_loss, trains_prior.detach()


def categorical_kl(left: Float[Tensor, "*N S K"], right: Float[Tensor, "*N S K"]) -> Float[Tensor, "*N"]:
    """KL(left || right) in nats from logits, summed over the S latents."""
    left_log, right_log = torch.log_softmax(left, -1), torch.log_softmax(right, -1)
    return (left_log.exp() * (left_log - right_log)).sum((-2, -1))


class RSSM(nn.Module):
    """Discrete recurrent state-space model.

    Args:
        config: sizes.
        embed: width E of what the posterior sees of each frame.
    """

    def __init__(self, config: RSSMConfig, *, embed: int):
        super().__init__()
        self.config = config
        self.embed_size = embed
        self._latents = latents = config.stoch * config.classes
        self.feature_size = latents + config.deter
        self.img_in = nn.Linear(latents + config.action_size, config.hidden)
        self.cell = GRUCell(config.hidden, config.deter)
        self.prior_hidden = nn.Linear(config.deter, config.hidden)
        self.prior_logits = nn.Linear(config.hidden, latents)
        self.posterior_hidden = nn.Linear(config.deter + embed, config.hidden)
        self.posterior_logits = nn.Linear(config.hidden, latents)
        for layer in (
            self.img_in,
            self.prior_hidden,
            self.prior_logits,
            self.posterior_hidden,
            self.posterior_logits,
        ):
            init_xavier(layer)

    def compile_steps(self) -> None:
        """Compile what a step does between its matrix products, a few kernels in place of some thirty."""
        for owner, name in ((self.cell, "mix"), (self, "_latent")):
            setattr(owner, name, torch.compile(getattr(owner, name), fullgraph=True, dynamic=False))

    def initial(self, batch_size: int, *, device: torch.device | str | None = None) -> RSSMState:
        """All-zero state, as every episode and every clip begins with."""
        config = self.config
        device, dtype = device or self.img_in.weight.device, self.img_in.weight.dtype
        latent = torch.zeros(batch_size, config.stoch, config.classes, device=device, dtype=dtype)
        return RSSMState(torch.zeros(batch_size, config.deter, device=device, dtype=dtype), latent, latent)

    def feature(self, state: RSSMState) -> Float[Tensor, "*N F"]:
        """`state.feature`, of width `feature_size`."""
        return state.feature

    def obs_step(
        self,
        state: RSSMState,
        action: Float[Tensor, "B A"] | None,
        embed: Float[Tensor, "B E"],
        is_first: Bool[Tensor, "B"],
        *,
        sample: bool = True,
        generator: Generators = None,
    ) -> tuple[RSSMState, RSSMState]:
        """One step with a frame in view.

        Returns:
            `(posterior, prior)`. Latents are drawn where `sample` is true and the mode otherwise.
        """
        posterior, prior = self.observe(
            embed[:, None],
            None if action is None else action[:, None],
            is_first[:, None],
            state,
            sample=sample,
            generator=generator,
        )
        return posterior.select((slice(None), 0)), prior.select((slice(None), 0))

    def img_step(
        self,
        state: RSSMState,
        action: Float[Tensor, "B A"] | None,
        *,
        sample: bool = True,
        generator: Generators = None,
    ) -> RSSMState:
        """One step without a frame: the prior."""
        action = self._pad(action)
        inputs = F.linear(_joined(state.stoch, action), self._img_in_weight(action), self.img_in.bias)
        deter = self.cell(F.elu(inputs), state.deter)
        noise = self._noise(deter.shape[:-1], deter.device, generator) if sample else None
        return self._prior(deter, noise)

    def observe(
        self,
        embed: Float[Tensor, "B T E"],
        action: Float[Tensor, "B T A"] | None,
        is_first: Bool[Tensor, "B T"],
        state: RSSMState | None = None,
        *,
        sample: bool = True,
        generator: Generators = None,
    ) -> tuple[RSSMState, RSSMState]:
        """Filter a sequence of frame embeddings.

        Args:
            embed: one embedding a frame.
            action: the action that led to each frame; None for action-free video.
            is_first: true where a clip or an episode begins: state and action are cleared before that step.
            state: the state to go on from; zeros where absent.
            sample: draw latents, or take the mode.
            generator: source of the draws, one for all or one for each of the B; the device's default where absent.

        Returns:
            `(posterior, prior)`, each stacked over T. The prior's `stoch` is its mode: only its logits are read.
        """
        batch, time = embed.shape[:2]
        state = state if state is not None else self.initial(batch, device=embed.device)
        keep = (~is_first).to(embed.dtype).unsqueeze(-1)
        action = self._pad(action)
        action = None if action is None else action * keep
        noise = self._noise((batch, time), embed.device, generator) if sample else None

        linear = partial(scan_linear, steps=time, rows=batch)
        weight = self.posterior_hidden.weight
        from_embed = F.linear(embed, weight[:, self.config.deter :], self.posterior_hidden.bias)
        from_deter = linear(weight[:, : self.config.deter], None)
        img_in = linear(self._img_in_weight(action), self.img_in.bias)
        cell = self.cell.for_scan(steps=time, rows=batch)
        to_logits = linear(self.posterior_logits.weight, self.posterior_logits.bias)
        deter, stoch = state.deter, state.stoch
        posteriors = []
        for t in range(time):
            deter, stoch = deter * keep[:, t], stoch * keep[:, t, :, None]
            inputs = F.elu(img_in(_joined(stoch, None if action is None else action[:, t])))
            deter = cell(inputs, deter)
            hidden = F.elu(from_deter(deter) + from_embed[:, t])
            logits = self._as_latents(to_logits(hidden))
            stoch = self._latent(logits, None if noise is None else noise[:, t])
            posteriors.append(RSSMState(deter, stoch, logits))
        posterior = stack_states(posteriors, 1)
        return posterior, self._prior(posterior.deter, None)

    def imagine(
        self,
        state: RSSMState,
        action: Float[Tensor, "B I A"] | None = None,
        *,
        steps: int | None = None,
        sample: bool = True,
        generator: Generators = None,
    ) -> RSSMState:
        """Roll the prior forward from `state`, open loop.

        Args:
            action: the actions that lead to each imagined step; None for action-free video, then give `steps`.
            steps: number of imagined steps I where there is no action.

        Returns:
            The priors stacked over I.

        Raises:
            ValueError: both or neither of `action` and `steps`.
        """
        if (action is None) == (steps is None):
            raise ValueError("imagine takes either actions or a number of steps, not both and not neither")
        priors = []
        for i in range(steps if action is None else action.shape[1]):  # type: ignore[arg-type]
            state = self.img_step(
                state, None if action is None else action[:, i], sample=sample, generator=generator
            )
            priors.append(state)
        return stack_states(priors, 1)

    def _img_in_weight(self, action: Tensor | None) -> Tensor:
        """Without an action its slot, zeros that add nothing, is left out of the product."""
        return self.img_in.weight if action is not None else self.img_in.weight[:, : self._latents]

    def _prior(self, deter: Tensor, noise: Tensor | None) -> RSSMState:
        logits = self._as_latents(self.prior_logits(F.elu(self.prior_hidden(deter))))
        return RSSMState(deter, self._latent(logits, noise), logits)

    def _latent(self, logits: Tensor, noise: Tensor | None) -> Tensor:
        """In the type of the weights, which under autocast is float32."""
        return one_hot_latent(logits, noise).to(self.img_in.weight.dtype)

    def _as_latents(self, flat: Tensor) -> Tensor:
        return flat.unflatten(-1, (self.config.stoch, self.config.classes))

    def _noise(self, lead: tuple[int, ...], device: torch.device, generator: Generators) -> Tensor:
        shape = (*lead, self.config.stoch, self.config.classes)
        return gumbel_noise(shape, device=device, generator=generator)

    def _pad(self, action: Tensor | None) -> Tensor | None:
        if action is None:
            return None
        missing = self.config.action_size - action.shape[-1]
        if missing < 0:
            raise ValueError(
                f"action has {action.shape[-1]} numbers, the RSSM's slot takes {self.config.action_size}"
            )
        return F.pad(action.to(self.img_in.weight.dtype), (0, missing))


def _joined(stoch: Float[Tensor, "B S K"], action: Float[Tensor, "B A"] | None) -> Float[Tensor, "B X"]:
    """What the layer before the cell reads."""
    flat = stoch.flatten(-2)
    return flat if action is None else torch.cat([flat, action], -1)
