"""`cwm-dataprep filter`: a smaller shard directory from a larger one, by columns of its index, without decoding a clip.

    cwm-dataprep filter shards/ssv2 --min-motion 0.015 --where "num_frames>=25" --out shards/ssv2-moving

Something-Something-v2 has many clips in which nothing moves. The same conditions can be given to the loader instead
(`ClipSource(where=...)`), which costs no disk; a filtered copy is for keeping, moving and publishing.
"""

import argparse
import hashlib
import json
import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from cwm_hub.command_line import how_many
from cwm_hub.shards.extra_columns import OURS, Columns, read_columns
from cwm_hub.shards.index import ClipRow, read_index, read_index_table
from cwm_hub.shards.manifest import Manifest, read_failures
from cwm_hub.shards.storage import Root
from dataprep.command_line import EXIT_DONE, add_options, option, positional, read_options
from dataprep.curation.copying import Clip, new_set, write_copy

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
    "~": lambda value, part: part in value,
}
"""By how a condition writes them; `~` is "contains" and for text only."""
CONDITION = re.compile(r"\s*([\w .-]*\w)\s*(>=|<=|!=|=|>|<|~)\s*(.*?)\s*")


@dataclass(frozen=True)
class Condition:
    """`moving>=0.015`, `label=93`, `label_text~left`."""

    column: str
    """A field of `ClipRow`, or a column of the user's own."""
    comparison: str
    """A key of `COMPARISONS`."""
    value: str | int | float

    def __str__(self) -> str:
        return f"{self.column}{self.comparison}{self.value}"

    def holds(self, row: ClipRow, columns: Columns | None = None) -> bool:
        """Whether the clip stays; of `cuts` their number is compared, and what was not measured fits nothing.

        Args:
            row: of the index.
            columns: the user's own; a video without a value is left out by every condition on one.
        """
        if self.column in OURS:
            value = getattr(row, self.column)
            return COMPARISONS[self.comparison](len(value) if isinstance(value, tuple) else value, self.value)
        own = (columns or {})[self.column].get(row.source)
        return own is not None and own == own and COMPARISONS[self.comparison](own, self.value)

    @classmethod
    def parse(cls, text: str, columns: Columns | None = None) -> "Condition":
        """Read what a person wrote; `columns` are the user's own.

        Raises:
            ValueError: It is no condition, or the column is unknown or of another type.
        """
        types: dict[str, Any] = {field.name: field.type for field in fields(ClipRow)} | {"cuts": int}
        for name, values in (columns or {}).items():
            types[name] = str if any(isinstance(value, str) for value in values.values()) else float
        match = CONDITION.fullmatch(text)
        if match is None:
            raise ValueError(f"expected a condition such as moving>=0.015 or label_text~left, got {text!r}")
        column, comparison, value = match.groups()
        if column not in types:
            raise ValueError(f"the index has no column {column!r}, but {', '.join(types)}")
        if (comparison == "~") and types[column] is not str:
            raise ValueError(f"~ asks what a text contains, and {column} is a number")
        if types[column] is str:
            return cls(column, comparison, value)
        is_whole = types[column] is int and re.fullmatch(r"[+-]?\d+", value)
        try:
            number = int(value) if is_whole else float(value)
        except ValueError:
            number = math.nan
        if math.isnan(number):
            raise ValueError(f"{column} is compared with a number, got {value!r}")
        return cls(column, comparison, number)


@dataclass(frozen=True)
class FilterOptions:
    """Options of this sub-command."""

    root: str = positional("ROOT")
    """Shard directory or fsspec URL."""
    out: str = option(metavar="OUT")
    """New local directory."""
    where: tuple[str, ...] = option((), metavar="CONDITION")
    """Column, one of >= <= != = > < or ~ (contains), value; where several are given, all must hold."""
    min_motion: float | None = option(None, metavar="SHARE", parse=float)
    """Of the picture that must move, as `--where moving>=SHARE`; 0.015 tells what moves from a still camera."""
    name: str | None = None
    """Of the new set; none: as before."""


EXAMPLES = (
    "cwm-dataprep filter shards/mine --min-motion 0.015 --where 'num_frames>=50' --out shards/moving",
    "cwm-dataprep filter shards/mine --where 'label_text~drawer' --out shards/drawers",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this sub-command's options."""
    add_options(parser, FilterOptions)


def run(args: argparse.Namespace) -> int:
    """Copy what fits; exit code 0."""
    columns = read_columns(read_index_table(args.root))
    options = read_options(FilterOptions, args)
    conditions = [Condition.parse(text, columns) for text in options.where]
    if options.min_motion is not None:
        conditions.append(Condition("moving", ">=", options.min_motion))
    if not conditions:
        raise ValueError("filter by what? Give --where or --min-motion")
    manifest = filter_shards(options.root, options.out, conditions, name=options.name)
    before = sum(record.samples for record in Manifest.load(options.root).shards)
    print(
        f"{options.out}: {sum(record.samples for record in manifest.shards)} of {how_many(before, 'clip')}, manifest {manifest.hash[:12]}"
    )
    return EXIT_DONE


def filter_shards(
    root: str | Path | Root,
    out: str | Path | Root,
    conditions: Sequence[Condition],
    *,
    name: str | None = None,
) -> Manifest:
    """Write the clips for which every condition holds, encoded as they are, shard by shard in their order.

    Args:
        root: Shard directory, local or an fsspec URL.
        out: New local directory.
        conditions: All must hold.
        name: Of the new set.

    Raises:
        ValueError: No clip is left, the set is older than a column, or `out` is remote or not empty.
    """
    root, out = Root.parse(root), Root.parse(out)
    manifest, rows = Manifest.load(root), read_index(root)
    for column in sorted({condition.column for condition in conditions} & OURS):
        if any(getattr(row, column) != getattr(row, column) for row in rows):  # NaN
            raise ValueError(
                f"{column} was not measured when {root} was made: shard its videos again to filter by it"
            )
    columns = read_columns(read_index_table(root))
    kept = [row for row in rows if all(condition.holds(row, columns) for condition in conditions)]
    groups: dict[str, dict[str, list[Clip]]] = {}
    for row in kept:
        groups.setdefault(row.split, {}).setdefault(row.shard, []).append(Clip(root, row))
    filtered = replace(
        manifest,
        name=name or manifest.name,
        config=_with_filter(manifest, conditions),
        plan_hash=hashlib.sha256(json.dumps([manifest.hash, *map(str, conditions)]).encode()).hexdigest(),
    )
    with new_set(out) as home:
        if not kept:
            raise ValueError(f"no clip of {root} has {' and '.join(map(str, conditions))}")
        shards = {split: [*by_shard.values()] for split, by_shard in groups.items()}
        return write_copy(home, filtered, shards, read_failures(root))


def _with_filter(manifest: Manifest, conditions: Sequence[Condition]) -> dict[str, Any]:
    """The configuration as it was, and what was done since."""
    done = {"parent": manifest.hash, "where": [str(condition) for condition in conditions]}
    return {**manifest.config, "filters": [*manifest.config.get("filters", []), done]}
