"""DrQ-v2 (arXiv 2107.09645): the model-free baseline, an actor-critic on augmented frame stacks.

    replay --n-step transitions--> random shift --> encoder --+--> critics <-- reward + discount * slow critics
                                                              +--> actor (features detached) --> critics

Axes: N transitions, C = 3 * frame_stack channels, H W pixels, E embedding, A action. The critic's loss trains the
encoder. What the paper says of agent steps is said of updates here, which a resumed run counts alike.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from cwm_hub.agents.actor_critic import frozen
from cwm_hub.agents.batched_state import row_seeds
from cwm_hub.agents.replay import Replay, TransitionBatch
from cwm_hub.config import check_range
from cwm_hub.models.checks import check_images
from cwm_hub.models.draws import Generators, draw
from cwm_hub.models.published import Published

ACTION_MARGIN = 1e-6
"""How far from the bounds a sampled action stays."""


@dataclass(frozen=True)
class DrQV2Config:
    """Agent and its learning; the defaults are the paper's but for the image size (84 there) and the noise's length."""

    action_size: int
    """Numbers in an action."""
    image_size: int = 64
    """Side of the square images in pixels."""
    frame_stack: int = 3
    """Frames that the agent sees at once."""
    shift_pixels: int = 4
    """Reach of the random shift, with the border repeated."""
    channels: int = 32
    """Channels of the encoder's four convolutions."""
    feature_units: int = 50
    """Width of what actor and critics make of the embedding first."""
    hidden_units: int = 1024
    """Units of their two hidden layers."""
    batch_transitions: int = 256
    """Transitions in a replay batch."""
    n_step: int = 3
    """Rewards summed before the bootstrap."""
    discount: float = 0.99
    """Gamma, per agent step."""
    learning_rate: float = 1e-4
    """Of Adam, for encoder, actor and critics."""
    slow_share: float = 0.01
    """Share of the critics that enters the slow ones at each update."""
    noise_start: float = 1.0
    """Standard deviation of the exploration noise at first."""
    noise_end: float = 0.1
    """The same after `noise_updates`."""
    noise_updates: int = 50_000
    """Updates over which the noise falls linearly (paper: 250,000 updates on tasks of medium difficulty; here the
    paper's 50,000 of fine-tuning)."""
    noise_clip: float = 0.3
    """Bound on the noise of the actions that are learned from."""

    def __post_init__(self):
        check_range(self, "action_size", "frame_stack", "channels", "feature_units", at_least=1)
        check_range(self, "hidden_units", "batch_transitions", "n_step", "noise_updates", at_least=1)
        check_range(self, "image_size", at_least=15)  # of less the last convolution has nothing to see
        check_range(self, "shift_pixels", "learning_rate", "noise_end", "noise_clip", at_least=0)
        check_range(self, "discount", "slow_share", at_least=0, at_most=1)
        check_range(self, "noise_start", at_least=self.noise_end)


class StackState(NamedTuple):
    """What acting carries from one step to the next."""

    frames: Sequence[UInt8[np.ndarray, "C H W"] | None]
    """Of each row the last frames, oldest first; None before the first."""
    generators: list[torch.Generator]
    """Of each row the source of exploration, seeded by the episode."""


class Encoder(nn.Module):
    """Four 3x3 convolutions, the first of stride 2, ReLU."""

    def __init__(self, config: DrQV2Config):
        super().__init__()
        width = config.channels
        inputs = (3 * config.frame_stack, width, width, width)
        self.layers = nn.ModuleList(
            nn.Conv2d(before, width, 3, stride=1 if i else 2) for i, before in enumerate(inputs)
        )
        side = (config.image_size - 3) // 2 + 1 - 2 * 3
        self.embed_size = width * side**2

    def forward(self, image: UInt8[Tensor, "N C H W"]) -> Float[Tensor, "N E"]:
        """Embed stacked frames; a pixel becomes `pixel / 255 - 0.5` here."""
        x = (image.float() / 255 - 0.5).to(self.layers[0].weight.dtype)  # type: ignore[arg-type]
        for layer in self.layers:
            x = F.relu(layer(x))
        return x.flatten(1)


