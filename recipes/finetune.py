"""Fine-tune a pre-trained video world model into a control agent, by model-based RL.

    python recipes/finetune.py --config recipes/configs/finetune/metaworld.yaml --init contextwm --run runs/reach
    python recipes/finetune.py --config recipes/configs/finetune/scenes.yaml --model contextwm-mini --seed 1

The paper's protocol (250k steps on one Meta-world task) is days of CPU and about a day of one GPU's time with
frames drawn on CPU; `configs/finetune/scenes.yaml` is an agent that learns within minutes on one core. The same command
again resumes at the last checkpoint and goes on exactly (bit for bit on a CPU), in an episode's middle too: its actions are played
again, and where the environment then shows something else the episode is given up, and that is said.

`--demonstrations SHARDS` begins the replay with logged episodes (`cwm-dataprep lerobot`); they are neither the agent's steps
nor its episodes in any count.

The run folder holds config.yaml, metrics.jsonl (one row per logged interval), episodes.jsonl (one per training
episode), eval.jsonl (one per evaluation episode, of a random policy, the agent's mode and samples of its policy),
films/ (an mp4 of every evaluation's first episodes), replay/, checkpoints/ and, at the end, agent/ in hub format, with
the last film as replay.mp4.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from cwm_hub.command_line import how_many, loading, progress_line
from recipes.run.command_line import parse_config
from recipes.run.finetune_settings import FinetuneConfig, check_same_config, is_finished, with_fallback

if __name__ == "__main__":  # before torch is imported, so that --help and a typo answer at once
    CONFIG = parse_config(FinetuneConfig, description=__doc__)
    loading(" on ".join(filter(None, (CONFIG.init, CONFIG.model, CONFIG.env.name))))

import torch
import yaml
from gymnasium import Env

from cwm_hub.agents.agent import Agent, Policy, device_named
from cwm_hub.agents.replay import Replay, bytes_of_a_row
from cwm_hub.agents.rollout import (
    Collector,
    EpisodeRecord,
    RandomPolicy,
    Seen,
    each_episode,
    evaluation_seeds,
)
from cwm_hub.envs import make_env
from cwm_hub.envs.pixel_env import PixelEnv
from cwm_hub.envs.processes import make_process_envs
from cwm_hub.evaluation.episodes import FILMED_EPISODES, episode_rows
from cwm_hub.evaluation.play_progress import PlayProgress
from cwm_hub.figures.films import write_film
from cwm_hub.hub.saving import save_pretrained
from cwm_hub.provenance import provenance
from recipes.run.agent_checkpoint import Progress, load_checkpoint, save_checkpoint
from recipes.run.agent_setup import new_agent
from recipes.run.demonstrations import seed_replay
from recipes.run.folder import (
    RecipeError,
    StopSignal,
    append_row,
    begun_or_untouched,
    one_sentence_errors,
    read_rows,
    saved_steps,
    step_directory,
    truncate_rows,
    write_text,
)
from recipes.run.memory import keep_memory
from recipes.run.meter import Meter
from recipes.run.trackers import Trackers, check_trackers

POLICIES = ("random", "mode", "sampled")
"""What an evaluation may play, as `policy` says in eval.jsonl."""


def main(config: FinetuneConfig) -> int:
    """Fine-tune, or go on with it; the exit code is 0 when the run is finished."""
    config = with_fallback(config)
    check_trackers(config.trackers)
    run = Path(config.run)
    check_same_config(run, config)
    if is_finished(run, config):
        print(f"finished already: {run / 'agent'}")
        return 0
    with begun_or_untouched(run, played="eval.jsonl"):
        return fine_tune(config)


def fine_tune(config: FinetuneConfig) -> int:
    """The run, from its start or its last checkpoint on; the exit code."""
    run, checkpoints = Path(config.run), Path(config.run) / "checkpoints"

    # The task more than once: evaluation must not disturb the training episodes under way.
    at_once = min(config.evaluation_episodes_at_once, config.evaluation_episodes)
    envs = collecting_envs(config)
    evaluation_envs = [make_env(**asdict(config.evaluation_env)) for _ in range(at_once)]
    assert envs[0].action_space.shape is not None
    action_size = envs[0].action_space.shape[0]

    # Replay, agent and counters: pre-trained, from scratch, or where an earlier run stopped.
    torch.manual_seed(config.seed)
    device = device_named(config.device)
    if device.type == "cpu":
        keep_memory()
    torch.backends.cudnn.benchmark = True  # shapes stay: a GPU's fastest convolutions are found once
    replay = new_replay(config, action_size)
    random = RandomPolicy(action_size)
    earlier = [step_directory(checkpoints, steps) for steps in saved_steps(checkpoints)]
    if earlier:
        agent, parent, progress, under_way = load_checkpoint(earlier[-1], replay, device, random=random)
    else:
        (agent, parent), progress, under_way = new_agent(config, action_size, device), Progress(), []
        if config.demonstrations is not None:
            size = {"action_size": action_size, "image_size": config.env.image_size}
            episodes, steps = seed_replay(replay, agent, config.demonstrations, **size)
            print(f"the replay begins with {how_many(episodes, 'logged episode')} of {steps:,} steps")
        write_text(run / "config.yaml", yaml.safe_dump(asdict(config), sort_keys=False))
    cut_records(config, progress)
    trackers = Trackers(config.trackers, run, (run / "config.yaml").read_text())
    print_header(config, agent, device, progress)
    stop = StopSignal()
    meter = Meter(progress, device, times=["environment", "act", "update", "evaluate"])
    collector = Collector(envs, replay, seed=config.seed, episodes=progress.episodes, timing=meter.timing)
    if lost := collector.restore(under_way):
        progress.given_up_steps += lost
        print(f"{config.env.name} did not repeat itself: {lost} steps of what was under way are given up")
    elif under_way:
        print(f"{collector.running_steps} steps of what was under way were played again")

    # The loop. A turn: the updates that are due, an evaluation or a checkpoint where one is due, an agent step in each environment.
    began, saved_at, told_short = replace(progress), progress.agent_steps, tell_short(replay, agent)
    logged: dict[str, Any] = {}  # the last row of metrics.jsonl
    while True:
        player = agent if progress.agent_steps >= config.prefill_steps else random
        if config.collect_while_updating and progress.due_updates:
            collector.begin_step(player)
        if progress.due_updates and progress.updates == began.updates:
            meter.clock()
            began = replace(progress)  # the quick steps of the prefill are no measure of what is left
        while progress.due_updates and not stop.received:
            learn(agent, replay, progress, meter, config)
            if progress.updates % config.log_every_updates == 0:
                logged = counters(config, progress) | left_out(replay, agent) | meter.row()
                append_row(run / "metrics.jsonl", logged)
                trackers.log(logged, step=progress.updates)
                print_progress(logged, config, since=began)
            elif meter.is_silent():
                print_progress(logged | counters(config, progress) | meter.rates(), config, since=began)

        due = policies_due(config, progress, agent, random)
        if due and not stop.received:
            with meter.timing("evaluate"):
                records, filmed = evaluate(evaluation_envs, due, config.evaluation_episodes, stop)
            if not stop.received:
                if "random" in due:
                    check_task(records["random"], agent, config)
                progress.evaluated_at = progress.agent_steps
                played = record_evaluation(
                    records, filmed, config, progress, fps=envs[0].metadata["render_fps"]
                )
                trackers.log(counters(config, progress) | played, step=progress.updates)

        finished = progress.agent_steps >= config.last_step and not stop.received
        since_saved = progress.agent_steps - saved_at
        saving = since_saved >= (1 if finished else config.checkpoint_every_steps) and not meter.bad_in_a_row
        if stop.received or saving:
            meter.store()
            save_checkpoint(checkpoints, agent, parent, replay, collector, progress)
            saved_at = progress.agent_steps
        if stop.received:
            print(
                f"\nstopped by a signal and saved at step {progress.agent_steps:,}; the same command goes on from there"
            )
            trackers.close()
            return 128 + stop.received
        if finished:
            break

        taken, at = collector.agent_steps, progress.agent_steps
        finished_episodes = collector.step(player)
        progress.agent_steps, progress.episodes = at + collector.agent_steps - taken, collector.episodes
        for step in range(at, progress.agent_steps):
            progress.due_updates += updates_after(config, step + 1)
        for record in finished_episodes:
            append_row(run / "episodes.jsonl", counters(config, progress) | record.row())
        if finished_episodes and not told_short:
            told_short = tell_short(replay, agent)
        if meter.is_silent():
            print_progress(logged | counters(config, progress) | meter.rates(), config, since=began)

    meter.clock()
    write_agent(run, agent, parent, config, progress, left_out(replay, agent))
    trackers.close()
    for used in (*envs, *evaluation_envs):
        used.close()
    return 0


def collecting_envs(config: FinetuneConfig) -> Sequence[Env[Any, Any]]:
    """Those of the training episodes, in this process or each in one of its own."""
    if not config.collect_processes:
        return [make_env(**asdict(config.env)) for _ in range(config.collect_envs)]
    return make_process_envs(config.collect_envs, **asdict(config.env))


def new_replay(config: FinetuneConfig, action_size: int) -> Replay:
    """The run's replay, empty, whose room is not more than the run can fill: an episode has a row more than steps.

    Raises:
        RecipeError: what it will hold is more than this machine's memory, or than is free on the disk.
    """
    size = {"image_size": config.env.image_size, "action_size": action_size}
    fills = config.last_step + config.collect_envs
    capacity = config.replay_steps if config.demonstrations else min(config.replay_steps, 2 * fills)
    held = min(capacity, fills) * bytes_of_a_row(**size) / 2**30
    folder, mapped = Path(config.run) / "replay", config.replay_on_disk
    if mapped:
        folder.mkdir(parents=True, exist_ok=True)
        kept = sum(path.stat().st_size for path in folder.iterdir())
        have, where = (shutil.disk_usage(folder).free + kept) / 2**30, f"for {folder}"
        held *= 2  # every episode is a file too
    else:
        have, where = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, "of memory"
    too_large = (
        f"a replay of {config.replay_steps:,} steps takes {held:.1f} GiB in this run, and this machine has {have:.1f} GiB {where}: "
        f"lower replay_steps or agent_steps{'' if mapped else ', or set replay_on_disk'}"
    )
    if held > have:
        raise RecipeError(too_large)
    try:
        return Replay(capacity_steps=capacity, seed=config.seed, directory=folder, mapped=mapped, **size)
    except MemoryError as error:
        raise RecipeError(too_large) from error


def counters(config: FinetuneConfig, progress: Progress) -> dict[str, int]:
    """Where the run stands: the first columns of every row."""
    frames = progress.agent_steps * config.env.action_repeat
    return {"agent_steps": progress.agent_steps, "env_frames": frames, "updates": progress.updates}


def left_out(replay: Replay, agent: Agent) -> dict[str, int]:
    """What of the replay the agent never learns from, as of the official code: episodes too short for it, and their steps."""
    episodes, steps = replay.shorter_than(agent.episode_rows)
    return {"left_out_episodes": episodes, "left_out_steps": steps}


def updates_after(config: FinetuneConfig, agent_steps: int) -> int:
    """Updates that become due with this agent step."""
    since = agent_steps - config.prefill_steps
    if since == 0:
        return config.warmup_updates
    return int(since > 0 and since % config.update_every_steps == 0)


def policies_due(
    config: FinetuneConfig, progress: Progress, agent: Agent, random: Policy
) -> dict[str, tuple[Policy, bool]]:
    """`POLICIES` that are to be evaluated now, and whether they explore: the random one once, before everything."""
    if progress.evaluated_at < 0:
        return {"random": (random, True)}
    since, last = (at - config.prefill_steps for at in (progress.agent_steps, progress.evaluated_at))
    every = config.evaluate_every_steps
    here = since // every > last // every or progress.agent_steps >= config.last_step
    if since < 0 or not here or since == last:
        return {}
    due: dict[str, tuple[Policy, bool]] = {"mode": (agent, False)}
    return due | ({"sampled": (agent, True)} if config.evaluate_sampled else {})


def learn(agent: Agent, replay: Replay, progress: Progress, meter: Meter, config: FinetuneConfig) -> None:
    """One update, in the meter and the counters.

    Raises:
        RecipeError: too many in a row had a gradient that is not finite.
    """
    skipped = agent.skipped_updates
    with meter.timing("update"):
        metrics = agent.update(replay)
    bad = agent.skipped_updates - skipped
    if not bad:
        meter.add(metrics)
    meter.count(torch.tensor(float(bad), device=meter.device))
    progress.updates, progress.due_updates = agent.updates, progress.due_updates - 1
    if meter.bad_in_a_row >= config.max_bad_updates:
        raise RecipeError(
            f"{int(meter.bad_in_a_row)} updates in a row had a non-finite gradient; the last checkpoint in {config.run} "
            "is from before them"
        )


def evaluate(
    envs: Sequence[PixelEnv], policies: dict[str, tuple[Policy, bool]], episodes: int, stop: StopSignal
) -> tuple[dict[str, list[EpisodeRecord]], dict[str, list[tuple[EpisodeRecord, Seen]]]]:
    """Every policy on the evaluation seeds, until a signal comes: what was played then is no evaluation.

    Returns:
        The records of each policy, and what was seen in its first `FILMED_EPISODES`.
    """
    records: dict[str, list[EpisodeRecord]] = {name: [] for name in policies}
    filmed: dict[str, list[tuple[EpisodeRecord, Seen]]] = {name: [] for name in policies}
    progress = PlayProgress(len(policies) * episodes, most_steps=envs[0].most_steps, each=False)
    played = each_episode(
        envs,
        policies,
        seeds=evaluation_seeds(episodes),
        stopped=lambda: bool(stop.received),
        stepped=progress.step,
    )
    for name, record, seen in played:
        records[name].append(record)
        progress.episode(name, record)
        if len(filmed[name]) < FILMED_EPISODES:
            filmed[name].append((record, seen))
    return records, filmed


def check_task(records: Sequence[EpisodeRecord], agent: Agent, config: FinetuneConfig) -> None:
    """Refuse a task that the agent cannot learn, judged by the random policy's episodes, before the work.

    Raises:
        RecipeError: the task ends episodes and the agent does not learn that; they are too short for the agent, or
            too long for the prefill or the replay.
    """
    task, rows = config.env.name, max(record.episode_steps for record in records) + 1
    if any(record.terminated for record in records) and not agent.learns_termination:
        raise RecipeError(
            f"{task} ended an episode by itself (terminated), which this agent would take for a time limit: set "
            "--agent.world.continue_head true"
        )
    if rows < agent.episode_rows:
        raise RecipeError(
            f"episodes of {task} have {rows} frames and the agent learns from {agent.episode_rows} at once: lower "
            "agent.sequence_steps or env.action_repeat, or set agent.repeat_short"
        )
    first = min(record.episode_steps for record in records) * config.collect_envs
    if first > config.prefill_steps:
        raise RecipeError(
            f"no episode of {task} is over when the prefill ends, after {config.prefill_steps} steps where the first take "
            f"{first}: raise prefill_steps{'' if config.collect_envs == 1 else ' or lower collect_envs'}"
        )
    if rows > config.replay_steps:
        raise RecipeError(
            f"episodes of {task} have {rows} frames and the replay has room for {config.replay_steps}: raise replay_steps"
        )


def record_evaluation(
    records: dict[str, list[EpisodeRecord]],
    filmed: dict[str, list[tuple[EpisodeRecord, Seen]]],
    config: FinetuneConfig,
    progress: Progress,
    *,
    fps: float,
) -> dict[str, float]:
    """A row of eval.jsonl for each episode, a film, and a printed line; the scores of what was played."""
    run, steps, task = Path(config.run), progress.agent_steps, config.env.name
    policy, learned = ("random", "") if "random" in records else ("mode", f" after {steps:,} agent steps")
    write_film(
        film_path(run, steps), filmed[policy], title=f"{task}, {policy}{learned}", frames_per_second=fps
    )
    for row in episode_rows(records, task=task):
        append_row(run / "eval.jsonl", counters(config, progress) | row)
    scores = latest_scores(run)
    words = [
        f"{name} {scores[name]['score']:.2f} ({100 * scores[name]['success_rate']:.0f} %)"
        for name in dict.fromkeys([*records, "random"])
    ]
    start = "\n" if sys.stdout.isatty() else ""
    print(f"{start}evaluation at step {steps:,}, score (success): {', '.join(words)}", flush=True)
    return {f"{name}_{key}": value for name in records for key, value in scores[name].items()}


def write_agent(
    run: Path,
    agent: Agent,
    parent: dict[str, Any] | None,
    config: FinetuneConfig,
    progress: Progress,
    left_out: dict[str, int],
) -> None:
    """The result, in hub format, with how it came to be."""
    scores = latest_scores(run)
    train = {
        "recipe": "recipes/finetune.py",
        "preset": config.model,
        "task": config.env.name,
        **counters(config, progress),
        "given_up_steps": progress.given_up_steps,
        **left_out,
        "seed": config.seed,
        "seconds": round(progress.seconds, 1),
        "skipped_updates": agent.skipped_updates,
        "device": torch.cuda.get_device_name() if agent.device.type == "cuda" else "cpu",
        "processes": 1,
        "evaluation": {"episodes": config.evaluation_episodes, **scores.pop("mode"), **scores},
        "config": asdict(config),
        "parents": {"init": parent},
        **provenance(),
    }
    film = {"replay.mp4": film_path(run, progress.evaluated_at)}
    save_pretrained(cast(torch.nn.Module, agent), run / "agent", train=train, assets=film)
    if left_out["left_out_episodes"]:
        print(
            "at the end {left_out_episodes:,} episodes of {left_out_steps:,} steps were too short".format(
                **left_out
            )
        )
    print(f"finished: {run / 'agent'}")


def film_path(run: Path, agent_steps: int) -> Path:
    """Film of the evaluation at that step: of the random policy before everything, then of the agent's mode."""
    return run / "films" / f"step-{agent_steps:09d}.mp4"


