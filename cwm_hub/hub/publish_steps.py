"""Checkpoints that a pre-training run wrote on its way, each a revision of the repository that its result goes to."""

import dataclasses
import shutil
import tempfile
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import nn

from cwm_hub.hub.checkpoint import SCORECARD, TRAIN, WEIGHTS, CheckpointError
from cwm_hub.hub.names import find_checkpoint
from cwm_hub.hub.publish import Publication, PublishSettings, hub_target, publish
from cwm_hub.hub.saving import save_pretrained

STEPS = "checkpoints/step-*"
"""Of a run folder: accelerate's states, of which only the weights are published, which are no pickle."""
OF_THE_RESULT = ("seconds", "skipped_updates", "evaluation")
"""Entries of train.json that hold for the run's end alone."""


def steps_of(run: Path, to: str, settings: PublishSettings) -> list[Path]:
    """The checkpoints that a run kept, in the order of updates, after a look at whether they can be published.

    Raises:
        CheckpointError: none of them left, a directory as the target, or a pull request.
    """
    if hub_target(to) is None:
        raise CheckpointError(
            f"--steps are revisions of a Hub repository (hf://owner/name), and {to} is a directory"
        )
    if settings.pull_request:
        raise CheckpointError(
            "--steps are branches of their own, and a pull request has none: leave out one of them"
        )
    steps = sorted(step for step in run.glob(STEPS) if step.name.removeprefix("step-").isdigit())
    if not steps:
        raise CheckpointError(
            f"{run} has no checkpoints: pre-train with --keep_checkpoints as high as you want them"
        )
    return steps


def publish_step(
    run: Path, step: Path, to: str, settings: PublishSettings, *, dry_run: bool = False
) -> Publication:
    """Publishes one checkpoint on a branch of its own, named as its folder: `step-00012000`.

    It is a whole checkpoint with a card, and with the scorecard that was measured at that update where there is one
    (`pretrain --evaluate_every`).

    Args:
        run: folder of a finished pre-training run, whose model gives the configuration.
        step: one of `steps_of`.
        to: a Hub repository.
        settings: as in `publish`; the branch is the step's, and a tag is the result's alone.
        dry_run: upload nothing.

    Raises:
        CheckpointError: no finished run, or weights that are not its model's.
    """
    branch = dataclasses.replace(settings, revision=step.name, tag=None, space=None)
    with tempfile.TemporaryDirectory() as scratch:
        _as_run(run, step, Path(scratch))
        return publish(Path(scratch), to, branch, dry_run=dry_run)


def _as_run(run: Path, step: Path, place: Path) -> None:
    """A run folder whose result is this checkpoint."""
    found = find_checkpoint(run / "model")
    model = found.load()
    _fill(model, step / WEIGHTS)
    updates = int(step.name.removeprefix("step-"))
    train: dict[str, Any] = {
        key: value for key, value in (found.read(TRAIN) or {}).items() if key not in OF_THE_RESULT
    }
    save_pretrained(model, place / "model", train=train | {"updates": updates}, card=False)
    for evaluated in (run / "evaluations" / step.name).glob("*"):
        if evaluated.name == SCORECARD or evaluated.suffix == ".png":
            shutil.copyfile(evaluated, place / evaluated.name)


def _fill(model: nn.Module, weights: Path) -> None:
    """Loads what accelerate saved, under the names that it has without the wrappers of training."""
    try:
        tensors = safetensors.torch.load_file(weights)
        plain = {
            key.removeprefix("module.").replace("_orig_mod.", ""): value for key, value in tensors.items()
        }
        model.load_state_dict(plain)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{weights} is not a checkpoint of {weights.parents[2]}/model: {reason}"
        ) from error
