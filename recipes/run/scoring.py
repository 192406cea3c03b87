"""Scorecards during training: what a pre-training run does with its evaluation windows."""

import json
from pathlib import Path
from typing import Any

from cwm_hub.command_line import how_many
from cwm_hub.config import to_dict
from cwm_hub.evaluation import words
from cwm_hub.evaluation.held_out import make_protocol, read_held_out
from cwm_hub.evaluation.predict import WorldModel, score
from cwm_hub.evaluation.protocol import ScoringConfig, check_same_protocol
from cwm_hub.figures import sheet
from cwm_hub.figures.frames import prediction_grid
from cwm_hub.provenance import provenance
from recipes.run.folder import append_row, step_directory, write_text

EVALUATION_WINDOWS = 4
"""Windows of the prediction grids that are drawn during training."""


class Evaluation:
    """Scores the model under training on held-out windows that were read once; the main process's alone."""

    def __init__(
        self,
        config: ScoringConfig,
        roots: list[str],
        *,
        run: Path,
        image_size: int,
        with_actions: bool = False,
    ):
        self._run = run
        self._held_out = read_held_out(config, roots, image_size=image_size, with_actions=with_actions)
        self._protocol = make_protocol(config, self._held_out)
        earlier = sorted(run.glob("evaluations/step-*/scorecard.json"))
        if earlier:  # one curve has one protocol
            check_same_protocol(json.loads(earlier[-1].read_text())["protocol"], to_dict(self._protocol))

    def write(self, model: WorldModel, updates: int) -> dict[str, Any]:
        """A scorecard and a prediction grid in evaluations/step-<updates>, a row in scores.jsonl, a printed line.

        Returns:
            The row.
        """
        model.eval()
        card, prediction, _ = score(model, self._held_out, self._protocol)
        model.train()
        folder, seen = step_directory(self._run / "evaluations", updates), self._protocol.observed_frames
        card |= {"name": self._run.name, "updates": updates, "provenance": provenance()}
        write_text(folder / "scorecard.json", json.dumps(card, indent=1))
        shown = self._held_out.shown(EVALUATION_WINDOWS)
        grid = prediction_grid(
            self._held_out.video[shown],
            {how_many(updates, "update"): prediction[0][shown]},
            observed_frames=seen,
            captions=self._held_out.captions(shown),
        )
        sheet.save(grid, folder / "prediction.png")
        row = summary_row(card, updates)
        append_row(self._run / "scores.jsonl", row)
        where = words.counted(card["together"], card["protocol"])
        print(
            f"\n{how_many(updates, 'update'):>17}: {words.standing(card['together'])}, on {where}",
            *(f"{'':>19}{sentence}" for sentence in words.further_sentences(card)),
            sep="\n",
            flush=True,
        )
        return row


def summary_row(card: dict[str, Any], updates: int) -> dict[str, Any]:
    """What curves over the updates need of a scorecard."""
    scores = card["together"]
    psnr = scores["model"]["psnr_db"]
    row = {"updates": updates, "psnr_db": psnr["mean"]}
    row |= {f"psnr_db_{end}": psnr[end] for end in ("low", "high") if end in psnr}
    row["ssim"] = scores["model"]["ssim"]["mean"]
    for baseline in ("copy_last_frame", "mean_frame", *words.CONTROLS):
        if f"model_minus_{baseline}" in scores:
            row[f"minus_{baseline}_db"] = scores[f"model_minus_{baseline}"]["psnr_db"]["mean"]
    if "context_gap_psnr_db" in card:
        row["own_minus_foreign_context_db"] = card["context_gap_psnr_db"]["difference"]["mean"]
    return row
