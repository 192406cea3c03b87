"""The Dockerfile without docker: what it copies is there and not ignored, what it installs is what the code asks for.

That the image builds and runs was not seen here: there is no docker.
"""

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
from documents import EXTRAS, Piece, commands, complaint
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from cwm_hub.envs.rendering import INSTALL_GL

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "Dockerfile").read_text()
STEPS = [
    tuple(step.split(maxsplit=1))
    for step in re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE)).splitlines()
    if step
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def steps(word: str) -> list[str]:
    return [rest for first, rest in STEPS if first == word]


def test_its_steps_are_the_known_ones() -> None:
    assert {first for first, _ in STEPS} == {"FROM", "ARG", "RUN", "WORKDIR", "COPY", "ENV", "CMD"}
    for step in steps("RUN"):
        assert subprocess.run(["bash", "-n", "-c", step], check=False).returncode == 0, step


def test_python_is_one_that_the_package_takes() -> None:
    (image,) = steps("FROM")
    version = re.fullmatch(r"python:([\d.]+)-slim", image)
    assert version and version[1] in SpecifierSet(PROJECT["requires-python"])


def test_what_is_copied_is_there_and_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    copied = [word for step in steps("COPY") for word in step.split()[:-1]]
    assert copied
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in ignored, name
    assert {line[1:] for line in ignored if line.startswith("!")} == set(copied)


def test_what_the_wheel_is_built_from_is_copied() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [*build["packages"], *build["force-include"], PROJECT["readme"], "recipes"]
    needed += [path.split("/")[0] for path in PROJECT["license-files"]]
    copied = {word for step in steps("COPY") for word in step.split()[:-1]}
    assert set(needed) <= copied


def test_what_is_installed_is_what_the_code_asks_for() -> None:
    runs = steps("RUN")
    (system,) = (step for step in runs if "apt-get install" in step)
    assert set(INSTALL_GL.removeprefix("apt-get install ").split()) <= set(system.split())
    (torch_step,) = (step for step in runs if "--index-url ${TORCH_INDEX}" in step)
    asked = next(Requirement(word) for word in shlex.split(torch_step) if word.startswith("torch>"))
    assert str(asked) in {str(Requirement(text)) for text in PROJECT["dependencies"]}
    (extras,) = (set(found.split(",")) for found in re.findall(r'"\.\[([\w,]+)\]"', " ".join(runs)))
    assert extras <= EXTRAS.keys()


def test_the_build_argument_has_a_default() -> None:
    named = set(re.findall(r"\$\{(\w+)\}", TEXT))
    assert named == {step.split("=")[0] for step in steps("ARG") if "=" in step}
    for line in TEXT.splitlines():
        if "--build-arg" in line:
            assert re.search(r"--build-arg (\w+)=", line)[1] in named  # type: ignore[index]


@pytest.mark.parametrize("line", [line for line in TEXT.splitlines() if "docker run" in line])
def test_the_commands_that_it_shows_are_commands(line: str) -> None:
    image = re.search(r" cwm-hub(:cuda)? ", line)
    assert image
    (words,) = commands(Piece("Dockerfile", 1, "sh", line[image.end() :], None))
    assert complaint(words) is None


def test_the_command_of_the_image_is_a_command() -> None:
    assert complaint(json.loads(steps("CMD")[0])) is None
