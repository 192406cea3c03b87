"""Fine-tune a pre-trained video world model into a control agent, by model-based RL.

    python recipes/finetune.py --config recipes/configs/finetune/metaworld.yaml --init contextwm --run runs/reach

The paper's protocol (250k steps on one Meta-world task) is days of CPU and about a day of one GPU's time with
frames drawn on CPU; `configs/finetune/demo.yaml` takes about two minutes on two cores and is no result. The same
command again resumes at the last checkpoint and goes on exactly (bit for bit on a CPU).

The run folder holds config.yaml, metrics.jsonl (one row per logged interval), episodes.jsonl (one per training
episode), eval.jsonl (one per evaluation episode), replay/, checkpoints/ and, at the end, agent/ in hub format.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from cwm_hub.envs import EnvConfig, gl_problem, make_env
from cwm_hub.provenance import provenance
from recipes.run.agent_checkpoint import Progress, load_checkpoint, save_checkpoint
from recipes.run.command_line import parse_config
from recipes.run.folder import (
    RecipeError,
    StopSignal,
    append_row,
    lock_run,
    one_sentence_errors,
    progress_line,
    saved_steps,
    step_directory,
    truncate_rows,
    write_text,
)

if TYPE_CHECKING:
    from cwm_hub.agents.dreamer import DreamerAgent, DreamerConfig
    from cwm_hub.agents.rollout import EpisodeRecord


@dataclass(frozen=True)
class FinetuneConfig:
    """Settings of a fine-tuning run; the defaults are the paper's for Meta-world (arXiv 2305.18499)."""

    run: str = "runs/finetune"
    """Run folder. A folder with checkpoints is resumed."""
    init: str | None = None
    """Pre-trained video world model: a folder, an embedded name or a Hub repository."""
    model: str | None = None
    """Preset that starts from new weights in place of `init`, such as dreamerv2 or contextwm."""
    env: EnvConfig = field(default_factory=EnvConfig)
    """Task and how it is seen; its image size must be the model's."""
    fallback_env: str | None = None
    """Environment to take where `env` needs headless GL and there is none; null stops with what to install."""
    agent: dict[str, Any] = field(default_factory=dict)
    """Values of `DreamerConfig` to replace, by dotted name, such as `{intrinsic.beta: 0.1}`."""
    context_augmentation: Literal["none", "shift", "flip", "scale", "erasing"] = "erasing"
    """Augmentation of the context frame (paper: erasing on Meta-world except drawer-open, none elsewhere)."""
    agent_steps: int = 250_000
    """Budget, prefill included; an agent step is `env.action_repeat` environment frames."""
    prefill_steps: int = 5000
    """Random agent steps before the first update."""
    warmup_updates: int = 100
    """Updates made at once after the prefill."""
    update_every_steps: int = 5
    """Agent steps per update from then on."""
    replay_steps: int = 1_000_000
    """Capacity of the replay in agent steps."""
    evaluate_every_steps: int = 10_000
    """Agent steps between evaluations, from the end of the prefill on; there is one more at the end."""
    evaluation_episodes: int = 10
    """Episodes of an evaluation, with the same seeds every time and in every run."""
    checkpoint_every_steps: int = 10_000
    """Agent steps between checkpoints; each waits for the end of the episode under way."""
    log_every_updates: int = 100
    """Updates between rows of metrics.jsonl."""
    max_bad_updates: int = 100
    """Skipped updates in a row, because of a non-finite gradient, at which the run stops."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the agent lives; auto is the GPU where there is one."""
    seed: int = 0
    """Of weights, episodes, replay and every draw."""


