"""Action-free video world model: frame model and RSSM, with the loss of pre-training (arXiv 2305.18499, eq. 5).

Axes: B clips, T frames, E embedding, F feature, H W pixels.

    frame   0 ... 4 | 5 ... T-1
    predict posterior | prior, open loop        context: from frames 0 ... 4 alone
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from cwm_hub.models.checks import check_flags, check_frames, check_state
from cwm_hub.models.frame_model import (
    FrameModel,
    FrameModelConfig,
    image_loss,
)
from cwm_hub.models.objectives import ContrastiveObjective, ObjectiveConfig, SelfPredictionObjective
from cwm_hub.models.published import Published
from cwm_hub.models.rssm import RSSM, KLConfig, RSSMConfig, RSSMState, balanced_kl


@dataclass(frozen=True)
class VideoWorldModelConfig(KLConfig):
    """A video world model; the defaults are the plain one at the paper's size."""

    frame: FrameModelConfig = field(default_factory=FrameModelConfig)
    """Encoder, context encoder and decoder."""
    rssm: RSSMConfig = field(default_factory=RSSMConfig)
    """Action-free latent dynamics."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """What shapes the latents."""


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

    @property
    def feature_size(self) -> int:
        """Width F of what decoders and heads read of a state."""
        return self.rssm.feature_size

    @torch.no_grad()
    def encode(self, frames: UInt8[Tensor, "*N 3 H W"]) -> Float[Tensor, "*N E"]:
        """Embeddings of single frames, each seen alone; no graph is built."""
        check_frames(frames, self.image_size)
        flat = frames.reshape(-1, 1, *frames.shape[-3:])
        embed = self.frame_model.encode(flat)
        return embed.reshape(*frames.shape[:-3], embed.shape[-1])

    def initial(self, batch_size: int) -> RSSMState:
        """State before a clip's first frame."""
        return self.rssm.initial(batch_size)

    def feature(self, state: RSSMState) -> Float[Tensor, "*N F"]:
        """What decoders and heads read of a state: flattened latents, then the deterministic part."""
        return self.rssm.feature(state)

    @torch.no_grad()
    def obs_step(
        self,
        state: RSSMState,
        frame: UInt8[Tensor, "B 3 H W"],
        is_first: Bool[Tensor, "B"] | None = None,
        *,
        sample: bool = True,
        generator: torch.Generator | None = None,
    ) -> RSSMState:
        """State once a frame is in view: what a policy that watches frame by frame carries along; no graph is built.

        Args:
            state: of the frame before, or `initial`.
            frame: one for each state.
            is_first: where a new clip begins and the state before counts for nothing; nowhere by default.
            sample: draw latents, or take modes.
            generator: source of the draws.

        Raises:
            ValueError: frames or flags of another type or shape, or not a state for each.
        """
        check_frames(frame, self.image_size, axes="B, ")
        if is_first is None:
            is_first = torch.zeros(len(frame), dtype=torch.bool, device=frame.device)
        check_flags(is_first, frame.shape[:1])
        check_state(state, len(frame))
        embed = self.frame_model.encode(frame[:, None])[:, 0]
        return self.rssm.obs_step(state, None, embed, is_first, sample=sample, generator=generator)[0]

    @torch.no_grad()
    def imagine(
        self, state: RSSMState, steps: int, *, sample: bool = True, generator: torch.Generator | None = None
    ) -> RSSMState:
        """The next `steps` states without a frame in view, stacked along axis 1; no graph is built.

        Raises:
            ValueError: less than one step.
        """
        if steps < 1:
            raise ValueError(f"steps is at least 1, got {steps}")
        return self.rssm.imagine(state, steps=steps, sample=sample, generator=generator)

    def forward(
        self, video: UInt8[Tensor, "B T 3 H W"], is_first: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Training loss of a batch of clips.

        Returns:
            The loss in nats a frame, and detached scalars to log: `image_loss`, `kl`, and the entropies of
            posterior and prior, all in nats a frame.
        """
        self._check(video, is_first)
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
        if self.objective is not None:
            objective_loss, objective_metrics = self.objective(posterior, prior, embed, video)
            loss = loss + self.config.objective.scale * objective_loss
            metrics |= objective_metrics
        metrics["loss"] = loss
        return loss, {name: value.detach() for name, value in metrics.items()}

    def observe(
        self,
        video: UInt8[Tensor, "B T 3 H W"],
        is_first: Bool[Tensor, "B T"] | None = None,
        *,
        state: RSSMState | None = None,
        sample: bool = True,
        generator: torch.Generator | None = None,
    ) -> tuple[RSSMState, RSSMState]:
        """`(posterior, prior)` of every frame.

        Args:
            video: clips.
            is_first: where clips begin; absent, at the first frame, and nowhere where `state` goes on.
            state: of the frame before the first.
            sample: draw latents, or take modes.
            generator: source of the draws.
        """
        check_frames(video, self.image_size, axes="B, T, ", what="video")
        if is_first is None:
            is_first = torch.zeros(video.shape[:2], dtype=torch.bool, device=video.device)
            is_first[:, 0] = state is None
        check_flags(is_first, video.shape[:2])
        if state is not None:
            check_state(state, len(video), what="clips")
        embed = self.frame_model.encode(video)
        return self.rssm.observe(embed, None, is_first, state, sample=sample, generator=generator)

    @torch.no_grad()
    def predict(
        self,
        video: UInt8[Tensor, "B T 3 H W"],
        *,
        observed_frames: int = 5,
        horizon: int | None = None,
        context_frames: UInt8[Tensor, "B k 3 H W"] | None = None,
        sample: bool = True,
        generator: torch.Generator | None = None,
    ) -> UInt8[Tensor, "B P 3 H W"]:
        """Open-loop prediction: posterior reconstructions while frames are seen, then the prior alone.

        Args:
            video: clips; only the first `observed_frames` are read.
            observed_frames: frames the model sees.
            horizon: frames to predict, which makes P = observed_frames + horizon; by default as many as the clips have
                left, P = T.
            context_frames: what the decoder is shown; by default the last of the frames seen.
            sample: draw latents, or take modes.
            generator: source of the draws.

        Raises:
            ValueError: there is nothing to observe or nothing to predict.
        """
        check_frames(video, self.image_size, axes="B, T, ", what="video")
        time = video.shape[1]
        most = time - 1 if horizon is None else time
        if not 0 < observed_frames <= most:
            raise ValueError(
                f"observed_frames must lie in 1..{most} for clips of {time} frames, got {observed_frames}"
            )
        if horizon is not None and horizon < 1:
            raise ValueError(f"horizon is at least 1, got {horizon}")
        seen = video[:, :observed_frames]
        posterior, _ = self.observe(seen, sample=sample, generator=generator)
        future = self.rssm.imagine(
            posterior.select((slice(None), -1)),
            steps=time - observed_frames if horizon is None else horizon,
            sample=sample,
            generator=generator,
        )
        feature = torch.cat([self.rssm.feature(posterior), self.rssm.feature(future)], 1)
        return self.decode(feature, self.default_context(seen) if context_frames is None else context_frames)

    @torch.no_grad()
    def decode(
        self, feature: Float[Tensor, "B T F"], context_frames: UInt8[Tensor, "B k 3 H W"] | None
    ) -> UInt8[Tensor, "B T 3 H W"]:
        """Pixels of features; a plain model ignores the context frames.

        Raises:
            ValueError: context frames of another type or shape, or not one set of them for each clip.
        """
        return self.frame_model.decode_pixels(feature, context_frames)

    def default_context(self, seen: UInt8[Tensor, "B T 3 H W"]) -> UInt8[Tensor, "B k 3 H W"] | None:
        """The last frames seen, as many as the model takes (the first one repeated where too few)."""
        return self.frame_model.default_context(seen)

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
            ValueError: the model has no cross-attention, or context frames of another type or shape.
        """
        check_frames(context_frames, self.image_size, axes="B, k, ", what="context_frames")
        tokens = self.frame_model.encode_context(context_frames)
        return self.frame_model.attention_weights(feature, tokens, stage=stage)

    def set_update(self, update: int) -> None:
        """Tell the model how many updates it has had, for what follows the updates: schedules, a moving target."""
        self.frame_model.set_update(update)
        if self.objective is not None and update > 0:
            self.objective.after_update(self.frame_model.encoder)

    def _check(self, video: Tensor, is_first: Tensor) -> None:
        check_frames(video, self.image_size, axes="B, T, ", what="video")
        check_flags(is_first, video.shape[:2])


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
