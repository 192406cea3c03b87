# Settings and sets of docs/evidence/prediction.sh and gate.sh, which read this from the root: nothing is made twice.
python=${PYTHON:-.venv/bin/python}
out=runs/evidence/prediction
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PYTHONPATH=$PWD

render() { "$python" recipes/render_clips.py --env scenes --image_size 32 --frames 25 "$@" >/dev/null; }
shard() { "$python" -m dataprep folder "$1" --size 32 --licence MIT --redistributable --out "$2" "${@:3}"; }
for backgrounds in 10 50 200; do
    render --out $out/clips/$backgrounds --count 400 --first_seed ${backgrounds}000 --backgrounds $backgrounds
    shard $out/clips/$backgrounds $out/shards/scenes$backgrounds --validation-share 0
done
render --out $out/clips/unseen --count 48 --first_seed 900000 # predicted
render --out $out/clips/unseen --count 48 --first_seed 950000 # for the mean frame
{ echo path,split; for clip in "$out"/clips/unseen/*.mp4; do
    name=$(basename "$clip"); case $name in scenes_95*) echo "$name,train" ;; *) echo "$name,validation" ;; esac
done; } >$out/unseen.csv
shard $out/clips/unseen $out/shards/unseen --labels $out/unseen.csv
