"""Pre-train a video world model on shards of clips.

    accelerate launch recipes/pretrain.py --config recipes/configs/pretrain/demo.yaml --data '[{root: shards/mine}]'

Two processes on CPUs: `accelerate launch --multi_gpu --num_processes 2 recipes/pretrain.py --cpu true ...` or
`ACCELERATE_USE_CPU=1 torchrun --nproc_per_node 2 -- recipes/pretrain.py ...`. Several GPUs: `accelerate launch
--multi_gpu --num_processes 8 recipes/pretrain.py ...`. The same command again resumes; a finished run says so.

The run folder holds config.yaml, metrics.jsonl, checkpoints/ and, at the end, model/ in hub format; where
clips were unreadable, unreadable.jsonl; with `--evaluate_every` also scores.jsonl and evaluations/ (scorecard and prediction grid on held-out windows).
"""

import hashlib
import json
import math
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from cwm_hub.clip_index import ClipSource
from cwm_hub.fetch import FetchConfig
from recipes.command_line import parse_config
from recipes.meter import Meter
from recipes.run_folder import (
    RecipeError,
    StopSignal,
    append_row,
    check_world,
    commit_directory,
    end_with_launcher,
    keep_newest,
    lock_run,
    note_unreadable,
    one_sentence_errors,
    progress_line,
    provenance,
    read_rows,
    saved_steps,
    step_directory,
    truncate_rows,
    write_text,
)
from recipes.scoring import Evaluation, ScoringConfig

LEAST = {
    "updates": 1,
    "batch_clips": 1,
    "window_frames": 2,
    "accumulation": 1,
    "weight_decay": 0,
    "workers": 0,
    "log_every": 1,
    "checkpoint_every": 1,
    "keep_checkpoints": 1,
    "evaluate_every": 0,
    "max_broken": 0,
    "max_bad_updates": 1,
}
"""Setting to its least value."""

