"""How the frames of one clip become bytes and come back: h264 (default), JPEG film strip, raw.

Frames are uint8 RGB [T, H, W, 3] on both sides. Encoding is deterministic (one thread, no clock, no state beyond one
shard's), so a shard is byte-identical whichever worker wrote it. Every payload tells its own frame count and size; the
random windows of the loader pay only for the frames they ask for where the codec allows it:

    h264   about 1 kB a 64-px frame; a window decodes from the key frame before it (at most GOP - 1 frames too many)
    jpeg   one picture, the frames below each other; a window decodes the whole strip
    raw    16-byte header, then the frames; a window is one slice (`raw_byte_range`)
"""

import io
import itertools
import struct
from collections.abc import Iterator
from fractions import Fraction

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.frame import PictureType
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

CODECS = ("h264", "jpeg", "raw")
EXTENSIONS = {"h264": "mp4", "jpeg": "jpg", "raw": "u8"}
"""The tar member's suffix for each codec."""

H264_OPTIONS = {
    "crf": "12",
    "g": "12",
    "bf": "0",
    "preset": "veryfast",
    "tune": "fastdecode",
    "x264-params": "me=dia:subme=0:partitions=none:8x8dct=0:psy=0",
}
"""Tuned for decoding, then for short clips: 37.7 dB at 0.66 kB a 64-px frame of the sample clips, where ffmpeg's default
JPEGs have 39.6 dB at 2.4 kB.

The parameters take a quarter off veryfast's time at the same size (0.2 dB less). Half of what remains is start-up (CAVLC
tables, 2.2 ms), which `H264Encoder` pays once; CABAC, which has none, decodes 1.8 times as slowly.
"""

_BOX = Interpolation.AREA | Interpolation.FULL_CHR_H_INP
"""Colour of four pixels is their mean: nearer to the frames than the default filter, and faster."""

JPEG_QUALITY = 95
JPEG_MAX_HEIGHT = 65_535

RAW_HEADER = struct.Struct("<4sIII")  # magic, T, H, W
_RAW_MAGIC = b"CWM1"

Frames = NDArray[np.uint8]


class ShardError(ValueError):
    """A clip, shard, manifest or index that cannot be written or read as format v1; the message is one sentence."""


def encode_clip(frames: Frames, codec: str, fps: float, *, h264: "H264Encoder | None" = None) -> bytes:
    """Encode uint8 RGB frames [T, H, W, 3]; the same frames give the same bytes, those before them in `h264` included.

    Args:
        frames: at least one frame; h264 needs even height and width (4:2:0).
        codec: one of `CODECS`.
        fps: frames per second, stored by h264 only.
        h264: what encoded the clips before this one; None: there are none.

    Raises:
        ShardError: unknown codec, wrong shape or type, or a size that the codec cannot hold.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ShardError(f"a clip is uint8 [T, H, W, 3], got {frames.dtype} {list(frames.shape)}")
    frames = np.ascontiguousarray(frames)
    if codec == "h264":
        return (h264 or H264Encoder()).encode(frames, fps)
    if codec == "jpeg":
        return _encode_jpeg(frames)
    if codec == "raw":
        return RAW_HEADER.pack(_RAW_MAGIC, *frames.shape[:3]) + frames.tobytes()
    raise ShardError(f"unknown codec {codec!r}, expected one of {', '.join(CODECS)}")


def decode_clip(data: bytes, codec: str, start: int = 0, stop: int | None = None) -> Frames:
    """Decode frames `start` to `stop` (exclusive; None: to the end) as uint8 RGB [n, H, W, 3].

    Raises:
        ShardError: the payload is damaged, or it holds fewer frames than asked for.
    """
    if codec == "h264":
        return _decode_h264(data, start, stop)
    if codec == "jpeg":
        return _slice(_decode_jpeg(data), start, stop)
    if codec == "raw":
        return _slice(_decode_raw(data), start, stop)
    raise ShardError(f"unknown codec {codec!r}, expected one of {', '.join(CODECS)}")


def raw_byte_range(height: int, width: int, start: int, stop: int) -> tuple[int, int]:
    """(offset inside a raw payload, byte count) of frames `start` to `stop`: what a loader preads instead of the clip."""
    frame_bytes = height * width * 3
    return RAW_HEADER.size + start * frame_bytes, (stop - start) * frame_bytes


def _slice(frames: Frames, start: int, stop: int | None) -> Frames:
    stop = len(frames) if stop is None else stop
    if not 0 <= start < stop <= len(frames):
        raise ShardError(f"the clip holds {len(frames)} frames, asked for {start} to {stop}")
    return frames[start:stop]


class H264Encoder:
    """Encodes successive clips with one x264, whose start-up is half of a short clip's time.

    A clip begins with a key frame, so it decodes without the others. But x264's rate control remembers the clips before
    it, so its bytes depend on them, and on nothing else: the same clips in the same order give the same bytes.
    """

    def __init__(self) -> None:
        self._x264: _X264 | None = None

    def encode(self, frames: Frames, fps: float) -> bytes:
        """An mp4 of uint8 RGB frames [T, H, W, 3]; another size or rate than the last clip's starts x264 anew."""
        _, height, width, _ = frames.shape
        if height % 2 or width % 2:
            raise ShardError(f"h264 needs even height and width, got {height}x{width}")
        if not 0 < fps < 1e6:
            raise ShardError(f"h264 needs a positive frame rate, got {fps}")
        form = (height, width, Fraction(fps).limit_denominator(1001))
        if self._x264 is None or self._x264.form != form:
            self._x264 = _X264(*form)
        return self._x264.encode(frames)


