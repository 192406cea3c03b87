"""What the figures are drawn on: their style, and a white sheet addressed in pixels.

Frames are copied pixel for pixel, each a square of `scale` screen pixels, so that a 32-pixel model is judged on what
it drew and not on an interpolation.
"""

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure

INK, FAINT, PAPER = "#24292f", "#6e7781", "#ffffff"
SEEN, OPEN_LOOP = "#8c959f", "#bc4c00"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#d8dee4",
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


def png(figure: Figure) -> bytes:
    """A figure as PNG, one canvas pixel to one file pixel."""
    file = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(file, format="png", dpi=figure.dpi, metadata={"Software": None})
    return file.getvalue()


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(figure))
    return path


def pixel_scale(side: int, target: int) -> int:
    """Screen pixels per picture pixel that bring `side` nearest to `target`."""
    return max(1, round(target / side))


def enlarged(frame: UInt8[np.ndarray, "H W 3"], scale: int) -> UInt8[np.ndarray, "h w 3"]:
    """Every pixel a square of `scale`."""
    return np.ascontiguousarray(frame.repeat(scale, 0).repeat(scale, 1))


class Sheet:
    """A white canvas addressed in pixels from the top left corner."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._canvas = np.full((height, width, 3), 255, np.uint8)
        self._figure = Figure(figsize=(width / 100, height / 100), dpi=100)

    def picture(self, frame: UInt8[np.ndarray, "H W 3"], left: int, top: int, scale: int) -> None:
        """Copy a frame, every pixel `scale` wide and high."""
        pixels = enlarged(frame, scale)
        self._canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels

    def bar(self, left: int, top: int, width: int, height: int, colour: str) -> None:
        """Fill a rectangle."""
        rgb = np.array(mpl.colors.to_rgb(colour)) * 255
        self._canvas[top : top + height, left : left + width] = rgb

    def words(
        self, text: str, left: int, top: int, *, size: float = 8.5, colour: str = INK, align: str = "left"
    ) -> None:
        """Write text whose vertical middle is at `top`."""
        with mpl.rc_context(STYLE):
            x, y = left / self.width, 1 - top / self.height
            self._figure.text(x, y, text, size=size, color=colour, ha=align, va="center")

    def mark(self, left: int, top: int, text: str) -> None:
        """A small ring with a number, readable on any picture."""
        box = {"boxstyle": "circle,pad=0.15", "fc": "#ffffffcc", "ec": INK, "lw": 0.8}
        self._figure.text(
            left / self.width, 1 - top / self.height, text, size=6.5, ha="center", va="center", bbox=box
        )

    def figure(self) -> Figure:
        """The sheet as a figure."""
        self._figure.figimage(self._canvas, 0, 0, origin="upper", zorder=-1)
        return self._figure
