"""Images in, features out, images back: encoder, context encoder and contextualized decoder (arXiv 2305.18499).

Axes: B clips, T frames, N = B*T images, H W pixels, E embedding, F feature, C channels, L context tokens.

    video ----------------- encoder ---------> embed [B, T, E]      (never sees the context)
    context frames -------- context encoder -> tokens by stride [B, L, C]
    feature [B, T, F] ----- decoder <--------- tokens
                               |
                               v  image mean [B, T, 3, H, W]

Images inside are `pixel / 255 - 0.5`.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from cwm_hub.config import MOST_LAYERS, MOST_UNITS, check_range
from cwm_hub.models.augment import augment
from cwm_hub.models.checks import check_frames
from cwm_hub.models.cnn import CNN_KERNELS, CNNDecoder, CNNEncoder
from cwm_hub.models.context import (
    CONTEXT_STRIDES,
    ContextConcat,
    ContextConfig,
    CrossAttention,
    choose_context_frames,
)
from cwm_hub.models.initialise import init_xavier
from cwm_hub.models.resnet import LATENT_STRIDE, MAP_STRIDES, Norm, ResidualLayer, ResNetEncoder
from cwm_hub.models.timm_encoder import TimmContextEncoder

ContextTokens = dict[int, Tensor]
"""Context tokens [B, L, C] by the stride of the map they come from."""


@dataclass(frozen=True)
class FrameModelConfig:
    """Image networks; the defaults are the paper's."""

    image_size: int = 64
    """Side of the square images in pixels, a multiple of 16."""
    depth: int = 48
    """Channels of the first encoder stage; later stages double it."""
    layers: int = 2
    """Residual layers a stage."""
    norm: Norm = "batch"
    """`batch` as in the paper, or `group`, which is alike in training and evaluation and on any number of ranks.
    A timm context encoder is left out of this: it keeps the normalisation of its own, mostly BatchNorm."""
    backbone: Literal["resnet", "cnn"] = "resnet"
    """The paper's residual networks, or DreamerV2's plain convolutions (64 or 32 pixels, no context)."""
    context: ContextConfig | None = None
    """What the decoder is told of the clip's appearance; None is the plain world model."""

    def __post_init__(self):
        if self.image_size % LATENT_STRIDE or self.image_size < LATENT_STRIDE:
            raise ValueError(f"image_size is a positive multiple of {LATENT_STRIDE}, got {self.image_size}")
        if self.backbone == "cnn" and (self.context is not None or self.image_size not in CNN_KERNELS):
            raise ValueError("backbone 'cnn' takes images of 64 or 32 pixels and no context")
        check_range(self, "image_size", at_most=MOST_UNITS)
        check_range(self, "depth", at_least=2)  # the decoder's last stage has half as many channels
        check_range(self, "depth", at_most=MOST_UNITS)
        check_range(self, "layers", at_least=1)
        check_range(self, "layers", at_most=MOST_LAYERS)


def centred(image: UInt8[Tensor, "*N 3 H W"]) -> Float[Tensor, "*N 3 H W"]:
    """Model input from pixels: `pixel / 255 - 0.5`. The only place where a pixel becomes a float."""
    return image.float() / 255 - 0.5


def to_pixels(image: Float[Tensor, "*N 3 H W"]) -> UInt8[Tensor, "*N 3 H W"]:
    """Pixels from image means, rounded and clipped."""
    return ((image.float() + 0.5) * 255).round().clamp(0, 255).to(torch.uint8)


class DecoderStage(nn.Module):
    """Residual layers at one resolution, whose first layer may take in context.

    Args:
        inputs: channels in.
        outputs: channels out; the last layer changes the width.
        layers: residual layers.
        norm: normalisation layer.
        mixer: how context enters before the first layer's branch; None where it does not.
    """

    def __init__(self, inputs: int, outputs: int, *, layers: int, norm: Norm, mixer: nn.Module | None):
        super().__init__()
        self.mixer = mixer
        widths = [inputs] * layers + [outputs]
        self.layers = nn.ModuleList(
            ResidualLayer(before, after, norm=norm) for before, after in pairwise(widths)
        )

    def forward(self, x: Tensor, tokens: Tensor | None, *, ratio: float) -> Tensor:
        """Apply the stage; `ratio` is the share of context tokens dropped."""
        mixed = x if self.mixer is None or tokens is None else self.mixer(x, tokens, ratio=ratio)
        x = self.layers[0](mixed, skip=x)
        for layer in self.layers[1:]:
            x = layer(x)
        return x


