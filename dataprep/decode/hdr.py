"""High dynamic range to the ordinary kind, at output size: PQ or HLG with BT.2020 primaries -> 8-bit BT.709.

A fixed, simple rendering, good enough to learn from and never silently wrong: luminance up to three quarters of
reference white (203 cd/m2, ITU-R BT.2408) is kept, what is brighter is bent towards white by a smooth shoulder.
"""

from __future__ import annotations

import numpy as np

PQ, HLG = 16, 18
HDR_TRANSFERS = (PQ, HLG)
"""Transfer characteristics of ITU-T H.273 that are HDR."""

WHITE_NITS = 203.0
KNEE = 0.75
BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
BT709_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)


def to_sdr(pixels: np.ndarray, transfer: int) -> np.ndarray:
    """u16 [H, W, 3] full-range R'G'B' with `transfer` (`PQ` or `HLG`) -> u8 [H, W, 3]."""
    signal = pixels.astype(np.float32) / 65535.0
    light = (_pq_light if transfer == PQ else _hlg_light)(signal) @ BT2020_TO_BT709.T
    luma = np.maximum(light @ BT709_LUMA, 1e-6)[..., None]
    shoulder = 1 - (1 - KNEE) * np.exp(-np.maximum(luma - KNEE, 0) / (1 - KNEE))
    toned = np.where(luma > KNEE, shoulder, luma)
    light = np.clip(light * (toned / luma), 0, 1)
    encoded = np.where(light < 0.018, 4.5 * light, 1.099 * np.maximum(light, 1e-6) ** 0.45 - 0.099)
    return np.rint(255 * encoded.clip(0, 1)).astype(np.uint8)


def _pq_light(signal: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084: linear light, 1 = reference white."""
    power = signal ** (1 / 78.84375)
    light = np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)
    return light ** (1 / 0.1593017578125) * (10000.0 / WHITE_NITS)


def _hlg_light(signal: np.ndarray) -> np.ndarray:
    """ITU-R BT.2100 HLG for a 1000 cd/m2 display (system gamma 1.2), 1 = reference white."""
    scene = np.where(
        signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12
    )
    luma = np.maximum(scene @ np.array([0.2627, 0.6780, 0.0593], np.float32), 1e-6)[..., None]
    return scene * luma**0.2 * (1000.0 / WHITE_NITS)
