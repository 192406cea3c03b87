"""One table of several designs, each trained with several seeds: who is ahead, by how much, on which held-out windows.

    python recipes/compare.py --design contextwm runs/evidence/contextwm-* --design plainwm runs/evidence/plainwm-* \
        --out runs/evidence/comparison

A folder is an evaluation, or a pre-training run with evaluation/ or else evaluations/, whose last scorecard is taken.
The first design is what the others are compared with; give the seeds in the same order. Scorecards of different
protocols are refused. Writes comparison.json, table.md and, where the runs have scores.jsonl, scores.png. A second or two.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from cwm_hub.provenance import provenance
from recipes.run.folder import RecipeError, one_sentence_errors, read_rows, write_text


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--design",
        nargs="+",
        action="append",
        required=True,
        metavar=("NAME", "FOLDER"),
        help="name and run folders",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    options = parser.parse_args(arguments)
    folders = {name: [Path(folder) for folder in rest] for name, *rest in options.design}
    if len(folders) < len(options.design):
        raise RecipeError("two designs have the same name")

    from cwm_hub.evaluation.comparison import compare_runs, markdown_tables

    comparison = compare_runs(folders)
    tables = markdown_tables(comparison)
    write_text(options.out / "table.md", tables)
    write_text(
        options.out / "comparison.json", json.dumps(comparison | {"provenance": provenance()}, indent=1)
    )
    draw(options.out, folders)
    print(tables)
    return 0


def draw(out: Path, folders: dict[str, list[Path]]) -> None:
    """PSNR over the updates, where every run was scored during training."""
    from cwm_hub.figures import curves, sheet

    rows = {name: [read_rows(folder / "scores.jsonl") for folder in runs] for name, runs in folders.items()}
    if all(all(runs) for runs in rows.values()):
        figure = curves.score_curves(rows, title="all held-out windows; thin: one seed, thick: their mean")
        sheet.save(figure, out / "scores.png")


if __name__ == "__main__":
    with one_sentence_errors():
        sys.exit(main())
