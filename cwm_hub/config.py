"""Frozen dataclasses to plain data and back: `config.json`, run YAML and overrides, with one temper for all.

Reading is strict: an unknown key, a missing key or a value of another type is one sentence that names the place
and, for a misspelt key, the nearest right one.
"""

import dataclasses
import difflib
import functools
import math
import operator
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MOST_LAYERS = 256
MOST_UNITS = 65_536
"""Far above any model of this library: what a file says beyond them would only exhaust the machine."""

ELSEWHERE = {
    "lr learning_rate": "learning_rate world_lr agent.world_lr",
    "actor_lr critic_lr": "behaviour_lr agent.behaviour_lr",
    "gamma": "discount behaviour.discount",
    "horizon": "imagined_steps behaviour.imagined_steps",
    "batch_size": "batch_clips batch_sequences agent.batch_sequences",
    "num_envs n_envs envs": "collect_envs",
    "frame_skip": "env.action_repeat",
    "task env_id": "env.name",
    "checkpoint pretrained": "init agent",
    "out output out_dir output_dir logdir": "out run",
}
"""What settings are called in other code -> what such a one is called here, by some config or another."""

ConfigT = TypeVar("ConfigT", bound="DataclassInstance")


class ConfigError(ValueError):
    """A config says something that its dataclass does not: the message is one sentence for the user."""


def to_dict(config: "DataclassInstance") -> dict[str, Any]:
    """Plain JSON data of a config: nested dataclasses become dicts, tuples become lists."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def from_dict(cls: type[ConfigT], data: Any, *, where: str = "config.json") -> ConfigT:
    """Builds the config that `to_dict` described; fields that `data` leaves out keep their defaults.

    Args:
        cls: the dataclass to build.
        data: nested mapping with exactly the dataclass's names.
        where: what the data came from, first word of every error.

    Raises:
        ConfigError: an unknown key, a missing key, or a value of another type than the field's.
    """
    return _build(cls, data, where, "")


def override(config: ConfigT, changes: Mapping[str, Any], *, where: str = "override") -> ConfigT:
    """A copy of `config` with some values replaced, named by nested mappings or dotted keys.

    `{"rssm.deter": 256}` and `{"rssm": {"deter": 256}}` say the same, and of both together every leaf counts. A part
    that is None and is given a mapping is built from that mapping and its class's defaults; a part given None is taken
    out, and one that is given parts after a None is built as if it had been None.

    Raises:
        ConfigError: as `from_dict`.
    """
    return _override(config, merged(changes), where, "")


def merged(*changes: Mapping[str, Any]) -> dict[str, Any]:
    """Several changes as one, flat by dotted names: the later wins, leaf by leaf.

    `merged({"rssm": {"deter": 16}}, {"rssm.hidden": 8})` is `{"rssm.deter": 16, "rssm.hidden": 8}`. None for a part drops
    what was said of it before; what is said of it afterwards stands behind that None, by which `override` knows that
    the part begins anew. An empty mapping counts only for a part of which nothing else is said.
    """
    flat: dict[str, Any] = {}
    for name, value in (leaf for change in changes for leaf in _leaves(change, "")):
        parts = [key for key in flat if key.startswith(f"{name}.")]
        if isinstance(value, Mapping) and (parts or name in flat):
            continue
        for key in (*parts, name):
            flat.pop(key, None)
        flat[name] = value
    return flat


def check_range(
    config: object,
    *names: str,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> None:
    """Refuses a number of a config that lies outside the bounds given, or that is not finite; for `__post_init__`.

    Raises:
        ValueError: names the field, the bounds and the value.
    """
    limits = [
        ("at least", at_least, operator.ge),
        ("above", above, operator.gt),
        ("at most", at_most, operator.le),
        ("below", below, operator.lt),
    ]
    given = [(words, limit, holds) for words, limit, holds in limits if limit is not None]
    for name in names:
        value = getattr(config, name)
        finite = math.isfinite(value)
        if not finite or not all(holds(value, limit) for _, limit, holds in given):
            bounds = [f"{words} {limit}" for words, limit, _ in given] + ([] if finite else ["finite"])
            raise ValueError(f"{name} is {' and '.join(bounds)}, got {value}")


def nearest(word: str, words: Iterable[str]) -> str:
    """`"; did you mean 'deter'?"` for the closest of `words`, or an empty string when none is close.

    A name that the same thing has elsewhere comes first, then a slip of a letter, then one that has every part of the word, as
    `env.episode_frames` has those of `env_frames`.
    """
    known, parts = list(words), set(re.split("[._-]", word))
    same = (ours.split() for theirs, ours in ELSEWHERE.items() if word in theirs.split())
    fuller = [one for one in known if parts <= set(re.split("[._-]", one))]
    matches = (
        [one for names in same for one in names if one in known]
        or difflib.get_close_matches(word, known, n=1, cutoff=0.85)
        or difflib.get_close_matches(word, fuller, n=1, cutoff=0.0)
        or difflib.get_close_matches(word, known, n=1)
    )
    return f"; did you mean {matches[0]!r}?" if matches else ""


def without_none(hint: Any) -> Any:
    """The annotation of a field where its value is not None; a union of literals is one literal."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    members = [member for member in typing.get_args(hint) if member is not type(None)]
    if len(members) == 1:
        return members[0]
    assert all(typing.get_origin(member) is Literal for member in members), hint
    return Literal[tuple(choice for member in members for choice in typing.get_args(member))]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


