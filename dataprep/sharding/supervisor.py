"""Runs the shards of a plan: one supervised process per running shard, none of them trusted to come back.

    pending --start--> running --state file--> done
                          |  process died, or no sign of life for `timeout_seconds`
                          v
                       the source it was working on is blamed; blamed often enough it is quarantined
                       (a line in failures.jsonl: `crash` or `timeout`) and the shard starts again without it

A pool would not do: ProcessPoolExecutor loses every pending task when FFmpeg takes a worker down, mp.Pool hangs. The
supervisor holds no result: what a shard holds is in its tar and its state file, so killing anything at any time and
running again gives the same bytes.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType

from cwm_hub.config import check_range
from dataprep.sharding.plan import Failure, SourceVideo
from dataprep.sharding.worker import Beat, OutputError, ShardJob, remove_leftovers, write_shard

CRASHES_ALLOWED = 3
"""Deaths of a worker on one source before it is quarantined: a kill from outside must not cost a video."""
TIMEOUTS_ALLOWED = 2
"""Hangs on one source before it is quarantined."""
BLAMELESS_DEATHS_ALLOWED = 5
"""Deaths of a shard's workers while no source was open; one more and the run ends."""

_DONE = "done"


@dataclass(frozen=True)
class RunOptions:
    """How to run, never what to write: nothing here changes a byte of the output."""

    workers: int = 1
    """Shards written at once, one process each; 0 writes them in this process, unsupervised (for profiling)."""
    timeout_seconds: float = 120.0
    """A worker that gives no sign of life for this long is killed."""

    def __post_init__(self) -> None:
        check_range(self, "workers", at_least=0)
        check_range(self, "timeout_seconds", above=0)


def run_jobs(
    jobs: Iterable[ShardJob], options: RunOptions, watch: Callable[[Beat], None] = lambda total: None
) -> None:
    """Write every shard; calls `watch` with the work of this run so far, at least twice a second.

    Raises:
        OutputError: the output cannot be written.
        ChildProcessError: workers die while they work on no source.
    """
    if options.workers == 0:
        _run_here(jobs, watch)
        return
    with tempfile.TemporaryDirectory(prefix="cwm-dataprep-") as logs:
        _Supervisor(jobs, options, Path(logs), watch).run()


def _run_here(jobs: Iterable[ShardJob], watch: Callable[[Beat], None]) -> None:
    done = last = Beat()

    def add(beat: Beat) -> None:
        nonlocal last
        last = beat
        watch(done + beat)

    for job in jobs:
        write_shard(job, add)
        done += last


