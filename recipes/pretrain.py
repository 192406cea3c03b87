"""Pre-train a world model on shards of clips: of video or, with a preset such as `action-contextwm`, of logged actions.

    python recipes/pretrain.py --config recipes/configs/pretrain/small.yaml --data '[{root: shards/mine}]' --run runs/mine
    python recipes/pretrain.py --data '[{root: shards/a, weight: 2}, {root: shards/b}]' --overrides.rssm.deter 512 --run runs/b

Two processes on CPUs: `accelerate launch --quiet --multi_gpu --num_processes 2 recipes/pretrain.py --cpu true ...` or
`ACCELERATE_USE_CPU=1 torchrun --nproc_per_node 2 -- recipes/pretrain.py ...`. Several GPUs: `accelerate launch --quiet
--multi_gpu --num_processes 8 recipes/pretrain.py ...`; without `--quiet` the launcher adds its own traceback to an error.
The same command again resumes; a finished run says so.

A preset with actions is trained on sets that hold them (`cwm-dataprep lerobot`), as they were logged, its reward heads where
rewards were; `--init` then takes a video world model, whose parts it continues, as well as one of its own kind. Its
model/ starts `finetune --init`.

The run folder holds config.yaml, metrics.jsonl, checkpoints/ and, at the end, model/ in hub format; unreadable.jsonl
where clips could not be read; with `--evaluate_every` also scores.jsonl and evaluations/ (scorecard and prediction
grid on held-out windows).
"""

import hashlib
import json
import math
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

from cwm_hub.command_line import loading, progress_line
from recipes.run.command_line import parse_config
from recipes.run.pretrain_settings import PretrainConfig
from recipes.run.world import check_world, end_with_launcher

if __name__ == "__main__":  # before torch is imported, so that --help and a typo answer at once
    CONFIG = parse_config(PretrainConfig, description=__doc__)
    loading(", ".join(source.root for source in CONFIG.data))
    end_with_launcher()

import torch
import yaml
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import ProjectConfiguration, set_seed
from torch.nn.parallel import DistributedDataParallel

from cwm_hub.clips.loader import ClipBatch, ClipLoader
from cwm_hub.config import merged
from cwm_hub.evaluation.predict import WorldModel
from cwm_hub.hub.names import find_checkpoint
from cwm_hub.hub.saving import save_pretrained
from cwm_hub.models.action_world_model import ActionWorldModel, ActionWorldModelConfig
from cwm_hub.models.compiled import compile_parts, eager
from cwm_hub.models.cuda_graph import CudaGraph
from cwm_hub.models.registry import create_model, model_config
from cwm_hub.models.running_statistics import RunningStatistics
from cwm_hub.models.video_world_model import VideoWorldModel
from cwm_hub.provenance import provenance, usable_cores
from recipes.run.advice import (
    LARGE_PARAMETERS,
    Advice,
    data_lines,
    duration,
    first_update,
    large_on_cpu,
)
from recipes.run.folder import (
    RecipeError,
    StopSignal,
    append_row,
    lock_run,
    note_unreadable,
    one_sentence_errors,
    read_rows,
    saved_steps,
    step_directory,
    truncate_rows,
    write_text,
)
from recipes.run.memory import keep_memory
from recipes.run.meter import Meter, finite
from recipes.run.pretrain_checkpoint import (
    TrainState,
    adam_settings,
    check_same_model,
    is_finished,
    last_good_checkpoint,
    resume,
    save,
)
from recipes.run.scoring import Evaluation
from recipes.run.trackers import check_trackers, numbers_of


