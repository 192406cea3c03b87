"""How layers begin: Xavier-uniform with zero bias, as the official code (METHOD of arXiv 2305.18499's code)."""

from typing import TypeVar

from torch import nn

Layer = TypeVar("Layer", bound=nn.Linear | nn.Conv2d | nn.ConvTranspose2d)


def init_xavier(layer: Layer) -> Layer:
    """Xavier-uniform weight and zero bias, the paper's start for top-level layers and heads; the same layer back."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
