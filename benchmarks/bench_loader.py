"""Windows per core-second of the loader: h264 and raw shards, beside one JPEG file per frame (the official reader).

    OMP_NUM_THREADS=1 python benchmarks/bench_loader.py [--json] [--seconds 4] [--size 64] [--keep DIR]
    OMP_NUM_THREADS=1 python benchmarks/bench_loader.py --root SHARDS [--json] [--seconds 4]

The clips of `dataprep/samples` (real hands, people and streets) are decoded to 64 x 64 (`--size`), cut or mirrored to
`--clip-frames` frames (45, about SSv2's mean) and stored three times. The three readers then give the same thing from
the page cache, batches of 16 uniformly drawn windows of 25 frames as uint8, in one process pinned to one core; CPU
seconds of that process are counted, not wall time, so that a busy machine disturbs less. The figure is the median of
five rounds; beside h264's stands what decoding the same windows costs in PyAV alone, which is its limit. Raw windows with logged
rows beside them (seven numbers of an action, a reward, an end) are timed in turns with the same without. The JPEG files are written by Pillow at quality 80; every form's bytes per frame are printed beside it.
With `--root` the figures are those of `cwm-hub bench` on shards of one's own.
"""

import argparse
import io
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

from benchmarks.pairs import Ratio, time_pairs
from cwm_hub.clips import bench
from cwm_hub.clips.bench import windows_per_core_second
from cwm_hub.clips.clip_index import ClipSource
from cwm_hub.clips.loader import ClipLoader
from cwm_hub.shards import codecs
from cwm_hub.shards.arrays import describe_arrays
from cwm_hub.shards.index import INDEX, index_bytes
from cwm_hub.shards.manifest import Manifest, shard_name
from cwm_hub.shards.storage import Root
from cwm_hub.shards.writer import EncodedClip, ShardWriter
from dataprep.decode.frames import DecodeSettings, open_video

SAMPLES = Path(__file__).parents[1] / "dataprep" / "samples"
WINDOW_FRAMES, BATCH_CLIPS, SHARDS = 25, 16, 4
JPEG_QUALITY = 80
LIMITS = {"h264_windows_per_core_second": 300, "raw_windows_per_core_second": 10_000}


