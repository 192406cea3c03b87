"""World model of fine-tuning: a second, action-conditional RSSM stacked on the pre-trained one (APV; arXiv 2305.18499).

Axes: B sequences, T steps, A action, E embedding, F feature, H W pixels.

    frame t --encoder--> embed --> video RSSM (no action) --> [embed +] video feature --> action RSSM --> feature
                                                                                            ^ action t     |
                       image mean <--decoder (context) <-- behavioural and representative rewards <--------+

Each RSSM carries a state of its own (the official code hands the second's state to both). Where `video_rssm` is
None the action RSSM reads the embedding itself: DreamerV2 from scratch. A continue head, where there is one, says at
each feature whether the episode goes on: DreamerV2's discount predictor (arXiv 2010.02193), which the paper's tasks
leave out since none of them terminates.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from cwm_hub.config import check_range
from cwm_hub.models.checks import check_action, check_flags, check_frames, check_state
from cwm_hub.models.draws import Generators
from cwm_hub.models.frame_model import FrameModel, FrameModelConfig, image_loss
from cwm_hub.models.heads import HeadConfig, ScalarHead, gaussian_loss
from cwm_hub.models.published import Published
from cwm_hub.models.rssm import RSSM, KLConfig, RSSMConfig, RSSMState, balanced_kl
from cwm_hub.models.video_world_model import VideoWorldModel


@dataclass(frozen=True)
class ActionWorldModelConfig(KLConfig):
    """A world model with actions and rewards; the defaults are the paper's for Meta-world, without context.

    `kl_scale` is the weight of the action RSSM's KL.
    """

    action_size: int
    """Numbers in an action."""
    frame: FrameModelConfig = field(default_factory=FrameModelConfig)
    """Encoder, context encoder and decoder, as in pre-training."""
    video_rssm: RSSMConfig | None = field(default_factory=RSSMConfig)
    """The action-free RSSM that comes from pre-training; None for DreamerV2 from scratch."""
    rssm: RSSMConfig = field(default_factory=RSSMConfig)
    """The action-conditional RSSM, always new."""
    heads: HeadConfig = field(default_factory=HeadConfig)
    """Reward heads."""
    concat_embed: bool = False
    """Whether the action RSSM sees `[embed, video feature]`, in the official order, in place of the feature alone
    (paper: on DMC Remastered and CARLA)."""
    dual_reward: bool = True
    """A second head that regresses the plain reward; without it the behavioural head stands alone."""
    continue_head: bool = False
    """A head that predicts whether the episode goes on, for tasks that terminate (paper: none)."""
    video_kl_scale: float = 0.0
    """Weight of the video RSSM's KL; with 0 weight decay alone moves its prior, as in the official code."""

    def __post_init__(self):
        super().__post_init__()
        check_range(self, "action_size", at_least=1, at_most=self.rssm.action_size)
        check_range(self, "video_kl_scale", at_least=0)


class WorldState(NamedTuple):
    """State of both RSSMs; `video` is None where there is only one."""

    video: RSSMState | None
    action: RSSMState

    def select(self, index: Any) -> "WorldState":
        """Index every part over the leading axes alike."""
        return WorldState(None if self.video is None else self.video.select(index), self.action.select(index))

    def repeat(self, count: int) -> "WorldState":
        """Each state `count` times, one after the other, as `RSSMState.repeat`."""
        return WorldState(None if self.video is None else self.video.repeat(count), self.action.repeat(count))


class WorldModelOutput(NamedTuple):
    """What filtering a batch of sequences gives, each stacked over T."""

    posterior: RSSMState
    prior: RSSMState
    feature: Float[Tensor, "B T F"]
    """Feature of the action RSSM's posterior."""
    video_posterior: RSSMState | None
    video_prior: RSSMState | None
    video_feature: Float[Tensor, "B T G"] | None
    """Feature of the video RSSM's posterior; what the intrinsic bonus looks at."""