CompileMode = Literal["default", "reduce-overhead", "max-autotune"]


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of a pre-training run; the defaults are the paper's where it has them."""

    data: list[ClipSource]
    """The mixture of shard directories."""
    run: str = "runs/pretrain"
    """Run folder. A folder with checkpoints is resumed."""
    model: str = "contextwm"
    """Preset of a video world model: contextwm, contextwm-concat or plainwm, each also as -tiny."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Values of the preset to replace, by dotted name, such as `{rssm.deter: 256}`."""
    init: str | None = None
    """Checkpoint to start from: a folder, an embedded name or a Hub repository. It must be of the same shape."""
    updates: int = 1_200_000
    """Gradient updates (official commands; follow-up papers use 600,000)."""
    batch_clips: int = 16
    """Clips an update, over all processes and accumulation steps."""
    window_frames: int = 25
    """Consecutive stored frames of a clip."""
    sampling: Literal["source", "clip", "frame"] = "source"
    """What is drawn uniformly: source videos (the paper), clips or frames."""
    accumulation: int = 1
    """Batches whose gradients are averaged into an update."""
    learning_rate: float = 3e-4
    """Of Adam."""
    adam_epsilon: float = 1e-5
    """Of Adam."""
    weight_decay: float = 1e-6
    """L2 penalty coupled into the gradient, as torch's Adam has it."""
    clip_norm: float = 100.0
    """Bound on the global gradient norm."""
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """Autocast type; auto is bf16 on a GPU and none on a CPU. Losses are float32 in any case."""
    sync_batchnorm: bool = True
    """Share BatchNorm statistics between GPUs (CPU processes keep their own: torch has no such layer there)."""
    compile: bool = False
    """Compile the model, scan included, with torch.compile. The draws are eager's, so that losses are too."""
    compile_mode: CompileMode = "default"
    """Mode of torch.compile; the last two record CUDA graphs."""
    cpu: bool = False
    """Stay on the CPU where there is a GPU."""
    processes: int | None = None
    """Processes that must be there; null takes what the launcher was told."""
    workers: int = 2
    """Loader processes of each process; 0 reads between updates."""
    max_broken: int = 8
    """Shards or clips that a process may find unreadable before the run stops; unreadable.jsonl names them."""
    fetch: FetchConfig = field(default_factory=FetchConfig)
    """Cache, retries and timeouts for remote roots."""
    seed: int = 0
    """Of weights, data order and every draw."""
    log_every: int = 50
    """Updates between rows of metrics.jsonl."""
    checkpoint_every: int = 1000
    """Updates between checkpoints."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept."""
    evaluate_every: int = 0
    """Updates between scorecards on held-out windows, the last update included; 0 for none."""
    evaluate_data: list[str] = field(default_factory=list)
    """Shard directories whose held-out windows are scored; empty takes those of `data`."""
    evaluation: ScoringConfig = field(default_factory=ScoringConfig)
    """Windows and protocol of these scorecards."""
    max_bad_updates: int = 100
    """Skipped updates in a row, because of a non-finite gradient, at which the run stops."""
    trackers: list[str] = field(default_factory=list)
    """Trackers of accelerate that log beside metrics.jsonl, such as tensorboard."""
    audit: bool = False
    """Leave audit-<rank>.json from every process: the hash of its weights and the clips it used, in order."""

    def __post_init__(self) -> None:
        """Raises ValueError for the first value out of its range."""
        for name, least in LEAST.items():
            if not getattr(self, name) >= least:  # nan too
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("learning_rate", "adam_epsilon", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")


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


def main(arguments: list[str] | None = None) -> int:
    """Train, or go on training; the exit code is 0 when the run is finished."""
    config = parse_config(PretrainConfig, arguments, description=__doc__.split("\n")[0])
    end_with_launcher()
    import torch  # after parsing, so that --help and a typo answer at once
    from accelerate import Accelerator
    from accelerate.utils import ProjectConfiguration, set_seed

    from cwm_hub import ClipLoader, create_model, save_pretrained
    from cwm_hub.models.registry import model_config
    from cwm_hub.models.video_world_model import VideoWorldModelConfig

    # The world: devices, processes, precision.
    run = Path(config.run)
    gpu = torch.cuda.is_available() and not config.cpu
    precision = ("bf16" if gpu else "no") if config.mixed_precision == "auto" else config.mixed_precision
    if precision == "fp16" and not gpu:  # accelerate would train in float32 without a word
        raise RecipeError("--mixed_precision fp16 needs a GPU; a CPU trains in bf16 or no")
    accelerator = Accelerator(
        cpu=not gpu,
        mixed_precision=precision,
        gradient_accumulation_steps=config.accumulation,
        log_with=config.trackers or None,
        project_config=ProjectConfiguration(project_dir=str(run), logging_dir=str(run / "logs")),
        step_scheduler_with_optimizer=False,
        dynamo_plugin=compiling(config),
    )
    world = accelerator.num_processes
    check_world(world, promised=config.processes)
    batch_clips, rest = divmod(config.batch_clips, world * config.accumulation)
    if rest or not batch_clips:
        raise RecipeError(
            f"batch_clips {config.batch_clips} is not a multiple of {world} processes x {config.accumulation} accumulation"
        )

    # The model.
    if is_finished(run, config):
        accelerator.print(f"finished: {run / 'model'}")
        accelerator.end_training()
        return 0
    lock = lock_run(run) if accelerator.is_main_process else None  # noqa: F841 (held as long as it is referred to)
    checkpoints, rows = run / "checkpoints", run / "metrics.jsonl"
    steps = saved_steps(checkpoints)
    if steps:
        check_same_model(step_directory(checkpoints, steps[-1]), config)
    set_seed(config.seed)
    if not isinstance(model_config(config.model), VideoWorldModelConfig):
        raise RecipeError(
            f"{config.model} is no video world model: it learns from actions, which is recipes/finetune.py's work"
        )
    model = create_model(config.model, overrides=config.overrides)
    init = start_from(config.init, model) if config.init is not None and not steps else None
    parameters = sum(parameter.numel() for parameter in model.parameters())
    model = model.to(memory_format=torch.channels_last)  # the form in which convolutions are fastest
    if gpu and world > 1 and config.sync_batchnorm:
        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    adam = {
        "lr": config.learning_rate,
        "eps": config.adam_epsilon,
        "weight_decay": config.weight_decay,
    }
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, **adam, fused=True)
    world_model = model
    model, optimizer = accelerator.prepare(model, optimizer)
    set_seed(config.seed, device_specific=True)

    # The data, never handed to accelerate: it would shard it a second time.
    stream = {
        "batch_clips": batch_clips,
        "window_frames": config.window_frames,
        "seed": config.seed,
        "rank": accelerator.process_index,
        "world_size": world,
        "workers": config.workers,
        "sampling": config.sampling,
        "image_size": world_model.image_size,
        "pin_memory": gpu,
        "max_broken": config.max_broken,
        "fetch": config.fetch,
    }
    loader = ClipLoader(config.data, **stream)
    evaluation = None
    if config.evaluate_every and accelerator.is_main_process:
        roots = config.evaluate_data or list(dict.fromkeys(source.root for source in config.data))
        evaluation = Evaluation(config.evaluation, roots, run=run, image_size=world_model.image_size)

    # Where an earlier run stopped.
    state = TrainState(config, loader.fingerprint(), init)
    accelerator.register_for_checkpointing(state)
    if steps:
        resume(step_directory(checkpoints, steps[-1]), state, config, accelerator)
        for group in optimizer.param_groups:  # the checkpoint's are those of the earlier command
            group.update(adam)
        continue_data(state, loader, accelerator)
    if accelerator.is_main_process:
        checkpoints.mkdir(parents=True, exist_ok=True)
        write_text(run / "config.yaml", yaml.safe_dump(asdict(config), sort_keys=False))
        if any(source.subset is not None for source in config.data):
            write_text(run / "diets.json", json.dumps(loader.diets(), indent=1))
        for path in (rows, run / "scores.jsonl", run / "unreadable.jsonl"):
            truncate_rows(path, counter="updates", last=state.updates)
        if config.trackers:
            accelerator.init_trackers("cwm-hub", config={"config": yaml.safe_dump(asdict(config))})
    accelerator.wait_for_everyone()  # the others' unreadable clips come after the file is cut
    accelerator.print(
        f"{config.model}: {parameters:,} parameters on {accelerator.device} x {world}, precision {precision}; "
        f"{config.batch_clips} clips x {config.window_frames} frames an update; "
        f"updates {state.updates:,} to {config.updates:,}"
    )

    # The loop. Nothing in it waits for the device but the logging and, of several processes, the question who was told to stop.
    stop = StopSignal()
    batches = on_device(iter(loader), accelerator.device)
    meter, statistics = Meter(accelerator, state), RunningStatistics(world_model)
    used_clips: list[str] = []
    model.train()
    while state.updates < config.updates:
        world_model.set_update(state.updates)
        statistics.keep()
        for _ in range(config.accumulation):
            with meter.waiting():
                batch = next(batches)
            state.batches += 1
            if batch.broken:
                note_unreadable(run / "unreadable.jsonl", batch.broken, updates=state.updates + 1)
            if config.audit:
                used_clips.extend(batch.source)
            with accelerator.accumulate(model):
                loss, metrics = model(batch.video, batch.is_first)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
                    bad = 1 - torch.isfinite(norm).float()
                    if accelerator.scaler is None:  # else it is the scaler that says so
                        optimizer.optimizer.found_inf = bad  # the fused Adam skips without asking the host
                optimizer.step()
                optimizer.zero_grad()
            meter.add(metrics, share=1 / config.accumulation)
        statistics.take_back(bad)
        meter.count(bad)
        state.updates += 1

        if state.updates % config.log_every == 0 or state.updates == config.updates:
            row = meter.row(norm) | {"broken_clips": len(read_rows(run / "unreadable.jsonl"))}
            if accelerator.is_main_process:
                append_row(rows, row)
                print_progress(row, config.updates)
                if config.trackers:
                    numbers = {name: value for name, value in row.items() if value is not None}
                    accelerator.log(numbers, step=state.updates)
            if meter.bad_in_a_row >= config.max_bad_updates:
                raise RecipeError(
                    f"{int(meter.bad_in_a_row)} updates in a row had a non-finite gradient; "
                    f"{last_good_checkpoint(checkpoints, meter, state)}"
                )

        last_update = state.updates == config.updates
        if config.evaluate_every and (last_update or state.updates % config.evaluate_every == 0):
            with meter.paused():
                if evaluation is not None:
                    scores = evaluation.write(world_model, state.updates)
                    if config.trackers:
                        accelerator.log(scores, step=state.updates)
                accelerator.wait_for_everyone()

        stopping = agreed_to_stop(stop, accelerator, state.updates)
        if last_update or stopping or state.updates % config.checkpoint_every == 0:
            meter.store()
            finite = has_finite_weights(world_model, accelerator)
            if finite and (stopping or last_update or not meter.bad_in_a_row):
                save(step_directory(checkpoints, state.updates), accelerator, keep=config.keep_checkpoints)
            if last_update and not finite:
                raise RecipeError(
                    f"the weights are not finite after the last update; {last_good_checkpoint(checkpoints, meter, state)}"
                )
        if stopping and not last_update:
            place = (
                ""
                if finite
                else f"; nothing was saved, as the weights are not finite; {last_good_checkpoint(checkpoints, meter, state)}"
            )
            accelerator.print(
                f"\nstopped by a signal after {state.updates} updates; the same command resumes{place}"
            )
            accelerator.end_training()
            return 128 + (stop.received or signal.SIGTERM)

    if config.audit:
        write_audit(run / f"audit-{accelerator.process_index}.json", world_model, used_clips)

    # The result, in hub format.
    if accelerator.is_main_process:
        train = {
            "recipe": "recipes/pretrain.py",
            "preset": config.model,
            "updates": state.updates,
            **{name: getattr(config, name) for name in ("batch_clips", "window_frames", "seed")},
            "seconds": round(state.seconds, 1),
            "skipped_updates": state.skipped,
            "device": torch.cuda.get_device_name() if gpu else "cpu",
            "processes": world,
            "precision": precision,
            "config": asdict(config),
            "changes": state.changes,
            "parents": {"shards": loader.facts(), "init": state.init},
            **provenance(),
        }
        save_pretrained(accelerator.unwrap_model(model, keep_torch_compile=False), run / "model", train=train)
        print(f"finished: {run / 'model'}")
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return 0


