"""What `--collect_while_updating` saves: updates with a step of the environments beside each, over the two in turns.

    python benchmarks/bench_collect.py [--env dmc:walker_run] [--model contextwm-tiny] [--processes 2] [--json]

Wall seconds of a block of updates, in turns (pairs.py): one update for every step of all processes, the case in which it saves most.
`environment_share` is the part of the time in turns that goes to waiting for the processes: no more than that can be saved.
"""

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from time import perf_counter
from typing import Any

import torch

from benchmarks.pairs import time_pairs, warning
from cwm_hub.agents.replay import Replay
from cwm_hub.agents.rollout import Collector, RandomPolicy
from cwm_hub.envs.processes import make_process_envs
from cwm_hub.envs.table import EnvConfig
from recipes.run.agent_setup import new_agent
from recipes.run.finetune_settings import FinetuneConfig
from recipes.run.memory import keep_memory

IMAGE_SIZE, SEQUENCES, STEPS = 32, 4, 10


class Waited:
    """Seconds by what they went to, as `Collector` tells them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Around a part."""
        began = perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - began


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every figure."""
    env = EnvConfig(options.env, IMAGE_SIZE, render_quality=options.quality)
    envs = make_process_envs(options.processes, **asdict(env))
    assert envs[0].action_space.shape is not None
    actions = envs[0].action_space.shape[0]
    replay = Replay(capacity_steps=100_000, image_size=IMAGE_SIZE, action_size=actions, seed=0)
    settings = {"batch_sequences": SEQUENCES, "sequence_steps": STEPS}
    config = FinetuneConfig(model=options.model, env=env, agent=settings)
    agent, _ = new_agent(config, actions, torch.device("cpu"))
    waited, random = Waited(), RandomPolicy(actions)
    collector = Collector(envs, replay, seed=0, timing=waited.timing)
    while not collector.step(random):
        pass  # until an episode is in the replay

    def updates(beside: bool) -> None:
        for _ in range(options.updates):
            if beside:
                collector.begin_step(agent)
            agent.update(replay)
            collector.step(agent)

    updates(False)
    waited.seconds.clear()
    began = perf_counter()
    updates(False)
    share = waited.seconds["environment"] / (perf_counter() - began)
    ways = {"beside": lambda: updates(True), "turns": lambda: updates(False)}
    pairs = time_pairs(ways, compared={("beside", "turns"): "wall"}, most_seconds=options.most_seconds)
    for used in envs:
        used.close()
    ratio = pairs.ratio("beside", "turns", "wall")
    if said := warning("beside_over_turns", ratio):
        print(said)
    return {
        "environment_share": share,
        "beside_over_turns": ratio.median,
        "beside_over_turns_interval": [ratio.low, ratio.high],
        "rounds": ratio.rounds,
        "updates_per_second": options.updates / pairs.median("beside", "wall"),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--env", default="dmc:walker_run")
    parser.add_argument("--model", default="contextwm-tiny", help="of 32 pixels")
    parser.add_argument("--quality", default="exact", help="of rendering")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--updates", type=int, default=10, help="of a block")
    parser.add_argument("--most-seconds", type=float, default=180.0)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args()
    keep_memory()
    result = {"env": options.env, "model": options.model, "load": os.getloadavg()[0]} | measure(options)
    for name, value in result.items():
        print(f"{name:28s} {value:.3f}" if isinstance(value, float) else f"{name:28s} {value}")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
