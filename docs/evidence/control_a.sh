#!/usr/bin/env bash
# Control A of docs/EVIDENCE.md: docs/evidence/control_a.sh [SEEDS]   (default "0 1 2"; about 8 minutes of one core a seed)
# Killed and given again it goes on: every step below skips what is finished. Ends in runs/evidence/control_a/report.html.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
out=runs/evidence/control_a
read -ra seeds <<<"${1:-0 1 2}"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

[ -d $out/clips ] || "$python" recipes/render_clips.py --env scenes --image_size 32 --out $out/clips
"$python" -m dataprep folder $out/clips --size 32 --validation-share 0.2 --licence MIT --redistributable --out $out/shards/scenes
for seed in "${seeds[@]}"; do
    for model in contextwm-mini plainwm-mini; do
        "$python" recipes/pretrain.py --config recipes/configs/pretrain/scenes.yaml --model $model \
            --data "[{root: $out/shards/scenes}]" --run "$out/$model-$seed" --seed "$seed"
    done
    # The gate: what a foreign context costs the prediction; below 3 dB nothing is said of contexts.
    [ -s "$out/gate-$seed/scorecard.json" ] || "$python" recipes/evaluate.py --checkpoint "$out/contextwm-mini-$seed/model" \
        --data "[$out/shards/scenes]" --windows 18 --out "$out/gate-$seed"
    done_seeds="${done_seeds:+$done_seeds, }$seed"
    "$python" recipes/sweep.py --config recipes/configs/sweep/control_a.yaml --seeds "[$done_seeds]"
    "$python" recipes/report.py --runs $out/runs --out $out/report.html
done
