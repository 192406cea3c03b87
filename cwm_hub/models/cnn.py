"""Plain convolutional encoder and decoder of DreamerV2 (arXiv 2010.02193), for the from-scratch baseline.

Axes: N images, C channels, E embedding, F feature. Kernels and widths are DreamerV2's, which fit 64 pixels; for 32 the
innermost layer of both is left out, and no other size fits.
"""

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cwm_hub.models.initialise import init_xavier

CNN_KERNELS = {64: (5, 5, 6, 6), 32: (5, 6, 6)}
"""Side of the images -> kernels of the decoder's layers; the encoder has as many layers."""


class CNNEncoder(nn.Module):
    """4x4 convolutions of stride 2 with widths depth * (1, 2, 4, 8), as many as `CNN_KERNELS` has for the size."""

    def __init__(self, *, depth: int, image_size: int = 64):
        super().__init__()
        widths = (3, *(depth * 2**i for i in range(len(CNN_KERNELS[image_size]))))
        self.layers = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 4, stride=2) for inputs, outputs in pairwise(widths)
        )
        for layer in self.layers:
            init_xavier(layer)  # type: ignore[type-var]
        self.embed_size = widths[-1] * 2 * 2

    def forward(self, image: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N E"]:
        """Embed images given as `pixel / 255 - 0.5`."""
        image = image.to(self.layers[0].weight.dtype)  # type: ignore[arg-type]
        for layer in self.layers:
            image = F.elu(layer(image))
        return image.flatten(1)


class CNNDecoder(nn.Module):
    """A linear layer to as many channels of one pixel as the embedding has, then transposed convolutions of `CNN_KERNELS`."""

    def __init__(self, feature_size: int, *, depth: int, image_size: int = 64):
        super().__init__()
        kernels = CNN_KERNELS[image_size]
        inner = [depth * 2**i for i in range(len(kernels))]
        widths = (4 * inner[-1], *inner[-2::-1], 3)
        self.input = nn.Linear(feature_size, widths[0])
        self.layers = nn.ModuleList(
            nn.ConvTranspose2d(inputs, outputs, kernel, stride=2)
            for inputs, outputs, kernel in zip(widths, widths[1:], kernels, strict=False)
        )
        for layer in (self.input, *self.layers):
            init_xavier(layer)  # type: ignore[arg-type]

    def forward(self, feature: Float[Tensor, "N F"]) -> Float[Tensor, "N 3 H W"]:
        """Image means as `pixel / 255 - 0.5`."""
        x = self.input(feature)[:, :, None, None]
        for layer in self.layers[:-1]:
            x = F.elu(layer(x))
        return self.layers[-1](x)
