"""One whole update by the official code, stored as numbers, against `DreamerAgent.update_on`: to 1e-6 in float64."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from update_parity_check import main

UPDATE = Path(__file__).parents[1] / "fixtures" / "parity" / "update"


def test_our_update_is_the_official_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Meta-world's small print with weights in `../NAME`, DM Control's with weights beside the numbers."""
    assert main([str(UPDATE)]) == 0, capsys.readouterr().out
    out = capsys.readouterr().out
    assert out.count(" tensors compared") == 2
    assert "ABOVE" not in out


@pytest.mark.parametrize(
    ("tensor", "shows"),
    [("reward", "behavioural_target"), ("action", "post_deter"), ("new/rssm/img_in.weight", "new/rssm")],
)
def test_the_check_sees_a_shift_by_one(
    tensor: str, shows: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(UPDATE / "dmcr", tmp_path, dirs_exist_ok=True)
    path = tmp_path / "contextualized_float64.safetensors"
    stored = load_file(path)
    save_file(stored | {tensor: stored[tensor].roll(1, 1)}, path)
    assert main([str(tmp_path)]) == 1
    above = [line.split()[0] for line in capsys.readouterr().out.splitlines() if "ABOVE" in line]
    assert shows in above


def test_a_directory_without_a_stored_update_is_refused(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 2
