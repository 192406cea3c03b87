"""Checkpoints of every released format version load for ever, and answer as they did when they were written."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from make_checkpoint_fixture import FIXTURES, answers

from cwm_hub.checkpoint import MODEL_TYPES
from cwm_hub.config import FORMAT_VERSION
from cwm_hub.hub import find_checkpoint, from_pretrained

FROZEN = sorted(path.parent for path in FIXTURES.glob("checkpoint_v*/*/config.json"))


def test_every_version_has_every_model_type():
    expected = {
        (f"checkpoint_v{version}", kind) for version in range(1, FORMAT_VERSION + 1) for kind in MODEL_TYPES
    }
    assert expected <= {(path.parent.name, path.name) for path in FROZEN}


@pytest.mark.parametrize("folder", FROZEN, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_frozen_checkpoint_answers_as_it_did(folder: Path):
    now = answers(from_pretrained(folder))
    then = safetensors.torch.load_file(folder.with_name(f"{folder.name}.answers.safetensors"))
    assert now.keys() == then.keys()
    for name, value in then.items():
        tolerance = {"atol": 1.0, "rtol": 0.0} if value.dtype == torch.uint8 else {"atol": 1e-5, "rtol": 1e-5}
        torch.testing.assert_close(now[name].float(), value.float(), **tolerance)


@pytest.mark.parametrize("folder", FROZEN, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_its_other_files_are_read(folder: Path):
    assert find_checkpoint(folder).read("train.json") == {
        "recipe": "tests/make_checkpoint_fixture.py",
        "updates": 0,
    }
