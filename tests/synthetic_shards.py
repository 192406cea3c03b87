"""Tiny shard directories whose pixels say which source and which frame they are."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cwm_hub.shards import INDEX, EncodedClip, Manifest, ShardWriter, index_bytes, shard_name
from cwm_hub.storage import write_file

SIZE = 8


def numbered_frames(source: int, start: int, stop: int, size: int = SIZE) -> np.ndarray:
    """Frames whose red is the source's number, green and blue the frame's number modulo 256 and divided by it."""
    frames = np.empty((stop - start, size, size, 3), np.uint8)
    numbers = np.arange(start, stop)
    frames[..., 0] = source
    frames[..., 1] = (numbers % 256)[:, None, None]
    frames[..., 2] = (numbers // 256)[:, None, None]
    return frames


def write_shards(
    root: Path,
    lengths: Sequence[int],
    *,
    shards: int = 2,
    codec: str = "raw",
    pieces: Mapping[int, Sequence[tuple[int, int]]] | None = None,
    size: int = SIZE,
    split: str = "train",
    name: str = "numbered",
) -> Path:
    """One source video per length, cut into `pieces[source]` (start, stop) where given, dealt out to the shards."""
    clips = [
        (source, start, stop)
        for source, length in enumerate(lengths)
        for start, stop in (pieces or {}).get(source, [(0, length)])
    ]
    rows, records = [], []
    for shard in range(shards):
        file = shard_name(split, shard, shards)
        with ShardWriter(root / file, codec=codec, name=file) as writer:
            for source, start, stop in clips[shard::shards]:
                clip = EncodedClip.encode(numbered_frames(source, start, stop, size), codec=codec, fps=10)
                writer.add(
                    clip,
                    key=f"s{source:03d}_{start:04d}",
                    split=split,
                    source=f"s{source:03d}",
                    source_frames=lengths[source],
                    start_frame=start,
                    label=source,
                )
        rows += writer.rows
        records.append(writer.record)
    write_file(root, INDEX, index_bytes(rows))
    Manifest(name=name, codec=codec, image_size=size, splits={split: tuple(records)}).save(root)
    return root
