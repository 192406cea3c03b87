"""CPU seconds to shard a LeRobot set, and the same mp4 files as a plain folder, in turns.

    python benchmarks/bench_lerobot.py [--episodes 120] [--files 2] [--size 256] [--codec h264] [--most-seconds 300]

The set is of format v3.0 as LeRobot's own writer lays it out: one camera at 10 a second, GOP 2, crf 30, many episodes one
after another in a file, seven numbers of an action. The episodes are stretches of 60 to 140 frames of the sample clips, there
and back, with a little sensor noise so that the decoder has real work. All ways run in this process, which has loaded everything
before. `lerobot` writes a clip an episode, `folder` what it does by itself: clips of 256 frames that overlap by 24. Fewer clips
(each has an encoder) and more frames; beside it stand `once`, the same without overlap, and `alike`, clips of 100 frames without
overlap, about as many as there are episodes.
"""

import argparse
import contextlib
import io
import json
import shutil
import tempfile
from functools import partial
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.pairs import Clock, Pairs, time_pairs, warning
from dataprep.__main__ import main as dataprep
from dataprep.decode.frames import DecodeSettings, open_video

SAMPLES = Path(__file__).parents[1] / "dataprep/samples"
KEY, FPS = "observation.images.front", 10
WAYS = {
    "lerobot": ("lerobot",),
    "folder": ("folder",),
    "once": ("folder", "--overlap-frames", "0"),
    "alike": ("folder", "--overlap-frames", "0", "--max-clip-frames", "100"),
}
SPREAD = 0.02
ENCODERS = {
    "h264": ("libx264", {"g": "2", "crf": "30", "preset": "veryfast"}),
    "av1": ("libsvtav1", {"g": "2", "crf": "30", "preset": "12"}),
}


def write_set(root: Path, *, episodes: int, files: int, size: int, codec: str) -> int:
    """The set; returns its frames."""
    draw, rows, logs, total = np.random.default_rng(0), [], [], 0
    samples = sorted((*SAMPLES.glob("*.mp4"), *SAMPLES.glob("*.webm")))
    encoder, options = ENCODERS[codec]
    for file, mine in enumerate(np.array_split(np.arange(episodes), files)):
        path = root / f"videos/{KEY}/chunk-000/file-{file:03d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream, start = container.add_stream(encoder, rate=FPS, options=options), 0
            stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
            for episode in mine.tolist():
                with open_video(samples[episode % len(samples)], DecodeSettings(size=size)) as reader:
                    video = np.stack(list(reader))
                length = int(draw.integers(60, 141))
                for number in np.resize(np.r_[: len(video), len(video) - 2 : 0 : -1], length):
                    noisy = video[number] + draw.normal(0, 2, (size, size, 1)).astype(np.float32)
                    frame = av.VideoFrame.from_ndarray(noisy.clip(0, 255).astype(np.uint8), format="rgb24")
                    container.mux(stream.encode(frame))
                stop, place = start + length, {"chunk_index": 0, "file_index": file}
                place |= {"from_timestamp": start / FPS, "to_timestamp": stop / FPS}
                row = {"episode_index": episode, "length": length, "tasks": ["push"]}
                row |= {"data/chunk_index": 0, "data/file_index": 0}
                rows.append(row | {f"videos/{KEY}/{name}": value for name, value in place.items()})
                logs += [(episode, frame) for frame in range(length)]
                start, total = stop, total + length
            container.mux(stream.encode())
    action = pa.FixedSizeListArray.from_arrays(pa.array(draw.normal(size=7 * total).astype(np.float32)), 7)
    numbers = {name: [one[i] for one in logs] for i, name in enumerate(("episode_index", "frame_index"))}
    for name, table in (
        ("meta/episodes", pa.Table.from_pylist(rows)),
        ("data", pa.table(numbers | {"action": action})),
    ):
        (root / name / "chunk-000").mkdir(parents=True)
        pq.write_table(table, root / name / "chunk-000/file-000.parquet")
    features = {
        KEY: {"dtype": "video", "shape": [size, size, 3]},
        "action": {"dtype": "float32", "shape": [7]},
    }
    info = {"codebase_version": "v3.0", "fps": FPS, "features": features}
    (root / "meta/info.json").write_text(json.dumps(info))
    return total


def shard(place: Path, out: Path, *words: str) -> None:
    """Shard a set in this process, without a word."""
    shutil.rmtree(out, ignore_errors=True)
    fixed = ["--workers", "0", "--validation-share", "0", "--out", str(out)]
    with contextlib.redirect_stderr(io.StringIO()) as told:
        assert dataprep([words[0], str(place), *words[1:], *fixed]) == 0, told.getvalue()


def main() -> None:
    """Make the set, time the ways in turns, print the ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--episodes", type=int, default=120)
    parser.add_argument("--files", type=int, default=2)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--codec", choices=ENCODERS, default="h264")
    parser.add_argument("--most-seconds", type=float, default=300)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        robot, plain, out = (Path(folder, name) for name in ("robot", "plain", "out"))
        kind = {"episodes": args.episodes, "files": args.files, "size": args.size, "codec": args.codec}
        frames = write_set(robot, **kind)
        plain.mkdir()
        for path in robot.rglob("*.mp4"):
            shutil.copy(path, plain)
        pairs = time_ways(robot, plain, out, most_seconds=args.most_seconds)
    print(f"{args.episodes} episodes, {frames:,} frames of {args.size} pixels, {args.codec}")
    for name in WAYS:
        print(f"{name:<8}{frames / pairs.median(name, 'cpu'):>8.0f} frames of the videos a CPU second")
    for over in [name for name in WAYS if name != "lerobot"]:
        ratio = pairs.ratio("lerobot", over, "cpu")
        print(f"CPU seconds of lerobot over {over}: {ratio}")
        told = warning("this ratio", ratio, spread=SPREAD)
        print(told or "", end="\n" if told else "")


def time_ways(robot: Path, plain: Path, out: Path, *, most_seconds: float) -> Pairs:
    """All ways in turns, each tried once before."""
    places = {name: robot if name == "lerobot" else plain for name in WAYS}
    ways = {name: partial(shard, places[name], out, *words) for name, words in WAYS.items()}
    for way in ways.values():
        way()
    compared: dict[tuple[str, str], Clock] = {("lerobot", name): "cpu" for name in WAYS if name != "lerobot"}
    return time_pairs(ways, compared=compared, spread=SPREAD, most_seconds=most_seconds)


if __name__ == "__main__":
    main()