def real_clips(count: int, clip_frames: int, size: int) -> list[np.ndarray]:
    """`count` clips of real video [T, size, size, 3]; from the second round through the samples on, shifted in time."""
    settings = DecodeSettings(size=size)
    videos = []
    for path in sorted((*SAMPLES.glob("*.mp4"), *SAMPLES.glob("*.webm"))):
        with open_video(path, settings) as reader:
            videos.append(np.stack(list(reader)))
    clips = []
    for number in range(count):
        video = videos[number % len(videos)]
        there_and_back = np.concatenate([video, video[-2:0:-1]])
        order = np.arange(clip_frames) + 7 * (number // len(videos))
        clips.append(there_and_back[order % len(there_and_back)])
    return clips


def write_shards(root: Path, clips: list[np.ndarray], codec: str, *, logged: bool = False) -> None:
    """The clips in shard format v1; `logged` with rows beside the frames."""
    rows, records, sums = [], [], []
    numbers = np.random.default_rng(0)
    for shard in range(SHARDS):
        name = shard_name("train", shard, SHARDS)
        with ShardWriter(root / name, codec=codec, name=name) as writer:
            for number in range(shard, len(clips), SHARDS):
                clip, key, length = (
                    EncodedClip.encode(clips[number], codec=codec, fps=12),
                    f"clip_{number:04d}",
                    len(clips[number]),
                )
                arrays = {
                    "action": numbers.normal(size=(length, 7)).astype(np.float32),
                    "reward": numbers.normal(size=length).astype(np.float32),
                    "is_terminal": np.zeros(length, np.bool_),
                }
                writer.add(clip, key=key, split="train", source=key, arrays=arrays if logged else None)
        rows += writer.rows
        records.append(writer.record)
        sums.append(writer.sums)
    Root.parse(root).write(INDEX, index_bytes(rows))
    Manifest(
        name="bench",
        codec=codec,
        image_size=clips[0].shape[1],
        splits={"train": tuple(records)},
        config=describe_arrays({"train": sums}, {}),
    ).save(root)


def write_jpeg_files(root: Path, clips: list[np.ndarray]) -> float:
    """One folder per clip, one file per frame; returns the bytes per frame."""
    size = 0
    for number, clip in enumerate(clips):
        folder = root / f"clip_{number:04d}"
        folder.mkdir(parents=True)
        for index, frame in enumerate(clip):
            path = folder / f"{index:05d}.jpg"
            Image.fromarray(frame).save(path, quality=JPEG_QUALITY)
            size += path.stat().st_size
    return size / sum(map(len, clips))


def jpeg_batches(root: Path) -> Iterator[np.ndarray]:
    """Batches read as the official loader does: a video, a window, then every frame's file by itself."""
    videos = [sorted(folder.iterdir()) for folder in sorted(root.iterdir())]
    rng = np.random.default_rng(0)
    while True:
        batch = []
        for _ in range(BATCH_CLIPS):
            files = videos[rng.integers(len(videos))]
            start = rng.integers(len(files) - WINDOW_FRAMES + 1)
            window = []
            for file in files[start : start + WINDOW_FRAMES]:
                with Image.open(file) as image:
                    window.append(np.asarray(image.convert("RGB")))
            batch.append(np.stack(window))
        yield np.stack(batch)


def shard_batches(root: Path, *, with_actions: bool = False) -> Iterator[object]:
    """Batches of our loader in this process."""
    return iter(
        ClipLoader(
            [ClipSource(str(root))],
            batch_clips=BATCH_CLIPS,
            window_frames=WINDOW_FRAMES,
            seed=0,
            with_actions=with_actions,
        )
    )


def actions_over_without(root: Path, *, seconds: float) -> Ratio:
    """Windows a second with what is logged beside them over windows without, in turns, by CPU seconds."""
    plain, logged = shard_batches(root), shard_batches(root, with_actions=True)
    ways = {name: partial(_draw, batches) for name, batches in (("without", plain), ("with", logged))}
    for draw in ways.values():
        draw()
    names = ("without", "with")
    return time_pairs(ways, compared={names: "cpu"}, spread=0.02, most_seconds=10 * seconds).ratio(
        *names, "cpu"
    )


def _draw(batches: Iterator[object]) -> None:
    for _ in range(100):
        next(batches)


def decoded_batches(clips: list[np.ndarray]) -> Iterator[None]:
    """The limit: PyAV decodes as many frames as a window needs from its key frame on, and drops them."""
    data = [codecs.encode_clip(clip, "h264", fps=12) for clip in clips]
    rng = np.random.default_rng(0)
    while True:
        for _ in range(BATCH_CLIPS):
            clip = rng.integers(len(data))
            start = int(rng.integers(len(clips[clip]) - WINDOW_FRAMES + 1))
            gop = int(codecs.H264_OPTIONS["g"])
            with av.open(io.BytesIO(data[clip]), format="mp4") as container:
                stream = container.streams.video[0]
                stream.codec_context.thread_type, stream.codec_context.thread_count = "NONE", 1
                frames = itertools.islice(container.decode(stream), start % gop + WINDOW_FRAMES)
                assert sum(1 for _ in frames) >= WINDOW_FRAMES
        yield None


def measure(folder: Path, *, clips: int, clip_frames: int, size: int, seconds: float) -> dict[str, float]:
    """Write the three forms and time them in one run."""
    frames = real_clips(clips, clip_frames, size)
    figures: dict[str, float] = {}
    for codec in ("h264", "raw"):
        write_shards(folder / codec, frames, codec)
        rate = windows_per_core_second(shard_batches(folder / codec), BATCH_CLIPS, seconds=seconds)
        figures[f"{codec}_windows_per_core_second"] = round(rate, 1)
        if codec == "h264":
            alone = windows_per_core_second(decoded_batches(frames), BATCH_CLIPS, seconds=seconds)
            figures["h264_over_decode"] = round(rate / alone, 3)
            figures["h264_megapixels_per_core_second"] = round(rate * WINDOW_FRAMES * size**2 / 1e6, 1)
        stored = sum(path.stat().st_size for path in (folder / codec / "data").iterdir())
        figures[f"{codec}_bytes_per_frame"] = round(stored / (clips * clip_frames), 1)
    write_shards(folder / "logged", frames, "raw", logged=True)
    ratio = actions_over_without(folder / "logged", seconds=seconds)
    figures["raw_with_actions_over_without"] = round(ratio.median, 3)
    figures["jpeg_files_bytes_per_frame"] = round(write_jpeg_files(folder / "jpeg", frames), 1)
    rate = windows_per_core_second(jpeg_batches(folder / "jpeg"), BATCH_CLIPS, seconds=seconds)
    figures["jpeg_files_windows_per_core_second"] = round(rate, 1)
    return figures


def main() -> None:
    """Measure, print each figure beside its limit, and the JSON object last where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--root", help="shards to measure as `cwm-hub bench` does, instead of the samples")
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="CPU seconds per reader, or of all (default 4)"
    )
    parser.add_argument("--clips", type=int, default=144, help="clips (default 144)")
    parser.add_argument(
        "--size", type=int, default=64, help="side of a frame (default 64, to which the limits belong)"
    )
    parser.add_argument("--clip-frames", type=int, default=45, help="frames of a clip (default 45)")
    parser.add_argument("--keep", type=Path, help="write the data there instead of into a temporary folder")
    options = parser.parse_args()
    if options.root:
        for line in bench.report(
            bench.BenchConfig(root=options.root, seconds=options.seconds), as_json=options.json
        ):
            print(line)
        return
    if options.clip_frames < WINDOW_FRAMES:
        sys.exit(f"a clip needs at least {WINDOW_FRAMES} frames, got {options.clip_frames}")

    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        figures = measure(
            folder,
            clips=options.clips,
            clip_frames=options.clip_frames,
            size=options.size,
            seconds=options.seconds,
        )
    for name in ("h264", "raw", "jpeg_files"):
        key = f"{name}_windows_per_core_second"
        limit = (
            f" (at least {LIMITS[key]})"
            if key in LIMITS and options.size == 64
            else " (one file a frame, for comparison)"
        )
        rate, size = figures[key], figures[f"{name}_bytes_per_frame"]
        print(f"{name:10} {rate:9.1f} windows per core-second{limit}, {size:7.1f} bytes a frame")
    print(
        f"h264: {figures['h264_megapixels_per_core_second']} Mpx a core-second, "
        f"{figures['h264_over_decode']:.2f} of decoding alone"
    )
    print(
        f"raw, with actions: {figures['raw_with_actions_over_without']:.3f} of the windows without (goal 0.9)"
    )
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
