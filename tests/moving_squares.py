"""Tiny shard directories of a square that moves to the right, for recipes that need both splits and labels."""

from pathlib import Path

import numpy as np
from synthetic_shards import write_data_set


def moving_square(number: int, frames: int = 14) -> np.ndarray:
    video = np.full((frames, 32, 32, 3), 40 + 20 * number, np.uint8)
    for time in range(frames):
        video[time, 8:16, time : time + 8, number % 3] = 250
    return video


def write_clips(root: Path, *, clips: int = 4) -> Path:
    """Train and validation splits of the same number of clips, with two labels."""

    def square(key: str, number: int) -> tuple[np.ndarray, dict[str, str | int]]:
        facts = {"key": key, "source": key, "label": number % 2, "label_text": f"class {number % 2}"}
        return moving_square(number), facts

    splits = {split: [square(f"{split}-{n}", n) for n in range(clips)] for split in ("train", "validation")}
    return write_data_set(root, splits, name=root.name)