class ActionWorldModel(Published, nn.Module):
    """Action-conditional world model with dual reward heads, on top of a pre-trained video world model or alone."""

    def __init__(self, config: ActionWorldModelConfig):
        super().__init__()
        self.config = config
        feature_size = config.rssm.stoch * config.rssm.classes + config.rssm.deter
        self.frame_model = FrameModel(config.frame, feature_size=feature_size)
        embed = self.frame_model.embed_size
        self.video_rssm: RSSM | None = None
        if config.video_rssm is not None:
            self.video_rssm = RSSM(config.video_rssm, embed=embed)
            embed = self.video_rssm.feature_size + (embed if config.concat_embed else 0)
        self.rssm = RSSM(config.rssm, embed=embed)
        self.behavioural_head = ScalarHead(feature_size, config.heads)
        self.representative_head = ScalarHead(feature_size, config.heads) if config.dual_reward else None
        self.continue_head = ScalarHead(feature_size, config.heads) if config.continue_head else None

    @classmethod
    def from_video_world_model(
        cls, video_model: VideoWorldModel, *, config: ActionWorldModelConfig
    ) -> "ActionWorldModel":
        """Stack a new action RSSM on a pre-trained model: encoders, video RSSM and decoder keep its weights.

        Raises:
            ValueError: the two configurations disagree on a part that is carried over. The context's
                augmentation and frame choice may differ, its networks may not.
        """
        model = cls(config)
        model.take_over(video_model)
        return model

    def take_over(self, pretrained: "VideoWorldModel | ActionWorldModel") -> None:
        """Load the weights of every part that a pre-trained model has too; what it lacks stays new.

        Raises:
            ValueError: a part of another shape, or dynamics of video for which there is no place.
        """
        theirs = dict(pretrained.named_children())
        if isinstance(pretrained, VideoWorldModel):
            theirs = {"frame_model": pretrained.frame_model, "video_rssm": pretrained.rssm}
        if "video_rssm" in theirs and self.video_rssm is None:
            raise ValueError("config.video_rssm is None: there is no place for the pre-trained dynamics")
        for name, ours in self.named_children():
            if name not in theirs:
                continue
            misfit = _first_misfit(ours.state_dict(), theirs[name].state_dict())
            if misfit is not None:
                part = name.replace("_", " ").replace("rssm", "RSSM")
                raise ValueError(
                    f"the pre-trained {part} does not fit the new one: {misfit}; a model goes on from one of its "
                    "own sizes, as action-contextwm-small from contextwm-small"
                )
            ours.load_state_dict(theirs[name].state_dict())

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.config.frame.image_size

    @property
    def feature_size(self) -> int:
        """Width F of the feature that heads, actor and critic read."""
        return self.rssm.feature_size

    def forward(
        self,
        video: UInt8[Tensor, "B T 3 H W"],
        is_first: Bool[Tensor, "B T"],
        action: Float[Tensor, "B T A"],
        reward: Float[Tensor, "B T"] | None = None,
        is_terminal: Bool[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Training loss of logged clips, without a bonus: both reward heads regress the reward, neither where none was
        logged. Arguments are those of `observe` and `loss`."""
        output = self.observe(video, action, is_first)
        return self.loss(output, video, reward, reward, is_terminal)

    def initial(self, batch_size: int) -> WorldState:
        """State at the start of an episode."""
        video = None if self.video_rssm is None else self.video_rssm.initial(batch_size)
        return WorldState(video, self.rssm.initial(batch_size))

    def feature(self, state: WorldState) -> Float[Tensor, "*N F"]:
        """Feature of the action RSSM's state."""
        return self.rssm.feature(state.action)

    @torch.no_grad()
    def obs_step(
        self,
        state: WorldState,
        image: UInt8[Tensor, "B 3 H W"],
        action: Float[Tensor, "B A"],
        is_first: Bool[Tensor, "B"] | None = None,
        *,
        sample: bool = True,
        generator: Generators = None,
    ) -> WorldState:
        """State once a frame is in view, as acting needs it; no graph is built and the context path is not used.

        Args:
            state: of the frame before, or `initial`.
            image: one for each state.
            action: the one that led to it.
            is_first: where an episode begins, and state and action before it count for nothing; nowhere by default.
            sample: draw latents, or take modes.
            generator: source of the draws.

        Raises:
            ValueError: images, actions or flags of another type or shape, not a state for each, or imagined states.
        """
        check_frames(image, self.image_size, axes="B, ", what="image")
        if is_first is None:
            is_first = torch.zeros(len(image), dtype=torch.bool, device=image.device)
        check_flags(is_first, image.shape[:1])
        check_action(action, self.config.action_size, image.shape[:1])
        check_state(state.action, len(image), what="images")
        embed = self.frame_model.encode(image[:, None])[:, 0]
        video = None
        if self.video_rssm is not None:
            if state.video is None:
                raise ValueError(
                    "an imagined state has seen no frames and cannot be filtered: go on from an observed one"
                )
            video, _ = self.video_rssm.obs_step(
                state.video, None, embed, is_first, sample=sample, generator=generator
            )
            embed = self._action_embed(self.video_rssm.feature(video), embed)
        posterior, _ = self.rssm.obs_step(
            state.action, action, embed, is_first, sample=sample, generator=generator
        )
        return WorldState(video, posterior)

    def observe(
        self,
        video: UInt8[Tensor, "B T 3 H W"],
        action: Float[Tensor, "B T A"],
        is_first: Bool[Tensor, "B T"],
        *,
        sample: bool = True,
        generator: Generators = None,
    ) -> WorldModelOutput:
        """Filter sequences from the replay with both RSSMs; `action[:, t]` led to frame t.

        Raises:
            ValueError: frames, actions or flags of another type or shape.
        """
        check_frames(video, self.image_size, axes="B, T, ", what="video")
        check_flags(is_first, video.shape[:2])
        check_action(action, self.config.action_size, video.shape[:2])
        embed = self.frame_model.encode(video)
        video_posterior = video_prior = video_feature = None
        if self.video_rssm is not None:
            video_posterior, video_prior = self.video_rssm.observe(
                embed, None, is_first, sample=sample, generator=generator
            )
            video_feature = self.video_rssm.feature(video_posterior)
            embed = self._action_embed(video_feature, embed)
        posterior, prior = self.rssm.observe(embed, action, is_first, sample=sample, generator=generator)
        return WorldModelOutput(
            posterior, prior, self.rssm.feature(posterior), video_posterior, video_prior, video_feature
        )

    @torch.no_grad()
    def imagine(
        self,
        state: WorldState,
        action: Float[Tensor, "B I A"],
        *,
        sample: bool = True,
        generator: torch.Generator | None = None,
    ) -> WorldState:
        """The states that actions lead to without a frame in view, stacked along axis 1; no graph is built.

        The action RSSM alone goes on, as in the imagination that behaviour is learned in: `video` of the result is None.

        Args:
            state: where to start, one for each sequence of actions; `state.repeat(n)` makes n of each.
            action: what is done, step by step.
            sample: draw latents, or take modes.
            generator: source of the draws.

        Raises:
            ValueError: actions of another type or shape, or not a state for each.
        """
        check_action(action, self.config.action_size, (len(state.action.deter), None))
        return WorldState(None, self.rssm.imagine(state.action, action, sample=sample, generator=generator))

    @torch.no_grad()
    def predict(
        self,
        video: UInt8[Tensor, "B T 3 H W"],
        action: Float[Tensor, "B P A"],
        *,
        observed_frames: int = 5,
        context_frames: UInt8[Tensor, "B k 3 H W"] | None = None,
        sample: bool = True,
        generator: torch.Generator | None = None,
    ) -> UInt8[Tensor, "B P 3 H W"]:
        """Prediction under given actions: posterior reconstructions while frames are seen, then the prior alone.

        Args:
            video: the episodes' beginnings; only the first `observed_frames` are read.
            action: `action[:, t]` leads to frame t, of frames seen and to come; the first counts for nothing.
            observed_frames: frames the model sees.
            context_frames: what the decoder is shown; by default the last of the frames seen.
            sample: draw latents, or take modes.
            generator: source of the draws.

        Raises:
            ValueError: frames or actions of another type or shape, nothing to observe or nothing to predict.
        """
        check_frames(video, self.image_size, axes="B, T, ", what="video")
        check_action(action, self.config.action_size, (len(video), None))
        most = min(video.shape[1], action.shape[1] - 1)
        if not 0 < observed_frames <= most:
            raise ValueError(
                f"observed_frames must lie in 1..{most} for {video.shape[1]} frames and {action.shape[1]} actions, "
                f"got {observed_frames}"
            )
        seen = video[:, :observed_frames]
        is_first = torch.zeros(seen.shape[:2], dtype=torch.bool, device=video.device)
        is_first[:, 0] = True
        draws: dict[str, Any] = {"sample": sample, "generator": generator}
        output = self.observe(seen, action[:, :observed_frames], is_first, **draws)
        last = output.posterior.select((slice(None), -1))
        future = self.rssm.imagine(last, action[:, observed_frames:], **draws)
        feature = torch.cat([output.feature, self.rssm.feature(future)], 1)
        if context_frames is None:
            context_frames = self.frame_model.default_context(seen)
        return self.decode(feature, context_frames)

    @torch.no_grad()
    def decode(
        self, feature: Float[Tensor, "B T F"], context_frames: UInt8[Tensor, "B k 3 H W"] | None
    ) -> UInt8[Tensor, "B T 3 H W"]:
        """Pixels of features; a model without context ignores the context frames.

        Raises:
            ValueError: context frames of another type or shape, or not one set of them for each clip.
        """
        return self.frame_model.decode_pixels(feature, context_frames)

    @torch.no_grad()
    def reward(self, state: WorldState) -> Float[Tensor, "*N"]:
        """Reward that the model expects on arrival in a state, observed or imagined; no graph is built.

        The task's alone where there are two heads; what behaviour is trained on where there is one.
        """
        head = self.representative_head or self.behavioural_head
        return head(self.feature(state))

    def loss(
        self,
        output: WorldModelOutput,
        video: UInt8[Tensor, "B T 3 H W"],
        reward: Float[Tensor, "B T"] | None,
        behavioural_target: Float[Tensor, "B U"] | None,
        is_terminal: Bool[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """World-model loss of filtered sequences.

        Args:
            reward: task reward received on arrival at each frame; None leaves the heads out.
            behavioural_target: reward plus scaled intrinsic bonus on the first U <= T steps (the bonus looks
                ahead, so the last steps have none); None with the reward.
            is_terminal: whether the task ended the episode on arrival at each frame; None leaves the continue head out.

        Returns:
            The loss, and detached scalars to log.
        """
        config = self.config
        mean = self.frame_model.decode(output.feature, self.frame_model.context(video))
        kl_loss, kl = balanced_kl(
            output.posterior, output.prior, balance=config.kl_balance, free_nats=config.free_nats
        )
        parts = {"image_loss": image_loss(mean, video), "kl_loss": config.kl_scale * kl_loss}
        if behavioural_target is not None:
            steps = behavioural_target.shape[1]
            parts["behavioural_reward_loss"] = gaussian_loss(
                self.behavioural_reward(output.feature[:, :steps]), behavioural_target
            ).mean()
        if self.representative_head is not None and reward is not None:
            parts["representative_reward_loss"] = gaussian_loss(
                self.representative_reward(output.feature), reward
            ).mean()
        if self.continue_head is not None and is_terminal is not None:
            parts["continue_loss"] = F.binary_cross_entropy_with_logits(
                self.continue_head(output.feature).float(), (~is_terminal).float()
            )
        metrics = {"kl": kl.mean()}
        if output.video_posterior is not None and output.video_prior is not None:
            video_loss, video_kl = balanced_kl(
                output.video_posterior,
                output.video_prior,
                balance=config.kl_balance,
                free_nats=config.free_nats,
            )
            metrics["video_kl"] = video_kl.mean()
            # With scale 0 too: a gradient of zero, and not none, lets weight decay move the video RSSM's prior.
            parts["video_kl_loss"] = config.video_kl_scale * video_loss
        loss = torch.stack(list(parts.values())).sum()
        metrics |= {"loss": loss, **parts}
        return loss, {name: value.detach() for name, value in metrics.items()}

    def set_update(self, update: int) -> None:
        """Tell the model how many updates it has had, for schedules."""
        self.frame_model.set_update(update)

    def behavioural_reward(self, feature: Float[Tensor, "*N F"]) -> Float[Tensor, "*N"]:
        """Task reward plus intrinsic bonus: what behaviour is trained on in imagination."""
        return self.behavioural_head(feature)

    def representative_reward(self, feature: Float[Tensor, "*N F"]) -> Float[Tensor, "*N"]:
        """Task reward alone: shapes the representation.

        Raises:
            ValueError: the model has a single reward head.
        """
        if self.representative_head is None:
            raise ValueError("this model has a single reward head (dual_reward is false)")
        return self.representative_head(feature)

    def continue_probability(self, feature: Float[Tensor, "*N F"]) -> Float[Tensor, "*N"] | None:
        """Probability that the episode goes on after each feature, float32; None without a continue head."""
        if self.continue_head is None:
            return None
        return torch.sigmoid(self.continue_head(feature).float())

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """`(pre-trained, new)` as the paper's two optimisers take them.

        The first holds encoder, context encoder and video RSSM; the second action RSSM, decoder and heads.
        """
        first: list[nn.Module | None] = [
            self.frame_model.encoder,
            self.frame_model.context_encoder,
            self.video_rssm,
        ]
        second: list[nn.Module | None] = [
            self.rssm,
            self.frame_model.decoder,
            self.behavioural_head,
            self.representative_head,
            self.continue_head,
        ]
        return (
            [p for module in first if module is not None for p in module.parameters()],
            [p for module in second if module is not None for p in module.parameters()],
        )

    def _action_embed(self, video_feature: Tensor, embed: Tensor) -> Tensor:
        return torch.cat([embed, video_feature], -1) if self.config.concat_embed else video_feature


def _first_misfit(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> str | None:
    """The first tensor of another shape, or that only one of two has, and how many there are; None where all fit."""
    shapes = [{name: list(tensor.shape) for name, tensor in state.items()} for state in (ours, theirs)]
    names = [name for name in {**ours, **theirs} if shapes[0].get(name) != shapes[1].get(name)]
    if not names:
        return None
    here, there = (shape.get(names[0], "absent") for shape in shapes)
    more = f", and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]} is {there} in the pre-trained one and {here} in the new one{more}"