class Actor(nn.Module):
    """Mean action of an embedding."""

    def __init__(self, config: DrQV2Config, embed_size: int):
        super().__init__()
        self.trunk = _trunk(config, embed_size)
        self.mlp = _mlp(config, config.feature_units, config.action_size)

    def forward(self, embed: Float[Tensor, "N E"]) -> Float[Tensor, "N A"]:
        """In [-1, 1]."""
        return torch.tanh(self.mlp(self.trunk(embed)))


class Critics(nn.Module):
    """Two values of an embedding and an action, on one trunk."""

    def __init__(self, config: DrQV2Config, embed_size: int):
        super().__init__()
        self.trunk = _trunk(config, embed_size)
        inputs = config.feature_units + config.action_size
        self.mlps = nn.ModuleList(_mlp(config, inputs, 1) for _ in range(2))

    def forward(self, embed: Float[Tensor, "N E"], action: Float[Tensor, "N A"]) -> Float[Tensor, "2 N"]:
        """Both, in units of the reward."""
        inputs = torch.cat([self.trunk(embed), action], -1)
        return torch.stack([mlp(inputs).squeeze(-1) for mlp in self.mlps])


class DrQV2Agent(Published, nn.Module):
    """Encoder, actor and critics, with their optimisers."""

    def __init__(self, config: DrQV2Config):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.actor = Actor(config, self.encoder.embed_size)
        self.critics = Critics(config, self.encoder.embed_size)
        for layer in self.modules():
            _initialise(layer)
        self.slow_critics = deepcopy(self.critics).requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # the form in which convolutions are fastest
        self.optimisers = {
            name: torch.optim.Adam(module.parameters(), lr=config.learning_rate, fused=True)
            for name, module in (("encoder", self.encoder), ("critics", self.critics), ("actor", self.actor))
        }
        self.updates = 0
        """Updates so far, skipped ones among them."""
        self.skipped_updates = 0
        """Updates left out because a gradient was not finite."""
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def action_size(self) -> int:
        """Numbers in an action."""
        return self.config.action_size

    @property
    def image_size(self) -> int:
        """Side of the frames in pixels."""
        return self.config.image_size

    @property
    def episode_rows(self) -> int:
        """Rows of the shortest episode that has a transition."""
        return 2

    @property
    def learns_termination(self) -> bool:
        """True: nothing is bootstrapped past a termination."""
        return True

    @property
    def noise(self) -> float:
        """Standard deviation of exploration now."""
        config = self.config
        done = min(self.updates / config.noise_updates, 1.0)
        return config.noise_start + done * (config.noise_end - config.noise_start)

    def initial_state(self, batch_size: int, *, seed: int = 0) -> StackState:
        """State at the start of episodes; everything random in them follows from the seed."""
        generators = [torch.Generator(self.device).manual_seed(one) for one in row_seeds(seed, batch_size)]
        return StackState([None] * batch_size, generators)

    @torch.no_grad()
    def act(
        self, image: UInt8[np.ndarray, "N 3 H W"], state: StackState, *, explore: bool
    ) -> tuple[Float32[np.ndarray, "N A"], StackState]:
        """The mean action of the last frames, plus noise when exploring.

        Raises:
            ValueError: images of another type or shape.
        """
        check_images(image, self.config.image_size)
        frames = [
            np.tile(now, (self.config.frame_stack, 1, 1))
            if before is None
            else np.concatenate([before[3:], now])
            for before, now in zip(state.frames, image, strict=True)
        ]
        action = self.actor(self.encoder(torch.from_numpy(np.stack(frames)).to(self.device)))
        if explore:
            action = noisy(action, self.noise, generator=state.generators)
        return action.float().cpu().numpy(), StackState(frames, state.generators)

    def update(self, replay: Replay) -> dict[str, Tensor]:
        """One update of encoder, critics and actor on a batch from the replay; detached scalars to log."""
        config = self.config
        batch = replay.sample_transitions(
            config.batch_transitions,
            n_step=config.n_step,
            frame_stack=config.frame_stack,
            discount=config.discount,
        )
        return self.update_on(batch)

    def update_on(self, batch: TransitionBatch) -> dict[str, Tensor]:
        """One update on given transitions."""
        image, action, reward, discount, next_image = (
            torch.from_numpy(part).to(self.device)
            for part in (batch.image, batch.action, batch.reward, batch.discount, batch.next_image)
        )
        pixels, noise = self.config.shift_pixels, self.noise
        self.updates += 1
        embed = self.encoder(random_shift(image, pixels))
        with torch.no_grad():
            following = self.encoder(random_shift(next_image, pixels))
            next_action = noisy(self.actor(following), noise, clip=self.config.noise_clip)
            target = reward + discount * self.slow_critics(following, next_action).amin(0)
        value = self.critics(embed, action)
        critic_loss = (value - target).square().mean(1).sum()
        metrics = {
            "critic_loss": critic_loss.detach(),
            "critic_value": value.detach().mean(),
            "batch_reward": reward.mean(),
            "exploration_noise": torch.tensor(noise, device=self.device),
        }
        if not self._step(critic_loss, "encoder", "critics"):
            return metrics
        embed = embed.detach()
        with frozen(self.critics):
            best = noisy(self.actor(embed), noise, clip=self.config.noise_clip)
            actor_loss = -self.critics(embed, best).amin(0).mean()
        self._step(actor_loss, "actor")
        for slow, fast in zip(self.slow_critics.parameters(), self.critics.parameters(), strict=True):
            slow.data.lerp_(fast.data, self.config.slow_share)
        return metrics | {"actor_loss": actor_loss.detach()}

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
        self.updates, self.skipped_updates = state["updates"], state["skipped_updates"]

    def _step(self, loss: Tensor, *names: str) -> bool:
        """Steps the named optimisers; where a gradient is not finite it counts that and says no."""
        for name in names:
            self.optimisers[name].zero_grad()
        loss.backward()
        parameters = [p for name in names for p in self.optimisers[name].param_groups[0]["params"]]
        if not nn.utils.get_total_norm([p.grad for p in parameters]).isfinite():
            self.skipped_updates += 1
            return False
        for name in names:
            self.optimisers[name].step()
        return True


