"""Settings of a fine-tuning run, and what a run folder says of them. No torch."""

import json
import typing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from cwm_hub.config import check_range
from cwm_hub.envs.rendering import gl_problem, resolve_quality
from cwm_hub.envs.table import EnvConfig, check_several, evaluation_env, find_suite, plays_several
from recipes.run.folder import RecipeError, saved_steps

COSTS_TIME = {"evaluation_episodes_at_once", "collect_processes", "replay_on_disk", "trackers"}
"""What changes no number but the times."""
MAY_CHANGE = {"agent_steps", "device", "run", "name"} | COSTS_TIME
"""What a resuming command may say otherwise: the budget, where, what it is called, and what costs time alone."""


Part = Literal["encoder", "video_rssm", "decoder"]
PARTS: tuple[Part, ...] = typing.get_args(Part)
"""Of a pre-trained model; the context encoder goes with the encoder."""


@dataclass(frozen=True)
class FinetuneConfig:
    """Settings of a fine-tuning run; the defaults are the paper's for Meta-world (arXiv 2305.18499)."""

    run: str = "runs/finetune"
    """Run folder. A folder with checkpoints is resumed."""
    name: str | None = None
    """What pages of several runs call this agent; by default its preset, or the checkpoint that it starts from."""
    init: str | None = None
    """Pre-trained world model, of video or with actions: a folder, an embedded name or a Hub repository."""
    model: str | None = None
    """Agent that starts from new weights in place of `init`: contextwm, plainwm, dreamerv2, dreamerv2-cnn or drqv2,
    each also as -tiny, and all but dreamerv2-cnn and drqv2 as -mini."""
    load: list[Part] = field(default_factory=lambda: list(PARTS))
    """Parts of `init` that are taken over; the others begin with new weights. Encoder and video RSSM are frozen by an
    `agent.held_updates` of more updates than the run makes."""
    demonstrations: str | None = None
    """Shards of logged episodes (actions and rewards, of one camera) that the replay begins with, before the prefill."""
    env: EnvConfig = field(default_factory=EnvConfig)
    """Task and how it is seen; its image size must be the model's."""
    fallback_env: str | None = None
    """Environment to take where `env` needs headless GL and there is none; null stops with what to install."""
    agent: dict[str, Any] = field(default_factory=dict)
    """Values of the agent's configuration to replace, by dotted name, such as `{intrinsic.beta: 0.1}`. What a kind of
    agent does not have is left out and said, so that one file serves all of them."""
    context_augmentation: Literal["none", "shift", "flip", "scale", "erasing"] = "erasing"
    """Augmentation of the context frame (paper: erasing on Meta-world except drawer-open, none elsewhere)."""
    agent_steps: int = 250_000
    """Budget after the prefill, as the official code counts it; a step is `env.action_repeat` environment frames."""
    prefill_steps: int = 5000
    """Random agent steps before the first update."""
    warmup_updates: int = 100
    """Updates made at once after the prefill."""
    update_every_steps: int = 5
    """Agent steps per update from then on."""
    collect_envs: int = 1
    """Environments in which episodes are collected at once, acted in one batch (paper: 1). Everything else still counts
    agent steps of all of them together; what is due comes after the step of all, and the run ends up to so many later."""
    collect_processes: bool = False
    """Have each of `collect_envs` simulate and draw in a process of its own, all at the same time: the same episodes, sooner
    where there are cores."""
    collect_while_updating: bool = False
    """Let the processes simulate and draw while an update is made: in the step beside it the agent acts with the weights from
    before (paper: in turns). One step of all environments an update, so that it is worth most with as many `collect_envs` as
    `update_every_steps`."""
    replay_steps: int = 1_000_000
    """Capacity of the replay in agent steps."""
    replay_on_disk: bool = False
    """Have the replay's frames in a memory-mapped file in the run folder, for more steps than memory has room for."""
    evaluate_every_steps: int = 10_000
    """Agent steps between evaluations, the first at the end of the prefill (officially 5k, 15k, ..., 255k), one more at
    the end. A random policy is evaluated once, before everything."""
    evaluation_episodes: int = 10
    """Episodes of an evaluation, with the same seeds every time and in every run."""
    evaluation_episodes_at_once: int = 1
    """Episodes of an evaluation that are acted in one batch, each in an environment of its own. Each goes as it would alone,
    but for rounding: a latent may be drawn otherwise where two classes are as good as equal."""
    evaluation_options: dict[str, Any] = field(default_factory=dict)
    """What the evaluations' environments take in place of `env.options` of the same names: `{looks: 0}` of `dmcr`, or the
    `{port: 2010}` of CARLA's second server."""
    evaluate_sampled: bool = True
    """Evaluate samples of the policy beside its mode, which early in training may saturate in a corner."""
    checkpoint_every_steps: int = 10_000
    """Agent steps between checkpoints; there is one more at the end."""
    log_every_updates: int = 100
    """Updates between rows of metrics.jsonl."""
    max_bad_updates: int = 100
    """Skipped updates in a row, because of a non-finite gradient, at which the run stops."""
    trackers: list[str] = field(default_factory=list)
    """Trackers of accelerate that log beside metrics.jsonl and eval.jsonl, such as tensorboard."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the agent lives; auto is the GPU where there is one."""
    seed: int = 0
    """Of weights, episodes, replay and every draw."""

    def __post_init__(self) -> None:
        """Raises ValueError for the first value out of its range."""
        counts = ("agent_steps", "prefill_steps", "update_every_steps", "evaluate_every_steps")
        check_range(self, *counts, "evaluation_episodes", "evaluation_episodes_at_once", at_least=1)
        check_range(self, "checkpoint_every_steps", "collect_envs", at_least=1)
        check_range(self, "log_every_updates", "max_bad_updates", at_least=1)
        check_range(self, "replay_steps", at_least=2)
        check_range(self, "warmup_updates", at_least=0)
        check_range(self, "seed", at_least=0, at_most=2**63 - 1)  # what torch takes
        if self.collect_while_updating and not self.collect_processes:
            raise ValueError("collect_while_updating needs collect_processes, which are what works meanwhile")
        if self.model is not None and set(self.load) != set(PARTS):
            raise ValueError("load says which parts of init are taken over, and model has none")
        if self.fallback_env is not None:
            find_suite(self.fallback_env)
        if not plays_several(self.env.name) and self.evaluation_env == self.env:
            raise ValueError(
                f"{self.env.name} plays one episode at a time on its server, where training has one under way: give evaluation a "
                "server of its own, such as evaluation_options={port: 2010}"
            )
        for setting in ("evaluation_episodes_at_once", "collect_envs"):
            if getattr(self, setting) > 1:
                check_several(self.env.name, setting)

    @property
    def evaluation_env(self) -> EnvConfig:
        """The task as evaluations play it."""
        return evaluation_env(self.env, self.evaluation_options)

    @property
    def last_step(self) -> int:
        """Agent steps of the whole run, the prefill among them."""
        return self.prefill_steps + self.agent_steps