class _X264:
    """x264 open for frames of one form."""

    def __init__(self, height: int, width: int, rate: Fraction):
        self.form = (height, width, rate)
        self._sent = 0  # frames, padding included: the clock
        # This file stays empty: its stream is the template of every clip's.
        self._header = av.open(io.BytesIO(), "w", format="mp4")
        self._stream = stream = self._header.add_stream("libx264", rate=rate, options=H264_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = 1 / rate
        stream.codec_context.thread_count = 1
        self._header.start_encoding()
        self._reformatter = VideoReformatter()
        self._image = np.empty((height, width, 3), np.uint8)
        self._rgb = av.VideoFrame.from_numpy_buffer(self._image, format="rgb24")  # a view
        grey = np.full((height * 3 // 2, width), 128, np.uint8)
        self._grey = av.VideoFrame.from_ndarray(grey, format="yuv420p")

    def __del__(self) -> None:
        self._header.close()  # until then a file and its stream hold each other, and x264 its memory

    def encode(self, frames: Frames) -> bytes:
        start = self._sent
        packets = self._packets(frames)
        target = io.BytesIO()
        with av.open(target, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
            stream = container.add_stream_from_template(self._stream)
            for packet in packets:
                assert packet.pts is not None
                packet.pts = packet.dts = packet.pts - start  # equal, for there are no B frames
                packet.stream = stream
                container.mux(packet)
        return target.getvalue()

    def _packets(self, frames: Frames) -> list[av.Packet]:
        """One a frame. x264 looks ahead: grey frames push out the last ones, because a flush would end its stream."""
        start = self._sent
        packets: list[av.Packet] = []
        for index, frame in enumerate(itertools.chain(self._pictures(frames), itertools.repeat(self._grey))):
            if len(packets) == len(frames):
                break
            is_first = index in (0, len(frames))  # of the clip or of the padding: neither refers to the other
            frame.pict_type = PictureType.I if is_first else PictureType.NONE
            frame.pts = self._sent
            self._sent += 1
            packets += [packet for packet in self._stream.encode(frame) if (packet.pts or 0) >= start]
        return packets

    def _pictures(self, frames: Frames) -> Iterator[av.VideoFrame]:
        for image in frames:
            self._image[:] = image
            yield self._reformatter.reformat(self._rgb, format="yuv420p", interpolation=_BOX, threads=1)


def _decode_h264(data: bytes, start: int, stop: int | None) -> Frames:
    try:
        with av.open(io.BytesIO(data), "r", format="mp4") as container:
            stream = container.streams.video[0]
            if not stream.frames:
                raise ShardError("damaged h264 clip: its index is cut off")
            stop = stream.frames if stop is None else stop
            if not 0 <= start < stop <= stream.frames:
                raise ShardError(f"the clip holds {stream.frames} frames, asked for {start} to {stop}")
            return _decode_window(container, stream, start, stop)
    except (av.error.FFmpegError, IndexError) as error:
        raise ShardError(f"damaged h264 clip: {error}") from error


def _decode_window(container: InputContainer, stream: VideoStream, start: int, stop: int) -> Frames:
    if stream.time_base is None or stream.average_rate is None:
        raise ShardError("damaged h264 clip: it has no clock")
    context = stream.codec_context
    context.thread_type, context.thread_count = "NONE", 1
    frames = np.empty((stop - start, context.height, context.width, 3), np.uint8)
    ticks = float(1 / (stream.time_base * stream.average_rate))  # of the container's clock, per frame
    if start >= int(H264_OPTIONS["g"]):
        container.seek(round(start * ticks), stream=stream, backward=True)
    reformatter = VideoReformatter()
    wanted = start
    for frame in container.decode(stream):
        if frame.pts is None or round(frame.pts / ticks) < start:
            continue
        rgb = reformatter.reformat(frame, format="rgb24", threads=1)
        frames[wanted - start] = rgb.to_ndarray()
        wanted += 1
        if wanted == stop:
            return frames
    raise ShardError(f"damaged h264 clip: frame {wanted} is missing")


def _encode_jpeg(frames: Frames) -> bytes:
    count, height, width, _ = frames.shape
    if count * height > JPEG_MAX_HEIGHT:
        raise ShardError(
            f"a JPEG film strip holds at most {JPEG_MAX_HEIGHT} rows, got {count} frames of {height}: use shorter clips"
        )
    strip = Image.fromarray(frames.reshape(count * height, width, 3))
    target = io.BytesIO()
    strip.save(target, "JPEG", quality=JPEG_QUALITY, subsampling=0, comment=f"frame_height={height}")
    return target.getvalue()


def _decode_jpeg(data: bytes) -> Frames:
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as strip:
            name, _, height = bytes(strip.info.get("comment", b"")).decode("ascii", "replace").partition("=")
            pixels = np.asarray(strip.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise ShardError(f"damaged JPEG film strip: {error}") from error
    if name != "frame_height" or not height.isdigit() or int(height) < 1 or pixels.shape[0] % int(height):
        raise ShardError("not a JPEG film strip: its comment does not give the height of a frame")
    return pixels.reshape(-1, int(height), pixels.shape[1], 3)


def _decode_raw(data: bytes) -> Frames:
    if len(data) < RAW_HEADER.size:
        raise ShardError(f"damaged raw clip: {len(data)} bytes are less than a header")
    magic, count, height, width = RAW_HEADER.unpack_from(data)
    expected = RAW_HEADER.size + count * height * width * 3
    if magic != _RAW_MAGIC or len(data) != expected:
        raise ShardError(
            f"damaged raw clip: expected {expected} bytes after its header's sizes, got {len(data)}"
        )
    return np.frombuffer(data, np.uint8, offset=RAW_HEADER.size).reshape(count, height, width, 3)
