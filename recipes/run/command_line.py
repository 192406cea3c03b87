"""Command line of a recipe, from its dataclass of settings: YAML files and dotted options, merged in the order given.

Every leaf counts and the later wins, whatever the form (`cwm_hub.config.merged`); what comes out is read by the strict
reader of every config (`from_dict`). In names `-` and `_` are one.
"""

import argparse
import ast
import dataclasses
import inspect
import json
import re
import sys
import textwrap
import typing
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, TypeVar

import yaml

from cwm_hub.config import ELSEWHERE, from_dict, merged, nearest, to_dict, without_none

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ConfigT = TypeVar("ConfigT", bound="DataclassInstance")


def parse_config(
    cls: type[ConfigT], arguments: Sequence[str] | None = None, *, description: str | None = None
) -> ConfigT:
    """The recipe's settings, from `--config file.yaml` and `--dotted.options`.

    A mistake is one line on stderr and exit code 1; an unknown name suggests the nearest.

    Args:
        cls: frozen dataclass of the settings, whose docstrings are the help.
        arguments: the command line; the process's own by default.
        description: what `--help` says first.
    """
    if arguments is None:
        sys.excepthook = _ctrl_c_is_a_line
    known = {option.name: option for option in _options(cls)}
    words = [_respelled(word, known) for word in (sys.argv[1:] if arguments is None else arguments)]
    parser = _make_parser(known, words, description)
    if any(
        not word or (word.startswith("--") and word.endswith("=")) for word in words
    ):  # a path would be the current folder
        parser.error("one of the arguments is empty: is a variable of the shell not set?")
    options = parser.parse_args(words)
    try:
        changes = [
            {_spelled(name, known): value for name, value in merged(one).items()} for one in options.changes
        ]
        settings = structured(cls, merged(*changes))
        for name, option in known.items():
            if option.default is dataclasses.MISSING and name not in settings and "." not in name:
                parser.error(f"--{name} is needed")
        config = from_dict(cls, settings, where="settings")
    except ValueError as error:
        parser.error(str(error))
    if options.print_config:
        print(yaml.safe_dump(to_dict(config), sort_keys=False), end="")
        parser.exit()
    return config