@functools.cache
def _field_types(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def _check_key(cls: type, key: Any, where: str) -> None:
    names = _field_types(cls)
    if key not in names:
        hint = nearest(str(key), names) or nearest(str(key), _deep_names(cls))
        raise ConfigError(f"{where}: unknown key {key!r} in {cls.__name__}{hint}")


def _deep_names(cls: type, path: str = "") -> Iterator[str]:
    """Dotted names of all fields of a config's parts, of those too that may be None."""
    for name, hint in _field_types(cls).items():
        if path:
            yield f"{path}{name}"
        part = without_none(hint)
        if dataclasses.is_dataclass(part):
            assert isinstance(part, type)
            yield from _deep_names(part, f"{path}{name}.")


def _build(cls: type[ConfigT], data: Any, where: str, path: str) -> ConfigT:
    if not isinstance(data, Mapping):
        error = _mismatch(cls, data, where, path)
        part = _join(path, dataclasses.fields(cls)[0].name)
        raise ConfigError(f"{error}: it has parts, such as {part}") if isinstance(data, str) else error
    for key in data:
        _check_key(cls, key, where)
    for field in dataclasses.fields(cls):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if field.init and required and field.name not in data:
            raise ConfigError(f"{where}: missing key {_join(path, field.name)!r} in {cls.__name__}")
    hints = _field_types(cls)
    values = {key: _parse(hints[key], value, where, _join(path, key)) for key, value in data.items()}
    return _construct(lambda: cls(**values), where, path)


def _leaves(change: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of everything in a nested mapping that is not a mapping with something in it."""
    for key, value in change.items():
        name = _join(path, str(key))
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, name)
        else:
            yield name, value


def _override(config: ConfigT, changes: Mapping[str, Any], where: str, path: str) -> ConfigT:
    """`override` with changes as `merged` gives them."""
    cls = type(config)
    hints = _field_types(cls)
    replaced: dict[str, Any] = {}
    for name, (value, anew) in _by_field(changes, where).items():
        _check_key(cls, name, where)
        current, here = getattr(config, name), _join(path, name)
        is_part = dataclasses.is_dataclass(current) and not isinstance(current, type)
        if is_part and isinstance(value, Mapping) and not anew:
            replaced[name] = _override(current, value, where, here)
        else:
            replaced[name] = _parse(hints[name], _nest(value, where), where, here)
    return _construct(lambda: dataclasses.replace(config, **replaced), where, path)


def _by_field(changes: Mapping[str, Any], where: str) -> dict[str, tuple[Any, bool]]:
    """First words of merged changes to what is said of them, and whether that comes after a None: one level.

    `{"a.b": 1, "a.c.d": 2}` becomes `{"a": ({"b": 1, "c.d": 2}, False)}`.
    """
    gathered: dict[str, tuple[Any, bool]] = {}
    for name, value in changes.items():
        head, dot, rest = name.partition(".")
        if not dot:
            gathered[head] = (value, False)
            continue
        before, anew = gathered.get(head, ({}, False))
        if before is None:
            before, anew = {}, True
        if not isinstance(before, Mapping):
            raise ConfigError(f"{where}: {head!r} is given both a value and values of its parts")
        gathered[head] = ({**before, rest: value}, anew)
    return gathered


def _nest(value: Any, where: str) -> Any:
    """Unfolds dotted keys all the way down, for a part that has no config yet to walk along."""
    if not isinstance(value, Mapping):
        return value
    return {key: _nest(item, where) for key, (item, _) in _by_field(value, where).items()}


def _parse(hint: Any, value: Any, where: str, path: str) -> Any:
    """`value` as an instance of the annotation `hint`; every branch is one kind of annotation."""
    if hint is Any:
        return value
    present = without_none(hint)
    if present is not hint:
        optional = type(None) in typing.get_args(hint)
        return None if value is None and optional else _parse(present, value, where, path)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
        close = nearest(value, [a for a in arguments if isinstance(a, str)]) if isinstance(value, str) else ""
        raise ConfigError(f"{where}: {path} expects {_describe(hint)}, got {value!r}{close}")
    if origin in (list, tuple) and isinstance(value, list | tuple):
        any_length = origin is list or arguments[-1] is Ellipsis
        members = arguments[:1] * len(value) if any_length else arguments
        if len(members) != len(value):
            raise _mismatch(hint, value, where, path)
        items = zip(members, value, strict=True)
        return origin(_parse(member, item, where, f"{path}[{i}]") for i, (member, item) in enumerate(items))
    if origin is dict and isinstance(value, Mapping):
        key_hint, item_hint = arguments
        return {
            _parse(key_hint, key, where, path): _parse(item_hint, item, where, _join(path, str(key)))
            for key, item in value.items()
        }
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else _build(hint, value, where, path)
    if hint is float and type(value) is int:
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise _mismatch(hint, value, where, path)


def _construct(build: Callable[[], ConfigT], where: str, path: str) -> ConfigT:
    """Runs a constructor whose `__post_init__` may refuse the combination of values."""
    try:
        return build()
    except ConfigError:
        raise
    except ValueError as error:
        place = f"{where}: {path}" if path else where
        raise ConfigError(f"{place}: {error}") from error


def _mismatch(hint: Any, value: Any, where: str, path: str) -> ConfigError:
    place = f"{where}: {path}" if path else where
    return ConfigError(f"{place} expects {_describe(hint)}, got {value!r} ({type(value).__name__})")


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in typing.get_args(hint))
    if dataclasses.is_dataclass(hint):
        return f"a mapping ({getattr(hint, '__name__', hint)})"
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