def with_fallback(config: FinetuneConfig) -> FinetuneConfig:
    """The configuration with the environment that this machine can draw, and its quality decided."""
    if not find_suite(config.env.name)[0].needs_gl:
        return config
    problem = gl_problem()
    if problem is not None:
        if config.fallback_env is None:
            raise RecipeError(problem)
        print(f"{problem} Fine-tuning takes {config.fallback_env} in place of {config.env.name}.")
        return replace(config, env=replace(config.env, name=config.fallback_env))
    return replace(config, env=replace(config.env, render_quality=resolve_quality(config.env.render_quality)))


def check_same_config(run: Path, config: FinetuneConfig) -> None:
    """Refuse other settings than those of a run that has results; only the budget and where to compute may change.

    Raises:
        RecipeError: names the settings that differ, or the file that cannot be read.
    """
    if not saved_steps(run / "checkpoints") and not (run / "agent").exists():
        return
    path = run / "config.yaml"
    try:
        saved = dict(yaml.safe_load(path.read_text()))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path} cannot be read ({error}): give another --run") from error
    now, new = (yaml.safe_load(yaml.safe_dump(asdict(c))) for c in (config, FinetuneConfig()))
    saved = new | saved  # a run from before a setting was there had what is now its default
    changed = sorted(name for name in now if name not in MAY_CHANGE and now[name] != saved[name])
    if changed:
        raise RecipeError(
            f"{run} was begun with other values of {', '.join(changed)}: take another --run or the same values"
        )


def is_finished(run: Path, config: FinetuneConfig) -> bool:
    """Whether the folder holds an agent of at least this budget; raises RecipeError where its record is damaged."""
    train = run / "agent" / "train.json"
    try:
        return train.exists() and int(json.loads(train.read_text())["agent_steps"]) >= config.last_step
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RecipeError(
            f"{train} cannot be read ({error}): delete {train.parent} and the run goes on from its last checkpoint"
        ) from error