def continue_data(state: TrainState, loader: Any, accelerator: Any) -> None:
    """Let the loader go on where the checkpoint's run stopped, in a world of any size.

    Raises:
        SamplingError: another data set or seed, or a world in which no batch begins there.
    """
    from cwm_hub.clips import resume_batch

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


def is_finished(run: Path, config: PretrainConfig) -> bool:
    """Whether the folder holds the model after exactly these updates, and no checkpoint beyond or before it."""
    train = run / "model" / "train.json"
    newest = max(saved_steps(run / "checkpoints"), default=config.updates)
    return train.exists() and json.loads(train.read_text())["updates"] == newest == config.updates


@contextmanager
def reading(checkpoint: Path) -> Iterator[None]:
    """Turn whatever goes wrong inside into one sentence about a damaged checkpoint."""
    import torch

    try:
        yield
    except (RecipeError, torch.OutOfMemoryError):
        raise
    except (
        Exception
    ) as error:  # bytes that are not whole show themselves in safetensors', zip's, pickle's and torch's ways
        before = "go on from the one before" if saved_steps(checkpoint.parent)[:-1] else "begin anew"
        raise RecipeError(
            f"the checkpoint {checkpoint} is damaged ({type(error).__name__}: {str(error)[:100]}); delete it to {before}"
        ) from error


