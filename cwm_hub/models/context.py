"""Context of a clip: which frame shows it, how it is encoded, how the decoder reads it (arXiv 2305.18499, section 4.2).

Axes: B clips, T frames, C channels, L context tokens (positions of a context map, times the number of context
frames), Q query positions (pixels of a decoder stage).

    context frame --augment, encode--> maps at strides 8 and 4 --flatten--> tokens [B, L, C]
    decoder stage [B, T, Q, C] --queries--> attention over the tokens of its own stride

Keys and values are projected once a clip and shared by its T frames; a frame's token dropout then picks rows of
them, which is the same as projecting only the kept tokens.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from cwm_hub.config import MOST_UNITS, check_range
from cwm_hub.models.resnet import Norm, make_norm

CONTEXT_STRIDES = (8, 4)
"""Strides of the maps that the decoder reads, in the order in which it reads them."""


@dataclass(frozen=True)
class ContextConfig:
    """What the decoder is told of a clip's appearance; the defaults are the paper's pre-training."""

    encoder: str = "resnet"
    """`resnet` for the paper's own, or `timm:<name>` for a feature pyramid of timm."""
    pretrained: bool = False
    """Start a timm encoder from its published weights (needs the Hub or its cache)."""
    mixing: Literal["attention", "concat"] = "attention"
    """Cross-attention, or the ablation that concatenates the map to the decoder's features."""
    frame: Literal["random", "first", "last"] = "random"
    """Which frame of a training clip is the context; `random` draws uniformly, clip by clip."""
    frames: int = 1
    """Number of context frames, whose tokens are concatenated; with `first` and `last`, that many in a row."""
    heads: int = 4
    """Attention heads."""
    dropout: float = 0.1
    """Dropout on the attention weights and on the attended output, in training."""
    token_dropout: float = 0.75
    """Share of context tokens dropped for each decoded frame in training; none in evaluation (the official code
    goes on dropping there, which makes its evaluation random)."""
    token_dropout_warmup_updates: int = 0
    """Updates over which the share rises from 0, in eight equal stairs; 0 for none, as in the paper."""
    augmentation: Literal["none", "shift", "flip", "scale", "erasing"] = "none"
    """Augmentation of the context frame in training."""

    def __post_init__(self):
        check_range(self, "frames", "heads", at_least=1)
        check_range(self, "frames", "heads", at_most=MOST_UNITS)
        check_range(self, "dropout", "token_dropout", at_least=0, below=1)
        check_range(self, "token_dropout_warmup_updates", at_least=0)
        if self.mixing == "concat" and self.frames > 1:
            raise ValueError(f"frames is 1 with concat mixing, got {self.frames}")


def choose_context_frames(
    video: UInt8[Tensor, "B T 3 H W"], *, frame: str, frames: int
) -> UInt8[Tensor, "B k 3 H W"]:
    """Pick each clip's context frames: the first or last `frames`, or that many drawn without replacement."""
    batch, time = video.shape[:2]
    if frames > time:
        raise ValueError(f"{frames} context frames were asked of clips of {time} frames")
    if frame == "first":
        return video[:, :frames]
    if frame == "last":
        return video[:, time - frames :]
    index = torch.rand(batch, time, device=video.device).argsort(1)[:, :frames]
    return video[torch.arange(batch, device=video.device)[:, None], index]


def kept_tokens(tokens: int, *, ratio: float) -> int:
    """Tokens left after dropout: int(L * (1 - ratio)), at least one."""
    return max(1, int(tokens * (1 - ratio)))


def token_subset(frames: int, tokens: int, *, keep: int, device: torch.device) -> Int64[Tensor, "N keep"]:
    """For each of N frames, `keep` distinct token positions drawn uniformly."""
    return torch.rand(frames, tokens, device=device).topk(keep, dim=1).indices


