"""What policies carry from step to step, for several episodes at once: rows joined into a batch and taken out again, and kept.

A state is a tensor or an array whose first axis are the rows, a list with an entry a row, None, or a NamedTuple of these; an
entry of a list may also be a generator.
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


def to_plain(state: Any) -> Any:
    """A state as tensors, numbers, strings, dicts and lists, which a checkpoint keeps."""
    if isinstance(state, torch.Generator):
        return state.get_state()
    if isinstance(state, np.random.Generator):
        return state.bit_generator.state
    if isinstance(state, np.ndarray):
        return torch.from_numpy(state.copy())
    if isinstance(state, list | tuple):
        return [to_plain(part) for part in state]
    return state


def from_plain(plain: Any, like: Any) -> Any:
    """The state that `to_plain` kept.

    Args:
        plain: what it gave.
        like: a state of the same policy, as at the start of an episode; its generators are set and handed on.
    """
    if isinstance(like, torch.Generator):
        like.set_state(plain.cpu())
        return like
    if isinstance(like, np.random.Generator):
        like.bit_generator.state = plain
        return like
    if isinstance(like, torch.Tensor):
        return plain.to(like.device)
    if isinstance(like, list | tuple):
        parts = [from_plain(part, of) for part, of in zip(plain, like, strict=True)]
        return parts if isinstance(like, list) else type(like)(*parts)
    return (
        plain.cpu().numpy() if isinstance(plain, torch.Tensor) else plain
    )  # of None, an array that comes later


def row_seeds(seed: int, rows: int) -> list[int]:
    """Seeds of a batch's rows: the first is the seed itself, as of a batch of one; the others are unrelated to it."""
    others = [int(np.random.SeedSequence((seed, row)).generate_state(1)[0]) for row in range(1, rows)]
    return [seed, *others]
