"""Tiny shard directories whose pixels say which source and which frame they are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cwm_hub.shards.arrays import describe_arrays
from cwm_hub.shards.index import INDEX, index_bytes
from cwm_hub.shards.manifest import Manifest, shard_name
from cwm_hub.shards.storage import Root
from cwm_hub.shards.writer import EncodedClip, ShardWriter

SIZE = 8


def write_data_set(
    root: Path,
    splits: Mapping[str, Sequence[tuple[np.ndarray, Mapping[str, Any]]]],
    *,
    shards: int = 1,
    codec: str = "raw",
    name: str,
) -> Path:
    """Clips of every split, (frames [T, H, W, 3], what `ShardWriter.add` is told of them), dealt out to the shards."""
    rows, records, sums = [], dict.fromkeys(splits, ()), {}
    for split, clips in splits.items():
        for shard in range(shards):
            with ShardWriter(root / shard_name(split, shard, shards), codec=codec) as writer:
                for frames, facts in clips[shard::shards]:
                    writer.add(EncodedClip.encode(frames, codec=codec, fps=10), split=split, **facts)
            rows += writer.rows
            records[split] += (writer.record,)
            sums.setdefault(split, []).append(writer.sums)
    Root.parse(root).write(INDEX, index_bytes(rows))
    config = describe_arrays(sums, {})
    Manifest(name=name, codec=codec, image_size=frames.shape[1], splits=records, config=config).save(root)
    return root


def numbered_frames(source: int, start: int, stop: int, size: int = SIZE) -> np.ndarray:
    """Frames whose red is the source's number, green and blue the frame's number modulo 256 and divided by it."""
    frames = np.empty((stop - start, size, size, 3), np.uint8)
    numbers = np.arange(start, stop)
    frames[..., 0] = source
    frames[..., 1] = (numbers % 256)[:, None, None]
    frames[..., 2] = (numbers // 256)[:, None, None]
    return frames


def logged_rows(source: int, start: int, stop: int, *, rewards: bool = True) -> dict[str, np.ndarray]:
    """Frame t > 0 was reached by action (source + 1, t) with reward t, frame 0 by none; frame 39 is terminal."""
    number = np.arange(start, stop, dtype=np.float32)
    action = np.stack([np.full_like(number, source + 1), number], 1) * (number > 0)[:, None]
    return {"action": action} | ({"reward": number, "is_terminal": number == 39} if rewards else {})


def write_shards(
    root: Path,
    lengths: Sequence[int],
    *,
    shards: int = 2,
    codec: str = "raw",
    pieces: Mapping[int, Sequence[tuple[int, int]]] | None = None,
    size: int = SIZE,
    name: str = "numbered",
    logged: bool = False,
    rewards: bool = True,
) -> Path:
    """One source video per length, cut into `pieces[source]` (start, stop) where given, dealt out to the shards; with
    `logged_rows` beside it."""
    clips = []
    for source, length in enumerate(lengths):
        for start, stop in (pieces or {}).get(source, [(0, length)]):
            facts = {
                "key": f"s{source:03d}_{start:04d}",
                "source": f"s{source:03d}",
                "source_frames": length,
                "start_frame": start,
                "label": source,
            }
            if logged:
                facts["arrays"] = logged_rows(source, start, stop, rewards=rewards)
            clips.append((numbered_frames(source, start, stop, size), facts))
    return write_data_set(root, {"train": clips}, shards=shards, codec=codec, name=name)
