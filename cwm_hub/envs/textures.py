"""Pictures for skies and floors: made from noise, or the user's own.

The photographs of DMC Remastered (119 skies, 383 floors) come from sites whose terms could not be found, so none is
shipped. What is made here is less like a photograph and has no end: smooth noise over many scales in random colours.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

PICTURES = (".png", ".jpg", ".jpeg")


class MadeTextures:
    """Textures of `side` x `side` texels, each a function of its generator."""

    def __init__(self, side: int):
        self._side = side

    def sky(self, draw: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
        """Clouds: noise whose power falls steeply with frequency, so that large shapes rule, in two colours."""
        return _two_colours(_noise(self._side, draw, slope=draw.uniform(1.2, 2.0)), draw)

    def floor(self, draw: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
        """Stone or tiles: finer noise, in half of the cases cut by the joints of a grid."""
        level = _noise(self._side, draw, slope=draw.uniform(0.5, 1.2))
        if draw.uniform() < 0.5:
            tiles = int(draw.integers(2, 7))
            place = np.arange(self._side) * tiles / self._side % 1
            joint = np.minimum(place, 1 - place) < 0.06
            level = np.where(joint[:, None] | joint[None], draw.uniform(0, 1), level)
        return _two_colours(level, draw)


class PictureTextures:
    """The pictures of `folder/bg` and `folder/floor`, in the order of their names.

    Raises:
        ValueError: one of the two folders holds none.
    """

    def __init__(self, folder: str | Path, side: int):
        self._side = side
        self._skies, self._floors = (_pictures(Path(folder).expanduser() / name) for name in ("bg", "floor"))

    def sky(self, draw: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
        """One of the skies."""
        return self._read(self._skies[draw.integers(len(self._skies))])

    def floor(self, draw: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
        """One of the floors."""
        return self._read(self._floors[draw.integers(len(self._floors))])

    def _read(self, path: Path) -> UInt8[np.ndarray, "H W 3"]:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB").resize((self._side, self._side), Image.Resampling.BOX))


def _pictures(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in PICTURES)
    if not found:
        raise ValueError(f"assets_dir: {folder} holds no picture ({' '.join(PICTURES)})")
    return found


def _noise(side: int, draw: np.random.Generator, *, slope: float) -> Float[np.ndarray, "H W"]:
    """Noise in [0, 1] that tiles, of amplitude frequency^-slope."""
    across, along = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    frequency = np.hypot(across, along) * side
    amplitude = np.where(frequency > 0, np.maximum(frequency, 1.0) ** -slope, 0.0)
    phase = draw.uniform(0, 2 * np.pi, amplitude.shape)
    picture = np.fft.irfft2(amplitude * np.exp(1j * phase), (side, side))
    return (picture - picture.min()) / (picture.max() - picture.min())


def _two_colours(level: Float[np.ndarray, "H W"], draw: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
    dark, light = draw.uniform(0, 1, 3), draw.uniform(0, 1, 3)
    mixed = level[..., None] * light + (1 - level[..., None]) * dark
    return (255 * mixed).round().astype(np.uint8)
