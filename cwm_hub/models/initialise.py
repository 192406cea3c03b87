"""How layers begin: Xavier-uniform with zero bias, as the official code (METHOD of arXiv 2305.18499's code)."""

from torch import nn


def xavier_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer with Xavier-uniform weights and zero bias."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def init_xavier(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Xavier-uniform weight and zero bias, the paper's start for top-level layers."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
