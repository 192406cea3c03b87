"""Command line of a recipe: a YAML file, dotted overrides on top of it, and one sentence where they are wrong."""

import contextlib
import re
import sys
from typing import Any, NoReturn, TypeVar

import yaml
from jsonargparse import ArgumentParser, set_parsing_settings

from cwm_hub.config import nearest

ConfigT = TypeVar("ConfigT")

UNKNOWN = (
    re.compile(r"Option '([\w.-]+)' is not accepted"),
    re.compile(r"unrecognized arguments: --([\w.-]+)"),
)
"""How jsonargparse says that the YAML file or the command line holds a name that no setting has."""


def parse_config(
    cls: type[ConfigT], arguments: list[str] | None = None, *, description: str | None = None
) -> ConfigT:
    """The recipe's configuration, from `--config file.yaml` and `--dotted.overrides`, in the order given.

    A mistake is one line on stderr and exit code 1; an unknown name suggests the nearest.

    Args:
        cls: frozen dataclass of the settings, whose docstrings are the help.
        arguments: the command line; the process's own by default.
        description: first line of `--help`.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = _Parser(description=description, default_env=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file with any of the settings below")
    parser.add_class_arguments(cls, as_group=False)
    values = parser.instantiate(parser.parse_args(arguments))
    values.pop("config")
    return cls(
        **{name: _typed(value) if isinstance(value, dict) else value for name, value in values.items()}
    )


def _typed(value: Any) -> Any:
    """Numbers and nulls of free-form settings, `--overrides.rssm.deter 16`: jsonargparse leaves nested ones as text."""
    if isinstance(value, dict):
        return {key: _typed(item) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    with contextlib.suppress(ValueError):
        return int(value)
    with contextlib.suppress(ValueError):
        return float(value)  # 1e-3 too, which YAML 1.1 reads as text
    return yaml.safe_load(value)


class _Parser(ArgumentParser):
    """jsonargparse with one sentence in place of the whole usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Says what is wrong and where help is; exit code 1."""
        names = [option.lstrip("-") for action in self._actions for option in action.option_strings]
        unknown = next((match[1] for pattern in UNKNOWN if (match := pattern.search(message))), None)
        hint = nearest(unknown, names) if unknown else ""
        sys.stderr.write(f"error: {' '.join(message.split())}{hint} (see {self.prog} --help)\n")
        self.exit(1)
