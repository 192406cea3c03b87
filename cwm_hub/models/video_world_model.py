"""Action-free video world model: frame model and RSSM, with the loss of pre-training (arXiv 2305.18499, eq. 5).

Axes: B clips, T frames, E embedding, F feature, H W pixels.

    frame   0 ... 4 | 5 ... T-1
    predict posterior | prior, open loop        context: from frames 0 ... 4 alone
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from cwm_hub.config import check_range
from cwm_hub.models.frame_model import (
    ContextDecoder,
    FrameModel,
    FrameModelConfig,
    centred,
    image_loss,
    to_pixels,
)
from cwm_hub.models.objectives import ContrastiveObjective, ObjectiveConfig, SelfPredictionObjective
from cwm_hub.models.published import Published
from cwm_hub.models.rssm import RSSM, RSSMConfig, RSSMState, balanced_kl


@dataclass(frozen=True)
class VideoWorldModelConfig:
    """A video world model; the defaults are the plain one at the paper's size."""

    frame: FrameModelConfig = field(default_factory=FrameModelConfig)
    """Encoder, context encoder and decoder."""
    rssm: RSSMConfig = field(default_factory=RSSMConfig)
    """Action-free latent dynamics."""
    kl_scale: float = 1.0
    """Weight of the KL (APV used 0.1)."""
    kl_balance: float = 0.8
    """Share of the KL that trains the prior."""
    free_nats: float = 0.0
    """KL in nats below which it gives no gradient."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """What shapes the latents."""

    def __post_init__(self):
        check_range(self, "kl_scale", "free_nats", at_least=0)
        check_range(self, "kl_balance", at_least=0, at_most=1)


class VideoWorldModel(Published, nn.Module):
    """Predicts video without actions; plain where `config.frame.context` is None.

    Every parameter exists after construction, and `forward` returns the training loss, so that the module can be
    wrapped by DistributedDataParallel and compiled whole.
    """

    def __init__(self, config: VideoWorldModelConfig):
        super().__init__()
        self.config = config
        rssm = self.config.rssm
        feature_size = rssm.stoch * rssm.classes + rssm.deter
        self.frame_model = FrameModel(self.config.frame, feature_size=feature_size)
        self.rssm = RSSM(rssm, embed=self.frame_model.embed_size)
        self.objective = _make_objective(self.config.objective, self.frame_model, feature_size=feature_size)

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.config.frame.image_size

    def forward(
        self, video: UInt8[Tensor, "B T 3 H W"], is_first: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Training loss of a batch of clips.

        Returns:
            The loss in nats a frame, and detached scalars to log: `image_loss`, `kl`, and the entropies of
            posterior and prior, all in nats a frame.
        """
        self._check(video)
        embed = self.frame_model.encode(video)
        posterior, prior = self.rssm.observe(embed, None, is_first)
        feature = self.rssm.feature(posterior)
        visible = feature if self.objective is None else feature.detach()
        reconstruction = image_loss(self.frame_model.decode(visible, self.frame_model.context(video)), video)
        kl_loss, kl = balanced_kl(
            posterior, prior, balance=self.config.kl_balance, free_nats=self.config.free_nats
        )
        loss = reconstruction + self.config.kl_scale * kl_loss
        metrics = {
            "image_loss": reconstruction,
            "kl": kl.mean(),
            "posterior_entropy": _entropy(posterior.logits),
            "prior_entropy": _entropy(prior.logits),
        }
        if isinstance(self.objective, ContrastiveObjective):
            metrics["contrastive_loss"], metrics["contrastive_accuracy"] = self.objective(feature, embed)
            loss = loss + self.config.objective.scale * metrics["contrastive_loss"]
        elif isinstance(self.objective, SelfPredictionObjective):
            metrics["self_prediction_loss"], metrics["self_prediction_cosine"] = self.objective(
                self.rssm.feature(prior), centred(video)
            )
            loss = loss + self.config.objective.scale * metrics["self_prediction_loss"]
        metrics["loss"] = loss
        return loss, {name: value.detach() for name, value in metrics.items()}

    def observe(
        self,
        video: UInt8[Tensor, "B T 3 H W"],
        is_first: Bool[Tensor, "B T"] | None = None,
        *,
        sample: bool = True,
        generator: torch.Generator | None = None,
    ) -> tuple[RSSMState, RSSMState]:
        """`(posterior, prior)` of every frame; a clip begins at its first frame where `is_first` is absent."""
        self._check(video)
        if is_first is None:
            is_first = torch.zeros(video.shape[:2], dtype=torch.bool, device=video.device)
            is_first[:, 0] = True
        embed = self.frame_model.encode(video)
        return self.rssm.observe(embed, None, is_first, sample=sample, generator=generator)

    @torch.no_grad()
    def predict(
        self,
        video: UInt8[Tensor, "B T 3 H W"],
        *,
        observed_frames: int = 5,
        context_frames: UInt8[Tensor, "B k 3 H W"] | None = None,
        sample: bool = True,
        generator: torch.Generator | None = None,
    ) -> UInt8[Tensor, "B T 3 H W"]:
        """Open-loop prediction: posterior reconstructions while frames are seen, then the prior alone.

        Args:
            video: clips; only the first `observed_frames` are read, the rest gives the horizon.
            observed_frames: frames the model sees.
            context_frames: what the decoder is shown; by default the last of the frames seen.
            sample: draw latents, or take modes.
            generator: source of the draws.

        Raises:
            ValueError: there is nothing to observe or nothing to predict.
        """
        time = video.shape[1]
        if not 0 < observed_frames < time:
            raise ValueError(
                f"observed_frames must lie in 1..{time - 1} for clips of {time} frames, got {observed_frames}"
            )
        seen = video[:, :observed_frames]
        posterior, _ = self.observe(seen, sample=sample, generator=generator)
        future = self.rssm.imagine(
            posterior.select((slice(None), -1)),
            steps=time - observed_frames,
            sample=sample,
            generator=generator,
        )
        feature = torch.cat([self.rssm.feature(posterior), self.rssm.feature(future)], 1)
        return self.decode(feature, self.default_context(seen) if context_frames is None else context_frames)

    @torch.no_grad()
    def decode(
        self, feature: Float[Tensor, "B T F"], context_frames: UInt8[Tensor, "B k 3 H W"] | None
    ) -> UInt8[Tensor, "B T 3 H W"]:
        """Pixels of features; a plain model ignores the context frames."""
        tokens = None if context_frames is None else self.frame_model.encode_context(context_frames)
        return to_pixels(self.frame_model.decode(feature, tokens))

    def default_context(self, seen: UInt8[Tensor, "B T 3 H W"]) -> UInt8[Tensor, "B k 3 H W"] | None:
        """The last frames seen, as many as the model takes (the first one repeated where too few)."""
        context = self.config.frame.context
        if context is None:
            return None
        index = torch.arange(seen.shape[1] - context.frames, seen.shape[1], device=seen.device).clamp(min=0)
        return seen[:, index]

    @torch.no_grad()
    def attention_maps(
        self,
        feature: Float[Tensor, "B T F"],
        context_frames: UInt8[Tensor, "B k 3 H W"],
        *,
        stage: int = 1,
    ) -> Float[Tensor, "B T Q L"]:
        """Cross-attention of every query position over the context tokens, averaged over heads.

        Args:
            stage: 0 for the decoder's map at stride 8, 1 for stride 4.

        Raises:
            ValueError: the model has no cross-attention.
        """
        tokens = self.frame_model.encode_context(context_frames)
        decoder = self.frame_model.decoder
        if tokens is None or not isinstance(decoder, ContextDecoder):
            raise ValueError("this model's decoder has no cross-attention")
        weights = decoder.attention_weights(feature.flatten(0, 1), tokens, stage=stage)
        return weights.unflatten(0, feature.shape[:2])

    def set_update(self, update: int) -> None:
        """Tell the model how many updates it has had, for what follows the updates: schedules, a moving target."""
        self.frame_model.set_update(update)
        if isinstance(self.objective, SelfPredictionObjective) and update > 0:
            self.objective.move_target(self.frame_model.encoder)

    def _check(self, video: Tensor) -> None:
        side = self.image_size
        if video.dtype != torch.uint8 or video.shape[2:] != (3, side, side):
            raise ValueError(
                f"video must be uint8 [B, T, 3, {side}, {side}], got {video.dtype} {list(video.shape)}"
            )


def _entropy(logits: Tensor) -> Tensor:
    log = torch.log_softmax(logits.float(), -1)
    return -(log.exp() * log).sum((-2, -1)).mean()


def _make_objective(
    config: ObjectiveConfig, frame_model: FrameModel, *, feature_size: int
) -> ContrastiveObjective | SelfPredictionObjective | None:
    embed_size = frame_model.embed_size
    if config.kind == "contrastive":
        return ContrastiveObjective(config, feature_size=feature_size, embed_size=embed_size)
    if config.kind == "self-prediction":
        return SelfPredictionObjective(
            config, feature_size=feature_size, encoder=frame_model.encoder, embed_size=embed_size
        )
    return None
