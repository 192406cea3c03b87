"""How fast videos become shards, beside what decoding alone costs and beside the paper's way of preparing them.

    python benchmarks/bench_shard.py [--videos 160] [--most-seconds 300] [--json]

The videos are like Something-Something-v2's (VP9 webm, 426x240, 12 fps, 48 frames, about 80 kB): the sample clips scaled
up, with a little sensor noise so that the decoder has real work. One run, one core for the first three:

    decode          PyAV, one thread, every frame decoded and dropped: the limit
    shard           this toolkit: decode, resize to 64x64, encode, tar, hash, fsync, rename, state file
    ffmpeg          the official command for each file: `ffmpeg -i x.webm -vf scale=64:64 %06d.jpg`
    two workers     the supervised engine with two workers against one, wall time (needs two idle cores)

They run in turns until their ratios settle (pairs.py): by CPU seconds for the first three, so that other load moves them
little, and by wall seconds for the workers, which means something only on an idle machine; with few videos that is the time
in which worker processes start (a shard has an eighth of the videos here, and 64 by default).
"""

import argparse
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from benchmarks.pairs import Clock, Pairs, time_pairs, warning
from cwm_hub.shards.storage import Root
from dataprep.sharding import ledger
from dataprep.sharding.plan import ShardConfig, make_plan
from dataprep.sharding.supervisor import RunOptions, run_jobs
from dataprep.sharding.worker import make_jobs, open_file
from dataprep.sources.folder import list_videos

SAMPLES = Path(__file__).parents[1] / "dataprep/samples"
WIDTH, HEIGHT, FPS, FRAMES = 426, 240, 12, 48
DIFFERENT_VIDEOS = 6
AT_LEAST = {"end_to_end_over_decode": 0.5, "over_ffmpeg_cli": 4.0, "two_workers_over_one": 1.8}


