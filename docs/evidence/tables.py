"""Tables of evidence that grow run by run: rows of runs that are no longer on this machine stay as they are."""

import csv
from pathlib import Path
from typing import Any


def update(table: Path, rows: list[dict[str, Any]], *, key: tuple[str, ...]) -> None:
    """Write rows to a csv file in place of those with the same `key` columns; sorted by them, numbers by size."""
    old: list[dict[str, Any]] = list(csv.DictReader(table.open())) if table.is_file() else []
    by_key = {tuple(str(row[name]) for name in key): row for row in old + rows}
    order = [tuple((int(part), "") if part.isdigit() else (0, part) for part in one) for one in by_key]
    ordered = [row for _, row in sorted(zip(order, by_key.values(), strict=True), key=lambda pair: pair[0])]
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, ordered[0])
        writer.writeheader()
        writer.writerows(ordered)
