"""What a user gets who has only the wheel: the command, the models with their cards, the embedded checkpoints."""

import subprocess
import sys
import sysconfig
import zipfile
from email import message_from_bytes
from email.message import Message
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cwm_hub.hub import embedded_names

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


def wheel_metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


def core_distributions(wheel: Path) -> list[Distribution]:
    """What `pip install cwm-hub` without extras brings, in this environment's versions."""
    found: dict[str, Distribution] = {}
    wanted = [Requirement(line) for line in wheel_metadata(wheel).get_all("Requires-Dist")]
    wanted = [
        requirement
        for requirement in wanted
        if not (requirement.marker and "extra" in str(requirement.marker))
    ]
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not any(
            requirement.marker.evaluate({"extra": extra}) for extra in (*requirement.extras, "")
        ):
            continue
        if name in found and not requirement.extras:
            continue
        found[name] = distribution(name)
        for line in found[name].requires or []:
            below = Requirement(line)
            if not below.marker or any(
                below.marker.evaluate({"extra": e}) for e in (*requirement.extras, "")
            ):
                below.marker = None
                wanted.append(below)
    return list(found.values())


@pytest.fixture(scope="module")
def core(wheel, tmp_path_factory) -> Path:
    """An environment with the wheel and the core's dependencies alone: their files are linked, nothing else is there."""
    home = tmp_path_factory.mktemp("core")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    (site,) = home.glob("lib/python*/site-packages")
    for one in core_distributions(wheel):
        for top in {path.parts[0] for path in one.files or [] if path.parts[0] not in ("..", "__pycache__")}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(one.locate_file(top))))
    pip = [sys.executable, "-m", "pip", "--python", home / "bin" / "python", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", wheel], check=True)
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
    assert wheel.stat().st_size < 14e6  # 13 of them the two embedded models


def test_the_commands_are_installed(elsewhere, tmp_path):
    result = run(elsewhere, str(elsewhere / "bin" / "cwm-dataprep"), "--help", cwd=tmp_path)
    assert "ssv2" in result.stdout and "folder" in result.stdout
    assert "bench" in run(elsewhere, str(elsewhere / "bin" / "cwm-hub"), "--help", cwd=tmp_path).stdout


def test_a_model_is_published_and_loaded(elsewhere, tmp_path):
    run(elsewhere, "python", "-c", PUBLISH_AND_LOAD, cwd=tmp_path)


def test_the_embedded_models_load_offline(elsewhere, tmp_path):
    code = "from cwm_hub import from_pretrained; from cwm_hub.hub import embedded_names as e; print(*e()); [from_pretrained(n) for n in e()]"
    assert run(elsewhere, "python", "-c", code, cwd=tmp_path).stdout.split() == embedded_names()


CORE = """
import importlib.util, pathlib
import numpy as np, torch
import cwm_hub
from cwm_hub import ClipLoader, from_pretrained
from cwm_hub.clips import ClipSource
from cwm_hub.shards import EncodedClip, Manifest, ShardWriter, shard_name
from cwm_hub.shards.index import INDEX, index_bytes

for absent in ("accelerate", "mujoco", "gymnasium", "metaworld", "datasets", "matplotlib", "scipy", "timm"):
    assert importlib.util.find_spec(absent) is None, absent
model = from_pretrained("contextwm-tiny")
root = pathlib.Path("shards/mine")
frames = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), np.uint8)
with ShardWriter(root / shard_name("train", 0, 1)) as writer:
    writer.add(EncodedClip.encode(frames, codec="h264", fps=10), key="a", split="train", source="a")
(root / "meta").mkdir()
(root / INDEX).write_bytes(index_bytes(writer.rows))
Manifest("mine", "h264", 32, {"train": (writer.record,)}).save(root)
batch = next(iter(ClipLoader([ClipSource(str(root))], batch_clips=1, window_frames=12, seed=0)))
future = model.predict(batch.video, observed_frames=5)
print(tuple(future.shape), future.dtype)
"""


def test_the_core_alone_loads_predicts_and_reads_shards(core, tmp_path):
    assert run(core, "python", "-c", CORE, cwd=tmp_path).stdout.strip() == "(1, 12, 3, 32, 32) torch.uint8"


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (
            "import cwm_hub; cwm_hub.make_env('dummy')",
            "gymnasium is not installed: pip install 'cwm-hub[envs]'",
        ),
        (
            "from cwm_hub.evaluation import bootstrap_interval",
            "cwm_hub.evaluation.bootstrap_interval: scipy is not installed: pip install 'cwm-hub[train]'",
        ),
    ],
)
def test_an_absent_extra_is_named(core, tmp_path, code, sentence):
    code = f"try:\n    {code}\nexcept ImportError as error:\n    print(error)"
    assert run(core, "python", "-c", code, cwd=tmp_path).stdout.strip() == sentence


def test_the_commands_of_an_absent_extra_are_one_sentence(core, tmp_path):
    command = [core / "bin" / "python", "-m", "dataprep", "hub-dataset", "owner/name", "--out", "x"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (
        1,
        "error: datasets is not installed: pip install 'cwm-hub[data]'\n",
    )
    command = [core / "bin" / "python", ROOT / "recipes" / "pretrain.py", "--help"]
    told = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert told.returncode == 1
    assert told.stderr == "error: the recipes need accelerate and pyyaml: pip install 'cwm-hub[all]'\n"
