"""Random numbers for the rows of a batch: of one generator, or of a generator for each row.

With a generator a row, what a row draws does not depend on the batch that it is in.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator] | None
"""One for the whole batch, one for each of its rows, or the device's default."""


def draw(
    kind: Callable[..., Tensor], shape: tuple[int, ...], *, device: torch.device, generator: Generators
) -> Float[Tensor, "..."]:
    """Numbers of a shape whose first axis are the rows.

    Args:
        kind: `torch.rand` or `torch.randn`.
        shape: of all rows together.
        device: of the numbers, and of the generators.
        generator: of each row, of all of them, or none.
    """
    if generator is None or isinstance(generator, torch.Generator):
        return kind(shape, device=device, generator=generator)
    assert len(generator) == shape[0], f"{len(generator)} generators for {shape[0]} rows"
    return torch.stack([kind(shape[1:], device=device, generator=of_row) for of_row in generator])
