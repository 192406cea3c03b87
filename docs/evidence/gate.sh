#!/usr/bin/env bash
# Does the decoder come to read its context with more updates? docs/evidence/gate.sh [SEEDS]   (default "0 1"; about an hour and a half of
# one core a seed). The models and sets of docs/evidence/prediction.sh, six times as long: 9,000 updates, scored every 1,500 on the same
# 48 held-out clips. Fixed on 26 November 2026 before the first run; run by run, in this order, as far as time goes. Killed and given
# again it goes on. Ends in docs/evidence/gate.csv: a row for each scorecard.
set -euo pipefail
cd "$(dirname "$0")/../.."
read -ra seeds <<<"${1:-0 1}"

. docs/evidence/prediction_shards.sh
for seed in "${seeds[@]}"; do
    for arm in contextwm-200 plainwm-200 contextwm-10; do
        "$python" recipes/pretrain.py --model "${arm%-*}-mini" --data "[{root: $out/shards/scenes${arm#*-}}]" --run "$out/gate/$arm-$seed" \
            --seed "$seed" --updates 9000 --batch_clips 8 --window_frames 16 --learning_rate 3e-3 --workers 0 --log_every 50 \
            --checkpoint_every 250 --evaluate_every 1500 --evaluate_data "[$out/shards/unseen]" --evaluation.windows 48
        "$python" - $out/gate docs/evidence/gate.csv <<'PY'
import json, pathlib, sys

from docs.evidence.tables import update

rows = []
for card in sorted(pathlib.Path(sys.argv[1]).glob("*/evaluations/step-*/scorecard.json")):
    design, backgrounds, seed = card.parts[-4].split("-")
    found = json.loads(card.read_text())
    whole, gap = found["together"], found.get("context_gap_psnr_db", {}).get("difference", {})
    row = {"design": design, "backgrounds": int(backgrounds), "seed": int(seed), "updates": found["updates"]}
    row |= {name: round(whole[name]["psnr_db"]["mean"], 3) for name in ("model", "reconstruction", "copy_last_frame")}
    row |= {f"own_over_foreign_context_{name}": round(gap[name], 3) if gap else "" for name in ("mean", "low", "high")}
    rows.append(row | {"commit": found["provenance"]["git_commit"][:7]})
update(pathlib.Path(sys.argv[2]), rows, key=("backgrounds", "design", "seed", "updates"))
PY
    done
done
