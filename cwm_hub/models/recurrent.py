"""Recurrent cells of the RSSM: what carries the deterministic state from one step to the next."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class GRUCell(nn.Module):
    """GRU cell with one LayerNorm over the three gates and a reset gate inside the candidate's tanh."""

    def __init__(self, inputs: int, deter: int):
        super().__init__()
        self.gates = nn.Linear(inputs + deter, 3 * deter)
        self.norm = nn.LayerNorm(3 * deter, eps=1e-3)

    def forward(self, inputs: Float[Tensor, "B X"], deter: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """One step; the update gate is biased by -1 towards keeping the old state."""
        reset, candidate, update = self.norm(self.gates(torch.cat([inputs, deter], -1))).chunk(3, -1)
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        update = torch.sigmoid(update - 1)
        return update * candidate + (1 - update) * deter