class CrossAttention(nn.Module):
    """Multi-head attention from decoder features to context tokens, folded in as `ReLU(z + norm(attended))`.

    Args:
        channels: width C of both sides.
        side: height and width of the feature map, so Q = side * side.
        config: heads, dropout rates and number of context frames.
        norm: normalisation of the attended features.
    """

    def __init__(self, channels: int, side: int, config: ContextConfig, *, norm: Norm):
        super().__init__()
        if channels % config.heads:
            raise ValueError(f"{config.heads} attention heads do not divide {channels} channels")
        self.config = config
        self.query_position = nn.Parameter(torch.zeros(side * side, channels))
        self.key_position = nn.Parameter(torch.zeros(side * side, channels))
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.output = nn.Linear(channels, channels)
        self.norm = make_norm(norm, channels)
        # As torch's MultiheadAttention: Xavier over the stacked [3C, C] weight.
        bound = (6 / (4 * channels)) ** 0.5
        for layer in (self.query, self.key_value):
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.output.bias)

    def forward(
        self, z: Float[Tensor, "N C H W"], tokens: Float[Tensor, "B L C"], *, ratio: float
    ) -> Float[Tensor, "N C H W"]:
        """Mix context into features; the N images are B clips of N / B frames each, clip by clip.

        Args:
            ratio: share of context tokens dropped, anew for every image.
        """
        images, channels, height, width = z.shape
        clips, count = tokens.shape[:2]
        queries = self._queries(z)
        key, value = self._keys_values(tokens)
        if ratio > 0:
            keep = kept_tokens(count, ratio=ratio)
            rows = token_subset(images, count, keep=keep, device=z.device)
            offset = torch.arange(clips, device=z.device).repeat_interleave(images // clips) * count
            rows = (rows + offset[:, None]).flatten()
            key, value = (
                part.flatten(0, 1).index_select(0, rows).view(images, keep, channels) for part in (key, value)
            )
        else:  # no subset: all frames of a clip are one long row of queries
            queries = queries.reshape(clips, -1, channels)
        attended = F.scaled_dot_product_attention(
            self._heads(queries),
            self._heads(key),
            self._heads(value),
            dropout_p=self.config.dropout if self.training else 0.0,
        )
        attended = self.output(attended.transpose(1, 2).reshape(images, height * width, channels))
        attended = F.dropout(attended, self.config.dropout, self.training)
        attended = attended.transpose(1, 2).reshape(images, channels, height, width)
        return F.relu(z + self.norm(attended))

    def attention_weights(
        self, z: Float[Tensor, "N C H W"], tokens: Float[Tensor, "B L C"]
    ) -> Float[Tensor, "N Q L"]:
        """Attention of every query position over all context tokens, averaged over heads; for figures."""
        query = self._heads(self._queries(z))
        key = self._heads(self._keys_values(tokens)[0]).repeat_interleave(len(z) // len(tokens), 0)
        return torch.softmax(query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5, -1).mean(1)

    def _queries(self, z: Tensor) -> Tensor:
        return self.query(z.flatten(2).transpose(1, 2) + self.query_position)

    def _keys_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        position = self.key_position.repeat(self.config.frames, 1)
        key, value = self.key_value(tokens + position).chunk(2, -1)
        return key, value

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.config.heads, -1)).transpose(1, 2)


class ContextConcat(nn.Module):
    """The ablation without attention: the map is concatenated to the features at every position.

    A 1x1 convolution brings the pair back to C channels and the sum enters as in `CrossAttention`, so that the
    two differ in the mixing alone.
    """

    def __init__(self, channels: int, *, norm: Norm):
        super().__init__()
        self.merge = nn.Conv2d(2 * channels, channels, 1, bias=False)
        self.norm = make_norm(norm, channels)

    def forward(
        self, z: Float[Tensor, "N C H W"], tokens: Float[Tensor, "B L C"], *, ratio: float
    ) -> Float[Tensor, "N C H W"]:
        """Mix context into features; `ratio` has no meaning here, the whole map is used."""
        images, channels, height, width = z.shape
        context = tokens.transpose(1, 2).reshape(-1, channels, height, width)
        context = context.repeat_interleave(images // len(context), 0)
        return F.relu(z + self.norm(self.merge(torch.cat([z, context], 1))))
