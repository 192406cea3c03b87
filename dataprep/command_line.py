"""How `cwm-dataprep` is spoken to and how it ends: options made from frozen dataclasses, exit codes of its own.

    @dataclass(frozen=True)
    class Options:
        root: str = positional("ROOT")
        '''Shard directory or fsspec URL.'''
        sample: int = 1000
        '''Videos whose pixels are read.'''

    add_options(parser, Options)              # ROOT [--sample N], with these sentences and defaults as help
    options = read_options(Options, args)     # an Options

A field's name, type, default and docstring are its option's; `option` says what they cannot.
"""

import argparse
import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Callable, Collection
from typing import Any, Literal, TypeVar

from cwm_hub.command_line import EXIT_DONE as EXIT_DONE

EXIT_FAILURES = 2
"""The set is written and can be used, and more videos failed than `--max-failures`."""
EXIT_VERIFY = 3
"""A shard directory is not what its manifest says."""

OptionsT = TypeVar("OptionsT")
METAVARS = {int: "N", float: "X", str: "TEXT"}


def positional(metavar: str) -> Any:
    """A field that is given by its place and not by its name."""
    return dataclasses.field(metadata={"positional": True, "metavar": metavar})


def option(
    default: Any = dataclasses.MISSING,
    *,
    metavar: str | None = None,
    parse: Callable[[str], Any] | None = None,
    short: str | None = None,
) -> Any:
    """A field with a word for its value in the help, a way to read it, or a short name such as `-o`."""
    keywords = {"metavar": metavar, "type": parse, "short": short}
    return dataclasses.field(
        default=default, metadata={key: value for key, value in keywords.items() if value}
    )


def add_options(
    parser: argparse._ActionsContainer, cls: type, *, leave_out: Collection[str] = (), **defaults: Any
) -> None:
    """Add an option for every field of the dataclass `cls`; `defaults` replace the fields' own."""
    hints, sentences = typing.get_type_hints(cls), docstrings(cls)
    for field in dataclasses.fields(cls):
        if field.name in leave_out:
            continue
        keywords: dict[str, Any] = {**_form(hints[field.name]), **field.metadata}
        names = [name for name in ("--" + field.name.replace("_", "-"), keywords.pop("short", None)) if name]
        default, sentence = defaults.get(field.name, field.default), sentences[field.name]
        if keywords.pop("positional", False):
            names = [field.name]
        elif default is dataclasses.MISSING:
            keywords["required"] = True
        elif "action" not in keywords:
            keywords["default"] = default
        if all(default is not one for one in (dataclasses.MISSING, False, ())):
            sentence = f"{sentence} (default: {'none' if default is None else default})"
        parser.add_argument(*names, help=sentence.replace("%", "%%"), **keywords)


def read_options(cls: type[OptionsT], args: argparse.Namespace, **replaced: Any) -> OptionsT:
    """The `cls` that the command line asks for, some fields `replaced`.

    Raises:
        ValueError: the class refuses a value.
    """
    names = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values = {name: value for name, value in vars(args).items() if name in names} | replaced
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


@functools.cache  # it reads the source
def docstrings(cls: type) -> dict[str, str]:
    """The docstring under each field of a dataclass, on one line."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: " ".join(str(ast.literal_eval(text.value)).split())
        for field, text in itertools.pairwise(definition.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }


def _form(hint: Any) -> dict[str, Any]:
    """What argparse must know of an annotation."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        (hint,) = (one for one in arguments if one is not types.NoneType)
        return _form(hint)
    if hint is bool:
        return {"action": "store_true"}
    if origin is Literal:
        return {"choices": arguments}
    if origin is tuple:
        return {"action": "extend", "nargs": "+", "default": argparse.SUPPRESS, **_form(arguments[0])}
    return {"type": hint, "metavar": METAVARS.get(hint)}
