"""`cwm-dataprep stats`: what a shard directory holds, as text for people or json for programs.

Counts come from manifest and index alone. Colours and near-duplicate first frames need pixels: they are measured on a
seeded sample of source videos (`--sample`; 0 reads no pixels). Quantities are over source videos, not clips, wherever
long videos were cut into pieces.
"""

import argparse
import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cwm_hub.command_line import how_many
from cwm_hub.config import check_range, to_dict
from cwm_hub.shards.codecs import Frames, decode_clip
from cwm_hub.shards.index import ClipRow, read_index
from cwm_hub.shards.manifest import Manifest, read_failures
from cwm_hub.shards.moving import STILL
from cwm_hub.shards.storage import Root
from dataprep.command_line import EXIT_DONE, add_options, positional, read_options
from dataprep.official_lists import OFFICIAL_LISTS
from dataprep.sharding.plan import WINDOW_FRAMES

DUPLICATE_BITS = 3
"""First frames whose 64-bit difference hashes differ in at most this many bits count as near-duplicates."""

QUANTILES = {"min": 0, "p1": 1, "p25": 25, "median": 50, "p75": 75, "p99": 99, "max": 100}


@dataclass(frozen=True)
class StatsOptions:
    """Options of this sub-command."""

    root: str = positional("ROOT")
    """Shard directory or fsspec URL."""
    json: bool = False
    """One json object instead of text."""
    sample: int = 1000
    """Videos whose pixels are read; 0 reads none."""
    seed: int = 0
    """Of that sample."""

    def __post_init__(self) -> None:
        check_range(self, "sample", at_least=0)


