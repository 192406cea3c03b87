"""Listing, planning, resuming and finalising the whole of Something-Something-v2 without its videos.

    python benchmarks/bench_plan.py [--videos 220847] [--json]

A synthetic data set with SSv2's names, sizes and lengths: label files and (empty, sparse) webm files are made once, then
each size is measured in a fresh process from listing to finished index: list, plan, record the plan, look for unfinished
shards, write every shard's state file as its worker would, look again (a resume that finds nothing to do), finalise. The
decoding itself is left out: `bench_shard.py` measures it. Limits: 60 s and 500 MiB for 220,847 videos; linear growth.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cwm_hub.shards.index import ClipRow
from cwm_hub.shards.manifest import ShardRecord
from cwm_hub.shards.storage import Root
from dataprep.official_lists import official_counts
from dataprep.sharding import ledger
from dataprep.sharding.plan import Plan, ShardConfig, ShardTask, make_plan
from dataprep.sharding.worker import ShardState
from dataprep.sources.ssv2 import list_videos

OFFICIAL_COUNTS = official_counts("ssv2")
VIDEOS = sum(OFFICIAL_COUNTS.values())
CLASSES = 174
LIMIT_SECONDS, LIMIT_MIB = 60.0, 500.0


def make_data_set(folder: Path, videos: int) -> None:
    """SSv2's layout with `videos` videos in the official proportions."""
    draw = random.Random(0)
    names = [f"Doing thing number {n} with [something] next to [something else]" for n in range(CLASSES)]
    plain = [name.replace("[", "").replace("]", "") for name in names]
    (folder / "labels").mkdir(parents=True)
    (folder / "videos").mkdir()
    ids = list(range(1, videos + 1))
    draw.shuffle(ids)
    write_json(folder / "labels/labels.json", {name: str(n) for n, name in enumerate(plain)})
    start = 0
    for split, official in OFFICIAL_COUNTS.items():
        stop = start + round(official * videos / VIDEOS)
        entries = [{"id": str(number)} for number in ids[start:stop]]
        if split != "test":
            for entry in entries:
                template = draw.choice(names)
                entry |= {"label": f"doing it with a cup and a {entry['id']}", "template": template}
        write_json(folder / f"labels/{split}.json", entries)
        start = stop
    for number in ids[:start]:
        (folder / f"videos/{number}.webm").touch()


def write_json(path: Path, data: object) -> None:
    """Write json text."""
    path.write_text(json.dumps(data))


def pretend_to_write(root: Root, task: ShardTask, plan: Plan, draw: random.Random) -> None:
    """The state file of a shard, with SSv2's clip lengths, and a sparse tar of the size it names."""
    rows, offset = [], 512
    for source in task.sources:
        frames = min(120, max(25, round(draw.gauss(45, 11))))
        size = frames * 1000
        row = ClipRow(
            key=source.id,
            split=task.split,
            shard=task.file,
            offset=offset,
            size=size,
            num_frames=frames,
            fps=12.0,
            start_frame=0,
            source=source.id,
            source_path=source.source_path,
            source_frames=frames,
            label=source.label,
            label_text=source.label_text,
            width=64,
            height=64,
            codec="h264",
            motion=round(draw.uniform(0, 9), 4),
            luma=round(draw.uniform(20, 200), 4),
        )
        rows.append(row)
        offset += size + 2048
    record = ShardRecord(
        task.file, len(rows), sum(row.num_frames for row in rows), offset, draw.randbytes(32).hex()
    )
    with (root.home / task.file).open("wb") as file:
        file.truncate(offset)
    root.write(task.state_file, ShardState(plan.hash, record, tuple(rows), ()).to_json())


def measure(folder: Path) -> dict[str, float]:
    """Seconds of each part, and the peak memory, of everything but decoding."""
    root = Root.parse(folder / "out")
    seconds: dict[str, float] = {}
    started, started_cpu, cpu = time.perf_counter(), time.process_time(), 0.0

    def lap(name: str) -> None:
        nonlocal started, started_cpu, cpu
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started
        cpu += time.process_time() - started_cpu
        started, started_cpu = time.perf_counter(), time.process_time()

    listing = list_videos(folder / "videos", folder / "labels")
    lap("list")
    plan = make_plan(listing, ShardConfig("ssv2", videos_per_shard=330))
    ledger.begin(root, plan, ledger.Origin())
    lap("plan")
    assert len(ledger.unfinished(root, plan.tasks, plan.hash)) == len(plan.tasks)
    lap("resume")
    draw = random.Random(0)
    (root.home / "data").mkdir()
    for task in plan:
        pretend_to_write(root, task, plan, draw)
    started, started_cpu = time.perf_counter(), time.process_time()  # the workers' part is not counted
    assert ledger.unfinished(root, plan.tasks, plan.hash) == []
    lap("resume")
    ledger.finalize(root)
    lap("finalize")
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**seconds, "total": sum(seconds.values()), "cpu": cpu, "mib": mib}


def in_fresh_process(videos: int) -> dict[str, float]:
    """Make a data set of this size and measure it in another process, so that peaks do not mix."""
    with tempfile.TemporaryDirectory() as folder:
        make_data_set(Path(folder), videos)
        command = [sys.executable, __file__, "--measure", folder]
        result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    parts = "  ".join(
        f"{name} {value:.2f} s" for name, value in result.items() if name not in ("mib", "total")
    )
    print(
        f"{videos:7d} videos: {result['total']:6.2f} s ({result['cpu']:.2f} s of CPU), {result['mib']:.0f} MiB  {parts}",
        flush=True,
    )
    return result


def main() -> None:
    """Measure a tenth and the whole."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=VIDEOS)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure is not None:
        print(json.dumps(measure(args.measure)))
        return
    tenth, whole = in_fresh_process(args.videos // 10), in_fresh_process(args.videos)
    ratio = whole["total"] / tenth["total"]
    print(
        f"{whole['total'] / LIMIT_SECONDS:.2f} of the limit of {LIMIT_SECONDS:.0f} s, {whole['mib'] / LIMIT_MIB:.2f} of {LIMIT_MIB:.0f} MiB"
    )
    print(f"ten times the videos cost {ratio:.1f} times the time")
    if args.json:
        print(
            json.dumps(
                {"seconds_220k": whole["total"], "mib_220k": whole["mib"], "seconds_220k_over_22k": ratio}
            )
        )


if __name__ == "__main__":
    main()
