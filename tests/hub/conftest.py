"""A model and its checkpoint, for the tests of this folder."""

from pathlib import Path

import pytest
import torch
from checkpoint_facts import SCORECARD, TRAIN

from cwm_hub.hub.saving import save_pretrained
from cwm_hub.models.registry import create_model
from cwm_hub.models.video_world_model import VideoWorldModel


@pytest.fixture
def model() -> VideoWorldModel:
    torch.manual_seed(0)
    model = create_model("contextwm-debug")
    for buffer in model.buffers():  # running means and variances, which a fresh model has at 0 and 1
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    return model


@pytest.fixture
def saved(model, tmp_path) -> Path:
    return save_pretrained(model, tmp_path / "contextwm-debug", train=TRAIN, scorecard=SCORECARD)
