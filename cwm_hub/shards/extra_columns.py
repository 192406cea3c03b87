"""Columns of the index that are the user's own: what a labels file says of each source video beyond class and split.

They lie in `meta/index.parquet` alone, not in the samples' json: a set gets other ones without a byte of its tars changed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from cwm_hub.shards.index import ClipRow

if TYPE_CHECKING:
    import pyarrow

Columns = dict[str, dict[str, "str | float | None"]]
"""By name: the value of each source video. A column holds numbers or texts; None, or no entry, is no value."""

OURS = frozenset(field.name for field in fields(ClipRow))


def add_columns(table: "pyarrow.Table", columns: Mapping[str, Mapping[str, Any]]) -> "pyarrow.Table":
    """The index with the user's columns; numbers are float64, NaN where there is none, texts "" there."""
    import pyarrow as pa

    sources = table.column("source").to_pylist()
    for name, values in columns.items():
        is_text = any(isinstance(value, str) for value in values.values())
        empty: str | float = "" if is_text else float("nan")
        cells = [values.get(source) for source in sources]
        data = [empty if cell is None else cell for cell in cells]
        table = table.append_column(name, pa.array(data, pa.string() if is_text else pa.float64()))
    return table


def read_columns(table: "pyarrow.Table") -> Columns:
    """The user's columns of an index."""
    sources = table.column("source").to_pylist()
    names = [name for name in table.column_names if name not in OURS]
    return {name: dict(zip(sources, table.column(name).to_pylist(), strict=True)) for name in names}


def parse_columns(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> Columns:
    """Columns from what was read for each source: numbers where every value that is there is one, texts otherwise.

    >>> parse_columns([("a", {"speed": "1.5", "robot": "arm"}), ("b", {"speed": "", "robot": "2"})])
    {'speed': {'a': 1.5, 'b': None}, 'robot': {'a': 'arm', 'b': '2'}}
    """
    raw: dict[str, dict[str, str | None]] = {}
    for source, values in rows:
        for name, value in values.items():
            raw.setdefault(name, {})[source] = None if value is None or value == "" else str(value)
    return {name: _numbers(values) or dict(values) for name, values in raw.items()}


def _numbers(values: Mapping[str, str | None]) -> dict[str, str | float | None] | None:
    try:
        return {source: None if value is None else float(value) for source, value in values.items()}
    except ValueError:
        return None
