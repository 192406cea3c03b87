"""One table of several designs, each trained with several seeds: who is ahead, by how much, on which held-out windows.

    python recipes/compare.py --out runs/evidence/comparison \
        --designs.contextwm runs/evidence/contextwm-* --designs.plainwm runs/evidence/plainwm-*
    python recipes/compare.py --out runs/comparison --designs.pixels runs/pixels --designs.contrastive runs/contrastive

A folder is an evaluation, or a pre-training run with evaluation/ or else evaluations/, whose last scorecard is taken.
The first design is what the others are compared with; give the seeds in the same order. Scorecards of different
protocols are refused. Writes comparison.json, table.md and, where the runs have scores.jsonl, scores.png. A second or two.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from recipes.run.command_line import parse_config
from recipes.run.folder import one_sentence_errors, read_rows, write_text


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """What is compared."""

    designs: dict[str, list[str]]
    """Folders of each design by its name, such as `--designs.contextwm runs/a runs/b`, in the order of the seeds."""
    out: str
    """Folder to write to."""


if __name__ == "__main__":  # before the library is imported, so that --help and a typo answer at once
    CONFIG = parse_config(CompareConfig, description=__doc__)

from cwm_hub.evaluation.comparison import compare_runs, markdown_tables
from cwm_hub.figures import curves, sheet
from cwm_hub.provenance import provenance


def main(config: CompareConfig) -> int:
    """Compare and print the tables."""
    out = Path(config.out)
    folders = {name: [Path(run) for run in runs] for name, runs in config.designs.items()}

    comparison = compare_runs(folders)
    tables = markdown_tables(comparison)
    write_text(out / "table.md", tables)
    write_text(out / "comparison.json", json.dumps(comparison | {"provenance": provenance()}, indent=1))
    draw(out, folders)
    print(tables)
    return 0


def draw(out: Path, folders: dict[str, list[Path]]) -> None:
    """PSNR over the updates, where every run was scored during training."""
    rows = {name: [read_rows(folder / "scores.jsonl") for folder in runs] for name, runs in folders.items()}
    if all(all(runs) for runs in rows.values()):
        figure = curves.score_curves(rows, title="all held-out windows; thin: one seed, thick: their mean")
        sheet.save(figure, out / "scores.png")


if __name__ == "__main__":
    with one_sentence_errors():
        sys.exit(main(CONFIG))
