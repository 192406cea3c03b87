"""Pre-training without pixels: two objectives that the paper leaves open, in place of reconstruction.

Axes: B clips, T frames, E embedding, F feature, P projection, k steps ahead.

    contrastive      posterior t --linear of k--> P <-- same clip's embed t+k against the other frames at hand
    self-prediction  prior t ------MLP----------> E <-- embed t of a slowly moving copy of the encoder

Both are called as `(posterior, prior, embed, video) -> (loss, metrics)` and told of an update by `after_update(encoder)`.
With either, image networks after the latents learn from detached features: the decoder is a probe that makes
predictions visible and scores comparable, and shapes nothing.
"""

import copy
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from cwm_hub.config import MOST_LAYERS, MOST_UNITS, check_range
from cwm_hub.models.frame_model import centred
from cwm_hub.models.rssm import RSSMState

Objective = Literal["reconstruction", "contrastive", "self-prediction"]


@dataclass(frozen=True)
class ObjectiveConfig:
    """What shapes the latents; the paper's is reconstruction. The other two's settings are ours, not from a paper.

    Contrastive negatives are the frames of the process's own micro-batch: with several processes or accumulation there
    are fewer of them, and the gradient is not quite that of the whole batch in one process. The other two objectives
    are means over frames and know no negatives.
    """

    kind: Objective = "reconstruction"
    """Pixels (the paper), InfoNCE on coming embeddings (arXiv 1807.03748), or a moving target's embedding (BYOL,
    arXiv 2006.07733)."""
    scale: float = 100.0
    """Weight of the loss without pixels; with reconstruction it has no meaning."""
    projection: int = 128
    """Width P in which embeddings are compared."""
    steps_ahead: int = 3
    """Contrastive: the 1 to this many coming frames that every feature predicts."""
    temperature: float = 0.1
    """Contrastive: divides the cosine similarities."""
    target_decay: float = 0.99
    """Self-prediction: share of itself that the target encoder keeps at an update."""

    def __post_init__(self):
        check_range(self, "projection", "steps_ahead", at_least=1)
        check_range(self, "projection", at_most=MOST_UNITS)
        check_range(self, "steps_ahead", at_most=MOST_LAYERS)
        check_range(self, "scale", at_least=0)
        check_range(self, "temperature", above=0)
        check_range(self, "target_decay", at_least=0, at_most=1)


class ContrastiveObjective(nn.Module):
    """Each posterior feature picks the coming embeddings of its own clip out of all frames of its micro-batch."""

    def __init__(self, config: ObjectiveConfig, *, feature_size: int, embed_size: int):
        super().__init__()
        self.config = config
        self.predict = nn.ModuleList(
            nn.Linear(feature_size, config.projection) for _ in range(config.steps_ahead)
        )
        self.project = nn.Linear(embed_size, config.projection)

    def forward(
        self,
        posterior: RSSMState,
        prior: RSSMState,
        embed: Float[Tensor, "B T E"],
        video: UInt8[Tensor, "B T 3 H W"],
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """InfoNCE in nats and the share of right picks, both means over the steps ahead.

        Raises:
            ValueError: clips no longer than the steps ahead.
        """
        feature, time = posterior.feature, embed.shape[1]
        if time <= self.config.steps_ahead:
            raise ValueError(f"clips of {time} frames have no frame {self.config.steps_ahead} steps ahead")
        keys = F.normalize(self.project(embed), dim=-1)
        losses, hits = [], []
        for ahead, head in enumerate(self.predict, start=1):
            query = F.normalize(head(feature[:, : time - ahead]), dim=-1).flatten(0, 1)
            key = keys[:, ahead:].flatten(0, 1)
            scores = query.float() @ key.float().T / self.config.temperature
            right = torch.arange(len(scores), device=scores.device)
            losses.append(F.cross_entropy(scores, right))
            hits.append((scores.argmax(1) == right).float().mean())
        loss = torch.stack(losses).mean()
        return loss, {"contrastive_loss": loss, "contrastive_accuracy": torch.stack(hits).mean()}

    def after_update(self, encoder: nn.Module) -> None:
        """Nothing here follows the updates."""


class SelfPredictionObjective(nn.Module):
    """The prior predicts what a slowly moving copy of the encoder says of the frame it has not seen.

    Args:
        config: settings.
        feature_size: width of the prior's feature.
        encoder: the image encoder; the target begins as its copy.
        embed_size: its width.
    """

    def __init__(self, config: ObjectiveConfig, *, feature_size: int, encoder: nn.Module, embed_size: int):
        super().__init__()
        self.config = config
        hidden = max(config.projection, embed_size // 2)
        self.predict = nn.Sequential(nn.Linear(feature_size, hidden), nn.ELU(), nn.Linear(hidden, embed_size))
        self.target = copy.deepcopy(encoder).requires_grad_(False)

    def forward(
        self,
        posterior: RSSMState,
        prior: RSSMState,
        embed: Float[Tensor, "B T E"],
        video: UInt8[Tensor, "B T 3 H W"],
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Squared distance of unit vectors (0 to 4) and their cosine; the first frame has no past and is left out.

        Raises:
            ValueError: clips of a single frame.
        """
        if video.shape[1] < 2:
            raise ValueError(f"self-prediction needs clips of at least 2 frames, got {video.shape[1]}")
        with torch.no_grad():
            target = self.target(centred(video[:, 1:].flatten(0, 1))).unflatten(0, (len(video), -1))
        predicted = self.predict(prior.feature[:, 1:])
        cosine = F.cosine_similarity(predicted.float(), target.float(), dim=-1).mean()
        loss = 2 - 2 * cosine
        return loss, {"self_prediction_loss": loss, "self_prediction_cosine": cosine}

    @torch.no_grad()
    def after_update(self, encoder: nn.Module) -> None:
        """Let the target follow the encoder after an update; buffers such as BatchNorm's statistics are copied."""
        for ours, theirs in zip(self.target.parameters(), encoder.parameters(), strict=True):
            ours.lerp_(theirs, 1 - self.config.target_decay)
        for name, buffer in encoder.named_buffers():
            self.target.get_buffer(name).copy_(buffer)
