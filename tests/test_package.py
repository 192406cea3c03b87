"""What a user gets who has only the wheel: the command, the models with their cards, the embedded checkpoints."""

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from cwm_hub.hub.names import embedded_names

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow

PUBLISH_AND_LOAD = """
import pathlib, sys
import torch
import cwm_hub
from cwm_hub import create_model, from_pretrained, save_pretrained

assert pathlib.Path(cwm_hub.__file__).is_relative_to(sys.prefix), cwm_hub.__file__
model = create_model("contextwm-debug").eval()
place = save_pretrained(model, "published/contextwm-debug", train={"updates": 3})
loaded = from_pretrained("published/contextwm-debug")
assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
card = (place / "README.md").read_text()
assert "arXiv 2305.18499" in card and 'from_pretrained("published/contextwm-debug")' in card
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built by the build system that pyproject.toml names."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory) -> Path:
    """An environment with the wheel and this one's dependencies, from which the repository cannot be imported.

    The dependencies come through a .pth line, which takes their folder but not the .pth files in it: an editable
    install of the repository stays out.
    """
    home = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    python = home / "bin" / "python"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        wheel,
    ]
    subprocess.run(pip, check=True)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home


def run(home: Path, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(home / "bin"), "HOME": str(cwd), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result


def test_the_wheel_holds_the_library_the_tool_and_the_cards_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names} == {
        "cwm_hub",
        "dataprep",
        f"{'-'.join(wheel.name.split('-')[:2])}.dist-info",
    }
    assert "cwm_hub/_cards/model_card.md" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    for folder in ("cwm_hub", "dataprep"):
        modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py")}
        assert modules <= names
    assert wheel.stat().st_size < 10e6


def test_the_command_is_installed(elsewhere, tmp_path):
    result = run(elsewhere, str(elsewhere / "bin" / "cwm-dataprep"), "--help", cwd=tmp_path)
    assert "ssv2" in result.stdout and "folder" in result.stdout


def test_a_model_is_published_and_loaded(elsewhere, tmp_path):
    run(elsewhere, "python", "-c", PUBLISH_AND_LOAD, cwd=tmp_path)


def test_the_embedded_models_load_offline(elsewhere, tmp_path):
    code = "from cwm_hub import from_pretrained; from cwm_hub.hub.names import embedded_names as e; print(*e()); [from_pretrained(n) for n in e()]"
    assert run(elsewhere, "python", "-c", code, cwd=tmp_path).stdout.split() == embedded_names()
