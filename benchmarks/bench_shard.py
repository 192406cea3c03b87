"""How fast videos become shards, beside what decoding alone costs and beside the paper's way of preparing them.

    python benchmarks/bench_shard.py [--videos 160] [--repeats 3] [--json]

The videos are like Something-Something-v2's (VP9 webm, 426x240, 12 fps, 48 frames, about 80 kB): the sample clips scaled
up, with a little sensor noise so that the decoder has real work. One run, one core for the first three:

    decode          PyAV, one thread, every frame decoded and dropped: the limit
    shard           this toolkit: decode, resize to 64x64, encode, tar, hash, fsync, rename, state file
    ffmpeg          the official command for each file: `ffmpeg -i x.webm -vf scale=64:64 %06d.jpg`
    two workers     the supervised engine with two workers against one, wall time (needs two idle cores)

The first three are CPU seconds of the process and its children, best of the repeats, taken in turn; so other load on the
machine moves them little. The last is wall time, and means something only on an idle machine; with few videos it is the time
in which worker processes start (a shard has an eighth of the videos here, and 64 by default).
"""

import argparse
import itertools
import json
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

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


def cpu_seconds(work: Callable[[], None]) -> float:
    """CPU seconds of this process and the children it waited for."""

    def now() -> float:
        usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    before = now()
    work()
    return now() - before


def wall_seconds(work: Callable[[], None]) -> float:
    """Wall seconds."""
    before = time.perf_counter()
    work()
    return time.perf_counter() - before


def measure(videos: Path, count: int, repeats: int) -> dict[str, float]:
    """Best of `repeats` for each way, taken in turn: CPU seconds of the first three, wall seconds of the workers."""
    cores = os.sched_getaffinity(0)
    one_core = {
        "decode": lambda: decode(videos),
        "shard": lambda: shard(videos, 0, count),
        **({"ffmpeg": lambda: official(videos)} if shutil.which("ffmpeg") else {}),
    }
    per_shard = max(1, count // 8)
    all_cores = {f"{n} workers": lambda n=n: shard(videos, n, per_shard) for n in (1, 2) if n <= len(cores)}
    best: dict[str, float] = {}
    for _ in range(repeats):
        os.sched_setaffinity(0, {min(cores)})
        for name, work in one_core.items():
            best[name] = min(best.get(name, np.inf), cpu_seconds(work))
        os.sched_setaffinity(0, cores)
        for name, work in all_cores.items():
            best[name] = min(best.get(name, np.inf), wall_seconds(work))
    return best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=160)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        videos = Path(folder) / "videos"
        make_videos(videos, args.videos)
        size = sum(path.stat().st_size for path in videos.iterdir()) / args.videos
        print(
            f"{args.videos} videos of {FRAMES} frames, {size / 1000:.0f} kB each; load {os.getloadavg()[0]:.1f}"
        )
        best = measure(videos, args.videos, args.repeats)
    for name, seconds in best.items():
        print(f"{name:10s} {seconds:7.3f} s  {args.videos * FRAMES / seconds:7.0f} frames/s")
    ratios = {
        "end_to_end_over_decode": best["decode"] / best["shard"],
        "over_ffmpeg_cli": best["ffmpeg"] / best["shard"] if "ffmpeg" in best else None,
        "two_workers_over_one": best["1 workers"] / best["2 workers"] if "2 workers" in best else None,
    }
    for name, ratio in ratios.items():
        told = "not measured here" if ratio is None else f"{ratio:.2f} (at least {AT_LEAST[name]:g})"
        print(f"{name:24s} {told}")
    if args.json:
        print(json.dumps(ratios))


if __name__ == "__main__":
    main()
