r"""The outputs in docs/quickstart.md, from its own commands.

    python docs/mkdocs/make_outputs.py WORK [docs/quickstart.md]

Runs the page's `sh` blocks from *Shards* on in the folder WORK, in their order, and writes what each printed into the `text`
block below it; `<!-- lines with: WORDS -->` above such a block keeps the lines that hold these words. Minutes of one
core. WORK keeps what docs/mkdocs/make_images.py takes its pictures from. tests/test_quickstart.py compares what takes seconds.
"""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "quickstart.md"
FIRST = "\n## Shards\n"
"""Where the commands begin that this runs: what is above installs."""
PATTERN = re.compile(
    r"```sh\n(?P<commands>.*?)```(?:\n\n(?:<!-- lines with: (?P<kept>.+?) -->\n)?```text\n(?P<printed>.*?)```)?",
    re.DOTALL,
)
VERSIONS = re.compile(r"(?<=made the set, here ).*(?=; with others)")
"""What the page says of the versions that a manifest's hash covers."""
HOME = "/home/me/cwm-hub"
"""Stands for WORK in what is printed."""


class Step(NamedTuple):
    """Commands of a page and what stands below them."""

    commands: str
    kept: str | None
    """Words of the lines that are shown; None shows all."""
    printed: str | None
    """None where the page shows no output."""
    span: tuple[int, int]
    """Of `printed` in the page."""


def steps(page: str) -> Iterator[Step]:
    """The page's blocks, in their order."""
    for found in PATTERN.finditer(page, page.index(FIRST)):
        yield Step(found["commands"], found["kept"], found["printed"], found.span("printed"))


def printed_by(step: Step, work: Path) -> str:
    """Run a step in a folder and give what it printed, as the page shows it."""
    for name in ("dataprep", "recipes"):
        if not (work / name).exists():
            (work / name).symlink_to(ROOT / name)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    shell = f'set -e\ncwm-dataprep() {{ {sys.executable} -m dataprep "$@"; }}\npython() {{ {sys.executable} "$@"; }}\n'
    run = subprocess.run(
        ["bash", "-c", shell + step.commands],
        cwd=work, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if run.returncode:
        sys.exit(f"error: {step.commands}{run.stdout}")
    lines = [line for line in run.stdout.replace(str(work), HOME).splitlines() if line.strip()]
    return "".join(f"{line}\n" for line in lines if step.kept is None or step.kept in line)


def versions() -> str:
    """Those of a manifest, as the page says them."""
    return ", ".join(
        [
            f"python {platform.python_version()}",
            *(f"{name} {version(name)}" for name in ("cwm-hub", "av", "numpy", "pillow")),
        ]
    )


def main(work: Path, path: Path) -> None:
    """Rewrite the page."""
    work.mkdir(parents=True, exist_ok=True)
    page, moved = VERSIONS.sub(versions(), path.read_text()), 0
    for step in list(steps(page)):
        sys.stderr.write(step.commands)
        printed = printed_by(step, work.resolve())
        if step.printed is not None:
            start, stop = (place + moved for place in step.span)
            page = page[:start] + printed + page[stop:]
            moved += len(printed) - len(step.printed)
            path.write_text(page)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else PAGE)
