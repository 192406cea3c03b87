"""`--dry-run`: what a run would write and how long it would take, from really sharding a few of its videos."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest

from cwm_hub.shards.storage import Root
from dataprep.sharding.plan import Plan, ShardTask, SourceVideo
from dataprep.sharding.supervisor import RunOptions, run_jobs
from dataprep.sharding.worker import Beat, Opener, make_jobs

PROBE_VIDEOS = 20


@dataclass(frozen=True)
class Estimate:
    """Extrapolated from the probe by the bytes of the source videos (by their number where sizes are unknown)."""

    probed: int
    """Videos really sharded."""
    failed: int
    """Of these, without a clip."""
    frames: float
    bytes: float
    """Of the clips, tar headers aside."""
    worker_seconds: float
    """Divide by the number of workers for the time of the run."""


def estimate(plan: Plan, opener: Opener, *, timeout_seconds: float, few_files: bool = False) -> Estimate:
    """Shard up to `PROBE_VIDEOS` videos into a temporary folder.

    They are taken in turn from all shards; with `few_files` from as few as possible, because each may have to be
    fetched and counted for the first of its videos.
    """
    videos = [source for task in plan for source in task.sources]
    by_task = [task.sources for task in plan]
    in_turn = chain.from_iterable(by_task if few_files else zip_longest(*by_task))
    probe = tuple(islice((source for source in in_turn if source is not None), PROBE_VIDEOS))
    task = ShardTask(probe[0].split, 0, 1, probe)
    seen = [(time.monotonic(), Beat())]
    with tempfile.TemporaryDirectory(prefix="cwm-dataprep-") as root:
        jobs = make_jobs([task], plan, root=Root.parse(root), opener=opener)
        options = RunOptions(workers=1, timeout_seconds=timeout_seconds)
        run_jobs(jobs, options, lambda beat: seen.append((time.monotonic(), beat)))
    # the worker's start must not be multiplied: where there is more than one video, count from the first one's end
    start, before = next((mark for mark in seen if 0 < mark[1].videos < len(probe)), seen[0])
    seconds = seen[-1][0] - start
    done = seen[-1][1]
    sized = all(source.bytes for source in videos)
    scale = _weight(videos, sized) / _weight(probe, sized)
    timed = _weight(videos, sized) / _weight(probe[before.videos :], sized)
    return Estimate(len(probe), done.failures, done.frames * scale, done.bytes * scale, seconds * timed)


def _weight(sources: Sequence[SourceVideo], sized: bool) -> int:
    return sum(source.bytes for source in sources) if sized else len(sources)
