import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.pairs import Pairs, Timing, time_pairs, timed, warning


def timings(*seconds):
    return [Timing(wall=2 * s, user=0.75 * s, system=0.25 * s) for s in seconds]


def test_a_ratio_is_the_median_of_the_rounds_with_its_interval():
    slow = timings(2, 4, 6, 8, 10, 12, 14, 16, 18)
    ratio = Pairs({"slow": slow, "fast": timings(*[2] * 9)}).ratio("slow", "fast", "cpu")
    # Ratios 1 ... 9. P(at most 1 of 9 below the median) = 10/512 < 2.5 %, P(at most 2) = 46/512: second to eighth value.
    assert (ratio.median, ratio.low, ratio.high, ratio.rounds) == (5, 2, 8, 9)
    assert ratio.spread == pytest.approx(0.6)
    assert "60%" in warning("it", ratio)
    assert warning("it", ratio, spread=0.7) is None


def test_a_slow_minute_strikes_both_ways_alike():
    pairs = Pairs({"a": timings(1.1, 11, 1.1, 1.1, 1.1, 1.1), "b": timings(1, 10, 1, 1, 1, 1)})
    assert pairs.ratio("a", "b", "cpu").median == pytest.approx(1.1)
    assert pairs.ratio("a", "b", "cpu").spread < 1e-6
    assert pairs.seconds()["a"] == pytest.approx({"wall": 2.2, "user": 0.825, "system": 0.275})


def test_rounds_go_on_until_the_ratio_settles_or_the_time_is_over(monkeypatch):
    durations = {"a": iter([1, 9] * 3 + [3] * 30), "b": iter([3.0] * 36)}
    order = []

    def fake(work):
        order.append(work())
        return Timing(wall=next(durations[order[-1]]), user=0, system=0)

    monkeypatch.setattr("benchmarks.pairs.timed", fake)
    ways = {"a": lambda: "a", "b": lambda: "b"}
    pairs = time_pairs(ways, compared={("a", "b"): "wall"}, most_seconds=1000)
    # Three ratios of 1/3 and three of 3 among ones: both ends of the interval are 1 as soon as more lie outside of it.
    assert len(pairs.timings["a"]) == 15  # P(at most 3 of 15 below) = 576/2^15 = 1.8 %; of 14: 2.9 %
    assert order[:4] == ["a", "b", "b", "a"]
    pairs = time_pairs({"a": lambda: "b"}, compared={}, most_seconds=0)
    assert len(pairs.timings["a"]) == 6


def test_cpu_seconds_of_sleeping_are_not_wall_seconds():
    import time

    slept = timed(lambda: time.sleep(0.2))
    assert slept.wall >= 0.2 > slept.cpu


@pytest.mark.slow
def test_the_pretraining_benchmark_runs():
    script = Path(__file__).parents[2] / "benchmarks" / "bench_pretrain.py"
    options = "--model contextwm-tiny --plain plainwm-tiny --batch-clips 1 2 --window-frames 2 --most-seconds 0 --json"
    run = subprocess.run(
        [sys.executable, script, *options.split()], capture_output=True, text=True, check=True
    )
    result = json.loads(run.stdout.splitlines()[-1])
    low, high = result["contextwm_over_plainwm_interval"]
    assert low <= result["contextwm_over_plainwm"] <= high
    assert [size["batch_clips"] for size in result["sizes"]] == [1, 2]
    assert sum(result["stage_shares"].values()) == pytest.approx(1)


def test_every_benchmark_can_be_imported():
    """A name that moves away leaves no benchmark behind; all in one process, as each imports torch."""
    root = Path(__file__).parents[2]
    names = [f"benchmarks.{path.stem}" for path in sorted((root / "benchmarks").glob("*.py"))]
    run = subprocess.run(
        [sys.executable, "-c", f"import {', '.join(names)}"],
        cwd=root,
        env=os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