def check_same_model(checkpoint: Path, config: PretrainConfig) -> None:
    """Refuse to go on with another model, or from another beginning, than the run has.

    Raises:
        RecipeError: names the setting that differs, or says that the checkpoint cannot be read.
    """
    import torch

    from cwm_hub.models.registry import model_config

    with reading(checkpoint):
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


def resume(checkpoint: Path, state: TrainState, config: PretrainConfig, accelerator: Any) -> None:
    """Take over weights, optimiser, counters and random states, and note which settings are others.

    Raises:
        RecipeError: the checkpoint is damaged, or beyond the updates that are asked for.
    """
    accelerator.step = -1  # comes with the random states, whose absence accelerate does not mention
    with reading(checkpoint):
        accelerator.load_state(str(checkpoint))
        if accelerator.step < 0 and state.fingerprint["world_size"] == accelerator.num_processes:
            raise ValueError(f"no random states of process {accelerator.process_index}")
    accelerator.step = 0  # an update begins here, whatever accumulation was before
    if state.updates > config.updates:
        raise RecipeError(
            f"{config.run} has {state.updates} updates already, more than --updates {config.updates}"
        )
    before, now = state.settings, asdict(config)
    changed = {name: [before.get(name), value] for name, value in now.items() if before.get(name) != value}
    if changed := {name: pair for name, pair in changed.items() if name not in ("run", "updates")}:
        state.changes.append({"updates": state.updates, **changed})
    state.settings = now


class RunningStatistics:
    """BatchNorm's running statistics: a forward pass moves them, whatever becomes of the update."""

    def __init__(self, model: Any):
        self._buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        self._kept: Any = None

    def keep(self) -> None:
        """Remember them as they are."""
        import torch

        if self._buffers:
            self._kept = torch.cat([buffer.flatten() for buffer in self._buffers])

    def take_back(self, bad: Any) -> None:
        """Put them back where `bad` is 1, without asking the host: one NaN would stay in them for ever."""
        import torch

        if not self._buffers:
            return
        moved = torch.cat([buffer.flatten() for buffer in self._buffers])
        right = torch.where(bad > 0, self._kept, moved).split([buffer.numel() for buffer in self._buffers])
        torch._foreach_copy_(
            self._buffers, [part.view_as(buffer) for part, buffer in zip(right, self._buffers, strict=True)]
        )


