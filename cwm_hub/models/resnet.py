"""Residual image encoder of ContextWM (arXiv 2305.18499, appendix) and the residual layer it shares with the decoder.

Axes: N images, C channels, H W pixels. Spatial sizes are named by their stride to the input image:

    image --conv s2--> stride 2 --stack, pool--> 4 --stack, pool--> 8 --stack, pool--> 16 --> embed
                          |                      |                  |
                       map 2                  map 4              map 8         (before each pool)
"""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cwm_hub.models.initialise import init_xavier

Norm = Literal["batch", "group"]
MAP_STRIDES = (2, 4, 8)
LATENT_STRIDE = 16


def make_norm(norm: Norm, channels: int) -> nn.Module:
    """BatchNorm as in the paper, or GroupNorm of eight channels a group, which does not look at other clips."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    groups = next(groups for groups in range(max(1, channels // 8), 0, -1) if channels % groups == 0)
    return nn.GroupNorm(groups, channels)


class ResidualLayer(nn.Module):
    """Two 3x3 convolutions with norm, added to the (projected) input."""

    def __init__(self, inputs: int, outputs: int, *, norm: Norm):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1 = make_norm(norm, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = make_norm(norm, outputs)
        self.project: nn.Module | None = None
        if inputs != outputs:
            self.project = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), make_norm(norm, outputs))

    def forward(
        self, x: Float[Tensor, "N C H W"], skip: Float[Tensor, "N C H W"] | None = None
    ) -> Float[Tensor, "N D H W"]:
        """Apply the layer; `skip`, where given, feeds the skip path in place of `x`."""
        skip = x if skip is None else skip
        branch = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu((skip if self.project is None else self.project(skip)) + branch)


class ResNetEncoder(nn.Module):
    """13-convolution residual encoder; also, with weights of its own, the paper's context encoder.

    Args:
        image_size: side of the square input in pixels, a multiple of 16.
        depth: channels of the first stage; the later ones have 2 and 4 times as many.
        layers: residual layers a stage.
        norm: normalisation layer.
    """

    def __init__(self, *, image_size: int, depth: int, layers: int, norm: Norm):
        super().__init__()
        widths = (depth, 2 * depth, 4 * depth)
        self.stem = nn.Conv2d(3, depth, 3, stride=2, padding=1)
        init_xavier(self.stem)
        self.stages = nn.ModuleList()
        for previous, width in zip((depth, *widths[:-1]), widths, strict=True):
            stage = [ResidualLayer(previous, width, norm=norm)]
            stage += [ResidualLayer(width, width, norm=norm) for _ in range(layers - 1)]
            self.stages.append(nn.Sequential(*stage))
        self.map_widths = dict(zip(MAP_STRIDES, widths, strict=True))
        self.embed_size = widths[-1] * (image_size // LATENT_STRIDE) ** 2

    def maps(self, image: Float[Tensor, "N 3 H W"]) -> dict[int, Float[Tensor, "N C h w"]]:
        """Feature maps before each pooling, by stride."""
        x = F.elu(self.stem(image.to(self.stem.weight.dtype)))
        found = {}
        for stride, stage in zip(MAP_STRIDES, self.stages, strict=True):
            x = stage(x if stride == MAP_STRIDES[0] else F.avg_pool2d(x, 2))
            found[stride] = x
        return found

    def forward(self, image: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N E"]:
        """Embed images given as `pixel / 255 - 0.5`."""
        return F.avg_pool2d(self.maps(image)[MAP_STRIDES[-1]], 2).flatten(1)