class _Supervisor:
    """The loop of the module's picture."""

    def __init__(
        self, jobs: Iterable[ShardJob], options: RunOptions, logs: Path, watch: Callable[[Beat], None]
    ) -> None:
        self.pending = deque(jobs)
        self.running: list[_Worker] = []
        self.done = Beat()
        self.options = options
        self.logs = logs
        self.watch = watch
        self.blame: Counter[tuple[str, str]] = Counter()
        """Deaths by (source id or shard file, `crash` or `timeout`)."""

    def run(self) -> None:
        forkserver.set_forkserver_preload(["dataprep.sharding.worker"])
        try:
            while self.pending or self.running:
                while self.pending and len(self.running) < self.options.workers:
                    with _signals_held():
                        self.running.append(_Worker(self.pending.popleft(), self.logs))
                wait([worker.connection for worker in self.running], timeout=0.5)
                for worker in tuple(self.running):
                    self._look_after(worker)
                self.watch(sum((worker.beat for worker in self.running), self.done))
        finally:
            for worker in tuple(self.running):
                self._end(worker)

    def _end(self, worker: "_Worker") -> None:
        worker.kill()
        self.running.remove(worker)
        if worker.said != _DONE:
            remove_leftovers(worker.job.root, [worker.job.task])

    def _look_after(self, worker: "_Worker") -> None:
        worker.listen()
        hung = time.monotonic() - worker.last_sign > self.options.timeout_seconds
        if not worker.ended and not hung:
            return
        self._end(worker)
        if worker.said == _DONE:
            self.done += worker.beat
        elif worker.said:
            raise OutputError(0, worker.said)
        else:
            self.pending.appendleft(self._retry(worker, "timeout" if hung else "crash"))

    def _retry(self, worker: "_Worker", reason: str) -> ShardJob:
        """The same job, without the source that killed or hung its worker too often."""
        source = worker.source
        culprit = worker.job.task.file if source is None else source.id
        self.blame[culprit, reason] += 1
        count = self.blame[culprit, reason]
        detail = (
            worker.last_words()
            if reason == "crash"
            else f"no sign of life for {self.options.timeout_seconds:g} s"
        )
        if source is None:
            if count > BLAMELESS_DEATHS_ALLOWED:
                raise ChildProcessError(
                    f"the worker of {culprit} ended {count} times without being at any video: {detail}"
                )
            return worker.job
        if count < (CRASHES_ALLOWED if reason == "crash" else TIMEOUTS_ALLOWED):
            return worker.job
        failure = Failure(source.source_path, reason, f"{detail}, {count} times")
        return worker.job.without(source, failure)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait: a worker interrupted while it starts has no supervisor and no message to read.

    A signal mask would not do: another thread may take the signal, and its handler still runs in this one.
    """
    if threading.current_thread() is not threading.main_thread():  # where no handler ever runs
        yield
        return
    held: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: held.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if held:
        signal.raise_signal(held[0])


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Keep a new process from running the caller's script again, which it would before its own work."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class _Worker:
    """One process writing one shard, as seen by the supervisor."""

    def __init__(self, job: ShardJob, logs: Path) -> None:
        self.job = job
        self.beat = Beat()
        self.said = ""
        """Empty, `_DONE`, or the sentence of an `OutputError`."""
        self.ended = False
        self.last_sign = time.monotonic()
        self._started = False
        self._log = logs / f"{job.task.split}-{job.task.index}.log"
        context = multiprocessing.get_context("forkserver")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(job, theirs, str(self._log)), daemon=True)
        with _no_main_module() if job.opener.__module__ != "__main__" else contextlib.nullcontext():
            self._process.start()
        theirs.close()

    @property
    def source(self) -> SourceVideo | None:
        """The video being worked on, None before the first and after the last."""
        sources = self.job.task.sources
        return sources[self.beat.videos] if self._started and self.beat.videos < len(sources) else None

    def listen(self) -> None:
        """Take in everything the process has said."""
        try:
            while self.connection.poll():
                message = self.connection.recv()
                self.last_sign = time.monotonic()
                if isinstance(message, Beat):
                    self.beat, self._started = message, True
                else:
                    self.said = message
        except (EOFError, ConnectionError):
            self.ended = True

    def kill(self) -> None:
        """End the process if it has not ended by itself."""
        if not self.ended:
            self._process.kill()
        self._process.join()
        self.connection.close()

    def last_words(self) -> str:
        """Why the process died: the signal, or the last line it wrote."""
        code = self._process.exitcode or 0
        if code < 0:
            return f"the worker died by {signal.Signals(-code).name}"
        lines = self._log.read_text(errors="backslashreplace").splitlines() if self._log.exists() else []
        return f"the worker ended with code {code}: {lines[-1] if lines else 'it left no message'}"


def _work(job: ShardJob, connection: Connection, log: str) -> None:
    """A worker's main function; FFmpeg's chatter and any traceback go to the log file."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the supervisor
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    tempfile.tempdir = str(Path(log).parent)  # what a killed worker leaves goes with the supervisor's folder
    threading.Thread(target=_end_with_parent, args=(connection,), daemon=True).start()
    try:
        write_shard(job, lambda beat: _say(connection, beat))
        _say(connection, _DONE)
    except OutputError as error:
        _say(connection, error.strerror or str(error))


def _say(connection: Connection, message: Beat | str) -> None:
    try:
        connection.send(message)
    except OSError:  # the supervisor is gone; raised, this would be taken for a failure of the video
        os._exit(1)


def _end_with_parent(connection: Connection) -> None:
    """The supervisor never speaks; its end of the pipe closes when it dies."""
    try:
        connection.recv()
    except (EOFError, OSError):
        os._exit(1)
