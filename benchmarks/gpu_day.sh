#!/usr/bin/env bash
# Every figure that waits for a GPU, in one go: benchmarks/gpu_day.sh [OUT]   (about 14 minutes on one GPU, default OUT: gpu_day)
# Writes OUT/NAME.json for each benchmark as it ends, and OUT/table.md with all of them. A benchmark that was done is not
# done again, one that fails is named in the table with its last line, and the others go on. Never run anywhere yet.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-gpu_day}
mkdir -p "$out"
python=${PYTHON:-.venv/bin/python}
export PYTHONPATH=$PWD

"$python" -c 'import sys, torch; sys.exit(0 if torch.cuda.is_available() else "error: torch sees no GPU here")' || exit 2

measure() {  # NAME COMMAND...: the last line of its output is JSON
    local name=$1
    shift
    [ -s "$out/$name.json" ] && return
    echo "== $name: $*"
    if timeout 420 "$@" >"$out/$name.log" 2>&1 && tail -1 "$out/$name.log" | "$python" -m json.tool >"$out/$name.part"; then
        mv "$out/$name.part" "$out/$name.json"
        rm -f "$out/$name.failed"
    else
        tail -1 "$out/$name.log" >"$out/$name.failed"
        cat "$out/$name.failed"
    fi
}

shards=$out/shards
[ -e "$shards/meta/manifest.json" ] || "$python" -m dataprep folder dataprep/samples --labels dataprep/samples/labels.csv --out "$shards" || exit 2

measure pretrain_bf16 "$python" benchmarks/bench_pretrain.py --most-seconds 30 --json
measure pretrain_compiled "$python" benchmarks/bench_pretrain.py --compile --most-seconds 30 --json
measure pretrain_cudagraphs "$python" benchmarks/bench_pretrain.py --compile --compile-mode reduce-overhead --most-seconds 30 --json
measure finetune_50x50 "$python" benchmarks/bench_finetune.py --most-seconds 60 --json
measure finetune_16x50 "$python" benchmarks/bench_finetune.py --sequences 16 --steps 50 --env "" --most-seconds 60 --json
measure loader "$python" -m cwm_hub.cli bench "$shards" --workers 8 --json
measure precision "$python" benchmarks/bench_precision.py --shards "$shards" --updates 500 --json
if "$python" -m pytest -q tests/models/test_compiled.py >"$out/host_syncs.log" 2>&1; then rm -f "$out/host_syncs.failed"; else tail -1 "$out/host_syncs.log" >"$out/host_syncs.failed"; fi

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
