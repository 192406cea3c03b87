"""The same unit of work on a Ray cluster: every task supervises one shard on its node, as the local engine does.

So crashes, hangs and quarantine of videos are handled where they happen, with the same counts; Ray only places shards
and, when a whole node or Ray worker is lost, the shard is handed out again. The output must be a path that every node
sees, or an fsspec URL. Ray is the optional extra `cwm-hub[ray]`.
"""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from dataprep.sharding.supervisor import RunOptions, run_jobs
from dataprep.sharding.worker import Beat, ShardJob, remove_leftovers

LOSSES_ALLOWED = 5
"""Times that one shard may be lost with its Ray worker or node before the run ends."""


def run_on_ray(
    jobs: Iterable[ShardJob], options: RunOptions, watch: Callable[[Beat], None] = lambda total: None
) -> None:
    """`engine.run_jobs` with the shards placed by Ray; joins the cluster at `RAY_ADDRESS`, or starts one here.

    Args:
        jobs: shards to write; their opener must be importable, and their root reachable, on every node.
        options: of the supervision on the nodes; a started cluster gets `workers` CPUs, a joined one has its own.
        watch: called with the work of the finished shards.

    Raises:
        ValueError: Ray is not installed.
        OutputError: the output cannot be written.
        ChildProcessError: a shard was lost too often.
    """
    ray = _import_ray()
    if not ray.is_initialized():
        here = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": max(1, options.workers)}
        ray.init(log_to_driver=False, logging_level="warning", **here)
    write = ray.remote(num_cpus=1, max_retries=0)(_write_one)
    pending = deque(jobs)
    running: dict[Any, ShardJob] = {}
    losses: Counter[str] = Counter()
    done = Beat()
    try:
        while pending or running:
            while pending and len(running) < 2 * ray.cluster_resources().get("CPU", 1):
                job = pending.popleft()
                running[write.remote(job, options)] = job
            finished, _ = ray.wait(list(running), timeout=0.5)
            for reference in finished:
                job = running.pop(reference)
                try:
                    done += ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except ray.exceptions.RayError as error:
                    pending.append(job)
                    losses[job.task.file] += 1
                    if losses[job.task.file] > LOSSES_ALLOWED:
                        raise ChildProcessError(
                            f"{job.task.file} was lost {LOSSES_ALLOWED + 1} times: {error}"
                        ) from error
            watch(done)
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _write_one(job: ShardJob, options: RunOptions) -> Beat:
    """On a node: supervise one process that writes one shard."""
    remove_leftovers(job.root, [job.task])
    last = Beat()

    def keep(beat: Beat) -> None:
        nonlocal last
        last = beat

    run_jobs([job], replace(options, workers=1), keep)
    return last


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ValueError("--engine ray needs Ray: pip install 'cwm-hub[ray]'") from error
    return ray
