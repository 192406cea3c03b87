"""A whole life on an object store: `s3://` through s3fs, spoken to a real S3 server on this machine."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer
from made_videos import counting_frames, write_video

from cwm_hub.clips.clip_index import ClipSource
from cwm_hub.clips.loader import ClipLoader
from cwm_hub.clips.retries import FetchConfig
from cwm_hub.shards.index import read_index_table
from cwm_hub.shards.manifest import Manifest
from cwm_hub.shards.storage import Root
from dataprep.__main__ import main
from dataprep.curation.verify import verify

pytestmark = pytest.mark.slow
pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")

ROOT = "s3://bucket/sets/mine"


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    """A bucket on a loopback port, in the environment of this process and its children."""
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield
    server.stop()


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(12):
        write_video(folder / f"{number:02d}.mp4", counting_frames(30 + number))
    return folder


def shard(videos: Path, out: str) -> list[str]:
    small = ["--size", "16", "--videos-per-shard", "2", "--validation-share", "0"]
    return ["folder", str(videos), "--out", out, *small, "--workers", "1"]


@pytest.fixture(scope="module")
def local(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same set on the disk."""
    root = tmp_path_factory.mktemp("local")
    assert main(shard(videos, str(root))) == 0
    return root


@pytest.fixture(scope="module")
def remote(videos: Path) -> str:
    """The set on S3, written by a run that was killed half-way and one that went on."""
    command = shard(videos, ROOT)
    run = subprocess.Popen([sys.executable, "-m", "dataprep", *command], stderr=subprocess.PIPE)
    while not Root.parse(ROOT).files(".state/shards"):
        assert run.poll() is None
        time.sleep(0.02)
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    assert 1 <= len(Root.parse(ROOT).files(".state/shards")) < 6
    # In a process of its own: a fork server that earlier tests started does not know the server's environment.
    subprocess.run([sys.executable, "-m", "dataprep", *command], check=True)
    return ROOT


def test_what_a_killed_and_continued_run_left_is_what_the_disk_has(remote: str, local: Path) -> None:
    assert Manifest.load(remote) == Manifest.load(local)
    assert read_index_table(remote).equals(read_index_table(local))
    for level in ("quick", "index", "full"):
        assert verify(remote, level) == []


def test_finished_work_is_not_done_again(
    remote: str, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(shard(videos, remote)) == 0
    assert "6 of 6 already written" in capsys.readouterr().err
    assert main(["finalize", remote]) == 0
    assert main([*shard(videos, remote), "--stride", "2"]) == 1
    assert "was begun otherwise: --stride was 1, is 2" in capsys.readouterr().err


def test_every_reading_command(
    remote: str, local: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for root in (remote, local):
        assert main(["stats", str(root), "--json"]) == 0
    there, here = capsys.readouterr().out.split("\n}\n{\n")
    assert there.removeprefix("{\n") == here.removesuffix("\n}\n")
    assert main(["preview", remote, "--out", str(tmp_path / "sheet.png")]) == 0
    assert main(["filter", remote, "--where", "num_frames>=36", "--out", str(tmp_path / "long")]) == 0
    assert sum(record.samples for record in Manifest.load(tmp_path / "long").shards) == 6


def test_the_loader_gives_the_windows_of_the_disk(remote: str, local: Path, tmp_path: Path) -> None:
    def first(root: str, workers: int) -> list[bytes]:
        loader = ClipLoader(
            [ClipSource(root, block_shards=0)],
            batch_clips=4,
            window_frames=25,
            seed=0,
            workers=workers,
            fetch=FetchConfig(cache_dir=str(tmp_path)),
        )
        return [batch.video.contiguous().numpy().tobytes() for batch in itertools.islice(loader, 4)]

    assert first(remote, 0) == first(remote, 2) == first(str(local), 0)


def test_a_set_is_published_from_there(remote: str, local: Path, tmp_path: Path) -> None:
    before = Root.parse(remote).files("meta")
    with HubServer() as hub:
        words = ["push", remote, "me/clips", "--i-have-redistribution-rights"]
        done = subprocess.run(
            [sys.executable, "-m", "dataprep", *words],
            env=os.environ | hub.environment(tmp_path, "hf_writer"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        repo = hub.repos["dataset", "me/clips"]
        files = repo.commits[repo.branches["main"]]
    shards = {name: file.content for name, file in files.items() if name.startswith("data/")}
    assert shards == {f"data/{path.name}": path.read_bytes() for path in (local / "data").iterdir()}
    assert {"README.md", "meta/manifest.json", "meta/index.parquet", "meta/preview.jpg"} < files.keys()
    assert Root.parse(remote).files("meta") == before  # nothing is written there


def test_a_server_that_is_not_there_is_one_sentence(
    videos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for command in (["stats", ROOT], shard(videos, ROOT)):
        told = subprocess.run([sys.executable, "-m", "dataprep", *command], capture_output=True, text=True)
        assert told.returncode == 1
        assert told.stderr.startswith("error: ") and told.stderr.count("\n") == 1, told.stderr
        assert "Could not connect to the endpoint" in told.stderr
