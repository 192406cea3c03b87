"""Meta-world's scripted policies on every task, as rows of the table in docs/metaworld.md; nothing is drawn.

python docs/evidence/metaworld_scripted.py                        # all 50, 16 minutes of a core that others used too
python docs/evidence/metaworld_scripted.py --random reach         # uniform actions in their place
"""

import argparse
import sys
from statistics import mean

import numpy as np

from cwm_hub.envs.metaworld import EPISODE_FRAMES, Metaworld, task_names

SEEDS = range(10)


def play(simulator: Metaworld, seed: int, *, random: bool) -> tuple[float, int | None]:
    """Return of an episode, and the step that first solved it."""
    draws = np.random.default_rng(seed)
    simulator.reset(seed)
    score, solved = 0.0, None
    for step in range(1, EPISODE_FRAMES + 1):
        action = draws.uniform(-1, 1, 4).astype(np.float32) if random else simulator.scripted_action()
        outcome = simulator.step(action)
        score += outcome.reward
        if solved is None and outcome.info["success"]:
            solved = step
    return score, solved


def main() -> None:
    """Print a row for each task."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="default: all of them")
    parser.add_argument("--random", action="store_true", help="a random policy")
    given = parser.parse_args()
    for task in given.tasks or task_names():
        simulator = Metaworld(task, image_size=64)
        played = [play(simulator, seed, random=given.random) for seed in SEEDS]
        simulator.close()
        first = [step for _, step in played if step is not None]
        failed = [str(seed) for seed, (_, step) in zip(SEEDS, played, strict=True) if step is None]
        steps = f"{min(first)} to {max(first)}" if first else "-"
        score = mean(score for score, _ in played)
        sys.stdout.write(f"| {task} | {len(first)} | {', '.join(failed)} | {steps} | {score:,.0f} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
