"""What the RSSM's scan is made of: the cell that carries the deterministic state, and linear layers with one gradient a scan.

    step     1     2     3   ...  T
    x       x1    x2    x3       xT      y_t = W x_t + b
    dL/dW   = [dL/dy1 ... dL/dyT] [x1 ... xT]^T      one product over all steps, after the last of them

Step by step the same gradient is T outer products as large as the weight, each added to the sum of the others: with few clips
that is most of the memory traffic of a scan (at paper width and 2 clips of 25 frames 0.81 s of CPU time, and 0.38 s like this).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def scan_linear(
    weight: Float[Tensor, "O X"], bias: Float[Tensor, " O"] | None, *, steps: int, rows: int
) -> Callable[[Float[Tensor, "B X"]], Float[Tensor, "B O"]]:
    """`F.linear` for a scan: to be called once a step, `steps` times, on `rows` rows each.

    The plain layer where no gradient is wanted, and under the compiler and torch.func, which cannot follow what one step leaves
    for another. A backward with `create_graph` raises RuntimeError: only torch.func has second derivatives of a scan.
    """
    transformed = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    if torch.is_grad_enabled() and weight.requires_grad and not transformed:
        return _ScanLinear(weight, bias, steps=steps, rows=rows)
    return partial(F.linear, weight=weight, bias=bias)


class _ScanLinear:
    """Steps that build no graph to the weight; what the steps add to, the bias, carries its gradient too."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, steps: int, rows: int):
        self.inputs: list[Tensor] = []
        shape = (steps, rows, weight.shape[0])
        self.biases = iter(_WeightGradient.apply(weight, bias, self.inputs, shape).unbind(0))
        self.weight, device = weight.detach().T, weight.device.type
        if torch.is_autocast_enabled(device) and weight.dtype != torch.float64:  # once, and not at every step
            self.weight = self.weight.to(torch.get_autocast_dtype(device))

    def __call__(self, x: Tensor) -> Tensor:
        self.inputs.append(x.detach())
        y = torch.addmm(next(self.biases), x, self.weight)
        if y.requires_grad:
            y.register_hook(_refuse_second_derivative)
        return y


def _refuse_second_derivative(gradient: Tensor) -> None:
    """The graph does not lead from a step's gradient to the weight: what is differentiated again would lack a part."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            "a scan of the RSSM has no second derivatives by create_graph=True: take them with torch.func"
        )


class _WeightGradient(torch.autograd.Function):
    """Gives every step and row the bias; its gradient is that of the steps' results, from which follow weight's and bias's."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, bias: Tensor | None, inputs: list[Tensor], shape: tuple[int, int, int]
    ) -> Tensor:
        ctx.inputs, ctx.has_bias = inputs, bias is not None
        return weight.new_zeros(shape) if bias is None else bias.expand(shape).contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None, None]:  # type: ignore[override]
        x = torch.stack(ctx.inputs).flatten(0, 1).to(gradient.dtype)
        of_rows = gradient.flatten(0, 1)
        return of_rows.T @ x, of_rows.sum(0) if ctx.has_bias else None, None, None


class GRUCell(nn.Module):
    """GRU cell with one LayerNorm over the three gates and a reset gate inside the candidate's tanh."""

    def __init__(self, inputs: int, deter: int):
        super().__init__()
        self.gates = nn.Linear(inputs + deter, 3 * deter)
        self.norm = nn.LayerNorm(3 * deter, eps=1e-3)

    def forward(
        self,
        inputs: Float[Tensor, "B X"],
        deter: Float[Tensor, "B D"],
        *,
        gates: Callable[[Tensor], Tensor] | None = None,
    ) -> Float[Tensor, "B D"]:
        """One step; the update gate is biased by -1 towards keeping the old state.

        Args:
            inputs: what the step brings.
            deter: the old state.
            gates: `self.gates`, or a scan's own form of it.
        """
        return self.mix((gates or self.gates)(torch.cat([inputs, deter], -1)), deter)

    def mix(self, gates: Float[Tensor, "B G"], deter: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """The new state, from the gates' products and the old one."""
        reset, candidate, update = self.norm(gates).chunk(3, -1)
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        update = torch.sigmoid(update - 1)
        return update * candidate + (1 - update) * deter

    def for_scan(self, *, steps: int, rows: int) -> Callable[[Tensor, Tensor], Tensor]:
        """The cell with the gates' weights as `scan_linear` has them."""
        return partial(self, gates=scan_linear(self.gates.weight, self.gates.bias, steps=steps, rows=rows))