def cut_records(config: FinetuneConfig, progress: Progress) -> None:
    """Drop the rows that a resumed run writes again.

    Raises:
        RecipeError: what it goes on from is missing or damaged.
    """
    run = Path(config.run)
    written = {"metrics": progress.updates // config.log_every_updates, "episodes": progress.episodes}
    for name, count in written.items():
        if count and not (run / f"{name}.jsonl").is_file():
            raise RecipeError(f"{run / name}.jsonl is missing: put back a copy of it, or begin a new run")
    truncate_rows(run / "metrics.jsonl", counter="updates", last=progress.updates)
    truncate_rows(run / "episodes.jsonl", counter="agent_steps", last=progress.agent_steps)
    truncate_rows(run / "eval.jsonl", counter="agent_steps", last=progress.evaluated_at)
    if progress.evaluated_at >= 0 and "random" not in latest_scores(run):
        raise RecipeError(
            f"{run / 'eval.jsonl'} lacks the random policy's evaluation: put back a copy of it, or begin a new run"
        )


def latest_scores(run: Path) -> dict[str, dict[str, float]]:
    """Mean score and success rate of each policy in its last evaluation."""
    found: dict[str, dict[str, float]] = {}
    rows = read_rows(run / "eval.jsonl", numbers=["agent_steps", "score", "success"])
    for name in POLICIES:
        of_policy = [row for row in rows if row.get("policy") == name]
        last = [row for row in of_policy if row["agent_steps"] == of_policy[-1]["agent_steps"]]
        if last:
            found[name] = {
                "score": sum(row["score"] for row in last) / len(last),
                "success_rate": sum(row["success"] for row in last) / len(last),
            }
    return found


def print_header(config: FinetuneConfig, agent: Agent, device: torch.device, progress: Progress) -> None:
    """What is fine-tuned, where, and how far."""
    parameters = sum(parameter.numel() for parameter in cast(torch.nn.Module, agent).parameters())
    print(
        f"{config.env.name}: {parameters:,} parameters on {device}; agent steps {progress.agent_steps:,} to "
        f"{config.last_step:,}, {config.prefill_steps:,} of them prefill; {config.evaluation_episodes} episodes an "
        f"evaluation; render quality {config.env.render_quality}"
    )


def tell_short(replay: Replay, agent: Agent) -> bool:
    """Whether there are episodes from which nothing is learned; says so where there are."""
    episodes, steps = replay.shorter_than(agent.episode_rows)
    if episodes:
        are = how_many(episodes, f"episode of {steps:,} steps is", f"episodes of {steps:,} steps are")
        print(
            f"\n{are} shorter than the {agent.episode_rows} frames that the agent learns from at once: such episodes are never "
            "drawn from the replay, as in the official code (left_out_episodes and left_out_steps in metrics.jsonl count "
            "them; a lower agent.sequence_steps or agent.repeat_short keeps them)",
            flush=True,
        )
    return episodes > 0


def print_progress(row: dict[str, Any], config: FinetuneConfig, *, since: Progress) -> None:
    """One line: on a terminal it is rewritten, elsewhere each has its own. Losses are those of the last row."""
    seconds = row["seconds"] - since.seconds
    pace = (row["agent_steps"] - since.agent_steps) / seconds
    # By updates, which take the time: those of the warm-up make no steps.
    updates = config.warmup_updates + config.agent_steps // config.update_every_steps
    made, prefill = row["updates"] - since.updates, config.prefill_steps - row["agent_steps"]
    left = f"left {max(0, updates - row['updates']) * seconds / made / 60:.1f} min" if made else "left ?"
    if prefill > 0:
        left = f"prefill left {prefill / pace / 60:.1f} min"
    told = [name for name in ("loss", "imagined_return", "critic_loss", "critic_value") if name in row][:2]
    learning = "".join(
        f"{name.replace('_', ' ')} {'-' if row[name] is None else f'{row[name]:.2f}':>7}  " for name in told
    )
    shares = "  ".join(
        f"{name} {100 * row[f'{name}_share']:.0f} %" for name in ("environment", "act", "update", "evaluate")
    )
    success = latest_scores(Path(config.run)).get("mode")
    text = f"{row['agent_steps']:>9,} / {config.last_step:,} steps  {learning}"
    text += f"success {100 * success['success_rate']:.0f} %  " if success else ""
    text += f"{pace:.1f} steps/s ({shares})  {left}"
    text += f"  skipped {row['skipped_updates']}" if row.get("skipped_updates") else ""
    text += f"  too short {row['left_out_episodes']} episodes" if row.get("left_out_episodes") else ""
    progress_line(text, last=False)


if __name__ == "__main__":
    with one_sentence_errors():
        sys.exit(main(CONFIG))
