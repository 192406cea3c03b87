"""Videos with known shots and known motion, 64x64, made from noise fields and from the real clips of `dataprep/samples`."""

import functools
from pathlib import Path

import numpy as np
from PIL import Image

import dataprep
from dataprep.decode.frames import DecodeSettings, open_video

SIDE = 64
SAMPLES = Path(dataprep.__file__).parent / "samples"


def real(name: str, frames: int | None = None) -> np.ndarray:
    """The first frames of a sample clip."""
    return _decoded(name)[:frames]


@functools.cache
def _decoded(name: str) -> np.ndarray:
    with open_video(SAMPLES / name, DecodeSettings(size=SIDE)) as video:
        return np.stack(list(video))


def scene(seed: int, *, width: int = SIDE, contrast: float = 1.0) -> np.ndarray:
    """A picture [64, width, 3] with large coloured patches and small ones."""
    draw = np.random.default_rng(seed)
    picture = np.zeros((SIDE, width, 3))
    for patches, strength in ((4, 1.0), (12, 0.5), (32, 0.25)):
        coarse = draw.uniform(-1, 1, (patches, max(2, patches * width // SIDE), 3)).astype(np.float32)
        layers = [
            Image.fromarray(coarse[..., c]).resize((width, SIDE), Image.Resampling.BICUBIC) for c in range(3)
        ]
        picture += strength * np.stack([np.asarray(layer) for layer in layers], -1)
    return _bytes(128 + 90 * contrast * picture)


def still(picture: np.ndarray, frames: int) -> np.ndarray:
    """The same picture again and again."""
    return np.repeat(picture[None], frames, 0)


def pan(picture: np.ndarray, frames: int, *, pixels_a_frame: float) -> np.ndarray:
    """A window of 64 columns that moves over a wide picture, there and back, by parts of a pixel."""
    reach = picture.shape[1] - SIDE - 1
    shown = []
    for number in range(frames):
        place = number * pixels_a_frame % (2 * reach)
        place = min(place, 2 * reach - place)
        left, share = int(place), place % 1
        near, next_one = (picture[:, at : at + SIDE].astype(float) for at in (left, left + 1))
        shown.append((1 - share) * near + share * next_one)
    return _bytes(np.stack(shown))


def add_noise(frames: np.ndarray, deviation: float, *, seed: int = 0) -> np.ndarray:
    """Sensor noise of every value on its own, 0-255 units."""
    draw = np.random.default_rng(seed)
    return _bytes(frames + draw.normal(0, deviation, frames.shape).astype(np.float32))


def gain(frames: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Each frame times its own factor."""
    return _bytes(frames * np.asarray(gains, np.float32)[:, None, None, None])


def dissolve(one: np.ndarray, other: np.ndarray, mixed: int) -> tuple[np.ndarray, list[int]]:
    """Two films with so many frames shared, and the numbers of the first mixed frame and of the first one after them."""
    share = (np.arange(1, mixed + 1, dtype=np.float32) / (mixed + 1))[:, None, None, None]
    between = _bytes((1 - share) * one[-mixed:] + share * other[:mixed])
    return np.concatenate([one[:-mixed], between, other[mixed:]]), [len(one) - mixed, len(one)]


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def marked_videos() -> dict[str, tuple[np.ndarray, list[int]]]:
    """Ten videos at 25 frames a second and the numbers of the frames that begin a new shot."""
    wide = [scene(seed, width=4 * SIDE) for seed in range(4)]
    flashes = np.ones(60)
    flashes[[10, 25, 26, 40, 41, 42]] = 4.0
    flicker = 1 + 0.25 * np.sin(2.3 * np.arange(60))
    fade = np.concatenate([np.linspace(1, 0, 20), np.zeros(10), np.linspace(0, 1, 20)])
    table, walk = real("hand_box_0.webm", 40), real("outdoor_0.webm", 30)
    return {
        "three recordings": (np.concatenate([table, walk, real("balance_multi_cam1.mp4", 20)]), [40, 70]),
        "another camera": (
            np.concatenate([real(f"balance_multi_cam{n}.mp4", 25) for n in (1, 2, 4)]),
            [25, 50],
        ),
        "pan to pan": (
            np.concatenate([pan(picture, 30, pixels_a_frame=3) for picture in wide[:3]]),
            [30, 60],
        ),
        "noisy, through black": (
            add_noise(np.concatenate([still(wide[0][:, :SIDE], 30), np.zeros_like(walk[:10]), walk]), 12),
            [30, 40],
        ),
        "pale": (
            np.concatenate([still(scene(seed, contrast=0.15), 12) for seed in range(4)]),
            [12, 24, 36],
        ),
        "flashes": (gain(real("hand_cup_1.webm", 54).repeat(2, 0)[:60], flashes), []),
        "fast pan, every picture twice": (pan(wide[3], 30, pixels_a_frame=14).repeat(2, 0), []),
        "noise": (add_noise(still(scene(7, contrast=0.4), 60), 40), []),
        "flicker": (gain(real("balance_single_cam1.mp4", 60), flicker), []),
        "fade to black and back": (gain(still(wide[1][:, :SIDE], 50), fade), []),
    }


def arm(
    picture: np.ndarray, frames: int, *, fps: float, radians_a_second: float, thickness: float, value: int
) -> np.ndarray:
    """A thin arm of 24 pixels that swings by a third of a turn about a joint below the middle, without jagged edges."""
    fine = 4
    y, x = (np.mgrid[: SIDE * fine, : SIDE * fine] + 0.5) / fine - np.array([44.0, 32.0])[:, None, None]
    shown = []
    for number in range(frames):
        angle = -np.pi / 2 + np.pi / 3 * np.sin(radians_a_second * 3 / np.pi * number / fps)
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        inside = (along >= 0) & (along < 24) & (np.abs(across) < thickness / 2)
        share = inside.reshape(SIDE, fine, SIDE, fine).mean((1, 3))[..., None]
        shown.append((1 - share) * picture + share * value)
    return _bytes(np.stack(shown))
