"""Films as mp4 files that any browser plays, and the film of an agent's episodes."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cwm_hub.agents.rollout import EpisodeRecord, Seen
from cwm_hub.figures.sheet import FAINT, INK, PAPER, enlarged, pixel_scale

FILM_SIDE = 128
"""Side in screen pixels that an episode's frames are brought nearest to."""
GAP = 4
FONT_SIZE = 11
LINE = 14
"""Height in screen pixels of a line of words."""
SOLVED = "#1a7f37"


def write_film(
    path: str | Path,
    episodes: Sequence[tuple[EpisodeRecord, Seen]],
    *,
    title: str,
    frames_per_second: float,
) -> Path:
    """An mp4 of episodes side by side, every pixel a square; one that ended early stays at its last frame.

    Above each are its seed, the return so far, and `success` from the frame on that solved the task. The last frame of all
    stays for half a second.

    Args:
        path: the file, whose folder is made.
        episodes: of one frame size.
        title: above all, such as the task and who plays; broken where it does not fit.
        frames_per_second: of the film.
    """
    side = episodes[0][1].image.shape[-1]
    scale = pixel_scale(side, FILM_SIDE)
    width = len(episodes) * (side * scale + GAP) - GAP
    font = ImageFont.load_default(size=FONT_SIZE)
    lines = list(_broken(title, font, width - 2))
    top = (len(lines) + 2) * LINE + 2
    blank = Image.new("RGB", (width + width % 2, (top + side * scale + 1) // 2 * 2), PAPER)
    draw = ImageDraw.Draw(blank)
    for row, line in enumerate(lines):
        draw.text((1, (row + 0.5) * LINE), line, fill=INK, font=font, anchor="lm")
    for place, (record, _) in enumerate(episodes):
        left = place * (side * scale + GAP) + 1
        draw.text((left, top - 1.5 * LINE - 2), f"seed {record.seed}", fill=FAINT, font=font, anchor="lm")
    pictures = []
    for time in range(max(len(seen.reward) for _, seen in episodes)):
        canvas = blank.copy()
        draw = ImageDraw.Draw(canvas)
        for place, (_, seen) in enumerate(episodes):
            left, now = place * (side * scale + GAP), min(time, len(seen.reward) - 1)
            frame = seen.image[now].transpose(1, 2, 0)
            canvas.paste(Image.fromarray(enlarged(frame, scale)), (left, top))
            middle, right = top - 0.5 * LINE - 2, left + side * scale - 1
            so_far = f"return {seen.reward[: now + 1].sum(dtype=np.float64):.1f}"
            draw.text((left + 1, middle), so_far, fill=INK, font=font, anchor="lm")
            if seen.success[now]:
                draw.text((right, middle), "success", fill=SOLVED, font=font, anchor="rm")
        pictures.append(canvas)
    pictures += [pictures[-1]] * int(frames_per_second / 2)
    return write_mp4(path, pictures, frames_per_second=frames_per_second)


def _broken(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> Iterator[str]:
    """Lines of at most so many screen pixels, broken at spaces, and inside a word that is too long by itself."""
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > width:
            yield line
            longer = word
        while font.getlength(longer) > width:
            fits = max(n for n in range(1, len(longer)) if n == 1 or font.getlength(longer[:n]) <= width)
            yield longer[:fits]
            longer = longer[fits:]
        line = longer
    yield line


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
        # With its tree of macroblocks a film had other bytes each time where a side is no multiple of 16; 24 of 24 were alike without.
        stream.options = {"crf": "16", "preset": "slow", "tune": "animation", "mbtree": "0"}
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    partial.replace(path)
    return path
