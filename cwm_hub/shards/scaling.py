"""RGB frames of any size to the size of a set's clips, by the filters that data preparation uses.

Three filters. `area` averages the source pixels under an output pixel, colour with half the detail across.
`bicubic` is FFmpeg's default scaler, bit for bit (the paper's Something-Something-v2 frames). `official` is
bilinear without antialiasing in the fixed-point arithmetic of cv2's default `resize` (the paper's Human3.6M and
YouTube frames): four source pixels decide each output pixel however far the image shrinks.

Axes: H W C are the output's; h w the source's.
"""

from typing import Literal

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation

Resize = Literal["area", "bicubic", "official"]
RESIZES: tuple[Resize, ...] = ("area", "bicubic", "official")

_FFMPEG = {"area": Interpolation.AREA, "bicubic": Interpolation.BICUBIC}
_ONE = 2048  # cv2's fixed point: weights in 1/2048


def center_square(width: int, height: int, aspect: float = 1.0) -> tuple[int, int, int, int]:
    """The largest centred square as (left, top, width, height), for pixels `aspect` times as wide as high.

    >>> center_square(320, 240)
    (40, 0, 240, 240)
    """
    side = min(width * aspect, height)  # in units of a pixel's height
    cut_width, cut_height = max(1, min(width, round(side / aspect))), max(1, min(height, round(side)))
    return (width - cut_width) // 2, (height - cut_height) // 2, cut_width, cut_height


def resize_image(pixels: np.ndarray, size: int, resize: Resize) -> np.ndarray:
    """u8 [h, w, 3] RGB -> u8 [H, W, 3] with H = W = `size`."""
    if resize == "official":
        return bilinear(pixels, size, size)
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    return frame.reformat(size, size, "rgb24", interpolation=_FFMPEG[resize], threads=1).to_ndarray()


def bilinear(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize without antialiasing, u8 [h, w, C] -> u8 [height, width, C], rounded as cv2 does when it shrinks."""
    top, bottom, weight_y = _taps(pixels.shape[0], height)
    left, right, weight_x = _taps(pixels.shape[1], width)
    rows = pixels[np.stack([top, bottom])].astype(np.int32)  # [2, H, w, C]: only the rows that are read
    weight_x = weight_x[:, None]
    mixed = rows[:, :, left] * (_ONE - weight_x) + rows[:, :, right] * weight_x
    weight_y = weight_y[:, None, None]
    upper = ((_ONE - weight_y) * (mixed[0] >> 4)) >> 16
    lower = (weight_y * (mixed[1] >> 4)) >> 16
    return ((upper + lower + 2) >> 2).astype(np.uint8)


def _taps(source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per output pixel: its two source indices and the second one's weight in 1/2048 (pixel centres aligned)."""
    position = (np.arange(target) + 0.5) * (source / target) - 0.5
    first = np.floor(position).astype(np.int64)
    weight = np.rint((position - first).astype(np.float32) * _ONE).astype(np.int32)
    weight[(first < 0) | (first >= source - 1)] = 0
    first = first.clip(0, source - 1)
    return first, np.minimum(first + 1, source - 1), weight