class ContextDecoder(nn.Module):
    """Feature to image through three upsampling stages; the first two read context at strides 8 and 4."""

    def __init__(self, feature_size: int, config: FrameModelConfig):
        super().__init__()
        self.latent_side = config.image_size // LATENT_STRIDE
        widths = (4 * config.depth, 2 * config.depth, config.depth, config.depth // 2)
        self.input = nn.Linear(feature_size, widths[0] * self.latent_side**2)
        self.stages = nn.ModuleList()
        for stride, before, after in zip(reversed(MAP_STRIDES), widths, widths[1:], strict=False):
            mixer = None
            if config.context is not None and stride in CONTEXT_STRIDES:
                mixer = _mixer(before, config.image_size // stride, config.context, norm=config.norm)
            self.stages.append(
                DecoderStage(before, after, layers=config.layers, norm=config.norm, mixer=mixer)
            )
        self.output = nn.ConvTranspose2d(widths[-1], 3, 3, stride=2, padding=1, output_padding=1)
        for layer in (self.input, self.output):
            init_xavier(layer)

    def forward(
        self, feature: Float[Tensor, "N F"], tokens: ContextTokens | None, *, ratio: float
    ) -> Float[Tensor, "N 3 H W"]:
        """Image means; the N features are whole clips one after another."""
        return self.output(self.hidden(feature, tokens, ratio=ratio, stages=len(self.stages)))

    def hidden(
        self, feature: Float[Tensor, "N F"], tokens: ContextTokens | None, *, ratio: float, stages: int
    ) -> Float[Tensor, "N C h w"]:
        """Feature map after the first `stages` stages."""
        x = self.input(feature).unflatten(-1, (-1, self.latent_side, self.latent_side))
        for stride, stage in list(zip(reversed(MAP_STRIDES), self.stages, strict=True))[:stages]:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = stage(x, None if tokens is None else tokens.get(stride), ratio=ratio)
        return x

    def attention_weights(
        self, feature: Float[Tensor, "N F"], tokens: ContextTokens, *, stage: int
    ) -> Float[Tensor, "N Q L"]:
        """Attention of every position of a stage (0: stride 8, 1: stride 4) over the context tokens."""
        x = F.interpolate(
            self.hidden(feature, tokens, ratio=0.0, stages=stage), scale_factor=2, mode="nearest"
        )
        mixer = self.stages[stage].mixer
        if not isinstance(mixer, CrossAttention):
            raise ValueError("this model's decoder has no cross-attention")
        return mixer.attention_weights(x, tokens[CONTEXT_STRIDES[stage]])


class FrameModel(nn.Module):
    """Image encoder, context encoder and decoder with one configuration.

    Args:
        config: sizes and parts.
        feature_size: width of the feature that the decoder reads.
    """

    def __init__(self, config: FrameModelConfig, *, feature_size: int):
        super().__init__()
        self.config = config
        self.token_dropout = 0.0 if config.context is None else config.context.token_dropout
        self.context_encoder: ResNetEncoder | TimmContextEncoder | None = None
        self.encoder: nn.Module
        self.decoder: nn.Module
        if config.backbone == "cnn":
            self.encoder = CNNEncoder(depth=config.depth, image_size=config.image_size)
            self.decoder = CNNDecoder(feature_size, depth=config.depth, image_size=config.image_size)
        else:
            sizes = {"image_size": config.image_size, "depth": config.depth, "layers": config.layers}
            self.encoder = ResNetEncoder(**sizes, norm=config.norm)  # type: ignore[arg-type]
            self.decoder = ContextDecoder(feature_size, config)
            if config.context is not None:
                self.context_encoder = _context_encoder(config, config.context)
        self.embed_size: int = self.encoder.embed_size  # type: ignore[assignment]

    def encode(self, video: UInt8[Tensor, "B T 3 H W"]) -> Float[Tensor, "B T E"]:
        """Embed every frame by itself."""
        return self.encoder(centred(video.flatten(0, 1))).unflatten(0, video.shape[:2])

    def context(self, video: UInt8[Tensor, "B T 3 H W"]) -> ContextTokens | None:
        """Context tokens of training clips, from the frames that the configuration names; None when plain."""
        context = self.config.context
        if context is None:
            return None
        return self.encode_context(choose_context_frames(video, frame=context.frame, frames=context.frames))

    def encode_context(self, frames: UInt8[Tensor, "B k 3 H W"]) -> ContextTokens | None:
        """Tokens of the context frames, those of several frames one after another; None for a plain model."""
        context = self.config.context
        if self.context_encoder is None or context is None:
            return None
        if frames.shape[1] != context.frames:
            raise ValueError(f"the model takes {context.frames} context frames a clip, got {frames.shape[1]}")
        image = centred(frames.flatten(0, 1))
        if self.training:
            image = augment(image, context.augmentation)
        maps = self.context_encoder.maps(image)
        return {
            stride: maps[stride].flatten(2).transpose(1, 2).reshape(len(frames), -1, maps[stride].shape[1])
            for stride in CONTEXT_STRIDES
        }

    def decode(
        self, feature: Float[Tensor, "B T F"], tokens: ContextTokens | None
    ) -> Float[Tensor, "B T 3 H W"]:
        """Image means as `pixel / 255 - 0.5`; context tokens are dropped in training only."""
        flat = feature.flatten(0, 1)
        if isinstance(self.decoder, ContextDecoder):
            image = self.decoder(flat, tokens, ratio=self.token_dropout if self.training else 0.0)
        else:
            image = self.decoder(flat)
        return image.unflatten(0, feature.shape[:2])

    def default_context(self, seen: UInt8[Tensor, "B T 3 H W"]) -> UInt8[Tensor, "B k 3 H W"] | None:
        """The last frames seen, as many as the model takes (the first one repeated where too few)."""
        context = self.config.context
        if context is None:
            return None
        index = torch.arange(seen.shape[1] - context.frames, seen.shape[1], device=seen.device).clamp(min=0)
        return seen[:, index]

    @torch.no_grad()
    def decode_pixels(
        self, feature: Float[Tensor, "B T F"], context_frames: UInt8[Tensor, "B k 3 H W"] | None
    ) -> UInt8[Tensor, "B T 3 H W"]:
        """Pixels of features; a plain model ignores the context frames.

        Raises:
            ValueError: context frames of another type or shape, or not one set of them for each clip.
        """
        if context_frames is None or self.config.context is None:
            return to_pixels(self.decode(feature, None))
        check_frames(context_frames, self.config.image_size, axes="B, k, ", what="context_frames")
        if len(context_frames) != len(feature):
            raise ValueError(
                f"there are context frames of {len(context_frames)} clips and features of {len(feature)}"
            )
        return to_pixels(self.decode(feature, self.encode_context(context_frames)))

    def attention_weights(
        self, feature: Float[Tensor, "B T F"], tokens: ContextTokens | None, *, stage: int
    ) -> Float[Tensor, "B T Q L"]:
        """Attention of the decoder's stage over all context tokens, as `ContextDecoder.attention_weights`.

        Raises:
            ValueError: the decoder has no cross-attention.
        """
        if tokens is None or not isinstance(self.decoder, ContextDecoder):
            raise ValueError("this model's decoder has no cross-attention")
        weights = self.decoder.attention_weights(feature.flatten(0, 1), tokens, stage=stage)
        return weights.unflatten(0, feature.shape[:2])

    def set_update(self, update: int) -> None:
        """Tell the model how many updates it has had, for the warm-up of token dropout (eight equal stairs)."""
        context = self.config.context
        if context is None or not context.token_dropout_warmup_updates:
            return
        stair = min(8, 8 * update // context.token_dropout_warmup_updates)
        self.token_dropout = context.token_dropout * stair / 8


def image_loss(mean: Float[Tensor, "B T 3 H W"], video: UInt8[Tensor, "B T 3 H W"]) -> Float[Tensor, ""]:
    """Negative log likelihood in nats a frame under unit-variance Gaussians, without the constant; float32."""
    return 0.5 * (mean.float() - centred(video)).square().sum((-3, -2, -1)).mean()


def _mixer(channels: int, side: int, context: ContextConfig, *, norm: Norm) -> nn.Module:
    if context.mixing == "concat":
        return ContextConcat(channels, norm=norm)
    return CrossAttention(channels, side, context, norm=norm)


def _context_encoder(config: FrameModelConfig, context: ContextConfig) -> ResNetEncoder | TimmContextEncoder:
    if context.encoder == "resnet":
        return ResNetEncoder(
            image_size=config.image_size, depth=config.depth, layers=config.layers, norm=config.norm
        )
    library, _, name = context.encoder.partition(":")
    if library != "timm" or not name:
        raise ValueError(f"context encoder is 'resnet' or 'timm:<name>', got {context.encoder!r}")
    widths = dict(zip(CONTEXT_STRIDES, (4 * config.depth, 2 * config.depth), strict=True))
    return TimmContextEncoder(
        name, widths=widths, image_size=config.image_size, pretrained=context.pretrained
    )