def compiling(config: PretrainConfig) -> Any:
    """How accelerate compiles the model: with the draws of eager execution, or not at all."""
    from accelerate.utils import TorchDynamoPlugin

    if not config.compile:
        return TorchDynamoPlugin(backend="no")
    import torch._inductor.config

    torch._inductor.config.fallback_random = True
    return TorchDynamoPlugin(backend="inductor", mode=config.compile_mode)


def start_from(checkpoint: str, model: Any) -> dict[str, Any]:
    """Load a checkpoint of the same configuration into the model; what names the checkpoint as its parent."""
    from cwm_hub.hub import find_checkpoint

    found = find_checkpoint(checkpoint)
    if found.config() != model.config:
        raise RecipeError(
            f"the checkpoint {checkpoint} has another configuration than the model to be trained"
        )
    model.load_state_dict(found.load().state_dict())
    return found.identity()


def on_device(batches: Iterator[Any], device: Any) -> Iterator[Any]:
    """Batches on the device; on a GPU the next one is copied on a stream of its own while this one is used."""
    import torch

    if device.type != "cuda":
        yield from (batch.to(device) for batch in batches)
        return
    side = torch.cuda.Stream(device)

    def copied() -> Any:
        with torch.cuda.stream(side):
            return next(batches).to(device, non_blocking=True)

    ahead = copied()
    while True:
        torch.cuda.current_stream(device).wait_stream(side)
        batch = ahead
        for tensor in (batch.video, batch.is_first):
            tensor.record_stream(torch.cuda.current_stream(device))
        ahead = copied()
        yield batch


def has_finite_weights(model: Any, accelerator: Any) -> bool:
    """Whether the sum of squares of everything that a checkpoint holds of the model is finite, on every process."""
    import torch

    values = [value.detach() for value in model.state_dict().values() if value.is_floating_point()]
    return math.isfinite(accelerator.reduce(torch.nn.utils.get_total_norm(values), "sum"))


def save(target: Path, accelerator: Any, *, keep: int) -> None:
    """Write a checkpoint, whole or not at all, and delete all but the newest `keep`."""
    temporary = target.with_suffix(".tmp")
    accelerator.save_state(str(temporary))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        commit_directory(temporary, target)
        keep_newest(target.parent, keep)
    accelerator.wait_for_everyone()


def last_good_checkpoint(checkpoints: Path, meter: Meter, state: TrainState) -> str:
    """The newest one after which a gradient was finite: weights can be ruined without being infinite."""
    last_good_update = state.updates - int(meter.bad_in_a_row)
    good = [updates for updates in saved_steps(checkpoints) if updates < last_good_update]
    return (
        f"last good checkpoint: {step_directory(checkpoints, good[-1]) if good else 'none was written yet'}"
    )


def write_audit(path: Path, model: Any, clips: list[str]) -> None:
    """What shows that the processes of a run have equal weights and different clips.

    Buffers are left out: without synchronised BatchNorm every process keeps statistics of its own clips, and those of
    the first one are published.
    """
    digest = hashlib.sha256()
    for parameter in model.parameters():
        digest.update(parameter.detach().cpu().numpy().tobytes())
    write_text(path, json.dumps({"weights_sha256": digest.hexdigest(), "clips": clips}))


def agreed_to_stop(stop: StopSignal, accelerator: Any, updates: int) -> bool:
    """Whether every rank stops after this update; several ranks ask each other, on GPUs every tenth."""
    if accelerator.num_processes == 1:
        return bool(stop.received)
    if accelerator.device.type == "cuda" and updates % 10:
        return False
    import torch

    asked = torch.tensor(float(stop.received > 0), device=accelerator.device)
    return bool(accelerator.reduce(asked, "sum"))


def print_progress(row: dict[str, Any], updates: int) -> None:
    """One line: on a terminal it is rewritten, elsewhere every log interval has its own."""
    left = (updates - row["updates"]) / row["updates_per_second"]
    loss, image, kl = (
        "-" if row[name] is None else f"{row[name]:.2f}" for name in ("loss", "image_loss", "kl")
    )
    text = (
        f"{row['updates']:>9,} / {updates:,}  loss {loss:>8}  image {image:>8}  "
        f"kl {kl:>6}  {row['updates_per_second']:6.2f} updates/s  "
        f"data wait {100 * row['data_wait_share']:3.0f} %  left {_duration(left)}"
    )
    text += f"  skipped {row['skipped_updates']}" if row["skipped_updates"] else ""
    text += f"  unreadable {row['broken_clips']}" if row["broken_clips"] else ""
    progress_line(text, last=row["updates"] >= updates)


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


if __name__ == "__main__":
    with one_sentence_errors():
        try:
            sys.exit(main())
        except KeyboardInterrupt:  # before the loop, which asks for a checkpoint instead
            sys.exit(130)
