"""Checkpoints of a pre-training run: what a resume must find unchanged, what it may change, what is worth keeping.

A checkpoint is accelerate's folder of weights, optimiser, random states of every process, and a `TrainState`.
"""

import json
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.checkpointing import load
from accelerate.optimizer import AcceleratedOptimizer

from cwm_hub.clips.loader import ClipLoader
from cwm_hub.clips.sampling import resume_batch
from cwm_hub.models.registry import model_config
from cwm_hub.shards.storage import commit_folder
from recipes.run.folder import RecipeError, keep_newest, saved_steps, step_directory, writing
from recipes.run.pretrain_settings import PretrainConfig


class TrainState:
    """Counters that accelerate saves with the weights."""

    def __init__(self, config: PretrainConfig, fingerprint: dict[str, Any], init: dict[str, Any] | None):
        self.settings = asdict(config)
        """Of the command that trained last."""
        self.changes: list[dict[str, Any]] = []
        """What a resuming command had otherwise: `{"updates": 8, "learning_rate": [3e-4, 1e-4]}`, before and after."""
        self.updates = 0
        self.batches = 0
        self.skipped = 0
        self.seconds = 0.0
        self.interval: dict[str, Any] = {}
        """What the meter has summed since the last row of metrics.jsonl."""
        self.fingerprint = fingerprint
        self.init = init
        """What names the checkpoint that the run started from."""

    def state_dict(self) -> dict[str, Any]:
        """Everything."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Everything; a checkpoint of other counters is of another version."""
        if state.keys() != vars(self).keys():
            raise RecipeError(
                f"the checkpoint's training state has {sorted(state)}, expected {sorted(vars(self))}"
            )
        vars(self).update(state)


def is_finished(run: Path, config: PretrainConfig) -> bool:
    """Whether the folder holds the model after exactly these updates, and no checkpoint beyond or before it."""
    train = run / "model" / "train.json"
    newest = max(saved_steps(run / "checkpoints"), default=config.updates)
    return train.exists() and json.loads(train.read_text())["updates"] == newest == config.updates


def check_same_model(checkpoint: Path, config: PretrainConfig) -> None:
    """Refuse to go on with another model, or from another beginning, than the run has.

    Raises:
        RecipeError: names the setting that differs, or says that the checkpoint cannot be read.
    """
    with damage_named(checkpoint):
        before = torch.load(checkpoint / "custom_checkpoint_0.pkl").get("settings")
    if before is None:
        raise RecipeError(f"the checkpoint {checkpoint} is of an earlier version; give another --run")
    same_model = model_config(before["model"], overrides=before["overrides"]) == model_config(
        config.model, overrides=config.overrides
    )
    for name in ("init",) if same_model else ("model", "overrides", "init"):
        if before[name] != getattr(config, name):
            raise RecipeError(
                f"cannot resume another model: {name} was {before[name]!r} and is {getattr(config, name)!r}; "
                "give another --run"
            )


def resume(
    checkpoint: Path,
    state: TrainState,
    config: PretrainConfig,
    *,
    accelerator: Accelerator,
    optimizer: AcceleratedOptimizer,
    loader: ClipLoader,
) -> None:
    """Take over weights, optimiser, counters, random states and the place in the data; note what settings are others.

    Raises:
        RecipeError: the checkpoint is damaged, or beyond the updates that are asked for.
        ValueError: another data set or seed, or a world in which no batch begins there.
    """
    with damage_named(checkpoint):
        accelerator.load_state(str(checkpoint))
        random_states = checkpoint / f"random_states_{accelerator.process_index}.pkl"
        if random_states.exists():
            restore_random_states(random_states)
        elif state.fingerprint["world_size"] == accelerator.num_processes:
            raise ValueError(f"no random states of process {accelerator.process_index}")
    accelerator.step = 0  # an update begins here, whatever accumulation was before
    if state.updates > config.updates:
        raise RecipeError(
            f"{config.run} has {state.updates} updates already, more than --updates {config.updates}"
        )
    for group in optimizer.param_groups:  # the checkpoint's are those of the earlier command
        group.update(adam_settings(config))
    continue_data(state, loader, accelerator)
    before, now = state.settings, asdict(config)
    others = [name for name in now if before.get(name) != now[name] and name not in ("run", "updates")]
    if others:
        changes = {name: [before.get(name), now[name]] for name in others}
        state.changes.append({"updates": state.updates, **changes})
    state.settings = now


