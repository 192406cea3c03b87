"""Speed of a fine-tuning update by stage, beside a pre-training update and beside the environment and the replay.

    python benchmarks/bench_finetune.py [--model contextwm] [--sequences 50] [--steps 50] [--env metaworld:reach] [--compile] [--json]

    finetune_over_pretrain   an update on `--sequences` x `--steps` over a pre-training update on 2 x 25, in turns (pairs.py)
    replay_ms                sampling a batch of 50 x 50 at 64 pixels, whatever the update's
    replay_over_copy         the same over copying as many rows of the replay
    updates_per_second       of fine-tuning, with the share of world model and behaviour
    frames_per_second        of the environment by render quality, a random policy, drawing included
    evaluation_row_ms        acting in 10 episodes at once, for each, and alone

CPU seconds are compared on a CPU and wall seconds on a GPU. On a CPU 4 x 10 is the size that we quote: its operations are 1.14
times those of a pre-training update.
"""

import argparse
import json
import os
import statistics
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.bench_pretrain import Trainer
from benchmarks.pairs import Clock, time_pairs, timed, warning
from cwm_hub.agents.dreamer import DreamerAgent, DreamerConfig
from cwm_hub.agents.presets import agent_preset
from cwm_hub.agents.replay import Episode, Replay
from cwm_hub.envs import make_env
from cwm_hub.envs.rendering import QUALITIES
from recipes.run.memory import keep_memory

ACTION_SIZE, EPISODES, EPISODE_ROWS = 4, 20, 501


def make_replay(image_size: int) -> Replay:
    """Twenty episodes of Meta-world's length, noise inside."""
    rng = np.random.default_rng(0)
    replay = Replay(
        capacity_steps=EPISODES * EPISODE_ROWS, image_size=image_size, action_size=ACTION_SIZE, seed=0
    )
    for _ in range(EPISODES):
        image = rng.integers(0, 256, (EPISODE_ROWS, 3, image_size, image_size), np.uint8)
        action = rng.uniform(-1, 1, (EPISODE_ROWS, ACTION_SIZE)).astype(np.float32)
        replay.add(Episode(image, action, rng.random(EPISODE_ROWS, np.float32), terminated=False))
    return replay


def median_seconds(work: Any, clock: Clock, rounds: int = 20) -> float:
    """Median of `rounds` calls after one to warm up."""
    work()
    return statistics.median(getattr(timed(work), clock) for _ in range(rounds))


def replaying(replay: Replay) -> dict[str, float]:
    """Milliseconds of a batch of 50 x 50, and what they are over a plain copy of as many rows, in turns."""
    draw = np.random.default_rng(0)

    def copy() -> np.ndarray:
        start = draw.integers(len(replay._image) - 50 * 50)
        return replay._image[start : start + 50 * 50].copy()

    ways = {"sample": lambda: replay.sample_sequences(50, 50, favour_ends=True), "copy": copy}
    pairs = time_pairs(ways, compared={("sample", "copy"): "cpu"}, most_seconds=20, least_rounds=60)
    ratio = pairs.ratio("sample", "copy", "cpu")
    return {"replay_ms": 1e3 * pairs.median("sample", "cpu"), "replay_over_copy": ratio.median}


def acting(agent: DreamerAgent, clock: Clock) -> dict[str, float]:
    """Milliseconds a row of one step of the policy, alone and in a batch of 10."""
    side, result = agent.config.world.frame.image_size, {}
    for rows in (1, 10):
        image = np.zeros((rows, 3, side, side), np.uint8)
        state = agent.initial_state(rows)
        seconds = median_seconds(lambda i=image, s=state: agent.act(i, s, explore=False), clock)
        result[f"{'alone' if rows == 1 else 'batch_of_10'}"] = 1e3 * seconds / rows
    return result


def env_rates(name: str, steps: int) -> dict[str, float]:
    """Environment frames a second of CPU time, by render quality, resets left out."""
    rates = {}
    for quality in QUALITIES:
        env = make_env(name, render_quality=quality)  # type: ignore[arg-type]
        env.reset(seed=0)
        env.action_space.seed(0)
        actions = [env.action_space.sample() for _ in range(steps)]
        env.step(actions[0])
        rates[quality] = (steps - 1) / timed(lambda e=env, a=actions[1:]: [e.step(x) for x in a]).cpu
        env.close()
    return rates


def measure(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Every figure."""
    clock: Clock = "wall" if device.type == "cuda" else "cpu"
    config = agent_preset(options.model, action_size=ACTION_SIZE)
    assert isinstance(config, DreamerConfig), "a model-free agent has no pre-training update beside it"
    config = replace(
        config, batch_sequences=options.sequences, sequence_steps=options.steps, compile=options.compile
    )
    torch.manual_seed(0)
    agent = DreamerAgent(config).to(device)
    replay = make_replay(config.world.frame.image_size)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    pretrain = Trainer(options.model, device, dtype, batch_clips=2, window_frames=25, compile=False)
    batch = replay.sample_sequences(options.sequences, options.steps, favour_ends=config.favour_ends)
    rows = {name: torch.from_numpy(part).to(device) for name, part in vars(batch).items()}
    start = bad = None

    def world() -> None:
        nonlocal start, bad
        start, _, bad = agent._update_world(**rows)
        synchronise(device)

    def behaviour() -> None:
        assert start is not None and bad is not None
        agent._update_behaviour(start, bad)
        synchronise(device)

    def update() -> None:
        agent.update_on(batch)
        synchronise(device)

    def pretraining() -> None:
        pretrain.update()
        synchronise(device)

    ways = {"finetune": update, "pretrain": pretraining}
    for way in ways.values():
        way()
    pairs = time_pairs(
        ways, compared={("finetune", "pretrain"): clock}, most_seconds=options.most_seconds, least_rounds=6
    )
    agent.train()
    shares = time_pairs({"1 world": world, "2 behaviour": behaviour}, compared={}, most_seconds=0)
    ratio = pairs.ratio("finetune", "pretrain", clock)
    if said := warning("finetune_over_pretrain", ratio):
        print(said)
    world_share = shares.median("1 world", clock)
    world_share /= world_share + shares.median("2 behaviour", clock)
    agent.eval()
    return {
        "finetune_over_pretrain": ratio.median,
        "finetune_over_pretrain_interval": [ratio.low, ratio.high],
        "rounds": ratio.rounds,
        "updates_per_second": 1 / pairs.median("finetune", "wall"),
        "world_model_share": world_share,
        **replaying(replay),
        "evaluation_row_ms": acting(agent, clock),
        "frames_per_second": env_rates(options.env, options.env_steps) if options.env else None,
        "seconds": pairs.seconds(),
    }


def synchronise(device: torch.device) -> None:
    """Wait for a GPU's queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="contextwm")
    parser.add_argument("--sequences", type=int, default=50)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--env", default="metaworld:reach", help="empty for none")
    parser.add_argument("--env-steps", type=int, default=200)
    parser.add_argument("--most-seconds", type=float, default=180.0, help="of the two updates (default 180)")
    parser.add_argument("--compile", action="store_true", help="on a GPU: compile the agent's update")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True  # as the recipe has it
    if device.type == "cpu":
        keep_memory()
    named = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu x {torch.get_num_threads()}"
    )
    result = {"device": named, "torch": torch.__version__, "model": options.model}
    result |= {"batch": f"{options.sequences}x{options.steps}", "load": os.getloadavg()[0]}
    result |= measure(options, device)
    for name, value in result.items():
        print(f"{name:32s} {value:.3f}" if isinstance(value, float) else f"{name:32s} {value}")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
