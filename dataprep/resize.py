"""Bring a frame of any size and pixel format to u8 [H, W, 3] RGB at the output size.

Three filters. ``area`` averages the source pixels under an output pixel. ``bicubic`` is FFmpeg's default scaler,
bit for bit (the paper's Something-Something-v2 frames). ``official`` is bilinear without antialiasing in the
fixed-point arithmetic of cv2's default ``resize`` (the paper's Human3.6M and YouTube frames): four source pixels
decide each output pixel however far the image shrinks.

Axes: H W C are the output's; h w the source's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import av.filter
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from dataprep.hdr import HDR_TRANSFERS, to_sdr

Resize = Literal["area", "bicubic", "official"]
Fit = Literal["squash", "center-crop"]
RESIZES: tuple[Resize, ...] = ("area", "bicubic", "official")
FITS: tuple[Fit, ...] = ("squash", "center-crop")
Crop = Callable[[int, int, int], tuple[int, int, int, int]]
"""``crop(index, width, height) -> (left, top, width, height)`` of upright source frame ``index``, in pixels."""

_FFMPEG = {"area": Interpolation.AREA, "bicubic": Interpolation.BICUBIC}
_ONE = 2048  # cv2's fixed point: weights in 1/2048


class FrameConverter:
    """Decoded frames to output pixels; keeps the scaler whose reuse makes this run at the decoder's speed."""

    def __init__(
        self,
        size: int,
        *,
        resize: Resize = "area",
        fit: Fit = "squash",
        aspect: float = 1.0,
        crop: Crop | None = None,
    ):
        self._size = size
        self._resize = resize
        self._center = fit == "center-crop" and crop is None
        self._aspect = aspect
        self._crop = crop
        self._scaler = VideoReformatter()
        self._cutter: _CenterCutter | None = None

    def __call__(self, frame: VideoFrame, index: int) -> np.ndarray:
        """``frame``, the source's number ``index``, as u8 [H, W, 3]; upright, SDR, full range."""
        if self._crop is None and self._resize != "official":
            if self._center:
                frame = self._cut(frame)
            return np.ascontiguousarray(self._scale(frame, self._size, self._size))
        pixels = self._scale(frame, frame.width, frame.height)
        height, width = pixels.shape[:2]
        if self._crop is not None:
            left, top, cut_width, cut_height = self._crop(index, width, height)
        elif self._center:
            aspect = 1 / self._aspect if frame.rotation % 180 else self._aspect
            left, top, cut_width, cut_height = center_square(width, height, aspect)
        else:
            left, top, cut_width, cut_height = 0, 0, width, height
        return resize_image(pixels[top : top + cut_height, left : left + cut_width], self._size, self._resize)

    def _scale(self, frame: VideoFrame, width: int, height: int) -> np.ndarray:
        """The whole frame at width x height (before rotation), then rotated upright."""
        how = _FFMPEG.get(self._resize, Interpolation.BICUBIC)
        if frame.color_trc in HDR_TRANSFERS:
            wide = self._scaler.reformat(
                frame, width, height, "rgb48le", Colorspace.BT2020, interpolation=how, threads=1
            )
            pixels = to_sdr(wide.to_ndarray(), frame.color_trc)
        else:
            pixels = self._scaler.reformat(
                frame, width, height, "rgb24", interpolation=how, threads=1
            ).to_ndarray()
        return np.rot90(pixels, frame.rotation // 90) if frame.rotation else pixels

    def _cut(self, frame: VideoFrame) -> VideoFrame:
        """The centre square, without copying the frame; a new filter where the frame size changes midstream."""
        if self._cutter is None or not self._cutter.fits(frame):
            self._cutter = _CenterCutter(frame, self._aspect)
        return self._cutter(frame)


class _CenterCutter:
    """FFmpeg's crop filter: moves plane pointers, so that the scaler sees only the square."""

    def __init__(self, frame: VideoFrame, aspect: float):
        self._shape = (frame.width, frame.height, frame.format.name)
        left, top, width, height = center_square(frame.width, frame.height, aspect)
        self._graph = av.filter.Graph()
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        crop = self._graph.add("crop", f"{width}:{height}:{left}:{top}")
        sink = self._graph.add("buffersink")
        source.link_to(crop)
        crop.link_to(sink)
        self._graph.configure()

    def fits(self, frame: VideoFrame) -> bool:
        return self._shape == (frame.width, frame.height, frame.format.name)

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        self._graph.push(frame)
        cut = self._graph.pull()
        assert isinstance(cut, VideoFrame)
        return cut


def center_square(width: int, height: int, aspect: float = 1.0) -> tuple[int, int, int, int]:
    """The largest centred square as (left, top, width, height), for pixels ``aspect`` times as wide as high.

    >>> center_square(320, 240)
    (40, 0, 240, 240)
    """
    side = min(width * aspect, height)  # in units of a pixel's height
    cut_width, cut_height = max(1, min(width, round(side / aspect))), max(1, min(height, round(side)))
    return (width - cut_width) // 2, (height - cut_height) // 2, cut_width, cut_height


def resize_image(pixels: np.ndarray, size: int, resize: Resize) -> np.ndarray:
    """u8 [h, w, 3] RGB -> u8 [H, W, 3] with H = W = ``size``."""
    if resize == "official":
        return bilinear(pixels, size, size)
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    return frame.reformat(size, size, "rgb24", interpolation=_FFMPEG[resize], threads=1).to_ndarray()


def bilinear(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize without antialiasing, u8 [h, w, C] -> u8 [height, width, C], rounded as cv2 rounds."""
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
