"""Read lists that people and programs wrote: text whatever its byte order mark, lines, csv, jsonl and json.

A line ends at a newline and at nothing else: U+2028, NEL or a form feed inside a json string or a csv field are text.
"""

import codecs
import csv
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks and how a file that begins with one is decoded; a file without one is UTF-8."""


def decode(data: bytes) -> str:
    """Text of a file, without its byte order mark; raises UnicodeDecodeError."""
    return data.decode(next((encoding for mark, encoding in MARKS if data.startswith(mark)), "utf-8"))


def split_lines(text: str) -> list[str]:
    """The lines of a text that hold something, in order."""
    return [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]


def read_text(path: Path) -> str:
    """A text file.

    Raises:
        ValueError: It cannot be read, or is neither UTF-8 nor marked as UTF-16.
    """
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error}") from error


def read_json(path: Path) -> Any:
    """A json file.

    Raises:
        ValueError: It cannot be read or is damaged.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: damaged json: {error}") from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a .jsonl (json values), or of a csv with a header (strings, None where a row ends early).

    A csv whose header holds no comma may be separated by semicolons or tabs.

    Raises:
        ValueError: The file cannot be read, a line is damaged or no object, a csv row has more fields than the header,
            or a row or the header names a column twice.
    """
    text = read_text(path)
    rows = _json_rows(text, path) if path.suffix.lower() == ".jsonl" else _csv_rows(text, path)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise ValueError(f"{path}: row {number} is no json object")
    return rows


def _json_rows(text: str, path: Path) -> list[Any]:
    rows = []
    for number, line in enumerate(split_lines(text), start=1):
        try:
            rows.append(json.loads(line, object_pairs_hook=_unique))
        except ValueError as error:
            raise ValueError(f"{path}: damaged jsonl line, row {number}: {error}") from error
    return rows


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names stand once: of two, json would take the last without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands twice")
    return found


def _csv_rows(text: str, path: Path) -> list[dict[str, Any]]:
    header = text.partition("\n")[0]
    # spreadsheets of many countries write semicolons
    delimiter = "," if "," in header else next((one for one in ";\t" if one in header), ",")
    blanks = f"{delimiter} " in header  # written with a blank after each, which is then no part of a field
    reader = csv.DictReader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=blanks
    )
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ValueError(f"{path}: the header names {twice[0]!r} twice")
        reader.fieldnames = names
        rows = list(reader)
    except csv.Error as error:
        raise ValueError(f"{path}: damaged csv after line {reader.line_num}: {error}") from error
    for number, row in enumerate(rows, start=1):
        if None in row:
            raise ValueError(
                f"{path}: row {number} has more fields than the header ({len(names)}): quote a field that holds a "
                f"{delimiter!r}"
            )
    return rows
