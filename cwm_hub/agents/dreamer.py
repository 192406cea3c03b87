"""The agent of fine-tuning: a world model learned from replay, behaviour learned in its imagination.

    replay --sequences--> world model update --posterior states--> imagination --> actor and critic update
                               ^ behavioural target = reward + beta * intrinsic bonus

DreamerV2 from scratch is this agent with `world.video_rssm` None: one RSSM, no bonus, and as in the official code one
optimiser, hence one clipped norm, for the whole world model.

Small print in which we differ from the official code: its pre-trained weights arrive after one update that the held
phase counts, so that it holds them for 99 updates and we for `held_updates`; the critic regresses the lambda return
without the entropy that the official code adds to it in place.
"""

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from cwm_hub.agents.actor_critic import ActorCritic, ActorCriticConfig, frozen, imagine
from cwm_hub.agents.batched_state import row_seeds
from cwm_hub.agents.intrinsic import IntrinsicBonus, IntrinsicConfig
from cwm_hub.agents.replay import Replay, SequenceBatch
from cwm_hub.config import check_range
from cwm_hub.models.action_world_model import ActionWorldModel, ActionWorldModelConfig, WorldState
from cwm_hub.models.checks import check_images
from cwm_hub.models.compiled import compile_parts, eager
from cwm_hub.models.cuda_graph import CudaGraph
from cwm_hub.models.published import Published
from cwm_hub.models.rssm import RSSMState
from cwm_hub.models.running_statistics import RunningStatistics
from cwm_hub.models.video_world_model import VideoWorldModel


@dataclass(frozen=True)
class DreamerConfig:
    """Agent and its learning; the defaults are the paper's for Meta-world."""

    world: ActionWorldModelConfig
    """The world model."""
    behaviour: ActorCriticConfig = field(default_factory=ActorCriticConfig)
    """Actor and critic."""
    intrinsic: IntrinsicConfig | None = field(default_factory=IntrinsicConfig)
    """Video-based bonus; None is none, as it must be where the world model has no action-free RSSM."""
    batch_sequences: int = 50
    """Sequences in a replay batch (paper: 50 Meta-world, 16 elsewhere)."""
    sequence_steps: int = 50
    """Steps in a sequence."""
    favour_ends: bool = True
    """Replay draws episode ends more often (paper: on Meta-world only)."""
    repeat_short: bool = False
    """Fill a sequence with an episode shorter than it, which begins anew until it is full (the bonus's windows go over the joint);
    otherwise such episodes are never drawn, as in the official code."""
    world_lr: float = 3e-4
    """Adam's learning rate of both groups of the world model."""
    behaviour_lr: float = 8e-5
    """Adam's learning rate of actor and critic."""
    adam_eps: float = 1e-5
    """Adam's epsilon, of all optimisers."""
    weight_decay: float = 1e-6
    """Coupled L2 on every weight, as torch.optim.Adam does it."""
    clip_norm: float = 100.0
    """Largest global gradient norm of each optimiser."""
    held_updates: int = 0
    """First updates in which the pre-trained encoder and video RSSM have learning rate 0 (paper: 100 on Meta-world, else
    0); 0 where nothing is pre-trained."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Autocast of the forward passes; `auto` is bf16 on a GPU and float32 on a CPU."""
    cuda_graphs: bool = True
    """Record an update as one CUDA graph and replay it; on a CPU it says nothing."""
    compile: bool = False
    """Compile image networks and steps of the scans with torch.compile, 0.69 to 0.77 of an update's time after
    three minutes; on a CPU it says nothing."""

    def __post_init__(self):
        check_range(self, "batch_sequences", "sequence_steps", at_least=1)
        check_range(self, "world_lr", "behaviour_lr", "weight_decay", "held_updates", at_least=0)
        check_range(self, "adam_eps", "clip_norm", above=0)
        if self.world.video_rssm is None and self.held_updates:
            raise ValueError(
                "held_updates needs world.video_rssm: without it nothing is pre-trained, set it to 0"
            )
        if self.intrinsic is None:
            return
        if self.world.video_rssm is None:
            raise ValueError("the intrinsic bonus needs world.video_rssm: set intrinsic to null")
        if self.intrinsic.window_frames > self.sequence_steps:
            raise ValueError(
                f"intrinsic.window_frames={self.intrinsic.window_frames} exceeds sequence_steps={self.sequence_steps}"
            )
        windows = self.batch_sequences * (self.sequence_steps - self.intrinsic.window_frames + 1)
        if windows < self.intrinsic.k:
            raise ValueError(
                f"a batch has {windows} windows for the bonus, fewer than intrinsic.k={self.intrinsic.k}"
            )


