"""Checkpoints of every released format version load for ever, and answer as they did when they were written."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from make_checkpoint_fixture import FIXTURES, answers

from cwm_hub.hub import checkpoint
from cwm_hub.hub.checkpoint import FORMAT_VERSION, MIGRATIONS, MODEL_TYPES, CheckpointError, migrate
from cwm_hub.hub.names import find_checkpoint
from cwm_hub.hub.pretrained import from_pretrained

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


def test_the_current_version_passes_untouched():
    data = {"format_version": FORMAT_VERSION, "model_type": "x"}
    assert migrate(data) == data


def test_a_newer_version_is_refused():
    with pytest.raises(CheckpointError, match=r"format_version 99 \(written by cwm_hub 7\.0\) is newer than"):
        migrate({"format_version": 99, "cwm_hub_version": "7.0"})


@pytest.mark.parametrize("version", [None, 0, "1", True, 1.0])
def test_a_version_that_is_none_is_refused(version):
    with pytest.raises(CheckpointError, match="expected a format_version from 1"):
        migrate({"format_version": version})


def test_an_older_version_walks_every_migration(monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", 3)
    renamed = {1: lambda data: {**data, "b": data["a"]}, 2: lambda data: {**data, "c": data["b"] + 1}}
    monkeypatch.setattr(checkpoint, "MIGRATIONS", renamed)
    assert migrate({"format_version": 1, "a": 1}) == {"format_version": 3, "a": 1, "b": 1, "c": 2}


def test_every_older_version_has_its_migration():
    assert set(MIGRATIONS) == set(range(1, FORMAT_VERSION))
