"""What a labels file says of videos, and how classes are told from what people write into a `label` column."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from cwm_hub.shards.extra_columns import OURS
from dataprep.sharding.plan import SPLITS
from dataprep.sources.text_files import read_rows

COLUMNS = ("path", "label", "label_text", "split")
SPLIT_NAMES = {"val": "validation", "valid": "validation", "dev": "validation", "eval": "validation"}
"""What others call our splits."""
LARGEST = 2**63 - 1
"""The index keeps labels in 64 bits."""


@dataclass(frozen=True, slots=True)
class Label:
    """What a labels file says of one video."""

    label: int = -1
    label_text: str = ""
    split: str | None = None
    extra: tuple[tuple[str, Any], ...] = ()
    """(column, value) of the columns that are the user's own."""


@dataclass(frozen=True)
class Labels:
    """A labels file as it was read."""

    by_path: Mapping[str, Label] = field(default_factory=dict)
    """By path below the input folder."""
    notes: tuple[str, ...] = ()
    """Columns that were kept as the user's own, or not used."""


def read_labels(path: Path) -> Labels:
    """Labels by video path from a csv with a header, or jsonl; columns `path`, `label`, `label_text`, `split`.

    Other columns are kept for the index, but for those that bear the name of one of its own. Labels are whole numbers, or words that are numbered in alphabetical order and taken as the text too.

    Raises:
        ValueError: the file cannot be read, has no `path`, names an unknown split, holds a label that is no class, or
            says two things of one video.
    """
    rows = read_rows(path)
    if not rows:
        raise ValueError(f"{path} lists no video: expected a csv with a header that has `path`, or a .jsonl")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get("path"), str) or not row["path"]:
            raise ValueError(f"{path}: row {number} has no `path`, but {', '.join(map(repr, row))}")
    try:
        classes = number_classes([row.get("label") for row in rows])
    except ValueError as error:
        raise ValueError(f"{path}, column label: {error}") from error
    labels: dict[str, Label] = {}
    said: dict[str, int] = {}
    for number, (row, (label, word)) in enumerate(zip(rows, classes, strict=True), start=1):
        split = str(row.get("split") or "").strip() or None
        split = SPLIT_NAMES.get(split.lower(), split) if split else None
        if split not in (None, *SPLITS):
            raise ValueError(f"{path}: row {number} has split {split!r}, expected {', '.join(SPLITS)}")
        extra = tuple((column, row[column]) for column in row if column not in OURS | set(COLUMNS))
        text = _text(row.get("label_text")) or word
        name, new = os.path.normpath(row["path"]), Label(label, text, split, extra)
        if labels.setdefault(name, new) != new:
            raise ValueError(f"{path}: rows {said[name]} and {number} say different things of {name}")
        said.setdefault(name, number)
    others = {column for row in rows for column in row} - set(COLUMNS)
    return Labels(labels, tuple(_notes(path, others - OURS, others & OURS)))


def _notes(path: Path, kept: set[str], refused: set[str]) -> Iterator[str]:
    if kept:
        yield f"{path.name}: columns {', '.join(map(repr, sorted(kept)))} are kept in the index (`filter --where`)"
    if refused:
        names = ", ".join(map(repr, sorted(refused)))
        yield f"{path.name}: columns {names} are not used: the index has columns of these names"


def number_classes(values: Sequence[Any]) -> list[tuple[int, str]]:
    """(class, its word or "") for each value of a label column; -1 where there is none.

    A column holds whole numbers, in whatever form (`2`, `2.0`, `"2"`), or words; None, "" and NaN are no class.

    Raises:
        ValueError: a number is not whole, below -1 or beyond 64 bits; numbers and words are mixed; or a value is neither.

    >>> number_classes(["walk", None, "jump"])
    [(1, 'walk'), (-1, ''), (0, 'jump')]
    """
    parsed = [_number_or_word(value) for value in values]
    words = sorted({value for value in parsed if isinstance(value, str)})
    numbers = [value for value in parsed if isinstance(value, int)]
    if words and numbers:
        raise ValueError(
            f"numbers and words are mixed ({numbers[0]} and {words[0]!r}): write all classes as numbers, or all as words"
        )
    index = {word: number for number, word in enumerate(words)}
    return [
        (index[value], value) if isinstance(value, str) else (-1 if value is None else value, "")
        for value in parsed
    ]


def _number_or_word(value: Any) -> int | str | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, (str, int, float)):
        raise ValueError(f"{value!r} is neither a number nor a word")
    text = str(value).strip()
    try:
        number = Decimal(text)
    except InvalidOperation:
        return text
    if "_" in text:  # Python's own notation: people mean a word
        return text
    if number.is_nan():
        return None
    if number != number.to_integral_value():
        raise ValueError(f"{text} is no class: expected whole numbers, or words")
    if not -1 <= number <= LARGEST:
        raise ValueError(f"{text} is no class: expected whole numbers from 0 to 2^63 - 1, or -1 for none")
    return int(number)


def _text(value: Any) -> str:
    """A caption as text; "" for None and NaN."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)