EXAMPLES = (
    "cwm-dataprep stats shards/mine",
    "cwm-dataprep stats hf://datasets/owner/clips --json --sample 0",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this sub-command's options."""
    add_options(parser, StatsOptions)


def run(args: argparse.Namespace) -> int:
    """Print the statistics; exit code 0."""
    options = read_options(StatsOptions, args)
    stats = measure(options.root, sample=options.sample, seed=options.seed)
    print(json.dumps(stats, indent=1) if options.json else as_text(stats))
    return EXIT_DONE


def measure(root: str | Path | Root, *, sample: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Every figure as one json object; see the module for what is exact and what is sampled.

    Args:
        root: Local path or fsspec URL.
        sample: Source videos whose first clip is decoded, at most.
        seed: Of their choice.

    Raises:
        ShardError: There is no readable shard directory.
    """
    root = Root.parse(root)
    manifest, rows = Manifest.load(root), read_index(root)
    videos = group_by_source(rows)
    firsts = [clips[0] for clips in videos.values()]
    return {
        "name": manifest.name,
        "manifest_hash": manifest.hash,
        "codec": manifest.codec,
        "image_size": manifest.image_size,
        "licence": manifest.licence,
        "splits": _splits(manifest, videos),
        "official": _official(manifest.name, videos),
        "video_frames": _spread([row.source_frames for row in firsts]),
        "video_seconds": _spread([row.source_frames / row.fps for row in firsts if row.fps > 0]),
        "fps": _counts([f"{row.fps:g}" for row in firsts]),
        "labels": _labels(firsts),
        "motion": _spread([_mean(clips, "motion") for clips in videos.values()]),
        "luma": _spread([_mean(clips, "luma") for clips in videos.values()]),
        "moving": _spread([_mean(clips, "moving") for clips in videos.values()]),
        "still_share": _share([_is_still(_mean(clips, "moving")) for clips in videos.values()]),
        "frozen_share": _share([_mean(clips, "frozen") for clips in videos.values()]),
        "black_share": _share([_mean(clips, "black") for clips in videos.values()]),
        "clips_with_cuts": sum(bool(row.cuts) for row in rows),
        "cameras": _counts([row.camera for row in firsts if row.camera]),
        "arrays": {name: to_dict(facts) for name, facts in manifest.arrays.items()},
        "failures": _counts([failure["reason"] for failure in read_failures(root)]),
        "sample": _sample(root, firsts, sample, seed),
    }


def group_by_source(rows: Sequence[ClipRow]) -> dict[str, list[ClipRow]]:
    """Clips of each source video in the order of time."""
    videos: dict[str, list[ClipRow]] = defaultdict(list)
    for row in rows:
        videos[row.source].append(row)
    for clips in videos.values():
        clips.sort(key=lambda row: row.start_frame)
    return dict(videos)


def _splits(manifest: Manifest, videos: Mapping[str, list[ClipRow]]) -> dict[str, dict[str, Any]]:
    result = {}
    for split, records in manifest.splits.items():
        firsts = [clips[0] for clips in videos.values() if clips[0].split == split]
        result[split] = {
            "videos": len(firsts),
            "frames": sum(row.source_frames for row in firsts),
            "videos_of_25_frames": sum(row.source_frames >= WINDOW_FRAMES for row in firsts),
            "hours": round(sum(row.source_frames / row.fps for row in firsts if row.fps > 0) / 3600, 4),
            "clips": sum(record.samples for record in records),
            "stored_frames": sum(record.frames for record in records),
            "bytes": sum(record.bytes for record in records),
            "shards": len(records),
        }
    return result


def _official(name: str, videos: Mapping[str, list[ClipRow]]) -> dict[str, dict[str, list[int]]]:
    """Ours and the official [videos, frames, videos of 25 frames], split by split."""
    result: dict[str, dict[str, list[int]]] = {}
    for split, official in OFFICIAL_LISTS.get(name, {}).items():
        lengths = [clips[0].source_frames for clips in videos.values() if clips[0].split == split]
        if not lengths and not official.frames:
            continue
        long = sum(length >= WINDOW_FRAMES for length in lengths)
        result[split] = {"ours": [len(lengths), sum(lengths), long], "official": list(official)}
    return result


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, quantiles and a histogram of ten equal bins; nothing where a value was not measured."""
    array = np.asarray(values, np.float64)
    if not values or np.isnan(array).any():
        return {}
    counts, edges = np.histogram(array, bins=10)
    return {
        "mean": round(float(array.mean()), 4),
        **{name: round(float(np.percentile(array, q)), 4) for name, q in QUANTILES.items()},
        "histogram": {"edges": [round(float(edge), 4) for edge in edges], "counts": counts.tolist()},
    }


def _counts(values: Sequence[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _is_still(moving: float) -> float:
    return moving if math.isnan(moving) else float(moving < STILL)


def _share(parts: Sequence[float]) -> float | None:
    """Mean of shares in [0, 1]; None where one of them was not measured."""
    mean = sum(parts) / max(1, len(parts))
    return None if math.isnan(mean) else round(mean, 4)


def _mean(clips: Sequence[ClipRow], column: str) -> float:
    """Mean of a column over a video's clips, each weighted by its frames."""
    return float(
        np.average([getattr(row, column) for row in clips], weights=[row.num_frames for row in clips])
    )


def _labels(firsts: Sequence[ClipRow]) -> dict[str, Any]:
    counts = Counter((row.label, row.label_text) for row in firsts if row.label >= 0)
    by_class = [
        {"label": label, "text": text, "videos": count}
        for (label, text), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    return {"classes": len(counts), "labelled": sum(counts.values()), "by_class": by_class}


def _sample(root: Root, firsts: Sequence[ClipRow], count: int, seed: int) -> dict[str, Any]:
    """What only pixels tell: colour means and first frames that look alike."""
    chosen = random.Random(seed).sample(list(firsts), min(count, len(firsts)))
    if not chosen:
        return {"videos": 0}
    total, squares, pixels = np.zeros(3), np.zeros(3), 0
    pictures = []
    for frames in read_clips(root, chosen):
        values = frames[:: max(1, len(frames) // 8)].reshape(-1, 3).astype(np.float64)
        total, squares, pixels = total + values.sum(0), squares + (values**2).sum(0), pixels + len(values)
        pictures.append(frames[0])
    mean = total / pixels
    groups = near_duplicates(pictures)
    return {
        "videos": len(chosen),
        "rgb_mean": [round(value, 2) for value in mean.tolist()],
        "rgb_std": [round(value, 2) for value in np.sqrt(np.maximum(squares / pixels - mean**2, 0)).tolist()],
        "near_duplicates": {
            "groups": len(groups),
            "videos": sum(map(len, groups)),
            "examples": [[chosen[i].key for i in group[:4]] for group in groups[:5]],
        },
    }


def read_clips(root: Root, rows: Sequence[ClipRow]) -> Iterator[Frames]:
    """The frames u8 [T, H, W, 3] of each clip, read at its place in the tar."""
    for row in rows:
        yield decode_clip(root.read_range(row.shard, row.offset, row.size), row.codec)


def near_duplicates(pictures: Iterable[Frames]) -> list[list[int]]:
    """Groups of at least two indices of pictures u8 [H, W, 3] that look alike, largest first.

    Their difference hashes are linked by steps of at most `DUPLICATE_BITS` bits.
    """
    import imagehash
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    bits = np.array([imagehash.dhash(Image.fromarray(picture)).hash.ravel() for picture in pictures])
    first, second = KDTree(bits).query_pairs(DUPLICATE_BITS, p=1, output_type="ndarray").T
    linked = coo_array((np.ones(len(first)), (first, second)), shape=(len(bits), len(bits)))
    _, number = connected_components(linked, directed=False)
    groups = [np.flatnonzero(number == one).tolist() for one in np.unique(number)]
    return sorted((group for group in groups if len(group) > 1), key=lambda group: (-len(group), group))


def as_text(stats: Mapping[str, Any]) -> str:
    """The figures laid out for a terminal."""
    lines = [
        f"{stats['name']}  {stats['image_size']}x{stats['image_size']} {stats['codec']}, "
        f"manifest {stats['manifest_hash'][:12]}, licence: {stats['licence']}"
    ]
    for split, part in stats["splits"].items():
        lines.append(
            f"{split:<12}{part['videos']:>9,} videos {part['frames']:>12,} frames {part['hours']:>9.2f} h "
            f"{part['bytes'] / 1e6:>10.1f} MB in {part['clips']:,} clips, {part['shards']} shards"
        )
    lines += _official_lines(stats["official"])
    lines += _spread_lines("frames a video", stats["video_frames"])
    lines += _spread_lines("seconds a video", stats["video_seconds"])
    lines += _spread_lines("moving (share of the picture)", stats["moving"])
    lines += _spread_lines("change (0-255 units a frame)", stats["motion"])
    lines += _spread_lines("luma (0-255)", stats["luma"])
    lines += ["", "fps            " + _joined(stats["fps"])]
    lines.append(
        f"standing still {_percent(stats['still_share'])} (less than {STILL:.1%} of the picture moves)"
    )
    lines.append(
        f"frozen         {_percent(stats['frozen_share'])} of the frames, in stretches that repeat one picture"
    )
    lines.append(f"black          {_percent(stats['black_share'])} of the frames")
    lines.append(f"cuts           in {stats['clips_with_cuts']:,} clips; no window crosses one")
    labels = stats["labels"]
    lines.append(
        f"labels         {how_many(labels['classes'], 'class', 'classes')} on {labels['labelled']:,} videos"
    )
    lines += [
        f"  {item['videos']:>9,}  {item['label']:>4}  {item['text']}" for item in labels["by_class"][:10]
    ]
    if stats["cameras"]:
        lines.append("cameras        " + _joined(stats["cameras"]))
    for name, facts in stats["arrays"].items():
        columns = zip(facts["names"], facts["mean"], facts["std"], strict=True)
        told = ", ".join(f"{column} {mean:g} ({std:g})" for column, mean, std in columns)
        lines.append(f"{name:<15}{told}: mean (std) over the training split")
    sample = stats["sample"]
    if sample["videos"]:
        same = sample["near_duplicates"]
        lines.append(
            f"colour         mean {sample['rgb_mean']}, std {sample['rgb_std']} ({sample['videos']} videos)"
        )
        lines.append(
            f"look alike     {same['videos']} of {sample['videos']} first frames, in {same['groups']} groups"
            + "".join(f"\n  {', '.join(group)}" for group in same["examples"])
        )
    lines.append("failures       " + (_joined(stats["failures"]) or "none"))
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "not measured:" if share is None else f"{share:.1%}"


def _joined(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in counts.items())


def _official_lines(official: Mapping[str, Mapping[str, Sequence[int]]]) -> list[str]:
    if not official:
        return []
    lines = ["", f"{'beside the official lists':<28}{'ours':>12}{'official':>12}{'missing':>12}"]
    for split, pair in official.items():
        for what, ours, theirs in zip(
            ("videos", "frames", "videos of 25+ frames"), pair["ours"], pair["official"], strict=True
        ):
            if not theirs:
                continue
            lines.append(f"  {f'{split} {what}':<26}{ours:>12,}{theirs:>12,}{theirs - ours:>12,}")
    return lines


def _spread_lines(title: str, spread: Mapping[str, Any]) -> list[str]:
    if not spread:
        return []
    quantiles = "  ".join(f"{name} {spread[name]:g}" for name in QUANTILES)
    histogram = spread["histogram"]
    top = max(histogram["counts"])
    bars = [
        f"  {low:>10.4g} - {high:<10.4g} {count:>9,} {'#' * round(40 * count / top)}"
        for low, high, count in zip(
            histogram["edges"], histogram["edges"][1:], histogram["counts"], strict=False
        )
    ]
    return ["", f"{title}: mean {spread['mean']:g}  {quantiles}", *bars]
