"""Heads on a world model's feature: scalars (reward, value) and the policy's truncated normal.

The paper has MLPs of 4 x 400 ELU units, Xavier-uniform with zero bias (arXiv 2305.18499, appendix; DreamerV2's
heads). A scalar head is the mean of a unit-variance Gaussian, so its loss is half a squared error.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from cwm_hub.config import MOST_LAYERS, MOST_UNITS, check_range
from cwm_hub.models.distributions import TruncatedNormal
from cwm_hub.models.initialise import init_xavier

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
        check_range(self, "layers", at_most=MOST_LAYERS)
        check_range(self, "units", at_least=1)
        check_range(self, "units", at_most=MOST_UNITS)


class MLP(nn.Module):
    """Linear-ELU layers without an output layer; `.width` is what the next layer reads."""

    def __init__(self, input_size: int, config: HeadConfig):
        super().__init__()
        sizes = [input_size] + [config.units] * config.layers
        self.dense = nn.ModuleList(init_xavier(nn.Linear(*pair)) for pair in pairwise(sizes))
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
        self.out = init_xavier(nn.Linear(self.mlp.width, 1))

    def forward(self, feature: Float[Tensor, "*batch F"]) -> Float[Tensor, "*batch"]:
        """Mean of the Gaussian, in the target's own units."""
        return self.out(self.mlp(feature)).squeeze(-1)


class PolicyHead(nn.Module):
    """A diagonal truncated normal over actions in [-1, 1]: mean tanh(m), std 2 sigmoid(s / 2) + 0.1."""

    def __init__(self, feature_size: int, action_size: int, config: HeadConfig):
        super().__init__()
        self.mlp = MLP(feature_size, config)
        self.mean = init_xavier(nn.Linear(self.mlp.width, action_size))
        self.std = init_xavier(nn.Linear(self.mlp.width, action_size))

    def forward(self, feature: Float[Tensor, "*batch F"]) -> "TruncatedNormal":
        """The policy at each feature, in float32 whatever the autocast type."""
        hidden = self.mlp(feature)
        mean = torch.tanh(self.mean(hidden).float())
        std = 2 * torch.sigmoid(self.std(hidden).float() / 2) + MIN_ACTION_STD
        return TruncatedNormal(mean, std)


def gaussian_loss(mean: Float[Tensor, "*batch"], target: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Half the squared error: -log N(target; mean, 1) without its constant, in float32."""
    return 0.5 * (mean.float() - target.float()).square()
