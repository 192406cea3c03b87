"""What the documentation tells people to type, and whether the programs know it: their own parsers are asked, nothing runs.

A page's commands are its fenced blocks of `sh` (in README.md also those without a language) and the inline code that
begins as a command. A block below `<!-- not run: REASON -->` is left out.
"""

import argparse
import contextlib
import importlib.util
import io
import re
import runpy
import shlex
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, NoReturn
from unittest import mock

import cwm_hub.cli
import dataprep.__main__
import recipes.run.command_line as recipe_command_line
from dataprep.sources.table import SOURCES

ROOT = Path(__file__).parents[1]
TOOLS = {"cwm-dataprep": SOURCES | dataprep.__main__.COMMANDS, "cwm-hub": cwm_hub.cli.COMMANDS}
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

ELSEWHERE = {
    "cd", "cp", "docker", "eval", "export", "for", "git", "grep", "hf", "nvidia-smi", "ray", "sbatch", "source", "srun",
}  # fmt: skip
"""Programs and words of the shell that are not ours."""

REDIRECTIONS = {"<", ">", ">>"}

BLOCK = re.compile(
    r"(?:<!-- not run: (?P<excuse>[^>]+) -->\n)?^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^ *```|"
    r"`(?P<inline>[^`\n]+)`",
    re.DOTALL | re.MULTILINE,
)


class Piece(NamedTuple):
    """A block of a page, or a command in its running text."""

    page: str
    line: int
    language: str
    """Of the fence; "inline" of running text."""
    text: str
    excuse: str | None
    """Why it is not checked."""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """README.md and every page of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def pieces(page: Path) -> Iterator[Piece]:
    """The blocks of a page and the inline code that begins as a command, in their order."""
    text, name = page.read_text(), str(page.relative_to(ROOT))
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        if found["inline"] is None:
            words = re.sub(f"^{found['indent']}", "", found["text"], flags=re.MULTILINE)
            yield Piece(name, line, found["language"], words, found["excuse"])
        elif re.match(r"(python [\w/]+\.py|cwm-dataprep|cwm-hub|make|pip install) ", found["inline"]):
            yield Piece(name, line, "inline", found["inline"], None)


def commands(piece: Piece) -> Iterator[list[str]]:
    """The words of each command of a block: comments gone, variables of the shell as 0."""
    if piece.excuse or piece.language not in ("sh", "inline", *([""] if piece.page == "README.md" else [])):
        return
    for line in re.sub(r"\\\n\s*", " ", piece.text).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
        lexer.whitespace_split = True
        command: list[str] = []
        for before, word in pairwise(["", *lexer, ";"]):
            if set(word) <= set(";&|"):
                yield from [command] if command else []
                command = []
            elif word not in REDIRECTIONS and before not in REDIRECTIONS and (word != "do" or command):
                command.append(re.sub(r"\$(\{\w+\}|\w+)", "0", word))


def complaint(words: list[str]) -> str | None:
    """What is wrong with a command, by the parser of its own program; None where nothing is."""
    while "=" in words[0] and not words[0].startswith("-"):  # of the environment
        words = words[1:]
    program, *rest = words
    program = program.removeprefix(".venv/bin/")
    if program in ELSEWHERE or program == "done":
        return None
    if program in TOOLS:
        return _of_tool(program, rest)
    if program == "make":
        return next((f"no target {word}" for word in rest if "=" not in word and word not in TARGETS), None)
    if program == "pip":
        asked = re.findall(r"\[([\w,]+)\]", " ".join(rest))
        extras = {extra for found in asked for extra in found.split(",")}
        return f"no extra {sorted(extras - EXTRAS.keys())}" if extras - EXTRAS.keys() else None
    script = next((place for place, word in enumerate(rest) if word.endswith(".py")), None)
    if program in ("python", "accelerate", "torchrun", "pytest") and script is not None:
        return _of_script(rest[script], rest[script + 1 :])
    if program == "python" and rest[0] == "-m":
        return None if importlib.util.find_spec(rest[1]) else f"no module {rest[1]}"
    return f"no known program {program}"


class _Refused(ValueError):
    """A parser's complaint."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _Refused(message)


def _of_tool(tool: str, words: list[str]) -> str | None:
    name, *rest = words or ["--help"]
    if name == "--help":
        return None
    if name not in TOOLS[tool]:
        return f"no sub-command {name}"
    if not rest:  # a name in running text
        return None
    parser = _Parser(allow_abbrev=False)
    importlib.import_module(TOOLS[tool][name][0]).add_arguments(parser)
    try:
        if "--help" not in rest:
            parser.parse_args(rest)
    except _Refused as error:
        return str(error)
    return None


def _of_script(place: str, words: list[str]) -> str | None:
    """Of a recipe by its parser; of another script that the file is there and its source names the options."""
    path = ROOT / place.partition("::")[0]
    if not path.exists():
        return f"no file {place}"
    if path.parent != ROOT / "recipes":
        source = path.read_text().replace("-", "_")
        options = [word.partition("=")[0] for word in words if word.startswith("--")]
        return next((f"no option {name}" for name in options if name.replace("-", "_") not in source), None)
    return recipe_complaint(path, words)


class _Parsed(BaseException):
    """The settings could be read: the page goes no further."""


def recipe_complaint(path: Path, words: list[str]) -> str | None:
    """What a recipe's own command line says against these words; where a part is left out (`...`), what is there."""
    is_part = "..." in words
    words = [
        word
        for word, after in pairwise([*words, ""])
        if word != "..." and not (word.startswith("--") and after == "...")
    ]
    for place, word in enumerate(words):
        if word == "--config" and not (ROOT / words[place + 1]).exists():
            words, is_part = words[:place] + words[place + 2 :], True
            break
    words = [str(ROOT / word) if word.endswith(".yaml") else word for word in words]
    parse = recipe_command_line.parse_config

    def only_parse(cls: type, arguments: object = None, *, description: str | None = None) -> NoReturn:
        parse(cls, words, description=description)
        raise _Parsed

    said = io.StringIO()
    with (
        mock.patch.object(recipe_command_line, "parse_config", only_parse),
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        try:
            runpy.run_path(str(path), run_name="__main__")
        except _Parsed:
            return None
        except SystemExit as stop:
            if stop.code == 0 or (is_part and re.search(r"--\w+ is needed", said.getvalue())):
                return None
    return said.getvalue().strip()
