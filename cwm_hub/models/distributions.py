"""The policy's distribution: a normal truncated to [-1, 1], in closed form."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cwm_hub.models.draws import Generators, draw

# Samples stay this far inside the bounds, where log_prob is finite (DreamerV2).
ACTION_MARGIN = 1e-6


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

    def rsample(self, generator: Generators = None) -> Float[Tensor, "*batch A"]:
        """A sample by inversion of the distribution function, differentiable in mean and std.

        The clip to [-1 + 1e-6, 1 - 1e-6] lets the gradient through (straight-through, as DreamerV2).
        """
        low, high = self._bounds()
        cdf_low, cdf_high = _normal_cdf(low), _normal_cdf(high)
        uniform = draw(torch.rand, self.mean.shape, device=self.mean.device, generator=generator)
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


def _normal_cdf(z: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(z / math.sqrt(2)))


def _normal_pdf(z: Tensor) -> Tensor:
    return torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)


def _normal_icdf(probability: Tensor) -> Tensor:
    return math.sqrt(2) * torch.erfinv(2 * probability - 1)
