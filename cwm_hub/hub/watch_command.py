"""`cwm-hub watch`: a film of a saved agent. Torch is imported when it runs, not for its options."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwm_hub.command_line import loading

if TYPE_CHECKING:
    import argparse

AT_ONCE = 8
"""Episodes acted in one batch, each in an environment of its own."""
EXAMPLES = (
    "cwm-hub watch runs/reach",
    "cwm-hub watch owner/agent --out agent.mp4",
)


def add_arguments(parser: "argparse.ArgumentParser") -> None:
    """Add this sub-command's options."""
    parser.add_argument(
        "agent",
        metavar="RUN",
        help="run folder of fine-tuning, finished or running, a folder with an agent, or owner/name",
    )
    parser.add_argument("--task", help="suite:task (default: the one of its training)")
    parser.add_argument("--episodes", type=int, default=4, help="side by side in the film (default: 4)")
    parser.add_argument("--sampled", action="store_true", help="play samples of the policy and not its mode")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="mp4 (default: in films/ of the run, else ./watch.mp4)"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def run(args: Any) -> Iterator[str]:
    """A line where the film is and what it shows; the seeds are the first of those of every evaluation.

    Args:
        args: the options above by name.

    Raises:
        ValueError: no such agent, or a task that does not go with it.
    """
    if args.episodes < 1:
        raise ValueError(f"--episodes is at least 1, got {args.episodes}")
    if args.out is not None and (args.out.suffix != ".mp4" or args.out.is_dir()):
        raise ValueError(f"--out is an mp4 file to write, got {args.out}")

    loading(args.agent)
    from dataclasses import asdict

    from cwm_hub.agents.rollout import each_episode, evaluation_seeds
    from cwm_hub.envs import make_env
    from cwm_hub.envs.table import find_suite
    from cwm_hub.evaluation.episodes import check_fits
    from cwm_hub.evaluation.play_progress import PlayProgress
    from cwm_hub.figures.films import write_film
    from cwm_hub.hub.agents import find_agent

    saved = find_agent(args.agent)
    agent = saved.load(device=args.device)
    config = saved.environment(args.task, image_size=agent.image_size)
    at_once = min(args.episodes, AT_ONCE) if find_suite(config.name)[0].several else 1
    envs = [make_env(**asdict(config)) for _ in range(at_once)]
    check_fits(agent, envs[0], task=config.name)
    policy = "sampled" if args.sampled else "mode"
    learned = "" if saved.agent_steps is None else f" after {saved.agent_steps:,} agent steps"
    told = f"{config.name}, {policy}{learned}"
    progress = PlayProgress(args.episodes, most_steps=envs[0].most_steps, each=False)
    seeds = evaluation_seeds(args.episodes)
    episodes = []
    played = each_episode(envs, {policy: (agent, args.sampled)}, seeds=seeds, stepped=progress.step)
    for _, record, seen in played:
        progress.episode(policy, record)
        episodes.append((record, seen))
    place = args.out or Path("watch.mp4")
    if args.out is None and saved.run is not None:
        place = saved.run / "films" / f"watch-{saved.agent_steps:09d}.mp4"
    write_film(place, episodes, title=told, frames_per_second=envs[0].metadata["render_fps"])
    for env in envs:
        env.close()
    yield f"{place}: {told}, returns {', '.join(f'{record.score:.1f}' for record, _ in episodes)}"
