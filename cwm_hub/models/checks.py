"""What a person can hand to a model by mistake, refused in one sentence before it becomes an answer that looks right.

Frames as floats or of another size, flags that are numbers, actions too wide, states of another batch: the networks would
take some of these without a word.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cwm_hub.models.rssm import RSSMState

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_frames(frames: Tensor, side: int, *, axes: str = "..., ", what: str = "frames") -> None:
    """Refuses what is not uint8 [*axes, 3, side, side].

    Args:
        frames: as they came.
        side: of the model's images, in pixels.
        axes: names of the axes in front, which must be as many, or "..., " for any.
        what: the argument's name.

    Raises:
        ValueError: says what was expected and what came.
    """
    if not isinstance(frames, Tensor):  # a NumPy array has the right words in its dtype and shape
        raise ValueError(f"{what} must be a torch tensor, got {type(frames).__name__}")
    leading = frames.ndim - 3
    wrong_axes = leading != axes.count(",") if axes != "..., " else leading < 0
    if wrong_axes or frames.dtype != torch.uint8 or frames.shape[-3:] != (3, side, side):
        raise ValueError(
            f"{what} must be uint8 [{axes}3, {side}, {side}], got {frames.dtype} {list(frames.shape)}"
        )


def check_images(image: np.ndarray, side: int) -> None:
    """The same of what an agent acts on, a uint8 array [N, 3, side, side].

    Raises:
        ValueError: says what was expected and what came.
    """
    if not isinstance(image, np.ndarray):
        raise ValueError(f"image must be a NumPy array, got {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 4 or image.shape[1:] != (3, side, side):
        raise ValueError(f"image must be uint8 [N, 3, {side}, {side}], got {image.dtype} {list(image.shape)}")


def check_flags(is_first: Tensor, shape: Sequence[int]) -> None:
    """Refuses what is not bool of this shape.

    Raises:
        ValueError: says what was expected and what came.
    """
    if not isinstance(is_first, Tensor):
        raise ValueError(f"is_first must be a torch tensor, got {type(is_first).__name__}")
    if is_first.dtype != torch.bool or is_first.shape != torch.Size(shape):
        raise ValueError(f"is_first must be bool {list(shape)}, got {is_first.dtype} {list(is_first.shape)}")


def check_action(action: Tensor, size: int, leading: Sequence[int | None]) -> None:
    """Refuses what is not float [*leading, size].

    Args:
        action: as it came.
        size: numbers in an action.
        leading: sizes of the axes in front, None for any.

    Raises:
        ValueError: says what was expected and what came.
    """
    if not isinstance(action, Tensor):
        raise ValueError(f"action must be a torch tensor, got {type(action).__name__}")
    expected = (*leading, size)
    fits = action.ndim == len(expected) and all(
        want in (None, have) for want, have in zip(expected, action.shape, strict=True)
    )
    if action.dtype not in FLOATS or not fits:
        words = ", ".join("T" if want is None else str(want) for want in expected)
        raise ValueError(f"action must be float [{words}], got {action.dtype} {list(action.shape)}")


def check_state(state: RSSMState, batch: int, *, what: str = "frames") -> None:
    """Refuses a state of another batch: sizes of one would be stretched without a word.

    Raises:
        ValueError: says how many states and how many of `what` there are.
    """
    if len(state.deter) != batch:
        raise ValueError(
            f"there are {len(state.deter)} states and {batch} {what}: one state each (state.repeat(n) makes n of each)"
        )
