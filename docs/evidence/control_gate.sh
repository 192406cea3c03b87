#!/usr/bin/env bash
# Control A from models that passed its gate: docs/evidence/control_gate.sh [SEEDS]   (default "0 1 2"; about 8 minutes of one core a seed once
# gate.sh has made its first two models). One pre-trained model an arm, the first two of gate.sh (200 backgrounds, 9,000 updates, seed 0);
# the seeds are those of fine-tuning. Measured: return and success of the policy's mode on the 20 fixed evaluation seeds every 100 updates.
# Fixed on 26 November 2026 before the first run. Killed and given again it goes on. Ends in docs/evidence/control_gate.csv.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
read -ra seeds <<<"${1:-0 1 2}"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PYTHONPATH=$PWD
for design in contextwm plainwm; do
    [ -d runs/evidence/prediction/gate/$design-200-0/model ] || docs/evidence/gate.sh 0
done
for seed in "${seeds[@]}"; do
    done_seeds="${done_seeds:+$done_seeds, }$seed"
    "$python" recipes/sweep.py --config recipes/configs/sweep/control_gate.yaml --seeds "[$done_seeds]"
    "$python" recipes/report.py --runs runs/evidence/control_gate/runs --out runs/evidence/control_gate/report.html
    cp runs/evidence/control_gate/report_evaluations.csv docs/evidence/control_gate.csv
done
