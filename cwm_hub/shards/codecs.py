"""How the frames of one clip become bytes and come back: h264 (default), JPEG film strip, raw.

Frames are uint8 RGB [T, H, W, 3] on both sides. Encoding is deterministic (one thread, no clock, no state), so a
clip's bytes depend on its frames alone, and a shard is byte-identical whichever worker wrote it. Every payload tells its own frame count and size; the
random windows of the loader pay only for the frames they ask for where the codec allows it:

    h264   about 1 kB a 64-px frame; a window decodes from the key frame before it (at most GOP - 1 frames too many)
    jpeg   one picture, the frames below each other; a window decodes the whole strip
    raw    16-byte header, then the frames; a window is one slice (`raw_byte_range`)
"""

import io
import struct
from fractions import Fraction
from typing import Literal, get_args

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

Codec = Literal["h264", "jpeg", "raw"]
CODECS: tuple[Codec, ...] = get_args(Codec)
EXTENSIONS = {"h264": "mp4", "jpeg": "jpg", "raw": "u8"}
"""The tar member's suffix for each codec."""

H264_OPTIONS = {
    "crf": "12",
    "g": "12",
    "bf": "0",
    "preset": "veryfast",
    "tune": "fastdecode",
    "x264-params": "me=dia:subme=0:partitions=none:8x8dct=0:psy=0:mbtree=0",
}
"""Tuned for decoding, then for short clips: 37.4 dB at 0.93 kB a 64-px frame of the sample clips, where ffmpeg's default
JPEGs have 39.6 dB at 2.4 kB. `mbtree` would save 30 % at 0.6 dB less, and reads memory that nobody wrote where a frame has few
macroblocks: the same clip of 32 px then had one of six byte strings.

The parameters take a quarter off veryfast's time at the same size (0.2 dB less). Two fifths of what remains is x264's
start-up (CAVLC tables): one encoder for all clips of a shard would save a tenth of the sharding time, and make a clip's
bytes depend on its neighbours. CABAC has no such start-up and decodes 1.8 times as slowly.
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


def encode_clip(frames: Frames, codec: str, fps: float) -> bytes:
    """Encode uint8 RGB frames [T, H, W, 3]; the same frames give the same bytes.

    Args:
        frames: at least one frame; h264 needs even height and width (4:2:0).
        codec: one of `CODECS`.
        fps: frames per second, stored by h264 only.

    Raises:
        ShardError: unknown codec, wrong shape or type, or a size that the codec cannot hold.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ShardError(f"a clip is uint8 [T, H, W, 3], got {frames.dtype} {list(frames.shape)}")
    frames = np.ascontiguousarray(frames)
    if codec == "h264":
        return _encode_h264(frames, fps)
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


def decoder(key: str, data: bytes) -> Frames | None:
    """Decode handler of webdataset: `WebDataset(tar).decode(decoder)` gives a clip's frames, uint8 RGB [T, H, W, 3].

    Args:
        key: the member's suffix with its dot, as webdataset calls handlers.
        data: its bytes.

    Returns:
        None for what is no clip, which leaves it to the next handler: json becomes a dictionary by webdataset's own.

    Raises:
        ShardError: the payload is damaged.
    """
    codec = next((codec for codec, suffix in EXTENSIONS.items() if key == f".{suffix}"), None)
    return None if codec is None else decode_clip(data, codec)


def raw_byte_range(height: int, width: int, start: int, stop: int) -> tuple[int, int]:
    """(offset inside a raw payload, byte count) of frames `start` to `stop`: what a loader preads instead of the clip."""
    frame_bytes = height * width * 3
    return RAW_HEADER.size + start * frame_bytes, (stop - start) * frame_bytes


def _slice(frames: Frames, start: int, stop: int | None) -> Frames:
    stop = len(frames) if stop is None else stop
    if not 0 <= start < stop <= len(frames):
        raise ShardError(f"the clip holds {len(frames)} frames, asked for {start} to {stop}")
    return frames[start:stop]


def _encode_h264(frames: Frames, fps: float) -> bytes:
    _, height, width, _ = frames.shape
    if height % 2 or width % 2:
        raise ShardError(f"h264 needs even height and width, got {height}x{width}")
    if not 0 < fps < 1e6:
        raise ShardError(f"h264 needs a positive frame rate, got {fps}")
    rate = Fraction(fps).limit_denominator(1001)
    target = io.BytesIO()
    with av.open(target, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=rate, options=H264_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = 1 / rate
        stream.codec_context.thread_count = 1
        reformatter = VideoReformatter()
        image = np.empty((height, width, 3), np.uint8)
        rgb = av.VideoFrame.from_numpy_buffer(image, format="rgb24")  # a view
        for number, pixels in enumerate(frames):
            image[:] = pixels
            frame = reformatter.reformat(rgb, format="yuv420p", interpolation=_BOX, threads=1)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


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
    height, row = context.height, 3 * context.width
    frames = np.empty((stop - start, height, row), np.uint8)
    ticks = float(1 / (stream.time_base * stream.average_rate))  # of the container's clock, per frame
    if start >= int(H264_OPTIONS["g"]):
        container.seek(round(start * ticks), stream=stream, backward=True)
    reformatter = VideoReformatter()
    wanted = start
    for frame in container.decode(stream):
        if frame.pts is None or round(frame.pts / ticks) < start:
            continue
        rgb = reformatter.reformat(frame, format="rgb24", threads=1)
        # Its plane has padded rows; to_ndarray would copy them twice (7 % of a 64-px window).
        plane = np.frombuffer(rgb.planes[0], np.uint8)  # type: ignore[call-overload]
        frames[wanted - start] = plane.reshape(height, -1)[:, :row]
        wanted += 1
        if wanted == stop:
            return frames.reshape(stop - start, height, -1, 3)
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