def restore_random_states(file: Path) -> None:
    """Set every generator to its saved state; accelerate does so too, and goes on without a word where it cannot."""
    states = load(file)
    random.setstate(states["random_state"])
    np.random.set_state(states["numpy_random_seed"])
    torch.set_rng_state(states["torch_manual_seed"])
    for device, generator in enumerate(states.get("torch_cuda_manual_seed", [])[: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(generator, device)


def adam_settings(config: PretrainConfig) -> dict[str, Any]:
    """What the command says of Adam; a resumed optimiser takes it too.

    `capturable` is the checkpoint's own: a run on a GPU may have recorded its updates, and goes on without.
    """
    settings = {"lr": config.learning_rate, "eps": config.adam_epsilon, "weight_decay": config.weight_decay}
    return settings | {"capturable": False}


def continue_data(state: TrainState, loader: ClipLoader, accelerator: Accelerator) -> None:
    """Let the loader go on where the checkpoint's run stopped, in a world of any size.

    Raises:
        ValueError: another data set or seed, or a world in which no batch begins there.
    """
    before, now = state.fingerprint, loader.fingerprint()
    start_batch = resume_batch(before, now, batches=state.batches)
    worlds = [f"{world['world_size']} x {world['batch_clips']} clips" for world in (before, now)]
    if worlds[0] != worlds[1]:
        accelerator.print(
            f"data re-striped from {worlds[0]} to {worlds[1]}: batch {state.batches} of the old world is {start_batch} of "
            "this one; every clip counts once, draws inside the model are others"
        )
    state.batches, state.fingerprint = start_batch, now
    loader.start_batch = start_batch


@contextmanager
def damage_named(checkpoint: Path) -> Iterator[None]:
    """Turn whatever goes wrong inside into one sentence about a damaged checkpoint."""
    try:
        yield
    except (RecipeError, PermissionError, torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as error:  # safetensors, zip, pickle and torch each have their own for cut bytes
        before = "go on from the one before" if saved_steps(checkpoint.parent)[:-1] else "begin anew"
        raise RecipeError(
            f"the checkpoint {checkpoint} is damaged ({type(error).__name__}: {str(error)[:100]}); delete it to {before}"
        ) from error


def save(
    checkpoints: Path, state: TrainState, model: torch.nn.Module, accelerator: Accelerator, *, keep: int
) -> bool:
    """Write a checkpoint, whole or not at all, and delete all but the newest `keep`.

    Returns:
        Whether it was written: weights that are not finite would only push a good one out.
    """
    if not has_finite_weights(model, accelerator):
        return False
    target = step_directory(checkpoints, state.updates)
    temporary = target.with_suffix(".tmp")
    with writing(temporary):
        accelerator.save_state(str(temporary))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        commit_folder(temporary, target)
        keep_newest(checkpoints, keep)
    accelerator.wait_for_everyone()
    return True


def has_finite_weights(model: torch.nn.Module, accelerator: Accelerator) -> bool:
    """Whether the sum of squares of everything that a checkpoint holds of the model is finite, on every process."""
    values = [value.detach() for value in model.state_dict().values() if value.is_floating_point()]
    return math.isfinite(accelerator.reduce(torch.nn.utils.get_total_norm(values), "sum"))


def last_good_checkpoint(checkpoints: Path, last_good_update: int) -> str:
    """In words, the newest one after which a gradient was finite: weights can be ruined without being infinite."""
    good = [updates for updates in saved_steps(checkpoints) if updates < last_good_update]
    name = step_directory(checkpoints, good[-1]) if good else "none was written yet"
    return f"last good checkpoint: {name}"
