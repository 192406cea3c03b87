"""Recipes read YAML and overrides into their dataclass, and a mistake is one line that helps."""

from dataclasses import dataclass, field

import pytest

from recipes.run.command_line import parse_config


@dataclass(frozen=True)
class Part:
    """A nested part."""

    width: int = 3
    """Of it."""


@dataclass(frozen=True)
class Settings:
    """Settings of a recipe."""

    run: str
    """Run folder."""
    learning_rate: float = 0.1
    """Of Adam."""
    parts: list[Part] = field(default_factory=list)
    """Several."""
    part: Part = field(default_factory=Part)
    """One."""
    overrides: dict[str, int] = field(default_factory=dict)
    """Free."""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("run: somewhere\nlearning_rate: 3e-4\nparts: [{width: 7}]\noverrides: {a.b: 2}\n")
    return path


def test_a_file_and_overrides_on_top(file):
    settings = parse_config(Settings, ["--config", str(file), "--learning_rate", "1", "--part.width", "5"])
    assert settings == Settings("somewhere", 1.0, [Part(7)], Part(5), {"a.b": 2})


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--run", "x", "--learning_rat", "1"], "did you mean 'learning_rate'?"),
        (["--run", "x", "--part.widht", "1"], "did you mean 'part.width'?"),
        (["--run", "x", "--learning_rate", "fast"], "learning_rate"),
        ([], "run"),
        (["--config", "absent.yaml"], "File does not exist"),
    ],
)
def test_a_mistake_is_one_line(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as exit_:
        parse_config(Settings, arguments)
    printed = capsys.readouterr()
    assert exit_.value.code == 1 and not printed.out
    assert printed.err.startswith("error: ") and sentence in printed.err and printed.err.count("\n") == 1


def test_a_misspelt_key_in_the_file_suggests_the_right_one(file, capsys):
    file.write_text("run: x\nlerning_rate: 1\n")
    with pytest.raises(SystemExit):
        parse_config(Settings, ["--config", str(file)])
    assert "did you mean 'learning_rate'?" in capsys.readouterr().err


def test_help_says_what_every_field_is(capsys):
    with pytest.raises(SystemExit):
        parse_config(Settings, ["--help"])
    assert "Of Adam." in capsys.readouterr().out
