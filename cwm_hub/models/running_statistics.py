"""What a forward pass moves beside the gradients: BatchNorm's running statistics and whatever else is a buffer.

    keep() --> forward, backward --> gradient finite? --no--> take_back(1)

An update that is skipped must leave them alone too: one NaN would stay in them for ever, and evaluation reads them.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class RunningStatistics:
    """The buffers of a model as they were before an update, in one vector for each of their types.

    Args:
        model: a module that stays on its device; moving it gives it other buffers.
    """

    def __init__(self, model: nn.Module):
        dtypes = dict.fromkeys(buffer.dtype for buffer in model.buffers())
        self._groups = [[buffer for buffer in model.buffers() if buffer.dtype == dtype] for dtype in dtypes]
        self._kept: list[Tensor] = []

    def keep(self) -> None:
        """Remember them as they are."""
        self._kept = [_joined(buffers) for buffers in self._groups]

    def take_back(self, bad: Float[Tensor, ""]) -> None:
        """Put them back where `bad` is 1, without asking the host."""
        for buffers, kept in zip(self._groups, self._kept, strict=True):
            right = torch.where(bad > 0, kept, _joined(buffers)).split([buffer.numel() for buffer in buffers])
            torch._foreach_copy_(
                buffers, [part.view_as(buffer) for part, buffer in zip(right, buffers, strict=True)]
            )


def _joined(buffers: list[Tensor]) -> Tensor:
    return torch.cat([buffer.flatten() for buffer in buffers])
