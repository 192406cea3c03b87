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
from typing import Any

from recipes.run_folder import RecipeError, one_sentence_errors, provenance, read_rows, write_text


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
    cards = {name: [read_card(folder) for folder in runs] for name, runs in folders.items()}
    lengths = {
        card["updates"]: folder
        for name in cards
        for folder, card in zip(folders[name], cards[name], strict=True)
        if "updates" in card
    }
    if len(lengths) > 1:
        told = ", ".join(f"{folder} was scored after {updates:,}" for updates, folder in lengths.items())
        raise RecipeError(f"the runs have different numbers of updates and do not compare: {told}")

    from cwm_hub.comparison import compare_designs, markdown_table

    comparison = compare_designs(cards)
    parts = list(comparison["sources"])
    parts += ["together"] if len(parts) > 1 else []
    tables = [f"## {title(comparison, part)}\n\n{markdown_table(comparison, part=part)}\n" for part in parts]
    write_text(options.out / "table.md", "\n".join(tables))
    runs = {name: [str(folder) for folder in found] for name, found in folders.items()}
    result = comparison | {"runs": runs, "provenance": provenance()}
    write_text(options.out / "comparison.json", json.dumps(result, indent=1))
    draw(options.out, folders)
    print("\n".join(tables))
    return 0


def read_card(folder: Path) -> dict[str, Any]:
    """The scorecard of a run (its last one) or of an evaluation.

    Raises:
        RecipeError: there is none.
    """
    during = sorted(folder.glob("evaluations/step-*/scorecard.json"))
    places = [folder / "scorecard.json", folder / "evaluation" / "scorecard.json", *during[-1:]]
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise RecipeError(
            f"{folder} has no scorecard.json: run recipes/evaluate.py, or pre-train with --evaluate_every"
        )
    return json.loads(found.read_text())


def title(comparison: dict[str, Any], part: str) -> str:
    """What the windows of a table are."""
    result, protocol = comparison["sources"].get(part, comparison["together"]), comparison["protocol"]
    words = "all data sets" if part == "together" else part
    return (
        f"{words}: {result['windows']} held-out windows, {protocol['observed_frames']} frames seen, "
        f"{protocol['horizon']} predicted"
    )


def draw(out: Path, folders: dict[str, list[Path]]) -> None:
    """PSNR over the updates, where every run was scored during training."""
    from cwm_hub import curves, figures

    rows = {name: [read_rows(folder / "scores.jsonl") for folder in runs] for name, runs in folders.items()}
    if all(all(runs) for runs in rows.values()):
        figure = curves.score_curves(rows, title="all held-out windows; thin: one seed, thick: their mean")
        figures.save(figure, out / "scores.png")


if __name__ == "__main__":
    with one_sentence_errors():
        sys.exit(main())
