"""Official weights into our models: every golden output, paper-size counts, and what a user can get wrong."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from parity_check import TOLERANCE, relative_errors

from cwm_hub.hub.official_weights import ConvertError, load_official
from cwm_hub.models.registry import create_model

PARITY = Path(__file__).parents[1] / "fixtures" / "parity"


@pytest.mark.parametrize("name", ["contextualized", "plainresnet"])
def test_every_official_output_is_reproduced(name):
    errors = relative_errors(PARITY / name)
    assert len(errors) >= 32
    assert max(errors.values()) <= TOLERANCE, errors


def test_parity_check_fails_on_a_changed_weight(tmp_path):
    directory = tmp_path / "changed"
    shutil.copytree(PARITY / "contextualized", directory)
    weights = torch.load(directory / "rssm_variables.pt")
    weights["img_in.bias"] = weights["img_in.bias"] + 0.01
    torch.save(weights, directory / "rssm_variables.pt")
    script = Path(__file__).parents[1] / "parity_check.py"
    run = subprocess.run([sys.executable, script, directory], capture_output=True, text=True)
    assert run.returncode == 1
    above = {line.split()[0] for line in run.stdout.splitlines() if "ABOVE" in line}
    assert "af_post_deter" in above
    assert "embed" not in above


def test_paper_size_parameter_counts():
    def count(module):
        return sum(parameter.numel() for parameter in module.parameters())

    context, plain = create_model("contextwm"), create_model("plainwm")
    assert count(context) == 25_648_827
    assert count(context.frame_model.encoder) + count(context.frame_model.context_encoder) == 3_124_224
    assert count(context.frame_model.decoder) == 7_779_003
    assert count(context.rssm) == count(plain.rssm) == 14_745_600
    assert count(plain) == 25_648_827 - 1_562_112 - 259_776


def test_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(ConvertError, match=r"there is no encoder_variables\.pt"):
        load_official(tmp_path)


def test_wrong_latent_split_says_what_to_give():
    with pytest.raises(ConvertError, match="15 latent units, not 32 x 32: give stoch and classes"):
        load_official(PARITY / "contextualized")


def test_foreign_tensor_is_named(tmp_path):
    directory = tmp_path / "foreign"
    shutil.copytree(PARITY / "plainresnet", directory)
    weights = torch.load(directory / "rssm_variables.pt")
    torch.save({**weights, "surprise": torch.zeros(1)}, directory / "rssm_variables.pt")
    with pytest.raises(ConvertError, match="no place for the official tensor 'surprise'"):
        load_official(directory, stoch=3, classes=5)


def test_garbage_file_is_one_sentence(tmp_path):
    for name in ("encoder_variables.pt", "rssm_variables.pt", "decoder_variables.pt"):
        (tmp_path / name).write_bytes(b"not a checkpoint")
    with pytest.raises(ConvertError, match="not a PyTorch state dict"):
        load_official(tmp_path)