def _ctrl_c_is_a_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """While a recipe imports torch, before `one_sentence_errors`; Python then ends with the signal, 130 to a shell."""
    if issubclass(kind, KeyboardInterrupt):
        print("\ninterrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


class _Option(NamedTuple):
    """A field of the settings, or of a part of them."""

    name: str
    hint: Any
    default: Any
    """MISSING where the field has none."""
    words: str

    @property
    def item_hint(self) -> Any:
        """Of a free mapping, the type of its values; else None."""
        return typing.get_args(self.hint)[1] if typing.get_origin(self.hint) is dict else None


def _options(cls: type, path: str = "", part: Any = None) -> Iterator[_Option]:
    """Every field, and behind a nested dataclass its fields, by dotted name; `part` has the defaults."""
    hints, words = typing.get_type_hints(cls), _docstrings(cls)
    for field in dataclasses.fields(cls):
        default = field.default if part is None else getattr(part, field.name)
        if part is None and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        option = _Option(f"{path}{field.name}", hints[field.name], default, words.get(field.name, ""))
        yield option
        if dataclasses.is_dataclass(option.hint):
            assert isinstance(option.hint, type)
            yield from _options(option.hint, f"{option.name}.", default)


def _docstrings(cls: type) -> dict[str, str]:
    """Field -> the docstring under it, inherited ones too."""
    found = {}
    for base in reversed(cls.__mro__[:-1]):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        for field, below in pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                assert isinstance(field.target, ast.Name)
                found[field.target.id] = " ".join(ast.literal_eval(below.value).split())
    return found


def _spelled(name: str, known: Mapping[str, _Option]) -> str:
    """A name with `_` in place of `-`; the part that the user chose, as in `designs.my-run`, stays."""
    head, dot, rest = name.partition(".")
    head = head.replace("-", "_")
    if head in known and known[head].item_hint in (None, Any):
        rest = rest.replace("-", "_")
    return f"{head}{dot}{rest}"


def _respelled(word: str, known: Mapping[str, _Option]) -> str:
    """A word of the command line, its name spelled where it is an option."""
    if not word.startswith("--"):
        return word
    name, is_joined, value = word[2:].partition("=")
    return f"--{_spelled(name, known)}{is_joined}{value}"


def _make_parser(
    known: Mapping[str, _Option], words: Sequence[str], description: str | None
) -> argparse.ArgumentParser:
    """An option for every setting, and for every part of a free mapping that the command line names."""
    parser = _Parser(
        description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(changes=[])
    file = "YAML file with any of the settings below; what stands behind it in the command wins"
    parser.add_argument("--config", action=_ReadFile, metavar="FILE", default=argparse.SUPPRESS, help=file)
    parser.add_argument("--print_config", action="store_true", help="print the settings as YAML and end")
    for option in known.values():
        _add(parser, option.name, option.hint, help=_help(option))
    given = dict.fromkeys(word[2:].partition("=")[0] for word in words if word.startswith("--"))
    for option in known.values():
        for name in given if option.item_hint is not None else ():
            if name.startswith(f"{option.name}."):
                _add(parser, name, option.item_hint, help=argparse.SUPPRESS)
    return parser


def _add(parser: argparse.ArgumentParser, name: str, hint: Any, *, help: str) -> None:
    kind = without_none(hint)
    several = typing.get_origin(kind) in (list, tuple)
    number: dict[str, Any] = {"nargs": "+" if several else None}
    if kind is bool:
        number = {"nargs": "?", "const": "true"}
    options = {"default": argparse.SUPPRESS, "metavar": _type_word(kind), "help": help, "hint": hint}
    parser.add_argument(f"--{name}", action=_Set, **number, **options)


def _type_word(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return "{" + ",".join(map(str, arguments)) + "}"
    if origin in (list, tuple):
        return _type_word(arguments[0])
    return kind.__name__ if kind in (bool, int, float, str) else "MAPPING"


def _help(option: _Option) -> str:
    default = option.default
    if default is dataclasses.MISSING:
        said = "needed"
    elif dataclasses.is_dataclass(option.hint):
        said = "its parts follow"
    else:
        said = (
            f"default: {json.dumps(default)}"
            if default is None or isinstance(default, bool)
            else f"default: {default}"
        )
    return f"{option.words} ({said})".strip().replace("%", "%%")


class _Set(argparse.Action):
    """Adds `{name: value}` to the changes."""

    def __init__(self, option_strings: Sequence[str], dest: str, *, hint: Any, **options: Any) -> None:
        super().__init__(option_strings, dest, **options)
        self.hint = hint

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        try:
            namespace.changes.append({self.option_strings[0][2:]: _plain(self.hint, values)})
        except yaml.YAMLError as error:
            parser.error(f"{option_string} {values}: {error}")


class _ReadFile(argparse.Action):
    """Adds a YAML file to the changes."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        try:
            settings = yaml.load(Path(values).read_text(), Loader=_Loader) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            parser.error(f"cannot read --config {values}: {error}")
        if not isinstance(settings, dict):
            parser.error(f"--config {values}: expected settings by name, got {type(settings).__name__}")
        namespace.changes.append(settings)


def _plain(hint: Any, words: str | list[str]) -> Any:
    """The words behind an option as the plain data that `from_dict` takes for a setting of this type."""
    kind = without_none(hint)
    if isinstance(words, list):
        if len(words) == 1 and words[0].startswith("["):
            return yaml.load(words[0], Loader=_Loader)
        return [_plain(typing.get_args(kind)[0], word) for word in words]
    if words == "null" and type(None) in typing.get_args(hint):
        return None
    if kind is str or typing.get_origin(kind) is Literal:
        return words
    if kind is float:
        try:
            return float(words)  # inf too
        except ValueError:
            return words
    return yaml.load(words, Loader=_Loader)


def structured(cls: type, flat: Mapping[str, Any]) -> dict[str, Any]:
    """Merged changes by the fields of a class and of its parts; names that the user chose may have dots."""
    hints = typing.get_type_hints(cls)
    data: dict[str, Any] = {}
    for name, value in flat.items():
        head, dot, rest = name.partition(".")
        if not dot:
            data[head] = value
        elif isinstance(data.get(head) or {}, dict):
            data[head] = (data.get(head) or {}) | {rest: value}
        else:
            raise ValueError(f"{head} is given both a value and values of its parts")
    for name, value in data.items():
        if isinstance(value, dict) and dataclasses.is_dataclass(hints.get(name)):
            data[name] = structured(hints[name], value)
        elif isinstance(value, dict) and hints.get(name) in (dict[str, Any], dict[str, dict[str, Any]]):
            data[name] = _nested(value)
    return data


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Merged changes as nested mappings; the parts of what is None stay dotted behind it, where `override` sees them."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        head, dot, rest = name.partition(".")
        if dot and isinstance(nested.get(head, {}), dict):
            nested[head] = nested.get(head, {}) | {rest: value}
        else:
            nested[name] = value
    return {name: _nested(value) if isinstance(value, dict) else value for name, value in nested.items()}


class _Loader(yaml.SafeLoader):
    """YAML with the numbers and the booleans of its version 1.2: `1e-3` is a number, `no` is a word.

    A name that stands twice in one mapping is an error, as YAML has it: PyYAML would drop the first in silence.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As PyYAML; merged keys (`<<`) may be replaced."""
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for name in names:
            if names.count(name) > 1 and name != "<<":
                raise yaml.YAMLError(f"{name!r} stands twice in one mapping,{node.start_mark}")
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"(?:[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?\.inf|\.nan)$"),
    list("-+.0123456789"),
)


class _Parser(argparse.ArgumentParser):
    """argparse with one sentence in place of the whole usage."""

    def error(self, message: str) -> NoReturn:
        """Says what is wrong and where help is; exit code 1."""
        names = [option[2:] for action in self._actions for option in action.option_strings]
        free = [
            option[2:]
            for action in self._actions
            if action.metavar == "MAPPING"
            for option in action.option_strings
        ]
        names += [one for ours in ELSEWHERE.values() for one in ours.split() if one.partition(".")[0] in free]
        unknown = re.search(r"unrecognized arguments: --([\w.-]+)", message)
        hint = ""
        if unknown:  # of a free mapping only the first word is known
            hint = nearest(unknown[1], names) or nearest(unknown[1].partition(".")[0], names)
        sys.stderr.write(f"error: {' '.join(message.split())}{hint} (see {self.prog} --help)\n")
        self.exit(1)
