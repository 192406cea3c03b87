"""The video-based bonus of APV (arXiv 2203.13880, section 4.3): reward what the video model has not seen lately.

r_int is the mean distance, in a fixed random projection of the action-free feature averaged over a short
window, to the k nearest entries of a first-in-first-out queue.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cwm_hub.config import check_range


@dataclass(frozen=True)
class IntrinsicConfig:
    """The bonus; the agent uses it only where the world model has an action-free RSSM."""

    beta: float = 1.0
    """Weight of the bonus in the behavioural reward (paper: 1.0 Meta-world, 0.1 DMCR and CARLA; 0 is none)."""
    queue_size: int = 4096
    """Windows remembered (official code: 4096)."""
    projection_size: int = 128
    """Dimensions of the random projection (official code: 128)."""
    k: int = 16
    """Nearest neighbours averaged, the window itself among them (official code: 16)."""
    window_frames: int = 5
    """Frames over which the feature is averaged (official code: 5)."""
    momentum: float = 0.99
    """Momentum of the running magnitude that normalises the bonus (official code: 0.99)."""

    def __post_init__(self):
        check_range(self, "beta", at_least=0)
        check_range(self, "queue_size", "projection_size", "k", "window_frames", at_least=1)
        check_range(self, "momentum", at_least=0, at_most=1)
        if self.queue_size < self.k:
            raise ValueError(f"queue_size={self.queue_size} is below k={self.k}")


class IntrinsicBonus(nn.Module):
    """Projection, queue and running magnitude; all of them buffers, so that a resumed run goes on exactly."""

    projection: Tensor
    queue: Tensor
    filled: Tensor
    magnitude: Tensor

    def __init__(self, feature_size: int, config: IntrinsicConfig):
        super().__init__()
        self.config = config
        size = config.projection_size
        self.register_buffer("projection", torch.randn(feature_size, size) / size)
        self.register_buffer("queue", torch.zeros(config.queue_size, size))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self.register_buffer("magnitude", torch.ones(()))

    @torch.no_grad()
    def forward(self, feature: Float[Tensor, "B T F"]) -> Float[Tensor, "B W"]:
        """The normalised bonus of each window start, W = T - window_frames + 1; not yet times beta.

        The batch joins the queue first, then the queue is searched, then the running magnitude moves.
        """
        with torch.autocast(feature.device.type, enabled=False):
            return self._bonus(feature.float())

    def _bonus(self, feature: Float[Tensor, "B T F"]) -> Float[Tensor, "B W"]:
        windows = feature.unfold(1, self.config.window_frames, 1).mean(-1)
        query = (windows @ self.projection).flatten(0, 1)
        if len(query) < self.config.k:
            raise ValueError(
                f"the intrinsic bonus needs at least k={self.config.k} windows in a batch, got {len(query)}: "
                "raise the replay batch or lower agent.intrinsic.k"
            )
        self._enqueue(query)
        bonus = self._neighbour_distance(query)
        self.magnitude.lerp_(bonus.abs().mean(), 1 - self.config.momentum)
        return (bonus / (self.magnitude + 1e-8)).unflatten(0, windows.shape[:2])

    def _enqueue(self, query: Float[Tensor, "N P"]) -> None:
        size = self.config.queue_size
        self.queue.copy_(torch.cat([query, self.queue])[:size])
        self.filled.add_(len(query)).clamp_(max=size)

    def _neighbour_distance(self, query: Float[Tensor, "N P"]) -> Float[Tensor, "N"]:
        """Mean Euclidean distance to the k nearest filled entries: found by a matrix product, then measured one by one, so
        that a window is at 0 from itself."""
        order = (
            self.queue.square().sum(-1) - 2 * query @ self.queue.T
        )  # the distance's square, less the query's own
        empty = torch.arange(len(self.queue), device=query.device) >= self.filled
        nearest = order.masked_fill(empty, torch.inf).topk(self.config.k, largest=False).indices
        return (query[:, None] - self.queue[nearest]).norm(dim=-1).mean(-1)
