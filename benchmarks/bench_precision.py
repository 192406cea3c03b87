"""Do bfloat16 and compilation train as float32 does? Loss curves beside each other, and beside another seed's.

    python benchmarks/bench_precision.py --shards runs/evidence/shards/samples [--model contextwm] [--updates 500]
        [--batch-clips 16] [--window-frames 25] [--no-compile] [--json]

Three runs of recipes/pretrain.py: eager float32, compiled bfloat16 of the same seed, and eager float32 of another seed.
Two curves' distance is the mean of |a - b| / ((a + b) / 2) over the logged losses; what another seed gives is the noise
to judge by. With --no-compile the second run is eager too: on a CPU the compiler takes many minutes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]


def losses(run: Path, options: argparse.Namespace, *extra: str) -> np.ndarray:
    """Loss of every logged interval of one run."""
    data = json.dumps([{"root": str(Path(shards).resolve())} for shards in options.shards])
    log_every = max(1, options.updates // 50)
    command = [
        *(sys.executable, str(ROOT / "recipes" / "pretrain.py"), "--data", data, "--run", str(run)),
        *("--model", options.model, "--updates", str(options.updates), "--log_every", str(log_every)),
        *("--batch_clips", str(options.batch_clips), "--window_frames", str(options.window_frames)),
        *("--checkpoint_every", str(options.updates), *extra),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return np.array([json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()])


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean relative difference of two curves."""
    return float(np.mean(np.abs(a - b) / ((a + b) / 2)))


def main() -> None:
    """Train three times and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", nargs="+", required=True, help="shard directories")
    parser.add_argument("--model", default="contextwm")
    parser.add_argument("--updates", type=int, default=500)
    parser.add_argument("--batch-clips", type=int, default=16)
    parser.add_argument("--window-frames", type=int, default=25)
    parser.add_argument("--no-compile", action="store_true", help="bfloat16 alone")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    compiled = "false" if options.no_compile else "true"
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        eager = losses(runs / "eager", options, "--mixed_precision", "no")
        fast = losses(runs / "fast", options, "--mixed_precision", "bf16", "--compile", compiled)
        other = losses(runs / "other", options, "--mixed_precision", "no", "--seed", "1")
    result = {
        "model": options.model,
        "updates": options.updates,
        "compiled": not options.no_compile,
        "final_loss_float32": float(eager[-1]),
        "final_loss_bf16": float(fast[-1]),
        "distance_bf16": distance(eager, fast),
        "distance_other_seed": distance(eager, other),
    }
    for name, value in result.items():
        print(f"{name:22s} {value:.4f}" if isinstance(value, float) else f"{name:22s} {value}")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
