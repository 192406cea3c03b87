"""What the latents of docs/evidence/prediction.sh's models know of position and what of the background.

    PYTHONPATH=. python docs/evidence/probes.py runs/evidence/prediction docs/evidence/probes.csv

Ridge regression on the posterior's feature (cwm_hub/evaluation/linear_probe.py), fitted on 300 clips and scored on 100 others, every
clip before a background of its own that no model was trained on: places of disc and mark, the background's mean colour (3
numbers), and its colours on a grid of 4 x 4 (48 numbers). The first five frames are left out. R2 is 1 for what is read off
and 0 for a constant; intervals resample clips.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from cwm_hub import from_pretrained
from cwm_hub.envs.scenes import SPEED, STAY_FRAMES, Scenes
from cwm_hub.evaluation.linear_probe import Rows, linear_probe
from cwm_hub.evaluation.predict import posterior_features
from docs.evidence.tables import update

FRAMES, SEEN, SIDE = 25, 5, 32
BOOTSTRAP = {"resamples": 2000, "confidence": 0.95, "seed": 0}


def filmed(seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Frames of a clip as scenes.scripted_clip steers it, and what is true of each."""
    simulator, draw = Scenes(image_size=SIDE), np.random.default_rng(seed)
    simulator.reset(seed)
    frames, places = [simulator.draw()], [(simulator.disc, simulator.mark)]
    for at in range(FRAMES - 1):
        if at % STAY_FRAMES == 0:
            place = draw.uniform(-1, 1)
        action = (place - simulator.disc) / SPEED + 0.3 * draw.standard_normal(1)
        simulator.step(np.clip(action, -1, 1))
        frames.append(simulator.draw())
        places.append((simulator.disc, simulator.mark))
    disc, mark = np.array(places).T
    background = simulator.background
    grid = background.reshape(4, SIDE // 4, 4, SIDE // 4, 3).mean((1, 3)).reshape(-1)
    return np.stack(frames), {
        "disc": disc[:, None],
        "mark": mark[:, None],
        "background_colour": np.tile(background.mean((0, 1)), (FRAMES, 1)),
        "background_grid": np.tile(grid, (FRAMES, 1)),
    }


def main(runs: Path, table: Path) -> None:
    """A row for each model and target."""
    clips = [filmed(seed) for seed in range(700_000, 700_400)]
    video = torch.from_numpy(np.stack([frames for frames, _ in clips])).movedim(-1, 2).contiguous()
    names = [f"clip{at}" for at in range(len(clips)) for _ in range(FRAMES - SEEN)]
    cut = 300 * (FRAMES - SEEN)
    rows = []
    for model_path in sorted(runs.glob("runs/*/model")):
        design, backgrounds, seed = model_path.parent.name.split("-")
        with torch.no_grad():
            features = posterior_features(from_pretrained(model_path).eval(), video)[:, SEEN:]
        features = features.flatten(0, 1).double().numpy()
        for target in clips[0][1]:
            truth = np.concatenate([of_clip[target][SEEN:] for _, of_clip in clips])
            train, rest = (
                Rows(features[part], truth[part], names[part]) for part in (slice(cut), slice(cut, None))
            )
            found = linear_probe(
                train, rest, columns=[str(at) for at in range(truth.shape[1])], bootstrap=BOOTSTRAP
            )
            r2 = {name: round(found[name], 3) for name in ("mean", "low", "high")}
            rows.append(
                {"design": design, "backgrounds": int(backgrounds), "seed": int(seed), "target": target} | r2
            )
    update(table, rows, key=("backgrounds", "design", "seed", "target"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
