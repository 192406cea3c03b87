"""What policies carry from step to step, for several episodes at once: rows joined into a batch and taken out again.

A state is a tensor or an array whose first axis are the rows, a list with an entry a row, None, or a NamedTuple of these.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def join(states: Sequence[Any]) -> Any:
    """The rows of several states of one policy, in their order, as one state."""
    first = states[0]
    if len(states) == 1 or first is None:
        return first
    if isinstance(first, torch.Tensor):
        return torch.cat(list(states))
    if isinstance(first, np.ndarray):
        return np.concatenate(states)
    if isinstance(first, list):
        return [row for state in states for row in state]
    return type(first)(*map(join, zip(*states, strict=True)))


def select(state: Any, row: int) -> Any:
    """One row, as a state of one row."""
    if state is None:
        return None
    if isinstance(state, torch.Tensor | np.ndarray | list):
        return state[row : row + 1]
    return type(state)(*(select(part, row) for part in state))


def row_seeds(seed: int, rows: int) -> list[int]:
    """Seeds of a batch's rows: the first is the seed itself, as of a batch of one; the others are unrelated to it."""
    others = [int(np.random.SeedSequence((seed, row)).generate_state(1)[0]) for row in range(1, rows)]
    return [seed, *others]
