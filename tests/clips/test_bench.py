"""`bench`: the figures it promises, from a disk and from a web server, and the limit that they point to."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from flaky_server import FlakyServer
from synthetic_shards import write_shards

from cwm_hub.cli import main
from cwm_hub.clips.bench import find_limit, windows_per_core_second

LENGTHS = (30, 40, 50, 60)


@pytest.fixture(params=["h264", "raw"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_shards(tmp_path / "set", LENGTHS, codec=request.param, size=16)


def bench(root: object, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[str, dict[str, object]]:
    """(text, json object) of a short measurement."""
    assert main(["bench", str(root), "--seconds", "0.4", "--json", *more]) == 0
    text, _, last = capsys.readouterr().out.rstrip().rpartition("\n")
    return text, json.loads(last)


def test_the_table_and_the_json_say_the_same(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, figures = bench(root, capsys, "--workers", "2", "--batch-clips", "4")
    assert (figures["workers"], figures["batch_clips"], figures["window_frames"]) == (2, 4, 25)
    assert figures["decoded_windows_per_core_second"] > 0 and figures["storage_windows_per_second"] > 0
    assert figures["batches_per_second"] == pytest.approx(figures["windows_per_second"] / 4, rel=0.01)
    assert figures["fits_memory"] and figures["limit"] in ("workers", "decode")
    assert f"{figures['batches_per_second']:,.1f} batches/s" in text
    assert text.splitlines()[-1] == f"limit: {figures['limit']}: {figures['sentence']}"


def test_windows_are_counted_by_cpu_seconds_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    # A clock that only batches move: the first round is left out, then rounds of 1, 1, 4 seconds, a batch in each.
    clock, costs = [0.0], iter([9.0, 1.0, 1.0, 4.0])
    monkeypatch.setattr("cwm_hub.clips.bench.time.process_time", lambda: clock[0])

    def batches() -> Iterator[None]:
        for cost in costs:
            clock[0] += cost
            yield

    assert (
        windows_per_core_second(batches(), 8, seconds=3.0, rounds=3) == 8.0
    )  # the median of 8, 8 and 2 a second


def test_shards_of_a_url_are_fetched_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("aiohttp")
    root = write_shards(tmp_path / "set", LENGTHS, size=16)
    monkeypatch.setenv("CWM_HUB_CACHE", str(tmp_path / "cache"))
    tars = sum(path.stat().st_size for path in (root / "data").iterdir())
    with FlakyServer(root) as server:
        _, figures = bench(server.url, capsys, "--workers", "2", "--batch-clips", "2")
        assert sum(server.bytes_sent.values()) >= tars
    assert not figures["fits_memory"] and figures["windows_per_second"] > 0
    assert not (tmp_path / "cache").exists()  # the user's own cache is neither used nor filled


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({}, "decode"),
        ({"workers": 7}, "workers"),
        ({"busy": 0.5}, "workers"),
        ({"from_storage": 79.0}, "storage"),
        ({"from_storage": 81.0}, "decode"),
        ({"from_storage": 79.0, "fits_memory": True}, "decode"),
    ],
)
def test_the_limit(changes: dict[str, float], limit: str) -> None:
    given = {"from_storage": 200.0, "by_workers": 100.0, "busy": 0.9, "workers": 8, "cores": 8}
    values = given | {"fits_memory": False} | changes
    rates = [values.pop(name) for name in ("from_storage", "by_workers", "busy")]
    assert find_limit(*rates, **values) == limit  # type: ignore[arg-type]


def code_of(arguments: list[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as stopped:  # argparse
        assert isinstance(stopped.code, int)
        return stopped.code


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--workers", "0"], "workers is at least 1, got 0"),
        (["--batch-clips", "0"], "batch_clips is at least 1, got 0"),
        (["--workers", "x"], "invalid int value: 'x' (see cwm-hub bench --help)"),
        (["--seconds", "0"], "seconds is above 0, got 0"),
        (["--split", "test"], "has no split 'test'; it has: train"),
        (["--window-frames", "61"], "has no train clip of at least 61 frames"),
    ],
)
def test_wrong_input_is_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_shards(tmp_path, LENGTHS)
    assert code_of(["bench", str(root), *arguments]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1 and sentence in told


def test_a_damaged_shard_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_shards(tmp_path, LENGTHS, codec="h264", size=16)
    for tar in (root / "data").iterdir():
        tar.write_bytes(bytes(tar.stat().st_size))
    assert main(["bench", str(root), "--seconds", "0.4"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1 and "damaged h264 clip" in told