def main(arguments: list[str] | None = None) -> int:
    """Fine-tune, or go on with it; the exit code is 0 when the run is finished."""
    config = parse_config(FinetuneConfig, arguments, description=__doc__.split("\n")[0])
    run = Path(config.run)
    checkpoints = run / "checkpoints"
    if is_finished(run, config):
        print(f"finished already: {run / 'agent'}")
        return 0
    lock = lock_run(run)  # noqa: F841 (held as long as it is referred to)
    config = with_fallback(config)
    resuming = bool(saved_steps(checkpoints))
    if resuming:
        check_same_config(run, config)

    import torch  # after the cheap refusals

    from cwm_hub.agents.replay import Replay
    from cwm_hub.agents.rollout import Collector, RandomPolicy, evaluate, evaluation_seeds
    from cwm_hub.hub.checkpoint import save_pretrained

    # The task, twice: evaluation must not disturb the training episode under way.
    env, evaluation_env = (make_env(**asdict(config.env)) for _ in range(2))
    action_size = env.action_space.shape[0]  # type: ignore[index]

    # The agent: pre-trained, from scratch, or from a checkpoint.
    torch.manual_seed(config.seed)
    gpu = torch.cuda.is_available() if config.device == "auto" else config.device == "cuda"
    progress = Progress()
    sums: dict[str, torch.Tensor] = {}
    replay = Replay(
        capacity_steps=config.replay_steps,
        image_size=config.env.image_size,
        action_size=action_size,
        seed=config.seed,
        directory=run / "replay",
    )
    if resuming:
        place = step_directory(checkpoints, saved_steps(checkpoints)[-1])
        agent, parent, progress, sums = load_checkpoint(place, replay, device="cuda" if gpu else "cpu")
    else:
        agent, parent = new_agent(config, action_size)
        agent.to("cuda" if gpu else "cpu")
        write_text(run / "config.yaml", yaml.safe_dump(asdict(config), sort_keys=False))
    for name in ("metrics", "episodes", "eval"):
        truncate_rows(run / f"{name}.jsonl", counter="agent_steps", last=progress.agent_steps)
    collector = Collector(env, replay, seed=config.seed, episodes=progress.episodes)
    random = RandomPolicy(action_size)
    print(
        f"{config.env.name}: {sum(p.numel() for p in agent.parameters()):,} parameters on {agent.device}; "
        f"agent steps {progress.agent_steps:,} to {config.agent_steps:,}, {config.evaluation_episodes} episodes "
        f"an evaluation; render quality {config.env.render_quality}"
    )

    def counters() -> dict[str, Any]:
        frames = progress.agent_steps * config.env.action_repeat
        return {"agent_steps": progress.agent_steps, "env_frames": frames, "updates": agent.updates}

    def update() -> None:
        started = time.perf_counter()
        skipped = agent.skipped_updates
        metrics = agent.update(replay)
        if agent.skipped_updates > skipped:
            progress.bad_in_a_row += 1
        else:
            progress.bad_in_a_row = 0
            progress.summed_updates += 1
            for name, value in metrics.items():
                sums[name] = sums.get(name, 0.0) + value.detach()
        if progress.bad_in_a_row >= config.max_bad_updates:
            raise RecipeError(
                f"{progress.bad_in_a_row} updates in a row had a non-finite gradient; the checkpoints are in {checkpoints}"
            )
        seconds["update"] += time.perf_counter() - started

    # The loop: one agent step a turn.
    seconds = {"update": 0.0, "evaluate": 0.0}
    stop = StopSignal()
    began, first_step = time.perf_counter(), progress.agent_steps
    checkpointed_at = progress.agent_steps
    summary: dict[str, float] = {}
    while progress.agent_steps < config.agent_steps:
        prefilled = progress.agent_steps >= config.prefill_steps
        record = collector.step(agent if prefilled else random)
        progress.agent_steps, progress.episodes = progress.agent_steps + 1, collector.episodes
        if record is not None:
            append_row(run / "episodes.jsonl", counters() | asdict(record))

        if progress.agent_steps == config.prefill_steps:
            for _ in range(config.warmup_updates):
                update()
        elif prefilled and progress.agent_steps % config.update_every_steps == 0:
            update()

        if agent.updates - progress.logged_updates >= config.log_every_updates:
            elapsed = time.perf_counter() - began
            row = counters() | {name: float(total) / progress.summed_updates for name, total in sums.items()}
            row |= {"skipped_updates": agent.skipped_updates, "seconds": progress.seconds + elapsed}
            row |= {f"{name}_share": spent / elapsed for name, spent in (seconds | collector.seconds).items()}
            row["agent_steps_per_second"] = (progress.agent_steps - first_step) / elapsed
            append_row(run / "metrics.jsonl", row)
            print_progress(row, config, summary)
            sums, progress.summed_updates, progress.logged_updates = {}, 0, agent.updates

        last = progress.agent_steps == config.agent_steps
        evaluated = progress.agent_steps >= config.prefill_steps
        if evaluated and (last or progress.agent_steps % config.evaluate_every_steps == 0):
            started = time.perf_counter()
            records = evaluate(evaluation_env, agent, seeds=evaluation_seeds(config.evaluation_episodes))
            seconds["evaluate"] += time.perf_counter() - started
            for evaluated_episode in records:
                append_row(run / "eval.jsonl", counters() | asdict(evaluated_episode))
            summary = summarise(records)
            print_evaluation(progress.agent_steps, summary)

        due = progress.agent_steps - checkpointed_at >= config.checkpoint_every_steps
        if record is not None and due and not progress.bad_in_a_row:
            now = time.perf_counter()
            saved = replace(progress, seconds=progress.seconds + now - began)
            save_checkpoint(checkpoints, agent, parent, replay, saved, sums)
            checkpointed_at = progress.agent_steps
        if stop.received and not last:
            print(
                f"\nstopped by a signal at step {progress.agent_steps:,}; the same command goes on from step "
                f"{max(saved_steps(checkpoints), default=0):,}"
            )
            return 128 + stop.received

    # The result, in hub format.
    elapsed = time.perf_counter() - began
    train = {
        "recipe": "recipes/finetune.py",
        "preset": config.model,
        "task": config.env.name,
        **counters(),
        "seed": config.seed,
        "seconds": round(progress.seconds + elapsed, 1),
        "skipped_updates": agent.skipped_updates,
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "processes": 1,
        "evaluation": summary | {"episodes": config.evaluation_episodes},
        "config": asdict(config),
        "parents": {"init": parent},
        **provenance(),
    }
    save_pretrained(agent, run / "agent", train=train)
    for finished in (env, evaluation_env):
        finished.close()
    print(f"finished: {run / 'agent'}")
    return 0