NO_CONTINUE_HEAD = (
    "the task itself ended an episode (terminated) and this agent takes every end for a time limit: set "
    "agent.world.continue_head to true"
)
"""What to tell someone whose task terminates."""


class AgentState(NamedTuple):
    """What acting carries from one step to the next."""

    world: WorldState
    action: Float[Tensor, "N A"]
    """The action that leads to the next frame."""
    generators: list[torch.Generator]
    """Of each row the source of latents and exploration, seeded by the episode."""


class DreamerAgent(Published, nn.Module):
    """World model, actor-critic and bonus, with their optimisers."""

    def __init__(self, config: DreamerConfig):
        super().__init__()
        self.config = config
        self.world_model = ActionWorldModel(config.world)
        feature_size = self.world_model.feature_size
        self.behaviour = ActorCritic(
            config.behaviour, feature_size=feature_size, action_size=config.world.action_size
        )
        self.bonus: IntrinsicBonus | None = None
        if config.intrinsic is not None:
            assert self.world_model.video_rssm is not None
            self.bonus = IntrinsicBonus(self.world_model.video_rssm.feature_size, config.intrinsic)
        self.to(memory_format=torch.channels_last)  # the form in which convolutions are fastest
        pretrained, new = self.world_model.parameter_groups()
        stacked = config.world.video_rssm is not None
        groups = {"pretrained": pretrained, "new": new} if stacked else {"world": [*pretrained, *new]}
        self.world_optimisers = tuple(groups)
        """Names of the world model's optimisers: of what is pre-trained and what is new, or one of everything."""
        self.optimisers = {
            **{name: self._adam(parameters, config.world_lr) for name, parameters in groups.items()},
            "actor": self._adam(self.behaviour.actor.parameters(), config.behaviour_lr),
            "critic": self._adam(self.behaviour.critic.parameters(), config.behaviour_lr),
        }
        self._graph: CudaGraph[tuple[dict[str, Tensor], Tensor]] | None = None
        self._compiled = False
        self.updates = 0
        """Updates so far, skipped ones among them."""
        self.skipped_updates = 0
        """Updates left out because a loss or a gradient was not finite."""
        self.eval()

    @classmethod
    def from_video_world_model(cls, video_model: VideoWorldModel, config: DreamerConfig) -> "DreamerAgent":
        """An agent whose encoders, video RSSM and decoder are the pre-trained ones.

        Raises:
            ValueError: the configuration's networks are not those of the pre-trained model.
        """
        agent = cls(config)
        world = ActionWorldModel.from_video_world_model(video_model, config=config.world)
        agent.world_model.load_state_dict(world.state_dict())
        return agent

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def action_size(self) -> int:
        """Numbers in an action."""
        return self.config.world.action_size

    @property
    def image_size(self) -> int:
        """Side of the frames in pixels."""
        return self.config.world.frame.image_size

    @property
    def episode_rows(self) -> int:
        """Rows of a sequence: shorter episodes are never drawn, unless they are repeated."""
        return 1 if self.config.repeat_short else self.config.sequence_steps

    @property
    def learns_termination(self) -> bool:
        """Whether there is a continue head."""
        return self.config.world.continue_head

    def initial_state(self, batch_size: int, *, seed: int = 0) -> AgentState:
        """State at the start of episodes; everything random in them follows from the seed."""
        action = torch.zeros(batch_size, self.config.world.action_size, device=self.device)
        generators = [torch.Generator(self.device).manual_seed(one) for one in row_seeds(seed, batch_size)]
        return AgentState(self.world_model.initial(batch_size), action, generators)

    @torch.no_grad()
    def act(
        self, image: UInt8[np.ndarray, "N 3 H W"], state: AgentState, *, explore: bool
    ) -> tuple[Float32[np.ndarray, "N A"], AgentState]:
        """Filters the frames and acts: a sample of the policy when exploring, its mode otherwise.

        Latents are sampled either way, as in the official code.

        Raises:
            ValueError: images of another type or shape, or not a state for each.
        """
        check_images(image, self.world_model.image_size)
        frames = torch.from_numpy(image).to(self.device)
        is_first = torch.zeros(len(image), dtype=torch.bool, device=self.device)
        with self._autocast(), eager() if self._compiled else nullcontext():
            world = self.world_model.obs_step(
                state.world, frames, state.action, is_first, generator=state.generators
            )
            policy = self.behaviour.actor(self.world_model.feature(world))
        action = policy.rsample(state.generators) if explore else policy.mode
        return action.cpu().numpy(), AgentState(world, action, state.generators)

    def update(self, replay: Replay) -> dict[str, Tensor]:
        """One update of world model, actor and critic on a batch from the replay; detached scalars to log."""
        config = self.config
        batch = replay.sample_sequences(
            config.batch_sequences,
            config.sequence_steps,
            favour_ends=config.favour_ends,
            repeat_short=config.repeat_short,
        )
        return self.update_on(batch)

    def update_on(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """One update on given sequences.

        Raises:
            ValueError: one of them ends in a termination and there is no continue head: its last reward would be
                imagined to go on for ever.
        """
        if batch.is_terminal.any() and not self.learns_termination:
            raise ValueError(NO_CONTINUE_HEAD)
        self.train()
        if self.updates % self.config.behaviour.slow_critic_updates == 0:
            self.behaviour.copy_slow_critic()
        held = self.updates < self.config.held_updates
        if "pretrained" in self.optimisers:
            self.optimisers["pretrained"].param_groups[0]["lr"] = 0.0 if held else self.config.world_lr
        self.updates += 1
        rows = {name: torch.from_numpy(part).to(self.device) for name, part in vars(batch).items()}
        if self.device.type == "cuda" and self.config.compile and not self._compiled:
            compile_parts(self.world_model)
            self._compiled = True
        if self.device.type == "cuda" and self.config.cuda_graphs:
            metrics, bad = self._recorded_update()(rows, key=held)
        else:
            metrics, bad = self._update(**rows)
        self.skipped_updates += int(bad)
        self.eval()
        return metrics

    def training_state(self) -> dict[str, Any]:
        """What continues training exactly beside the weights: optimisers and counters."""
        return {
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            "updates": self.updates,
            "skipped_updates": self.skipped_updates,
        }

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Takes over what `training_state` gave."""
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
            optimiser.param_groups[0]["capturable"] = False  # set where updates are recorded
        self.updates, self.skipped_updates = state["updates"], state["skipped_updates"]

    def _recorded_update(self) -> CudaGraph[tuple[dict[str, Tensor], Tensor]]:
        """The update as a CUDA graph of the device that the agent is on now."""
        if self._graph is None:
            self._graph = CudaGraph(self._update, self.device)
        for optimiser in self.optimisers.values():
            optimiser.param_groups[0]["capturable"] = True
        return self._graph

    def _update(
        self, image: Tensor, action: Tensor, reward: Tensor, is_first: Tensor, is_terminal: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """World model, then behaviour, without asking the host: scalars to log, and whether something was not finite (1, 0).

        A world model whose gradient is not finite stays as it was, and behaviour with it.
        """
        start, metrics, bad_world = self._update_world(image, action, reward, is_first, is_terminal)
        of_behaviour, bad = self._update_behaviour(start, bad_world)
        return metrics | of_behaviour, bad

    def _update_world(
        self, image: Tensor, action: Tensor, reward: Tensor, is_first: Tensor, is_terminal: Tensor
    ) -> tuple[RSSMState, dict[str, Tensor], Tensor]:
        """Updates the world model; the posteriors of all B * T steps, detached, to imagine from.

        An update that is skipped leaves every buffer too, the bonus's queue among them; behaviour moves none.
        """
        statistics = RunningStatistics(self)
        statistics.keep()
        with self._autocast():
            output = self.world_model.observe(image, action, is_first)
            target, metrics = self._behavioural_target(reward, output.video_feature)
            loss, parts = self.world_model.loss(output, image, reward, target, is_terminal)
        metrics |= parts
        bad = self._step(loss, metrics, *self.world_optimisers)
        statistics.take_back(bad)
        return RSSMState(*(part.detach().flatten(0, 1) for part in output.posterior)), metrics, bad

    def _behavioural_target(
        self, reward: Float[Tensor, "B T"], video_feature: Float[Tensor, "B T G"] | None
    ) -> tuple[Float[Tensor, "B U"], dict[str, Tensor]]:
        """The reward plus beta times the bonus, on the steps that have a bonus."""
        if self.bonus is None or video_feature is None:
            return reward, {}
        bonus = self.bonus(video_feature.detach())
        target = reward[:, : bonus.shape[1]] + self.bonus.config.beta * bonus
        return target, {"intrinsic_bonus": bonus.mean(), "bonus_magnitude": self.bonus.magnitude.clone()}

    def _update_behaviour(self, start: RSSMState, bad_world: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Updates actor and critic in imagination; the official code also computes the world model's gradients here."""
        steps = self.config.behaviour.imagined_steps
        with frozen(self.world_model), self._autocast():
            line = imagine(self.world_model.rssm, self.behaviour.actor, start, steps=steps)
            reward = self.world_model.behavioural_reward(line.feature)
            goes_on = self.world_model.continue_probability(line.feature)
            actor, critic, metrics = self.behaviour.loss(line, reward, goes_on)
        return metrics, self._step(actor + critic, metrics, "actor", "critic", bad=bad_world)

    def _step(
        self, loss: Tensor, metrics: dict[str, Tensor], *names: str, bad: Tensor | None = None
    ) -> Tensor:
        """Steps the named optimisers, each clipped by its own norm; none where a norm is not finite or `bad` is 1.

        Returns:
            1 where they were not stepped, else 0.
        """
        for name in names:
            self.optimisers[name].zero_grad()
        loss.backward()
        for name in names:
            parameters = self.optimisers[name].param_groups[0]["params"]
            metrics[f"{name}_grad_norm"] = nn.utils.clip_grad_norm_(parameters, self.config.clip_norm)
        finite = torch.stack([metrics[f"{name}_grad_norm"] for name in names]).isfinite().all()
        skip = (~finite).to(torch.float32)  # the type that the fused Adam reads
        if bad is not None:
            skip = torch.maximum(skip, bad)
        for name in names:
            self.optimisers[name].found_inf = skip  # type: ignore[attr-defined]  # the fused Adam asks the device
            self.optimisers[name].step()
        return skip

    def _adam(self, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Adam:
        return torch.optim.Adam(
            parameters, lr=lr, eps=self.config.adam_eps, weight_decay=self.config.weight_decay, fused=True
        )

    def _autocast(self) -> torch.autocast:
        precision = self.config.precision
        enabled = precision == "bf16" or (precision == "auto" and self.device.type == "cuda")
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)
