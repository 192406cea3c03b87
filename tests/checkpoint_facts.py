"""What a training run and an evaluation tell of the checkpoints that the hub's tests save."""

from cwm_hub.config import to_dict
from cwm_hub.evaluation.protocol import Protocol

TRAIN = {
    "recipe": "recipes/pretrain.py",
    "preset": "contextwm-debug",
    "updates": 300,
    "seconds": 41.5,
    "config": {"learning_rate": 3e-4, "updates": 1_200_000},
    "command": "accelerate launch recipes/pretrain.py | tee log",
    "versions": {"torch": "2.15.0", "cwm_hub": "0.1.0"},
    "parents": {
        "shards": [
            {
                "root": "hf://datasets/someone/clips",
                "name": "clips",
                "manifest_hash": "5e1f" * 16,
                "clips": 20,
                "frames": 900,
            }
        ],
        "init": {"name": "contextwm-tiny", "revision": None, "weights_sha256": "ab" * 32},
    },
}


def score(mean: float) -> dict:
    return {"mean": mean, "low": mean - 0.5, "high": mean + 0.5, "per_step": {}}


SUMMARY = {
    "windows": 8,
    "videos": 5,
    "model": {"psnr_db": score(21.25), "ssim": score(0.4)},
    "copy_last_frame": {"psnr_db": score(23.0), "ssim": score(0.6)},
    "mean_frame": {"psnr_db": score(15.5), "ssim": score(0.2)},
    "model_minus_copy_last_frame": {"psnr_db": score(-1.75), "ssim": score(-0.2)},
}
SCORECARD = {
    "format_version": 1,
    "protocol": to_dict(
        Protocol(
            horizon=7,
            data={"clips": "5e1f"},
            windows=tuple(("clips", f"film-{at % 5}", "a", at) for at in range(8)),
        )
    ),
    "together": SUMMARY,
    "sources": {"clips": SUMMARY},
}