def new_agent(config: FinetuneConfig, action_size: int) -> tuple["DreamerAgent", dict[str, Any] | None]:
    """An agent before its first update, and the checkpoint it comes from."""
    from cwm_hub.agents.dreamer import DreamerAgent
    from cwm_hub.hub.names import find_checkpoint
    from cwm_hub.models.registry import model_config
    from cwm_hub.models.video_world_model import VideoWorldModel

    if (config.init is None) == (config.model is None):
        raise RecipeError(
            "give either init (a pre-trained checkpoint) or model (a preset that starts from new weights)"
        )
    if config.init is None:
        assert config.model is not None
        return DreamerAgent(agent_config(config, model_config(config.model), action_size)), None
    checkpoint = find_checkpoint(config.init)
    if not issubclass(checkpoint.model_class, VideoWorldModel):
        raise RecipeError(
            f"{config.init} holds a {checkpoint.model_class.__name__}, fine-tuning starts from a VideoWorldModel"
        )
    video_model = checkpoint.load()
    assert isinstance(video_model, VideoWorldModel)
    settings = agent_config(config, video_model.config, action_size)
    return DreamerAgent.from_video_world_model(video_model, settings), checkpoint.identity()


def agent_config(config: FinetuneConfig, model: Any, action_size: int) -> "DreamerConfig":
    """The agent's whole configuration: the pre-trained model's networks, the run's settings on top."""
    from cwm_hub.agents.dreamer import DreamerConfig
    from cwm_hub.agents.intrinsic import IntrinsicConfig
    from cwm_hub.config import override
    from cwm_hub.models.action_world_model import ActionWorldModelConfig

    if isinstance(model, ActionWorldModelConfig):
        world = replace(model, action_size=action_size)
    else:
        world = ActionWorldModelConfig(
            action_size=action_size, frame=model.frame, video_rssm=model.rssm, rssm=model.rssm
        )
    if world.frame.context is not None:
        context = replace(world.frame.context, augmentation=config.context_augmentation)
        world = replace(world, frame=replace(world.frame, context=context))
    bonus = IntrinsicConfig() if world.video_rssm is not None else None
    settings = override(DreamerConfig(world=world, intrinsic=bonus), config.agent, where="agent")
    if settings.world.frame.image_size != config.env.image_size:
        raise RecipeError(
            f"the model sees {settings.world.frame.image_size} pixels a side and env.image_size is {config.env.image_size}: "
            f"set --env.image_size {settings.world.frame.image_size}"
        )
    return settings