def random_shift(image: UInt8[Tensor, "N C H W"], pixels: int) -> UInt8[Tensor, "N C H W"]:
    """Each image moved by up to so many pixels in either direction, with its border repeated."""
    count, _, height, width = image.shape
    moved = torch.randint(-pixels, pixels + 1, (2, count, 1), device=image.device)
    rows = (torch.arange(height, device=image.device) + moved[0]).clamp(0, height - 1)
    columns = (torch.arange(width, device=image.device) + moved[1]).clamp(0, width - 1)
    which = torch.arange(count, device=image.device)[:, None, None]
    return image[which, :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


def noisy(
    mean: Float[Tensor, "N A"],
    std: float,
    *,
    clip: float | None = None,
    generator: Generators = None,
) -> Float[Tensor, "N A"]:
    """The action with Gaussian noise, inside the bounds; the gradient passes as if there were none (straight-through)."""
    noise = std * draw(torch.randn, mean.shape, device=mean.device, generator=generator)
    action = mean + (noise if clip is None else noise.clamp(-clip, clip))
    return action + (action.detach().clamp(-1 + ACTION_MARGIN, 1 - ACTION_MARGIN) - action.detach())


def _trunk(config: DrQV2Config, embed_size: int) -> nn.Sequential:
    units = config.feature_units
    return nn.Sequential(nn.Linear(embed_size, units), nn.LayerNorm(units), nn.Tanh())


def _mlp(config: DrQV2Config, inputs: int, outputs: int) -> nn.Sequential:
    units = config.hidden_units
    return nn.Sequential(
        nn.Linear(inputs, units), nn.ReLU(), nn.Linear(units, units), nn.ReLU(), nn.Linear(units, outputs)
    )


def _initialise(layer: nn.Module) -> None:
    """Orthogonal weights and zero bias; convolutions with ReLU's gain."""
    if isinstance(layer, nn.Linear | nn.Conv2d):
        gain = nn.init.calculate_gain("relu") if isinstance(layer, nn.Conv2d) else 1.0
        nn.init.orthogonal_(layer.weight, gain)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
