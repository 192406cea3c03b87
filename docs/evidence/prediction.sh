#!/usr/bin/env bash
# Prediction of scenes never seen, over the number of backgrounds in training: docs/evidence/prediction.sh [SEEDS]
# (default "0 1 2"; about half an hour of one core a seed). 400 clips of 25 frames at 32 pixels before 10, 50 or 200 backgrounds, the
# same dynamics in all; 48 held-out clips before 48 others. Fixed on 26 November 2026 before the first run. Killed and given again it
# goes on. Ends in docs/evidence/prediction.csv, a row for each run, 5 frames seen and 20 predicted, docs/evidence/probes.csv and a picture of both.
set -euo pipefail
cd "$(dirname "$0")/../.."
read -ra seeds <<<"${1:-0 1 2}"

. docs/evidence/prediction_shards.sh

for seed in "${seeds[@]}"; do
    for backgrounds in 10 50 200; do
        for design in contextwm concat plainwm; do
            model=(--model contextwm-mini)
            case $design in plainwm) model=(--model plainwm-mini) ;; concat) model+=(--overrides.frame.context.mixing concat) ;; esac
            run=$out/runs/$design-$backgrounds-$seed
            "$python" recipes/pretrain.py "${model[@]}" --data "[{root: $out/shards/scenes$backgrounds}]" --run "$run" --seed "$seed" \
                --updates 1500 --batch_clips 8 --window_frames 16 --learning_rate 3e-3 --workers 0 --log_every 50 --checkpoint_every 250
            [ -s "$run/evaluation/scorecard.json" ] || "$python" recipes/evaluate.py --checkpoint "$run/model" \
                --data "[$out/shards/unseen]" --windows 48 --figures false --out "$run/evaluation"
        done
    done
done

"$python" - $out <<'PY'
import json, pathlib, sys

from docs.evidence.tables import update

rows = []
for card in sorted(pathlib.Path(sys.argv[1]).glob("runs/*/evaluation/scorecard.json")):
    design, backgrounds, seed = card.parts[-3].split("-")
    found = json.loads(card.read_text())
    whole = found["together"]
    row = {"design": design, "backgrounds": int(backgrounds), "seed": int(seed), "updates": found["updates"]}
    row |= {name: round(whole[name]["psnr_db"]["mean"], 3) for name in ("model", "reconstruction", "copy_last_frame", "mean_frame")}
    gap = found.get("context_gap_psnr_db", {}).get("difference", {})
    row |= {"own_over_foreign_context": round(gap["mean"], 3) if gap else ""}
    kl = [json.loads(line)["kl"] for line in (card.parents[1] / "metrics.jsonl").read_text().splitlines()]
    rows.append(row | {"kl": round(sum(kl[-5:]) / 5, 3), "commit": found["provenance"]["git_commit"][:7]})
update(pathlib.Path("docs/evidence/prediction.csv"), rows, key=("backgrounds", "design", "seed"))
PY
"$python" docs/evidence/probes.py $out docs/evidence/probes.csv
"$python" docs/evidence/prediction_page.py