def with_fallback(config: FinetuneConfig) -> FinetuneConfig:
    """The configuration with the environment that this machine can draw, and its quality decided."""
    from cwm_hub.envs.rendering import resolve_quality

    if config.env.name == "dummy":
        return config
    problem = gl_problem()
    if problem is not None:
        if config.fallback_env is None:
            raise RecipeError(problem)
        print(f"{problem} Fine-tuning takes {config.fallback_env} in place of {config.env.name}.")
        return replace(config, env=replace(config.env, name=config.fallback_env))
    return replace(config, env=replace(config.env, render_quality=resolve_quality(config.env.render_quality)))


def is_finished(run: Path, config: FinetuneConfig) -> bool:
    """Whether the folder holds an agent of at least this budget."""
    train = run / "agent" / "train.json"
    return train.exists() and json.loads(train.read_text())["agent_steps"] >= config.agent_steps


def check_same_config(run: Path, config: FinetuneConfig) -> None:
    """Refuses to resume with other settings; only the budget and where to compute may change."""
    free = {"agent_steps", "device", "run"}
    saved = yaml.safe_load((run / "config.yaml").read_text())
    now = yaml.safe_load(yaml.safe_dump(asdict(config)))
    changed = sorted(name for name in now if name not in free and now[name] != saved.get(name))
    if changed:
        raise RecipeError(
            f"{run} was begun with other values of {', '.join(changed)}: take another --run or the same values"
        )


def summarise(records: list["EpisodeRecord"]) -> dict[str, float]:
    """Mean score and success rate of an evaluation."""
    return {
        "score": sum(record.score for record in records) / len(records),
        "success_rate": sum(record.success for record in records) / len(records),
    }


def print_progress(row: dict[str, Any], config: FinetuneConfig, summary: dict[str, float]) -> None:
    """One line: on a terminal it is rewritten, elsewhere every log interval has its own."""
    left = (config.agent_steps - row["agent_steps"]) / row["agent_steps_per_second"]
    shares = "  ".join(
        f"{name} {100 * row[f'{name}_share']:.0f} %" for name in ("environment", "act", "update", "evaluate")
    )
    success = f"success {100 * summary['success_rate']:.0f} %  " if summary else ""
    text = (
        f"{row['agent_steps']:>9,} / {config.agent_steps:,} steps  loss {row['loss']:8.2f}  "
        f"imagined return {row['imagined_return']:7.2f}  {success}"
        f"{row['agent_steps_per_second']:.1f} steps/s ({shares})  left {left / 60:.1f} min"
    )
    if row["skipped_updates"]:
        text += f"  skipped {row['skipped_updates']}"
    progress_line(text, last=False)


def print_evaluation(agent_steps: int, summary: dict[str, float]) -> None:
    """A line of its own for each evaluation."""
    start = "\n" if sys.stdout.isatty() else ""
    print(
        f"{start}evaluation at step {agent_steps:,}: score {summary['score']:.2f}, "
        f"success {100 * summary['success_rate']:.0f} %",
        flush=True,
    )


if __name__ == "__main__":
    with one_sentence_errors():
        sys.exit(main())
