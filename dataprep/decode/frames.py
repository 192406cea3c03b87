"""Decode one video file into small RGB frames, streamed, or say in one word why it cannot be used.

The fast path is PyAV with one filter graph kept for the whole file: crop, scale and convert in one step, never a
full-size RGB array. Everything else in this file is a lesson from damaged or hostile files (what concerns opening them
is in `video_file`):

- one decoding thread: with frame threads a damaged H.264 stream loses its error flags and can deadlock;
- errors are counted packet by packet, and the file is refused above a stated share;
- a truncated WebM ends without an error, so the last timestamp is compared with the promised duration.

When a frame is shown is decided in `timeline`, which way up in `orientation`, what its colours mean in `colour`.

Axes: H W are the output's height and width, both `DecodeSettings.size`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from cwm_hub.shards.scaling import RESIZES
from dataprep.decode.colour import ContainerColour
from dataprep.decode.hdr import HDR_TRANSFERS
from dataprep.decode.orientation import UPRIGHT, Orientation, orientation_of
from dataprep.decode.resize import FITS, Crop, FrameConverter
from dataprep.decode.sample_entry import read_sample_entry
from dataprep.decode.timeline import ShownFrame, Timeline, resample
from dataprep.decode.video_file import REASONS, VideoError, check_regular, open_container, pick_stream

__all__ = ["REASONS", "DecodeSettings", "VideoError", "VideoInfo", "VideoReader", "open_video"]

LARGEST_SIZE = 4096
"""Of an output side, pixels."""


@dataclass(frozen=True)
class DecodeSettings:
    """How a source video becomes frames. The defaults are this project's; the paper's are named per field."""

    size: int = 64
    """Height and width of the output, pixels."""
    resize: Literal["area", "bicubic", "official"] = "area"
    """`area` averages; `bicubic` is the paper's ffmpeg command (Something-Something-v2); `official` is
    bilinear without antialiasing, the paper's cv2 default (Human3.6M, YouTube driving)."""
    fit: Literal["squash", "center-crop"] = "squash"
    """`squash` ignores the aspect ratio, as the paper does; `center-crop` takes the largest centred square."""
    stride: int = 1
    """Keep every n-th frame: those whose index is a multiple of it."""
    skip_head: int = 0
    """Drop this many frames at the start (the paper drops 99 of each driving video)."""
    fps: float | None = None
    """Resample to this rate by timestamps, nearest frame; `None` keeps every frame. Applied before stride."""
    min_frames: int = 25
    """Fewer kept frames than this is `too_short`: one training window of the paper."""
    max_pixels: int = 4096 * 4096
    """Largest source frame, width x height; checked before decoding (0.8 MB of file can ask 768 MB a frame)."""
    max_damaged_share: float = 0.01
    """Largest share of packets that fail or frames flagged corrupt; failed ones are missing from the output."""
    hdr: Literal["convert", "refuse"] = "convert"
    """PQ and HLG video: tone-mapped to SDR, or refused as `hdr_unsupported`. Dolby Vision without a base layer that other
    decoders can show (profile 5) always is."""

    @property
    def fewest_source_frames(self) -> int:
        """A source of fewer surely gives no clip; at another rate it may have more."""
        return self.min_frames if self.fps is None else 1

    def __post_init__(self):
        for name in ("size", "stride", "min_frames", "max_pixels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.size > LARGEST_SIZE:
            raise ValueError(f"size must be at most {LARGEST_SIZE}, got {self.size}")
        if self.skip_head < 0:
            raise ValueError(f"skip_head must not be negative, got {self.skip_head}")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise ValueError(f"fps must be in (0, 1000] or None, got {self.fps}")
        if not 0 <= self.max_damaged_share <= 1:
            raise ValueError(f"max_damaged_share must be in [0, 1], got {self.max_damaged_share}")
        for name, allowed in (("resize", RESIZES), ("fit", FITS), ("hdr", ("convert", "refuse"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class VideoInfo:
    """What the header says, upright: width and height after rotation. None of it is trusted for counting."""

    width: int
    """Pixels, after rotation."""
    height: int
    """Pixels, after rotation."""
    fps: float
    """Mean rate, frames per second, checked against the timestamps; 25 where nothing tells."""
    duration: float
    """Seconds, as promised by the header; 0 where the file does not say."""
    rotation: int
    """Degrees counter-clockwise that bring the first frame upright: 0, 90, 180 or 270."""
    mirrored: bool
    """True where left and right are exchanged before that."""
    container: str
    """FFmpeg's name of the real container, whatever the suffix says."""
    codec: str
    """FFmpeg's name of the codec."""
    hdr: bool
    """True where the transfer function is PQ or HLG."""


def open_video(
    path: str | os.PathLike[str], settings: DecodeSettings, *, crop: Crop | None = None
) -> VideoReader:
    """Open a file for streaming; use the result as a context manager and iterate it once.

    Args:
        path: A local file, judged by its content and never by its suffix.
        settings: Output size, rate and limits.
        crop: Per-frame crop of the upright source frame; replaces `settings.fit`.

    Raises:
        VideoError: The file cannot be used; iteration raises it too, because some damage shows only at the end.
    """
    file = Path(os.path.abspath(path))  # noqa: PTH100  (resolve() would fail on a link loop)
    file_bytes = check_regular(file)
    container = open_container(file)
    try:
        stream = pick_stream(container)
        entry = read_sample_entry(file, track=stream.id, container=container.format.name)
        if entry.dolby_vision_alone:
            raise VideoError(
                "hdr_unsupported", "Dolby Vision that only its own decoders can show (profile 5)"
            )
        colour = ContainerColour.read(stream.codec_context, entry)
        return VideoReader(container, stream, settings, file_bytes=file_bytes, colour=colour, crop=crop)
    except BaseException:
        container.close()
        raise


class VideoReader:
    """Iterates u8 [H, W, 3] RGB frames; holds one decoded frame at a time. Made by `open_video`."""

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        settings: DecodeSettings,
        *,
        file_bytes: int,
        colour: ContainerColour,
        crop: Crop | None,
    ):
        self.settings = settings
        self.source_frames = 0
        """Frames decoded from the source so far; the source's length after exhaustion."""
        self.kept_frames = 0
        """Frames yielded so far."""
        self.damaged = 0
        """Packets that failed to decode plus frames flagged corrupt."""
        self.alive: Callable[[], None] = lambda: None
        """Called for every packet that was decoded, whether its frames are kept or not: the sign of a reader at work."""
        self._container = container
        self._stream = stream
        self._file_bytes = file_bytes
        self._colour = colour
        self._packets = 0
        self._cut_short = False
        self._check_size(stream.codec_context.width, stream.codec_context.height)
        # Nothing but resampling asks for the time, which costs 2 % of decoding.
        self._timeline = Timeline(container, stream, timed=settings.fps is not None)
        self._decoded = self._decode()
        self._first = next(self._decoded, None)  # the frame knows what the header hides: rotation, transfer
        self.info = self._read_info(self._first)
        self._to_pixels = FrameConverter(
            settings.size, resize=settings.resize, fit=settings.fit, aspect=_pixel_aspect(stream), crop=crop
        )
        if self._first is None:
            self._check_end()

    @property
    def output_fps(self) -> float:
        """Rate of the yielded frames, per second."""
        return (self.settings.fps or self.info.fps) / self.settings.stride

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[np.ndarray]:
        first, self._first = self._first, None
        frames = iter(()) if first is None else _prepend(first, self._decoded)
        if self.settings.fps is not None:
            frames = resample(frames, self.settings.fps)
        for index, shown in enumerate(frames):
            if index >= self.settings.skip_head and index % self.settings.stride == 0:
                try:
                    pixels = self._to_pixels(shown.frame, shown.number, shown.orientation)
                except av.error.FFmpegError as error:
                    detail = f"frame {shown.number} cannot be converted: {error.strerror}"
                    raise VideoError("decode_error", detail) from error
                self.kept_frames += 1
                yield pixels
        self._check_end()

    def _decode(self) -> Iterator[ShownFrame]:
        """Packet by packet: one that fails is counted and the next one tried."""
        orientation: Orientation | None = None
        seconds = 0.0
        try:
            for packet in self._timeline.packets():
                self._packets += packet.size > 0
                if packet.size:
                    self._cut_short = packet.is_corrupt  # smaller than it should be: the file ends inside it
                if self._packets == 1 and packet.has_sidedata("encryption_info"):
                    raise VideoError("encrypted", "encrypted (DRM)")
                try:
                    frames = packet.decode()
                except av.error.FFmpegError:
                    self.damaged += 1
                    continue
                self.alive()
                for frame in frames:
                    assert isinstance(frame, VideoFrame)
                    self.damaged += bool(frame.is_corrupt)
                    self._check_size(frame.width, frame.height)
                    self._colour.complete(frame)
                    if self.settings.hdr == "refuse" and frame.color_trc in HDR_TRANSFERS:
                        raise VideoError(
                            "hdr_unsupported",
                            "the transfer function is PQ or HLG; hdr='convert' tone-maps it",
                        )
                    orientation = orientation_of(frame, orientation)
                    if self.settings.fps is not None:
                        seconds = self._timeline.next_frame()
                    yield ShownFrame(self.source_frames, seconds, orientation, frame)
                    self.source_frames += 1
        except (av.error.FFmpegError, IndexError):  # the demuxer gave up, or met a stream it did not announce
            self.damaged += 1
            self._cut_short = True

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self.settings.max_pixels:
            raise VideoError(
                "too_large", f"{width}x{height} is more than {self.settings.max_pixels} pixels a frame"
            )

    def _read_info(self, first: ShownFrame | None) -> VideoInfo:
        codec = self._stream.codec_context
        mirrored, rotation = UPRIGHT if first is None else first.orientation
        width, height = codec.width, codec.height
        if rotation % 180:
            width, height = height, width
        return VideoInfo(
            width=width,
            height=height,
            fps=self._timeline.rate,
            duration=self._timeline.promised,
            rotation=rotation,
            mirrored=mirrored,
            container=self._container.format.name,
            codec=codec.name,
            hdr=first is not None and first.frame.color_trc in HDR_TRANSFERS,
        )

    def _check_end(self) -> None:
        """What only the whole file can tell; the most specific reason first."""
        if self.source_frames == 0:
            if self._timeline.hidden_packets:
                raise VideoError("truncated", "ends before the first frame that its edit list shows")
            promised = f"the index promises {self._stream.frames} frames, none can be read"
            raise VideoError("zero_frames", promised if self._stream.frames else "no frame can be decoded")
        self._timeline.check_whole(
            file_bytes=self._file_bytes, cut_short=self._cut_short, frames=self.source_frames
        )
        share = self.damaged / max(self._packets, self.source_frames)
        if share > self.settings.max_damaged_share:
            detail = f"{self.damaged} of {self._packets} packets damaged, {self.source_frames} frames decoded"
            raise VideoError("decode_error", detail)
        if self.kept_frames < self.settings.min_frames:
            raise VideoError("too_short", f"{self.kept_frames} < {self.settings.min_frames} frames")


def _prepend(first: ShownFrame, rest: Iterator[ShownFrame]) -> Iterator[ShownFrame]:
    yield first
    del first  # or the generator would hold it as long as the video lasts
    yield from rest


def _pixel_aspect(stream: VideoStream) -> float:
    """Width of a pixel over its height; matters only to a centre crop."""
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 0.1 <= aspect <= 10 else 1.0