def make_videos(folder: Path, count: int) -> None:
    """`count` files, of which `DIFFERENT_VIDEOS` differ."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    originals = []
    for sample in sorted(SAMPLES.glob("hand_*.webm"))[:DIFFERENT_VIDEOS]:
        path = folder / f"original_{len(originals)}.webm"
        encode_like_ssv2(sample, path, noise)
        originals.append(path)
    for number, original in zip(range(count), itertools.cycle(originals), strict=False):
        shutil.copy(original, folder / f"{number}.webm")
    for original in originals:
        original.unlink()


def encode_like_ssv2(sample: Path, target: Path, noise: np.random.Generator) -> None:
    """Scale a sample up, add noise of two grey levels, encode as VP9."""
    with av.open(str(sample)) as source, av.open(str(target), "w") as container:
        stream = container.add_stream(
            "libvpx-vp9", rate=FPS, options={"crf": "24", "b": "0", "cpu-used": "4"}
        )
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number, frame in enumerate(itertools.islice(source.decode(video=0), FRAMES)):
            pixels = frame.reformat(WIDTH, HEIGHT, "rgb24").to_ndarray().astype(np.float32)
            pixels += noise.normal(0, 2, pixels.shape)
            image = av.VideoFrame.from_ndarray(pixels.clip(0, 255).astype(np.uint8), format="rgb24")
            image.pts, image.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))


def decode(videos: Path) -> None:
    """The limit: PyAV with one thread, frames dropped."""
    for path in sorted(videos.iterdir()):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_type, stream.codec_context.thread_count = "NONE", 1
            assert sum(1 for _ in container.decode(stream)) == FRAMES


def shard(videos: Path, workers: int, videos_per_shard: int) -> None:
    """This toolkit, into a fresh directory; 0 workers: in this process."""
    with tempfile.TemporaryDirectory() as folder:
        out = Root.parse(folder)
        plan = make_plan(list_videos(videos), ShardConfig("bench", videos_per_shard=videos_per_shard))
        ledger.begin(out, plan, ledger.Origin())
        run_jobs(make_jobs(plan, plan, root=out, opener=open_file), RunOptions(workers))
        outcome = ledger.finalize(out)
    assert (outcome.videos, outcome.failures) == (plan.videos, 0)


def official(videos: Path) -> None:
    """The official command, one process a file, a JPEG a frame."""
    with tempfile.TemporaryDirectory() as out:
        for path in sorted(videos.iterdir()):
            target = Path(out) / path.stem
            target.mkdir()
            command = [
                "ffmpeg",
                "-loglevel",
                "error",
                "-i",
                str(path),
                "-vf",
                "scale=64:64",
                f"{target}/%06d.jpg",
            ]
            subprocess.run(command, check=True)
            assert len(list(target.iterdir())) == FRAMES


def measure(videos: Path, count: int, most_seconds: float) -> tuple[Pairs, dict[str, tuple[str, str, Clock]]]:
    """The timings, and of each ratio the two ways and the clock; half of the time each for one core and for workers."""
    cores = os.sched_getaffinity(0)
    per_shard = max(1, count // 8)
    one_core = {"decode": lambda: decode(videos), "shard": lambda: shard(videos, 0, count)}
    ratios: dict[str, tuple[str, str, Clock]] = {"end_to_end_over_decode": ("decode", "shard", "cpu")}
    if shutil.which("ffmpeg"):
        one_core["ffmpeg"] = lambda: official(videos)
        ratios["over_ffmpeg_cli"] = ("ffmpeg", "shard", "cpu")
    else:
        print("over_ffmpeg_cli is not measured: there is no ffmpeg here")
    os.sched_setaffinity(0, {min(cores)})
    pairs = _time(one_core, ratios, most_seconds / 2)
    os.sched_setaffinity(0, cores)
    if len(cores) > 1:
        workers = {
            "1 worker": lambda: shard(videos, 1, per_shard),
            "2 workers": lambda: shard(videos, 2, per_shard),
        }
        of_workers: dict[str, tuple[str, str, Clock]] = {
            "two_workers_over_one": ("1 worker", "2 workers", "wall")
        }
        pairs.timings |= _time(workers, of_workers, most_seconds / 2).timings
        ratios |= of_workers
    else:
        print("two_workers_over_one is not measured: there is one core")
    return pairs, ratios


def _time(
    ways: dict[str, Callable[[], None]], ratios: dict[str, tuple[str, str, Clock]], most_seconds: float
) -> Pairs:
    compared = {(name, over): clock for name, over, clock in ratios.values()}
    return time_pairs(ways, compared=compared, most_seconds=most_seconds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=160)
    parser.add_argument(
        "--most-seconds", type=float, default=300.0, help="bound of the measurement (default 300)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        videos = Path(folder) / "videos"
        make_videos(videos, args.videos)
        size = sum(path.stat().st_size for path in videos.iterdir()) / args.videos
        print(
            f"{args.videos} videos of {FRAMES} frames, {size / 1000:.0f} kB each; load {os.getloadavg()[0]:.1f}"
        )
        pairs, ratios = measure(videos, args.videos, args.most_seconds)
    for name, seconds in pairs.seconds().items():
        rate = (
            args.videos
            * FRAMES
            / (seconds["wall"] if "worker" in name else seconds["user"] + seconds["system"])
        )
        print(
            f"{name:10s} wall {seconds['wall']:7.3f} s, user {seconds['user']:7.3f} s, system {seconds['system']:6.3f} s"
            f"  {rate:7.0f} frames/s"
        )
    result: dict[str, object] = dict.fromkeys(AT_LEAST)
    for name, names in ratios.items():
        ratio = pairs.ratio(*names)
        result |= {name: ratio.median, f"{name}_interval": [ratio.low, ratio.high]}
        print(f"{name:24s} {ratio} (at least {AT_LEAST[name]:g})")
        if said := warning(name, ratio):
            print(said)
    if args.json:
        print(json.dumps(result | {"seconds": pairs.seconds()}))


if __name__ == "__main__":
    main()
