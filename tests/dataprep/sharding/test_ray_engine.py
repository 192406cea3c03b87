"""The Ray engine writes what the local one writes, on two nodes, also when a Ray worker is killed under it."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from openers import numbered_listing, raw_config
from test_supervisor import failures_of, fingerprint, make_shards

from dataprep.sharding.ray_engine import run_on_ray


def test_without_ray_it_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"--engine ray needs Ray: pip install 'cwm-hub\[ray\]'"):
        make_shards(tmp_path, numbered_listing(30), run=run_on_ray)


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    paths = os.pathsep.join(str(folder) for folder in Path(__file__).parents[:4])
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": paths}})
    yield
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_two_nodes_write_the_same_bytes(two_nodes: None, tmp_path: Path) -> None:
    listing = numbered_listing(*range(25, 40), "segfault:30", "broken:30")
    make_shards(tmp_path / "ray", listing, run=run_on_ray)
    make_shards(tmp_path / "local", listing)
    assert fingerprint(tmp_path / "ray") == fingerprint(tmp_path / "local")
    assert failures_of(tmp_path / "ray")["videos/15"][0] == "crash"


@pytest.mark.slow
def test_a_killed_ray_worker_costs_nothing(two_nodes: None, tmp_path: Path) -> None:
    listing = numbered_listing(*["slow:200"] * 12)
    killed: list[int] = []
    threading.Thread(target=_kill_a_ray_worker, args=(killed,), daemon=True).start()
    make_shards(tmp_path / "ray", listing, raw_config(videos_per_shard=3), run=run_on_ray)
    assert killed
    make_shards(tmp_path / "local", listing, raw_config(videos_per_shard=3))
    assert fingerprint(tmp_path / "ray") == fingerprint(tmp_path / "local")


def _kill_a_ray_worker(killed: list[int]) -> None:
    """SIGKILL the process of the first shard that is in the midst of being written."""
    while True:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if _writing(process):
                    time.sleep(0.3)
                    if _writing(process):
                        process.kill()
                        killed.append(process.pid)
                        return
        time.sleep(0.05)


def _writing(process: psutil.Process) -> bool:
    return "".join(process.cmdline()).startswith("ray::_write_one")
