"""Options are made of dataclasses: nothing about an option is said twice."""

from dataclasses import dataclass
from typing import Literal

import pytest

from cwm_hub.command_line import Parser
from dataprep.__main__ import main
from dataprep.command_line import add_options, option, positional, read_options


@dataclass(frozen=True)
class Options:
    """Every kind of field."""

    root: str = positional("ROOT")
    """Where it lies."""
    level: Literal["quick", "full"] = "quick"
    """How deep."""
    rate: float | None = None
    """Per second,
    or not at all."""
    share: float = option(0.5, metavar="SHARE", short="-s")
    """Not 100%."""
    names: tuple[str, ...] = ()
    """Of people."""
    dry_run: bool = False
    """Nothing happens."""


def read(*words: str, **defaults: object) -> Options:
    parser = Parser(prog="tool")
    add_options(parser, Options, **defaults)
    return read_options(Options, parser.parse_args(words))


def test_every_kind_of_field_is_read() -> None:
    assert read("here") == Options(root="here")
    words = "here --level full --rate 3 -s 1 --names a b --names c --dry-run".split()
    assert read(*words) == Options("here", "full", 3.0, 1.0, ("a", "b", "c"), True)
    assert read("here", rate=2.0).rate == 2.0


def test_the_help_is_the_docstrings_and_the_defaults() -> None:
    parser = Parser(prog="tool")
    add_options(parser, Options, rate=2.0)
    told = " ".join(parser.format_help().split())
    for line in (
        "ROOT Where it lies.",
        "--level {quick,full} How deep. (default: quick)",
        "--rate X Per second, or not at all. (default: 2.0)",
        "--share SHARE, -s SHARE Not 100%. (default: 0.5)",
        "--names TEXT [TEXT ...] Of people. --dry-run Nothing happens.",
    ):
        assert line in told


@pytest.mark.parametrize("command", ["folder", "ssv2", "human36m", "youtube-driving", "hub-dataset"])
def test_every_source_tells_the_default_of_every_decode_setting(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "Height and width of the output, pixels. (default: 64)" in told
    stride = 5 if command in ("human36m", "youtube-driving") else 1
    assert f"those whose index is a multiple of it. (default: {stride})" in told