def main(config: PretrainConfig) -> int:
    """Train, or go on training; the exit code is 0 when the run is finished."""
    # World, model, data, and where an earlier run stopped.
    accelerator = make_accelerator(config)
    run, checkpoints = Path(config.run), Path(config.run) / "checkpoints"
    if is_finished(run, config):
        accelerator.print(f"finished: {run / 'model'}")
        accelerator.end_training()
        return 0
    lock = lock_run(run) if accelerator.is_main_process else None  # noqa: F841 (held as long as it is referred to)
    earlier = [step_directory(checkpoints, updates) for updates in saved_steps(checkpoints)]
    if earlier:
        check_same_model(earlier[-1], config)
    settings = model_config(config.model, overrides=config.overrides)
    with_actions = isinstance(settings, ActionWorldModelConfig)
    loader = open_loader(config, accelerator, image_size=settings.frame.image_size, with_actions=with_actions)
    world_model, init = make_model(config, accelerator, logged=loader.logged, resuming=bool(earlier))
    trained = [parameter for parameter in world_model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, **adam_settings(config), fused=True)
    model, optimizer = accelerator.prepare(world_model, optimizer)
    if isinstance(model, DistributedDataParallel):
        # In training no forward pass reads BatchNorm's running statistics: sending them each time is for nothing.
        model.forward_sync_buffers = False
    set_seed(config.seed, device_specific=True)
    evaluation = open_evaluation(config, accelerator, world_model)
    state = TrainState(config, loader.fingerprint(), init)
    accelerator.register_for_checkpointing(state)
    if earlier:
        resume(earlier[-1], state, config, accelerator=accelerator, optimizer=optimizer, loader=loader)
    begin_folder(run, config, state, loader, accelerator)
    print_header(config, state, world_model, loader, accelerator)

    # The loop. Nothing in it waits for the device but the logging and, of several processes, the question who was told to stop.
    stop = StopSignal()
    batches = on_device(iter(loader), accelerator.device)
    mean_of_processes = partial(accelerator.reduce, reduction="mean")
    meter = Meter(state, accelerator.device, times=["data_wait"], mean_of_processes=mean_of_processes)
    statistics = RunningStatistics(world_model)
    used_clips: list[str] = []
    advice, logged = Advice(run, fresh=init is None and state.init is None), dict[str, Any]()
    began, began_at = time.perf_counter(), state.updates
    model.train()
    train_on = trainer(config, accelerator, model, optimizer)
    while state.updates < config.updates:
        world_model.set_update(state.updates)
        statistics.keep()
        for _ in range(config.accumulation):
            with meter.timing("data_wait"):
                batch = next(batches)
            state.batches += 1
            if batch.broken:
                note_unreadable(run / "unreadable.jsonl", batch.broken, updates=state.updates + 1)
            if config.audit:
                used_clips.extend(batch.source)
            metrics, norm, bad = train_on(batch)
            meter.add(metrics, share=1 / config.accumulation)
        statistics.take_back(bad)
        meter.count(bad)
        state.updates += 1
        last_update = state.updates == config.updates
        if state.updates == began_at + 1:
            float(norm)  # waits for the device, once
            accelerator.print(
                first_update(time.perf_counter() - began, config.updates - began_at), flush=True
            )

        if last_update or state.updates % config.log_every == 0:
            row = log_interval(run, meter.row() | {"grad_norm": finite(float(norm))}, config, accelerator)
            advice.look_at(row)
            logged = row or {}
            if meter.bad_in_a_row >= config.max_bad_updates:
                raise RecipeError(
                    f"{int(meter.bad_in_a_row)} updates in a row had a non-finite gradient; "
                    f"{last_good_checkpoint(checkpoints, meter.last_good_update)}"
                )
        elif accelerator.is_main_process and meter.is_silent():
            print_progress(logged | {"updates": state.updates} | meter.rates(), config.updates)

        if config.evaluate_every and (last_update or state.updates % config.evaluate_every == 0):
            with meter.paused(), eager():
                if evaluation is not None:
                    track(evaluation.write(world_model, state.updates), config, accelerator)
                accelerator.wait_for_everyone()

        stopping = agreed_to_stop(stop, accelerator, state.updates)
        ending = last_update or stopping
        if ending or (state.updates % config.checkpoint_every == 0 and not meter.bad_in_a_row):
            meter.store()
            saved = save(checkpoints, state, world_model, accelerator, keep=config.keep_checkpoints)
            if ending and not saved:
                raise RecipeError(
                    f"the weights are not finite after {state.updates} updates; {last_good_checkpoint(checkpoints, meter.last_good_update)}"
                )
        if stopping and not last_update:
            accelerator.print(
                f"\nstopped by a signal after {state.updates} updates; the same command resumes"
            )
            accelerator.end_training()
            return 128 + (stop.received or signal.SIGTERM)

    if config.audit:
        write_audit(run / f"audit-{accelerator.process_index}.json", world_model, used_clips)
    write_model(run / "model", model, config, state, loader, accelerator)
    accelerator.end_training()
    return 0


