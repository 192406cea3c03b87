"""One self-contained HTML page: about the run folder of the demo, or about many fine-tuning runs beside each other.

    python recipes/report.py --run runs/demo --out runs/demo/report.html
    python recipes/report.py --runs runs/metaworld --out runs/metaworld/report.html
    python recipes/report.py --agents.bonus runs/a runs/b --agents.no-bonus runs/c runs/d --out comparison.html

Of the demo it shows what the stages left there. Of many runs, finished or running, it groups by the task, the agent and
the seed that each recorded: learning curves, interquartile means and probabilities of improvement with their intervals,
tables, films, work done; a damaged run is named and left out. Beside the page are PAGE_evaluations.csv and
PAGE_results.csv. Pictures and videos are inside the file, but for films beyond 20 MB. A few seconds.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from recipes.run.command_line import parse_config

DEMO_TITLE, RUNS_TITLE = "cwm-hub: from raw video to a fine-tuned agent", "cwm-hub: agents beside each other"


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What is reported on, and where to."""

    out: str
    """HTML file to write."""
    run: str | None = None
    """Run folder of the demo."""
    runs: list[str] = field(default_factory=list)
    """Fine-tuning runs, or folders with such runs anywhere below."""
    agents: dict[str, list[str]] = field(default_factory=dict)
    """The same under a name of one's own, such as `--agents.no-bonus runs/a runs/b`."""
    at_frames: int | None = None
    """Environment frames at which many runs are compared; as far as all runs of a task have come by default."""
    title: str | None = None
    """Heading of the page."""


if __name__ == "__main__":  # before matplotlib is imported, so that --help and a typo answer at once
    CONFIG = parse_config(ReportConfig, description=__doc__)

from recipes.run.agent_runs import find_runs
from recipes.run.demo_report import demo_page
from recipes.run.folder import RecipeError, csv_text, one_sentence_errors, write_text
from recipes.run.runs_report import runs_page


def main(config: ReportConfig) -> int:
    """Write the page and print where it is."""
    out, many = Path(config.out), bool(config.runs or config.agents)
    if out.suffix != ".html":
        raise RecipeError(f"--out is the HTML file to write, such as report.html, got {out}")
    if (config.run is not None) == many:
        raise RecipeError("give --run (of the demo), or --runs or --agents.NAME (of fine-tuning)")
    written = [out]
    if config.run is not None:
        run = Path(config.run)
        if not run.is_dir():
            raise RecipeError(f"no such run folder: {run}")
        if (run / "config.yaml").is_file():
            raise RecipeError(
                f"{run} is one run and not a folder of the demo: fine-tuning runs are --runs, and the scores of a pre-training "
                "run are in its evaluation/, compared by recipes/compare.py"
            )
        write_text(out, demo_page(run, title=config.title or DEMO_TITLE))
    else:
        runs, damaged = find_runs(config.runs, config.agents)
        for sentence in damaged:
            print(f"left out: {sentence}", file=sys.stderr)
        title = config.title or RUNS_TITLE
        page = runs_page(runs, out=out, title=title, at_frames=config.at_frames, damaged=damaged)
        write_text(out, page.html)
        for name, rows in (("evaluations", page.evaluations), ("results", page.results)):
            written.append(out.with_name(f"{out.stem}_{name}.csv"))
            write_text(written[-1], csv_text(rows))
    for path in written:
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    with one_sentence_errors():
        sys.exit(main(CONFIG))
