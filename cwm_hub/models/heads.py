"""Heads on a world model's feature: scalars (reward, value) and the policy's truncated normal.

The paper has MLPs of 4 x 400 ELU units, Xavier-uniform with zero bias (arXiv 2305.18499, appendix; DreamerV2's
heads). A scalar head is the mean of a unit-variance Gaussian, so its loss is half a squared error.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from cwm_hub.config import check_range

# Samples stay this far inside the bounds, where log_prob is finite (DreamerV2).
ACTION_MARGIN = 1e-6
MIN_ACTION_STD = 0.1


@dataclass(frozen=True)
class HeadConfig:
    """Size of every MLP head."""

    layers: int = 4
    """Hidden layers (paper: 4); without any the head is linear."""
    units: int = 400
    """Units of a hidden layer (paper: 400)."""

    def __post_init__(self):
        check_range(self, "layers", at_least=0)
        check_range(self, "units", at_least=1)


class MLP(nn.Module):
    """Linear-ELU layers without an output layer; `.width` is what the next layer reads."""

    def __init__(self, input_size: int, config: HeadConfig):
        super().__init__()
        sizes = [input_size] + [config.units] * config.layers
        self.dense = nn.ModuleList(xavier_linear(sizes[i], sizes[i + 1]) for i in range(config.layers))
        self.width = sizes[-1]

    def forward(self, feature: Float[Tensor, "*batch F"]) -> Float[Tensor, "*batch U"]:
        """Hidden activations of the last layer."""
        for layer in self.dense:
            feature = F.elu(layer(feature))
        return feature


class ScalarHead(nn.Module):
    """One number per feature: the mean of a unit-variance Gaussian over a reward or a value."""

    def __init__(self, feature_size: int, config: HeadConfig):
        super().__init__()
        self.mlp = MLP(feature_size, config)
        self.out = xavier_linear(self.mlp.width, 1)

    def forward(self, feature: Float[Tensor, "*batch F"]) -> Float[Tensor, "*batch"]:
        """Mean of the Gaussian, in the target's own units."""
        return self.out(self.mlp(feature)).squeeze(-1)


class PolicyHead(nn.Module):
    """A diagonal truncated normal over actions in [-1, 1]: mean tanh(m), std 2 sigmoid(s / 2) + 0.1."""

    def __init__(self, feature_size: int, action_size: int, config: HeadConfig):
        super().__init__()
        self.mlp = MLP(feature_size, config)
        self.mean = xavier_linear(self.mlp.width, action_size)
        self.std = xavier_linear(self.mlp.width, action_size)

    def forward(self, feature: Float[Tensor, "*batch F"]) -> "TruncatedNormal":
        """The policy at each feature, in float32 whatever the autocast type."""
        hidden = self.mlp(feature)
        mean = torch.tanh(self.mean(hidden).float())
        std = 2 * torch.sigmoid(self.std(hidden).float() / 2) + MIN_ACTION_STD
        return TruncatedNormal(mean, std)


@dataclass(frozen=True)
class TruncatedNormal:
    """A normal cut to [-1, 1] per dimension; densities are summed over the last axis.

    `mean` and `std` are those of the normal before the cut.
    """

    mean: Float[Tensor, "*batch A"]
    std: Float[Tensor, "*batch A"]

    @property
    def mode(self) -> Float[Tensor, "*batch A"]:
        """The most likely action."""
        return self.mean.clamp(-1, 1)

    def rsample(self, generator: torch.Generator | None = None) -> Float[Tensor, "*batch A"]:
        """A sample by inversion of the distribution function, differentiable in mean and std.

        The clip to [-1 + 1e-6, 1 - 1e-6] lets the gradient through (straight-through, as DreamerV2).
        """
        low, high = self._bounds()
        cdf_low, cdf_high = _normal_cdf(low), _normal_cdf(high)
        uniform = torch.rand(self.mean.shape, generator=generator, device=self.mean.device)
        probability = cdf_low + uniform * (cdf_high - cdf_low)
        tiny = torch.finfo(probability.dtype).eps
        action = self.mean + self.std * _normal_icdf(probability.clamp(tiny, 1 - tiny))
        clipped = action.detach().clamp(-1 + ACTION_MARGIN, 1 - ACTION_MARGIN)
        return clipped + (action - action.detach())

    def log_prob(self, action: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch"]:
        """Log density in nats; meaningful for actions inside [-1, 1] only."""
        z = (action - self.mean) / self.std
        log_normal = -0.5 * (z.square() + math.log(2 * math.pi)) - self.std.log()
        return (log_normal - self._mass().log()).sum(-1)

    def entropy(self) -> Float[Tensor, "*batch"]:
        """Differential entropy in nats."""
        low, high = self._bounds()
        mass = self._mass()
        edge = (high * _normal_pdf(high) - low * _normal_pdf(low)) / mass
        per_dim = 0.5 * (math.log(2 * math.pi) + 1 - edge) + mass.log() + self.std.log()
        return per_dim.sum(-1)

    def _bounds(self) -> tuple[Float[Tensor, "*batch A"], Float[Tensor, "*batch A"]]:
        """The bounds -1 and 1 in standard units."""
        return (-1 - self.mean) / self.std, (1 - self.mean) / self.std

    def _mass(self) -> Float[Tensor, "*batch A"]:
        """Probability that the uncut normal falls inside the bounds (at least 0.15, as |mean| <= 1)."""
        low, high = self._bounds()
        return _normal_cdf(high) - _normal_cdf(low)


def gaussian_loss(mean: Float[Tensor, "*batch"], target: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Half the squared error: -log N(target; mean, 1) without its constant, in float32."""
    return 0.5 * (mean.float() - target.float()).square()


def xavier_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer with Xavier-uniform weights and zero bias."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _normal_cdf(z: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(z / math.sqrt(2)))


def _normal_pdf(z: Tensor) -> Tensor:
    return torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)


def _normal_icdf(probability: Tensor) -> Tensor:
    return math.sqrt(2) * torch.erfinv(2 * probability - 1)
