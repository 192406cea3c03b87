"""A sweep's runs on a Ray cluster: the processes that it starts on one machine, placed by Ray where their cores are free. No torch.

Every node must see the folder of the sweep, and have this Python and this repository, at the same paths. Ray is the optional
extra `cwm-hub[ray]`.
"""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cwm_hub.provenance import usable_cores
from recipes.run.folder import RecipeError
from recipes.run.world import end_with_parent

POLL_SECONDS = 0.2


class Cluster:
    """The cluster at `RAY_ADDRESS`, or one that is started on this machine.

    Args:
        parallel: runs at once, among which its cores and GPUs are shared; no run is given more than a node has.

    Raises:
        RecipeError: Ray is not installed, or nothing answers at the address.
    """

    def __init__(self, parallel: int) -> None:
        try:
            import ray
        except ImportError as error:
            raise RecipeError("--ray needs Ray: pip install 'cwm-hub[ray]'") from error
        self._ray: Any = ray
        if not ray.is_initialized():
            here = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": usable_cores()}
            try:
                self._ray.init(log_to_driver=False, logging_level="warning", **here)
            except ConnectionError as error:
                raise RecipeError(
                    f"no Ray cluster at RAY_ADDRESS={os.environ.get('RAY_ADDRESS')}: {error}"
                ) from error
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cores, gpus = ([node.get(kind, 0) for node in nodes] for kind in ("CPU", "GPU"))
        self.cores = max(1, int(min(sum(cores) // parallel, max(cores))))
        """Of each run."""
        self.gpus = min(1.0, sum(gpus) / parallel)
        """Of each run; a share of one where there are fewer than runs."""

    def start(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> "RayProcess":
        """Hand a run to Ray, which begins it when its cores are free.

        Args:
            command: of the process.
            log: file to which its words are added.
            environment: variables beside those of the node.
        """
        task = self._ray.remote(num_cpus=self.cores, num_gpus=self.gpus, max_retries=0)(run_here)
        reference = task.remote(list(command), str(log.absolute()), dict(environment), str(Path.cwd()))
        return RayProcess(self._ray, reference, log)


class RayProcess:
    """A run on some node, by the words of `subprocess.Popen`."""

    def __init__(self, ray: Any, reference: Any, log: Path) -> None:
        self._ray, self._reference, self._log = ray, reference, log
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code once it has ended; 1, and a line in its log, where it was lost with its node."""
        if self.returncode is None and self._ray.wait([self._reference], timeout=0)[0]:
            try:
                self.returncode = self._ray.get(self._reference)
            except self._ray.exceptions.TaskCancelledError:  # before it began
                self.returncode = 128 + signal.SIGTERM
            except self._ray.exceptions.RayError as error:
                self.returncode = 1
                with self._log.open("a") as log:
                    log.write(f"lost by Ray: {' '.join(str(error).split())}\n")
        return self.returncode

    def terminate(self) -> None:
        """Ask it to save and end; one that has not begun never does."""
        self._ray.cancel(self._reference)


def run_here(command: list[str], log: str, environment: dict[str, str], folder: str) -> int:
    """On a node: the process, until it ends or the task is cancelled, which Ray tells by a KeyboardInterrupt."""
    with open(log, "ab") as words:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=os.environ | environment,
            preexec_fn=end_with_parent,
        )
    while True:
        try:  # a wait without end would not hear of it
            return process.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        except KeyboardInterrupt:
            process.terminate()
