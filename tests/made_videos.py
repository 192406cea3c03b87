"""Small videos made on the spot, whose frames show their number."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from cwm_hub.shards.codecs import decode_clip
from cwm_hub.shards.index import read_index

FIXTURES = Path(__file__).parent / "fixtures"
CASES = FIXTURES / "videos" / "cases"


def write_video(
    path: Path, frames: np.ndarray, *, fps: int = 12, codec: str = "libx264", times: list[int] | None = None
) -> Path:
    """Encode u8 [T, H, W, 3]; ``times`` are timestamps in milliseconds, for a variable rate."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options={"qp": "0", "lossless": "1"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            if times:
                frame.pts, frame.time_base = times[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


BITS = 6


def counting_frames(count: int, *, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames that show their number, modulo 64, as six black and white bars that survive any codec and size."""
    bits = np.arange(count)[:, None] >> np.arange(BITS) & 1
    bars = np.arange(width) * BITS // width
    return np.broadcast_to((30 + 190 * bits[:, bars])[:, None, :, None], (count, height, width, 3)).astype(
        np.uint8
    )


def read_numbers(frames: Sequence[np.ndarray] | np.ndarray) -> list[int]:
    """Which of :func:`counting_frames` these are."""
    return [
        sum(int(bar.mean() > 125) << bit for bit, bar in enumerate(np.array_split(f, BITS, 1)))
        for f in frames
    ]


def read_clips(root: Path) -> dict[str, np.ndarray]:
    """Every clip of a local set by its key, decoded."""
    return {
        row.key: decode_clip((root / row.shard).read_bytes()[row.offset : row.offset + row.size], row.codec)
        for row in read_index(root)
    }
