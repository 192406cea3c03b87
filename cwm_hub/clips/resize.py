"""Frames of one's own, such as an environment draws them, to what a shard's clip of them would hold before the codec."""

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from cwm_hub.shards.scaling import RESIZES, Resize, resize_image

FramesT = TypeVar("FramesT", np.ndarray, Tensor)


def resize(frames: FramesT, size: int, *, resize: Resize = "area") -> FramesT:
    """Square frames by a filter of data preparation; `area` is its default, and squashes what is not square as it does.

    Equal to the last bit to what `cwm-dataprep` does with pictures, and with RGB video that it shrinks.

    Args:
        frames: uint8 RGB, an array [..., h, w, 3] or a tensor [..., 3, h, w], each as its library has pictures.
        size: height and width that come out, pixels.
        resize: `area`, `bicubic` or `official`, as the shards were made (`resize` in the config of their manifest).

    Returns:
        The same kind, [..., size, size, 3] or [..., 3, size, size], where it was.

    Raises:
        ValueError: frames of another type or shape, no size, or no such filter.
    """
    if resize not in RESIZES:
        raise ValueError(f"resize is one of {', '.join(RESIZES)}, got {resize!r}")
    if size < 1:
        raise ValueError(f"size is at least 1, got {size}")
    if isinstance(frames, Tensor):
        _check(frames.dtype == torch.uint8, frames, "[..., 3, h, w]", channels=-3)
        return (
            torch.from_numpy(_resized(frames.movedim(-3, -1).cpu().numpy(), size, resize))
            .movedim(-1, -3)
            .to(frames.device)
        )
    if not isinstance(frames, np.ndarray):
        raise ValueError(f"frames must be a NumPy array or a torch tensor, got {type(frames).__name__}")
    _check(frames.dtype == np.uint8, frames, "[..., h, w, 3]", channels=-1)
    return _resized(frames, size, resize)


def _resized(frames: np.ndarray, size: int, resize: Resize) -> np.ndarray:
    """uint8 [..., h, w, 3] -> [..., size, size, 3]."""
    target = np.empty((*frames.shape[:-3], size, size, 3), np.uint8)
    for pixels, place in zip(
        frames.reshape(-1, *frames.shape[-3:]), target.reshape(-1, size, size, 3), strict=True
    ):
        place[:] = resize_image(pixels, size, resize)
    return target


def _check(is_bytes: bool, frames: np.ndarray | Tensor, expected: str, *, channels: int) -> None:
    shape = list(frames.shape)
    if not is_bytes or len(shape) < 3 or shape[channels] != 3 or 0 in shape[-3:]:
        raise ValueError(f"frames must be uint8 {expected}, got {frames.dtype} {shape}")