def trainer(
    config: PretrainConfig, accelerator: Accelerator, model: torch.nn.Module, optimizer: AcceleratedOptimizer
) -> Callable[[ClipBatch], tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]]:
    """What trains on a batch: forward, backward, and the optimiser's step where the batch completes an update.

    Its function gives the batch's scalars, the gradient's norm, and whether that is not finite (1 or 0), in which case
    nothing moves. On one GPU all of it is recorded as a CUDA graph where the settings allow (`records_updates`).
    """

    def train_on(
        video: torch.Tensor, is_first: torch.Tensor, **logged: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
        norm = bad = torch.zeros((), device=accelerator.device)
        with accelerator.accumulate(model):
            loss, metrics = model(video, is_first, **logged)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                norm = accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
                bad = 1 - torch.isfinite(norm).float()
                if accelerator.scaler is None:  # else it is the scaler that says so
                    optimizer.optimizer.found_inf = bad  # the fused Adam skips without asking the host
            optimizer.step()
            optimizer.zero_grad()
        return metrics, norm, bad

    if not records_updates(config, accelerator):
        return lambda batch: train_on(batch.video, batch.is_first, **batch.logged)
    for group in optimizer.param_groups:
        group["capturable"] = True
    graph = CudaGraph(train_on, accelerator.device)
    frame_model = accelerator.unwrap_model(model).frame_model

    def replay(batch: ClipBatch) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
        inputs = {"video": batch.video, "is_first": batch.is_first, **batch.logged}
        return graph(inputs, key=frame_model.token_dropout)

    return replay


def records_updates(config: PretrainConfig, accelerator: Accelerator) -> bool:
    """Whether an update is one CUDA graph: on one GPU, where nothing in it waits for the host or for other processes."""
    alone = accelerator.num_processes == 1 and accelerator.device.type == "cuda"
    return config.cuda_graphs and alone and config.accumulation == 1 and accelerator.scaler is None


def make_accelerator(config: PretrainConfig) -> Accelerator:
    """Device, processes and precision, as accelerate's `Accelerator`.

    Raises:
        RecipeError: a precision that the device does not have, or a world of another size than promised.
    """
    check_trackers(config.trackers)
    gpu = torch.cuda.is_available() and not config.cpu
    if not gpu:
        keep_memory()
    torch.backends.cudnn.benchmark = True  # shapes stay: a GPU's fastest convolutions are found once
    precision = ("bf16" if gpu else "no") if config.mixed_precision == "auto" else config.mixed_precision
    if precision == "fp16" and not gpu:  # accelerate would train in float32 without a word
        raise RecipeError("--mixed_precision fp16 needs a GPU; a CPU trains in bf16 or no")
    accelerator = Accelerator(
        cpu=not gpu,
        mixed_precision=precision,
        gradient_accumulation_steps=config.accumulation,
        log_with=config.trackers or None,
        project_config=ProjectConfiguration(
            project_dir=config.run, logging_dir=str(Path(config.run) / "logs")
        ),
        step_scheduler_with_optimizer=False,
    )
    check_world(accelerator.num_processes, promised=config.processes)
    clips_per_process(config, accelerator.num_processes)
    return accelerator


def clips_per_process(config: PretrainConfig, world: int) -> int:
    """Clips of a forward pass; raises RecipeError where the batch cannot be divided."""
    clips, rest = divmod(config.batch_clips, world * config.accumulation)
    if rest or not clips:
        raise RecipeError(
            f"batch_clips {config.batch_clips} is not a multiple of {world} processes x {config.accumulation} accumulation"
        )
    return clips


def make_model(
    config: PretrainConfig, accelerator: Accelerator, *, logged: Mapping[str, tuple[int, ...]], resuming: bool
) -> tuple[WorldModel, dict[str, Any] | None]:
    """The model before its first update, and what names the checkpoint it starts from.

    Args:
        config: the run's.
        accelerator: of this process.
        logged: shape of a row of what the data has beside the frames.
        resuming: the weights come from the run's own checkpoint.

    Raises:
        ValueError: no such preset or override; a checkpoint that does not fit.
    """
    set_seed(config.seed)
    overrides = merged(config.overrides, {"action_size": logged["action"][0]}) if logged else config.overrides
    model = cast(WorldModel, create_model(config.model, overrides=overrides))
    if isinstance(model, ActionWorldModel):
        hold_heads(model, logged)
    init = start_from(config.init, model) if config.init is not None and not resuming else None
    model = model.to(memory_format=torch.channels_last)  # the form in which convolutions are fastest
    if config.compile:
        compile_parts(model)
    if accelerator.device.type == "cuda" and accelerator.num_processes > 1 and config.sync_batchnorm:
        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model, init


def hold_heads(model: ActionWorldModel, logged: Collection[str]) -> None:
    """Leave heads of which the data says nothing as they are; they stay new for `finetune`."""
    heads = {
        "reward": (model.behavioural_head, model.representative_head),
        "is_terminal": (model.continue_head,),
    }
    for name, of_it in heads.items():
        for head in of_it:
            if head is not None and name not in logged:
                head.requires_grad_(False)


def open_loader(
    config: PretrainConfig, accelerator: Accelerator, *, image_size: int, with_actions: bool
) -> ClipLoader:
    """This process's clips; never handed to accelerate, which would shard them a second time."""
    return ClipLoader(
        config.data,
        batch_clips=clips_per_process(config, accelerator.num_processes),
        window_frames=config.window_frames,
        seed=config.seed,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        workers=min(config.workers, usable_cores()),
        sampling=config.sampling,
        image_size=image_size,
        pin_memory=accelerator.device.type == "cuda",
        max_broken=config.max_broken,
        max_broken_share=config.max_broken_share,
        fetch=config.fetch,
        with_actions=with_actions,
    )


def open_evaluation(config: PretrainConfig, accelerator: Accelerator, model: WorldModel) -> Evaluation | None:
    """What scores the model during training: the main process's, where it is asked for."""
    if not config.evaluate_every or not accelerator.is_main_process:
        return None
    roots = config.evaluate_data or list(dict.fromkeys(source.root for source in config.data))
    return Evaluation(
        config.evaluation,
        roots,
        run=Path(config.run),
        image_size=model.image_size,
        with_actions=isinstance(model, ActionWorldModel),
    )


def begin_folder(
    run: Path, config: PretrainConfig, state: TrainState, loader: ClipLoader, accelerator: Accelerator
) -> None:
    """Write down what is about to happen, and drop the rows that it writes again."""
    if accelerator.is_main_process:
        (run / "checkpoints").mkdir(parents=True, exist_ok=True)
        settings = yaml.safe_dump(asdict(config), sort_keys=False)
        write_text(run / "config.yaml", settings)
        if any(source.subset is not None for source in config.data):
            write_text(run / "diets.json", json.dumps(loader.diets(), indent=1))
        for name in ("metrics", "scores", "unreadable"):
            truncate_rows(run / f"{name}.jsonl", counter="updates", last=state.updates)
        if config.trackers:
            accelerator.init_trackers("cwm-hub", config={"config": settings})
    accelerator.wait_for_everyone()  # the other processes' unreadable clips come after the file is cut


def print_header(
    config: PretrainConfig,
    state: TrainState,
    model: WorldModel,
    loader: ClipLoader,
    accelerator: Accelerator,
) -> None:
    """What is trained, where, on what, and how far."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    accelerator.print(
        f"{config.model}: {parameters:,} parameters on {accelerator.device} x {accelerator.num_processes}, "
        f"precision {accelerator.mixed_precision}"
        f"{', an update is one CUDA graph' if records_updates(config, accelerator) else ''}; "
        f"{config.batch_clips} clips x {config.window_frames} frames an update"
        f"{''.join(f', {name} {list(shape)}' for name, shape in loader.logged.items())}; "
        f"updates {state.updates:,} to {config.updates:,}"
    )
    for line in data_lines(loader.usage(), config.window_frames):
        accelerator.print(line)
    if accelerator.device.type == "cpu" and parameters > LARGE_PARAMETERS:
        accelerator.print(large_on_cpu(config.model), flush=True)


def log_interval(
    run: Path, row: dict[str, Any], config: PretrainConfig, accelerator: Accelerator
) -> dict[str, Any] | None:
    """A row of metrics.jsonl, a printed line, and the trackers; the main process's work, whose row it returns."""
    if not accelerator.is_main_process:
        return None
    row = row | {"broken_clips": len(read_rows(run / "unreadable.jsonl"))}
    append_row(run / "metrics.jsonl", row)
    print_progress(row, config.updates)
    track(row, config, accelerator)
    return row


def track(row: dict[str, Any], config: PretrainConfig, accelerator: Accelerator) -> None:
    """Give a row's numbers to the trackers; what is no number, as after skipped updates, they do not take."""
    if config.trackers:
        accelerator.log(numbers_of(row), step=row["updates"])


def write_model(
    target: Path,
    model: torch.nn.Module,
    config: PretrainConfig,
    state: TrainState,
    loader: ClipLoader,
    accelerator: Accelerator,
) -> None:
    """The result, in hub format, with how it came to be."""
    if accelerator.is_main_process:
        train = {
            "recipe": "recipes/pretrain.py",
            "preset": config.model,
            "updates": state.updates,
            **{name: getattr(config, name) for name in ("batch_clips", "window_frames", "seed")},
            **({"logged": ", ".join(loader.logged)} if loader.logged else {}),
            "seconds": round(state.seconds, 1),
            "skipped_updates": state.skipped,
            "device": torch.cuda.get_device_name() if accelerator.device.type == "cuda" else "cpu",
            "processes": accelerator.num_processes,
            "precision": accelerator.mixed_precision,
            "config": asdict(config),
            "changes": state.changes,
            "parents": {"shards": loader.facts(), "init": state.init},
            **provenance(),
        }
        save_pretrained(accelerator.unwrap_model(model), target, train=train)
        print(f"finished: {target}")
    accelerator.wait_for_everyone()


def start_from(checkpoint: str, model: WorldModel) -> dict[str, Any]:
    """Load a checkpoint of the same configuration into the model, or of video below the actions; what names it as the
    parent."""
    found = find_checkpoint(checkpoint)
    if isinstance(model, ActionWorldModel) and issubclass(found.model_class, VideoWorldModel):
        model.take_over(cast(VideoWorldModel, found.load()))
        return found.identity()
    if found.config() != model.config:
        raise RecipeError(
            f"the checkpoint {checkpoint} has another configuration than the model to be trained"
        )
    model.load_state_dict(found.load().state_dict())
    return found.identity()


def on_device(batches: Iterator[ClipBatch], device: torch.device) -> Iterator[ClipBatch]:
    """Batches on the device; on a GPU the next one is copied on a stream of its own while this one is used."""
    if device.type != "cuda":
        yield from (batch.to(device) for batch in batches)
        return
    side = torch.cuda.Stream(device)

    def copied() -> ClipBatch:
        with torch.cuda.stream(side):
            return next(batches).to(device, non_blocking=True)

    ahead = copied()
    while True:
        torch.cuda.current_stream(device).wait_stream(side)
        batch = ahead
        for tensor in (batch.video, batch.is_first, *batch.logged.values()):
            tensor.record_stream(torch.cuda.current_stream(device))
        ahead = copied()
        yield batch


def write_audit(path: Path, model: WorldModel, clips: list[str]) -> None:
    """What shows that the processes of a run have equal weights and different clips.

    Buffers are left out: without synchronised BatchNorm every process keeps statistics of its own clips, and those of
    the first one are published.
    """
    digest = hashlib.sha256()
    for parameter in model.parameters():
        digest.update(parameter.detach().cpu().numpy().tobytes())
    write_text(path, json.dumps({"weights_sha256": digest.hexdigest(), "clips": clips}))


def agreed_to_stop(stop: StopSignal, accelerator: Accelerator, updates: int) -> bool:
    """Whether every rank stops after this update; several ranks ask each other, on GPUs every tenth."""
    if accelerator.num_processes == 1:
        return bool(stop.received)
    if accelerator.device.type == "cuda" and updates % 10:
        return False
    asked = torch.tensor(float(stop.received > 0), device=accelerator.device)
    return bool(accelerator.reduce(asked, "sum"))


def print_progress(row: dict[str, Any], updates: int) -> None:
    """One line: on a terminal it is rewritten, elsewhere each has its own. Losses are those of the last row."""
    left = (updates - row["updates"]) / row["updates_per_second"]
    loss, image, kl = (
        "-" if row.get(name) is None else f"{row[name]:.2f}" for name in ("loss", "image_loss", "kl")
    )
    text = (
        f"{row['updates']:>9,} / {updates:,}  loss {loss:>8}  image {image:>8}  "
        f"kl {kl:>6}  {row['updates_per_second']:6.2f} updates/s  "
        f"data wait {100 * row['data_wait_share']:3.0f} %  left {duration(left) if math.isfinite(left) else '?'}"
    )
    text += f"  skipped {row['skipped_updates']}" if row.get("skipped_updates") else ""
    text += f"  unreadable {row['broken_clips']}" if row.get("broken_clips") else ""
    progress_line(text, last=row["updates"] >= updates)


if __name__ == "__main__":
    with one_sentence_errors():
        try:
            sys.exit(main(CONFIG))
        except KeyboardInterrupt:  # before the loop, which asks for a checkpoint instead
            sys.exit(130)
