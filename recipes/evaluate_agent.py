"""Score a saved agent on a task, beside a random policy: return and success over seeded episodes, with intervals, and a film.

    python recipes/evaluate_agent.py --agent runs/reach --out runs/reach/evaluation --film reach.mp4
    python recipes/evaluate_agent.py --agent owner/agent --task metaworld:reach --episodes 50 --sampled --out scores

An agent is a run folder of recipes/finetune.py, finished or running, a folder with an agent, or a Hub repository. The
task is the one of its training unless another is given, and then what differs is said; the seeds are those of every
evaluation in training. Writes episodes.jsonl and episodes.csv, a row per episode, and summary.json; 10 episodes of Meta-world
are minutes on a CPU.
"""

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from cwm_hub.command_line import how_many, loading
from recipes.run.command_line import parse_config


@dataclass(frozen=True, kw_only=True)
class EvaluateAgentConfig:
    """What is scored, on what, and where to."""

    agent: str
    """Run folder of fine-tuning, finished or running, folder with an agent, or Hub repository."""
    out: str
    """Folder for episodes.jsonl, episodes.csv and summary.json; those of an earlier evaluation are replaced."""
    task: str | None = None
    """`suite:task`; the one of training by default."""
    env: dict[str, Any] = field(default_factory=dict)
    """What else of the environment is to be other than in training, such as `{action_repeat: 2}`."""
    episodes: int | None = None
    """Episodes, on the first of the evaluation seeds; as many as in the run's evaluations by default."""
    seeds: list[int] | None = None
    """Seeds of the episodes in place of `episodes`."""
    episodes_at_once: int = 1
    """Episodes that are acted in one batch, each in an environment of its own: less time, and but for rounding the same."""
    sampled: bool = False
    """Play samples of the policy beside its mode."""
    random: bool = True
    """Play a random policy on the same seeds, to compare with."""
    film: str | None = None
    """Write an mp4 of the first episodes of the policy's mode."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the agent acts; auto is the GPU where there is one."""


if __name__ == "__main__":  # before torch is imported, so that --help and a typo answer at once
    CONFIG = parse_config(EvaluateAgentConfig, description=__doc__)
    loading(CONFIG.agent)

from cwm_hub.agents.agent import Policy
from cwm_hub.agents.rollout import EpisodeRecord, RandomPolicy, Seen, each_episode, evaluation_seeds
from cwm_hub.config import check_range
from cwm_hub.envs import make_env
from cwm_hub.envs.table import check_several
from cwm_hub.evaluation.episodes import FILMED_EPISODES, check_fits, differences, episode_rows, summary
from cwm_hub.evaluation.play_progress import PlayProgress
from cwm_hub.evaluation.words import ends
from cwm_hub.figures.films import write_film
from cwm_hub.hub.agents import SavedAgent, find_agent
from cwm_hub.provenance import provenance
from recipes.run.folder import RecipeError, csv_text, one_sentence_errors, write_text

EPISODES = 10
"""Where the agent's run does not say how many."""
MOST_SEED = 2**32 - 1
"""Of an episode: dm_control's generators take no larger ones."""


def main(config: EvaluateAgentConfig) -> int:
    """Play, write and print the scores."""
    film = None if config.film is None else Path(config.film)
    if film is not None and (film.suffix != ".mp4" or film.is_dir()):
        raise RecipeError(f"--film is an mp4 file to write, got {config.film}")
    out = Path(config.out)
    if out.exists() and not out.is_dir():
        raise RecipeError(f"--out is a folder to write to, {out} is none")
    check_range(config, "episodes_at_once", at_least=1)
    saved = find_agent(config.agent)
    seeds = seeds_of(config, saved)
    agent = saved.load(device=config.device)
    env_config = saved.environment(config.task, image_size=agent.image_size, changes=config.env)
    trained = saved.trained_on
    other = differences(env_config, trained) if trained is not None else {}
    for name, (here, there) in other.items():
        print(f"other than in training: env.{name} is {here!r}, was {there!r}")

    if config.episodes_at_once > 1:
        check_several(env_config.name, "episodes_at_once")
    envs = [make_env(**asdict(env_config)) for _ in range(min(config.episodes_at_once, len(seeds)))]
    check_fits(agent, envs[0], task=env_config.name)
    for folder in (
        out,
        *([] if film is None else [film.parent]),
    ):  # what cannot be written is found out before the work
        folder.mkdir(parents=True, exist_ok=True)
    policies: dict[str, tuple[Policy, bool]] = {"mode": (agent, False)}
    if config.sampled:
        policies["sampled"] = (agent, True)
    if config.random:
        policies["random"] = (RandomPolicy(agent.action_size), True)
    records: dict[str, list[EpisodeRecord]] = {name: [] for name in policies}
    filmed: list[tuple[EpisodeRecord, Seen]] = []
    progress = PlayProgress(len(policies) * len(seeds), most_steps=envs[0].most_steps)
    for name, record, seen in each_episode(envs, policies, seeds=seeds, stepped=progress.step):
        records[name].append(record)
        if name == "mode" and len(filmed) < FILMED_EPISODES:
            filmed.append((record, seen))
        progress.episode(name, record)
    for env in envs:
        env.close()

    rows = episode_rows(records, task=env_config.name)
    scores = summary(rows)
    write_text(out / "episodes.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write_text(out / "episodes.csv", csv_text(rows))
    told = {
        "agent": saved.checkpoint.identity() | {"agent_steps": saved.agent_steps},
        "env": asdict(env_config),
        "other_than_in_training": other,
        "seeds": seeds,
        "policies": scores,
        "provenance": provenance(),
    }
    write_text(out / "summary.json", json.dumps(told, indent=1))
    if film is not None:
        learned = "" if saved.agent_steps is None else f" after {saved.agent_steps:,} agent steps"
        title = f"{env_config.name}, mode{learned}"
        write_film(film, filmed, title=title, frames_per_second=envs[0].metadata["render_fps"])
    for name, of_policy in scores.items():
        print(f"{env_config.name}, {name}: {scores_line(of_policy)}")
    return 0


def seeds_of(config: EvaluateAgentConfig, saved: SavedAgent) -> list[int]:
    """The seeds given, or the first of those of every evaluation."""
    if config.seeds is not None:
        if config.episodes is not None:
            raise RecipeError("give --seeds or --episodes: seeds are their own number of episodes")
        seeds = config.seeds
        if not seeds or not all(0 <= seed <= MOST_SEED for seed in seeds) or len(set(seeds)) < len(seeds):
            raise RecipeError(f"--seeds are numbers from 0 to {MOST_SEED}, none twice, got {seeds}")
        return seeds
    if config.episodes is not None:
        check_range(config, "episodes", at_least=1)
        return evaluation_seeds(config.episodes)
    recorded = saved.settings.get("evaluation_episodes")
    return evaluation_seeds(recorded if isinstance(recorded, int) and recorded > 0 else EPISODES)


def scores_line(scores: dict[str, Any]) -> str:
    """`return 211.4 [205.0, 217.1], success 100 % [100, 100] over 20 episodes`."""
    score = scores["score"]
    success = {name: 100 * value for name, value in scores["success_rate"].items()}
    return (
        f"return {score['mean']:.2f}{ends(score, '.2f')}, success {success['mean']:.0f} %"
        f"{ends(success, '.0f')} over {how_many(scores['episodes'], 'episode')}"
    )


if __name__ == "__main__":
    with one_sentence_errors():
        sys.exit(main(CONFIG))
