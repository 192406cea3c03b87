"""The outputs that docs/quickstart.md shows are what its commands print: of those that take seconds, number by number."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

from cwm_hub.evaluation import words
from recipes.run.advice import first_update

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def make_outputs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_outputs", ROOT / "docs/mkdocs/make_outputs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKE = make_outputs()
STEPS = list(MAKE.steps(MAKE.PAGE.read_text()))


def facts(printed: str, *, manifest: bool) -> list[list[str]]:
    """Numbers of every line, but for rates and times, which are the machine's."""
    steady = re.sub(r"[\d,.]+ frames/s|\d+:\d\d" + ("" if manifest else "|[0-9a-f]{12}"), "", printed)
    return [re.findall(r"[0-9a-f]{12}|\d[\d,.]*", line) for line in steady.splitlines()]


def test_shards_are_made_as_the_page_shows(tmp_path: Path) -> None:
    """The manifest's hash among the numbers, where the versions are those of the page."""
    step, page = STEPS[0], MAKE.PAGE.read_text()
    assert step.commands.startswith("cwm-dataprep folder") and re.search(
        r"manifest [0-9a-f]{12};", step.printed
    )
    alike = MAKE.VERSIONS.search(page)[0] == MAKE.versions()
    assert facts(MAKE.printed_by(step, tmp_path), manifest=alike) == facts(step.printed, manifest=alike)


def test_the_other_outputs_are_in_the_words_of_the_code() -> None:
    _, training, early, tiny, published, agent = (step.printed for step in STEPS if step.printed)
    assert without_numbers(training.splitlines()[2]) == without_numbers(first_update(1.0, 200))
    for printed in (early, tiny):
        assert "loading " in printed and "16 of 16 predictions\ndrawing figures\n" in printed
        assert printed.splitlines()[-1].startswith(
            "Fréchet distance of 320 open-loop frames from the true ones"
        )
        assert all(f" {name} [" in printed for name in words.BASELINES.values() if "own" not in name)
    assert published.startswith("published to ") and agent.startswith(
        "evaluation at step 7,400, score (success)"
    )


def without_numbers(line: str) -> str:
    return re.sub(r"[\d.:]+", "0", line)


def test_a_second_walk_does_not_meet_the_readmes_folders() -> None:
    commands = "".join(step.commands for step in STEPS)
    places = set(re.findall(r"(?:shards|runs)/[\w-]+|--to \w+", commands))
    assert places and not places & set(re.findall(r"(?:shards|runs)/[\w-]+|--to \w+", README))


def test_only_lines_that_are_asked_for_are_shown(tmp_path: Path) -> None:
    page = "x\n## Shards\n\n```sh\necho 12; pwd\n```\n\n<!-- lines with: 1 -->\n```text\nold\n```\n\n```sh\necho a\n```\n"
    path = tmp_path / "page.md"
    path.write_text(page.replace("12;", "12; echo 3;"))
    MAKE.main(tmp_path / "work", path)
    assert path.read_text() == page.replace("12;", "12; echo 3;").replace("old\n", "12\n")
    path.write_text(page.replace("<!-- lines with: 1 -->\n", "").replace("old\n", ""))
    MAKE.main(tmp_path / "work", path)
    assert f"```text\n12\n{MAKE.HOME}\n```" in path.read_text()
