"""Draws docs/evidence/gate.csv as gate.png, and prints its table for docs/EVIDENCE.md.

PYTHONPATH=. python docs/evidence/gate_page.py
"""

import csv
import sys
from pathlib import Path

from matplotlib.figure import Figure

from cwm_hub.figures.agent_curves import styles
from docs.evidence.prediction_page import legend_below

HERE = Path(__file__).parent
PANELS = {
    "model": "PSNR on scenes never seen, dB",
    "own_over_foreign_context_mean": "own over foreign context, dB",
}


def main() -> None:
    """Picture and table."""
    with (HERE / "gate.csv").open() as file:
        rows = list(csv.DictReader(file))
    arms = list(dict.fromkeys((row["design"], row["backgrounds"]) for row in rows))
    named = {arm: f"{arm[0]}, {arm[1]} backgrounds" for arm in arms}
    style = styles(list(named.values()))
    figure = Figure(figsize=(9, 3.9), layout="constrained")
    for axes, (column, title) in zip(figure.subplots(1, 2), PANELS.items(), strict=True):
        for arm, seed in dict.fromkeys(((row["design"], row["backgrounds"]), row["seed"]) for row in rows):
            points = [
                (int(row["updates"]), float(row[column]))
                for row in rows
                if (row["design"], row["backgrounds"], row["seed"]) == (*arm, seed) and row[column]
            ]
            if points:
                one = style[named[arm]]
                axes.plot(*zip(*points, strict=True), color=one.colour, marker=one.marker, label=named[arm])
        axes.set(title=title, xlabel="updates")
    copied = float(rows[0]["copy_last_frame"])
    figure.axes[0].axhline(copied, color="grey", linestyle=":", label="copy-last-frame")
    figure.axes[1].axhline(3, color="grey", linestyle="--", label="gate")
    legend_below(figure, columns=3)
    figure.savefig(HERE / "gate.png", dpi=110)

    updates = sorted({int(row["updates"]) for row in rows})
    lines = [
        f"| design | backgrounds | seed | {' | '.join(f'{count:,}' for count in updates)} |",
        "|---" * (3 + len(updates)) + "|",
    ]
    for (design, backgrounds), seed in dict.fromkeys(
        ((row["design"], row["backgrounds"]), row["seed"]) for row in rows
    ):
        found = {
            int(row["updates"]): row
            for row in rows
            if (row["design"], row["backgrounds"], row["seed"]) == (design, backgrounds, seed)
        }
        cells = [_cell(found[count]) if count in found else "" for count in updates]
        lines.append(f"| {design} | {backgrounds} | {seed} | {' | '.join(cells)} |")
    sys.stdout.write("\n".join(lines) + "\n")


def _cell(row: dict[str, str]) -> str:
    gap = row["own_over_foreign_context_mean"]
    return f"{float(row['model']):.2f}" + (f" ({float(gap):+.2f})" if gap else "")


if __name__ == "__main__":
    main()
