"""The help of every command ends in examples, or in a recipe's case begins with them, and each is a command that it takes."""

import ast
from pathlib import Path

import documents
import pytest
from documents import ROOT, TOOLS, Piece, complaint

import cwm_hub.cli
import dataprep.__main__

MAINS = {"cwm-dataprep": dataprep.__main__.main, "cwm-hub": cwm_hub.cli.main}
PAGES = [path for path in sorted((ROOT / "recipes").glob("*.py")) if path.stem != "__init__"]


def check(lines: list[str], begin: str) -> None:
    commands = [line.strip() for line in lines if line.strip().startswith(begin)]
    assert len(commands) >= 2, f"two examples are wanted, found {commands}"
    for line in commands:
        for words in documents.commands(Piece("docs/x.md", 1, "sh", line, None)):
            assert complaint(words) is None, line


@pytest.mark.parametrize(("tool", "name"), [(tool, name) for tool in TOOLS for name in TOOLS[tool]])
def test_the_help_of_a_sub_command_has_examples(
    tool: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        MAINS[tool]([name, "--help"])
    assert stop.value.code == 0
    _, examples = capsys.readouterr().out.split("\nexamples:\n")
    check(examples.splitlines(), f"{tool} {name}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_head_of_a_recipe_has_examples(page: Path) -> None:
    """`--help` says it first: tests/recipes/test_command_line.py."""
    head = ast.get_docstring(ast.parse(page.read_text())) or ""
    check(head.replace("\\\n", " ").splitlines(), f"python recipes/{page.name}")


def test_one_that_is_stale_would_be_seen() -> None:
    with pytest.raises(AssertionError, match="two examples"):
        check(["cwm-hub verify a"], "cwm-hub verify")
    with pytest.raises(AssertionError, match="--levl"):
        check(["cwm-dataprep verify a", "cwm-dataprep verify a --levl full"], "cwm-dataprep verify")
