"""Plain convolutional encoder and decoder of DreamerV2 (arXiv 2010.02193), for the from-scratch baseline.

Axes: N images of 64 x 64 pixels, C channels, E embedding, F feature. Kernels and widths are DreamerV2's and fit
no other image size.
"""

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cwm_hub.models.initialise import init_xavier

CNN_IMAGE_SIZE = 64


class CNNEncoder(nn.Module):
    """Four 4x4 convolutions of stride 2 with widths depth * (1, 2, 4, 8)."""

    def __init__(self, *, depth: int):
        super().__init__()
        widths = (3, depth, 2 * depth, 4 * depth, 8 * depth)
        self.layers = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 4, stride=2) for inputs, outputs in pairwise(widths)
        )
        for layer in self.layers:
            init_xavier(layer)  # type: ignore[type-var]
        self.embed_size = 8 * depth * 2 * 2

    def forward(self, image: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N E"]:
        """Embed images given as `pixel / 255 - 0.5`."""
        image = image.to(self.layers[0].weight.dtype)  # type: ignore[arg-type]
        for layer in self.layers:
            image = F.elu(layer(image))
        return image.flatten(1)


class CNNDecoder(nn.Module):
    """A linear layer to 32 * depth channels of one pixel, then transposed convolutions of kernels 5, 5, 6, 6."""

    def __init__(self, feature_size: int, *, depth: int):
        super().__init__()
        widths = (32 * depth, 4 * depth, 2 * depth, depth, 3)
        self.input = nn.Linear(feature_size, widths[0])
        self.layers = nn.ModuleList(
            nn.ConvTranspose2d(inputs, outputs, kernel, stride=2)
            for inputs, outputs, kernel in zip(widths, widths[1:], (5, 5, 6, 6), strict=False)
        )
        for layer in (self.input, *self.layers):
            init_xavier(layer)  # type: ignore[arg-type]

    def forward(self, feature: Float[Tensor, "N F"]) -> Float[Tensor, "N 3 H W"]:
        """Image means as `pixel / 255 - 0.5`."""
        x = self.input(feature)[:, :, None, None]
        for layer in self.layers[:-1]:
            x = F.elu(layer(x))
        return self.layers[-1](x)
