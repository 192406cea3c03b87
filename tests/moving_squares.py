"""Tiny shard directories of a square that moves to the right, for recipes that need both splits and labels."""

from pathlib import Path

import numpy as np

from cwm_hub.shards import INDEX, EncodedClip, Manifest, ShardWriter, index_bytes, shard_name
from cwm_hub.storage import write_file


def moving_square(number: int, frames: int = 14) -> np.ndarray:
    video = np.full((frames, 32, 32, 3), 40 + 20 * number, np.uint8)
    for time in range(frames):
        video[time, 8:16, time : time + 8, number % 3] = 250
    return video


def write_clips(root: Path, *, clips: int = 4) -> Path:
    """Train and validation splits of the same number of clips, with two labels."""
    rows, splits = [], {}
    for split in ("train", "validation"):
        file = shard_name(split, 0, 1)
        with ShardWriter(root / file, codec="raw", name=file) as writer:
            for number in range(clips):
                clip = EncodedClip.encode(moving_square(number), codec="raw", fps=10)
                key = f"{split}-{number}"
                writer.add(
                    clip, key=key, split=split, source=key, label=number % 2, label_text=f"class {number % 2}"
                )
        rows += writer.rows
        splits[split] = (writer.record,)
    write_file(root, INDEX, index_bytes(rows))
    Manifest(name=root.name, codec="raw", image_size=32, splits=splits).save(root)
    return root
