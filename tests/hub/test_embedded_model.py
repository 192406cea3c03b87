"""The checkpoint that comes with the package: offline, in one line, small, and telling how it was made."""

import os
import subprocess
import sys

import pytest
import torch

from cwm_hub import from_pretrained
from cwm_hub.hub.catalogue import EMBEDDED, embedded_names
from cwm_hub.hub.names import find_checkpoint
from cwm_hub.models.video_world_model import VideoWorldModel

NAME = "contextwm-tiny"
SIDES = {"contextwm-small": 64, NAME: 32}
each = pytest.mark.parametrize("name", SIDES)


def test_they_are_there_and_small():
    assert embedded_names() == list(SIDES)
    for name in SIDES:
        assert sum(path.stat().st_size for path in (EMBEDDED / name).iterdir()) < 8e6


@each
def test_it_predicts(name):
    model = from_pretrained(name, expect=VideoWorldModel)
    side = model.image_size
    assert side == SIDES[name]
    video = torch.randint(0, 256, (1, 8, 3, side, side), dtype=torch.uint8)
    assert model.predict(video, observed_frames=5).shape == video.shape


def test_it_loads_in_one_line_without_a_network(tmp_path):
    code = f"from cwm_hub import from_pretrained; print(type(from_pretrained({NAME!r})).__name__)"
    offline = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=offline, capture_output=True, text=True, check=True
    )
    assert result.stdout == "VideoWorldModel\n" and not any(tmp_path.iterdir())


@each
def test_it_tells_how_it_was_made_and_how_good_it_is(name):
    checkpoint = find_checkpoint(name)
    train, scorecard = checkpoint.read("train.json"), checkpoint.read("scorecard.json")
    assert train is not None and train["recipe"] == "recipes/pretrain.py"
    assert {
        "command",
        "updates",
        "seed",
        "seconds",
        "device",
        "versions",
        "git_commit",
        "config",
    } <= train.keys()
    assert all(len(shards["manifest_hash"]) == 64 for shards in train["parents"]["shards"])
    assert scorecard is not None
    assert scorecard["checkpoint"]["weights_sha256"] == checkpoint.identity()["weights_sha256"]
    assert scorecard["together"]["model_minus_mean_frame"]["psnr_db"]["mean"] >= 3.0
    assert f'from_pretrained("{name}")' in checkpoint.fetch("README.md").read_text()
