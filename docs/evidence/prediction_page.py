"""Draws docs/evidence/prediction.csv and probes.csv, and prints the tables of docs/EVIDENCE.md.

PYTHONPATH=. python docs/evidence/prediction_page.py
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

from matplotlib.artist import Artist
from matplotlib.figure import Figure

from cwm_hub.figures.agent_curves import styles

HERE = Path(__file__).parent
DESIGNS = ("contextwm", "plainwm", "concat")


def read(name: str) -> list[dict[str, str]]:
    """Rows of a table."""
    with (HERE / name).open() as file:
        return list(csv.DictReader(file))


def grouped(rows: list[dict[str, str]], value: str) -> dict[tuple[str, int], list[float]]:
    """Design and number of backgrounds -> a value of each seed."""
    found: dict[tuple[str, int], list[float]] = defaultdict(list)
    for row in rows:
        if row[value]:
            found[row["design"], int(row["backgrounds"])].append(float(row[value]))
    return found


def legend_below(figure: Figure, *, columns: int) -> None:
    """One legend for what all panels show."""
    handles: dict[str, Artist] = {}
    for axes in figure.axes:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)


def main() -> None:
    """Picture and tables."""
    predicted, probed = read("prediction.csv"), read("probes.csv")
    baseline = mean(float(row["copy_last_frame"]) for row in predicted)
    colours = [row for row in probed if row["target"] == "background_colour"]
    panels = {
        "PSNR on scenes never seen, dB": grouped(predicted, "model"),
        "own over foreign context, dB": grouped(predicted, "own_over_foreign_context"),
        "R2 of the background's colour in the latents": grouped(colours, "mean"),
    }
    figure = Figure(figsize=(12, 3.9), layout="constrained")
    for axes, (title, values) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for design, style in styles(DESIGNS).items():
            points = sorted((at, seeds) for (name, at), seeds in values.items() if name == design)
            if not points:
                continue
            axes.plot(
                [at for at, _ in points],
                [mean(seeds) for _, seeds in points],
                color=style.colour,
                label=design,
            )
            for at, seeds in points:
                axes.plot([at] * len(seeds), seeds, "o", color=style.colour, markersize=4)
        axes.set(title=title, xlabel="backgrounds in training", xscale="log")
        axes.set_xticks([10, 50, 200], labels=["10", "50", "200"])
        axes.minorticks_off()
    figure.axes[0].axhline(baseline, color="grey", linestyle=":", label="copy-last-frame")
    figure.axes[1].axhline(3, color="grey", linestyle="--", label="gate")
    legend_below(figure, columns=5)
    figure.savefig(HERE / "prediction.png", dpi=110)

    lines = [
        "| backgrounds | design | PSNR, each seed | with the frame in view | own over foreign context | KL |"
    ]
    lines += ["|---|---|---|---|---|---|"]
    columns = ("model", "reconstruction", "own_over_foreign_context", "kl")
    values = {column: grouped(predicted, column) for column in columns}
    for backgrounds in (10, 50, 200):
        for design in DESIGNS:
            cells = [
                ", ".join(f"{one:.2f}" for one in values[column].get((design, backgrounds), []))
                for column in columns
            ]
            lines.append(f"| {backgrounds} | {design} | {' | '.join(cells)} |")
    targets = ("disc", "mark", "background_colour", "background_grid")
    lines += ["", "| backgrounds | design | disc | mark | background, colour | background, 4 x 4 |", lines[1]]
    for backgrounds in (10, 50, 200):
        for design in DESIGNS:
            cells = []
            for target in targets:
                found = grouped([row for row in probed if row["target"] == target], "mean")
                cells.append(", ".join(f"{one:.2f}" for one in found.get((design, backgrounds), [])))
            lines.append(f"| {backgrounds} | {design} | {' | '.join(cells)} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
