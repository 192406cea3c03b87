"""Films as mp4 files that any browser plays, and the film of an agent's episodes."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from cwm_hub.figures.sheet import enlarged, pixel_scale

FILM_SIDE = 128
"""Side in screen pixels that an episode's frames are brought nearest to."""
GAP = 4


def write_film(
    path: str | Path, episodes: Sequence[UInt8[np.ndarray, "_ 3 H W"]], *, frames_per_second: float
) -> Path:
    """An mp4 of episodes side by side, every pixel a square; one that ended early stays at its last frame.

    The last frame of all stays for half a second.
    """
    side = episodes[0].shape[-1]
    scale = pixel_scale(side, FILM_SIDE)
    width, height = len(episodes) * (side * scale + GAP) - GAP, side * scale
    pictures = []
    for time in range(max(map(len, episodes))):
        canvas = Image.new("RGB", (width + width % 2, height + height % 2), "white")
        for place, frames in enumerate(episodes):
            frame = frames[min(time, len(frames) - 1)].transpose(1, 2, 0)
            canvas.paste(Image.fromarray(enlarged(frame, scale)), (place * (side * scale + GAP), 0))
        pictures.append(canvas)
    pictures += [pictures[-1]] * int(frames_per_second / 2)
    return write_mp4(path, pictures, frames_per_second=frames_per_second)


def write_mp4(path: str | Path, pictures: Sequence[Image.Image], *, frames_per_second: float) -> Path:
    """H.264, yuv420p and the index at the front, so that a browser plays it while it loads; whole or not at all.

    Args:
        path: the file, whose folder is made.
        pictures: of one size with even sides.
        frames_per_second: of the film.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part.mp4")
    with av.open(str(partial), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(frames_per_second).limit_denominator(1000))
        stream.width, stream.height = pictures[0].size
        stream.pix_fmt, stream.thread_count = "yuv420p", 1
        stream.options = {"crf": "16", "preset": "slow", "tune": "animation"}
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    partial.replace(path)
    return path
