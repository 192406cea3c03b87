#!/usr/bin/env bash
# Figures that want a GPU, the surest first: benchmarks/gpu_day.sh [OUT]   (10 to 14 minutes on one GPU, default OUT: gpu_day)
# Writes OUT/NAME.json for each benchmark as it ends, and OUT/table.md with all of them. A benchmark that was done is not
# done again, one that fails or takes longer than its limit is named in the table with its last line, and the others go on.
# What was measured so far, and how: docs/measured.md.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-gpu_day}
mkdir -p "$out"
python=${PYTHON:-.venv/bin/python}
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1

"$python" -c 'import sys, torch; sys.exit(0 if torch.cuda.is_available() else "error: torch sees no GPU here")' || exit 2

measure() {  # NAME SECONDS COMMAND...: the last line of its output is JSON
    local name=$1 limit=$2
    shift 2
    [ -s "$out/$name.json" ] && return
    echo "== $name: $*"
    # Into a file, never a pipe: the compiler's and the loader's processes may outlive the command and hold a pipe open.
    if timeout -k 5 "$limit" "$@" >"$out/$name.log" 2>&1 && tail -1 "$out/$name.log" | "$python" -m json.tool >"$out/$name.part"; then
        mv "$out/$name.part" "$out/$name.json"
        rm -f "$out/$name.failed"
    else
        (tail -1 "$out/$name.log"; echo "(failed, or more than $limit s)") | tr '\n' ' ' >"$out/$name.failed"
        cat "$out/$name.failed"
    fi
}

shards=$out/shards
[ -e "$shards/meta/manifest.json" ] || "$python" -m dataprep folder dataprep/samples --labels dataprep/samples/labels.csv --out "$shards" || exit 2
run_of_recipe() {  # the last row of metrics.jsonl: rate and share of waiting for data
    "$python" recipes/pretrain.py --data "[{root: $shards}]" --run "$out/run" --updates 400 --workers 8 --log_every 50 "$@" && tail -1 "$out/run/metrics.jsonl"
}
export -f run_of_recipe
export python shards out

measure pretrain_bf16 90 "$python" benchmarks/bench_pretrain.py --most-seconds 15 --json
measure recipe 90 bash -c run_of_recipe
measure finetune_50x50 90 "$python" benchmarks/bench_finetune.py --most-seconds 20 --json
measure finetune_16x50 60 "$python" benchmarks/bench_finetune.py --sequences 16 --steps 50 --env "" --most-seconds 15 --json
measure loader 60 "$python" -m cwm_hub.cli bench "$shards" --workers 8 --json
measure precision 240 "$python" benchmarks/bench_precision.py --shards "$shards" --updates 500 --no-compile --json
measure pretrain_compiled 240 "$python" benchmarks/bench_pretrain.py --compile --most-seconds 15 --json
if timeout -k 5 120 "$python" -m pytest -q tests/models/test_compiled.py >"$out/host_syncs.log" 2>&1; then rm -f "$out/host_syncs.failed"; else tail -1 "$out/host_syncs.log" >"$out/host_syncs.failed"; fi

"$python" - "$out" <<'PY'
import json, pathlib, sys

out = pathlib.Path(sys.argv[1])
lines = ["| benchmark | figure | value |", "|---|---|---|"]
for path in sorted(out.glob("*.json")):
    for name, value in json.loads(path.read_text()).items():
        if not isinstance(value, (dict, list)):
            lines.append(f"| {path.stem} | {name} | {value} |")
lines += [f"| {path.stem} | failed | {path.read_text().strip()} |" for path in sorted(out.glob("*.failed"))]
(out / "table.md").write_text("\n".join(lines) + "\n")
print("\n".join(lines))
PY
