"""Acting in an environment: collecting episodes into the replay, and evaluating.

All randomness of an episode (goal, exploration, sampled latents) follows from its seed alone, so that a run that
resumes at an episode's start goes on exactly, and evaluating more or less often does not change training.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, UInt8

from cwm_hub.agents.agent import Policy
from cwm_hub.agents.replay import Episode, Replay

if TYPE_CHECKING:
    import gymnasium

TRAIN_STREAM, EVALUATION_STREAM = 0, 1


class RandomPolicy:
    """Uniform actions: what fills the replay before the first update."""

    def __init__(self, action_size: int):
        self._action_size = action_size

    def initial_state(self, batch_size: int, *, seed: int) -> np.random.Generator:
        """A generator of the episode's seed."""
        return np.random.default_rng(seed)

    def act(
        self, image: UInt8[np.ndarray, "N 3 H W"], state: np.random.Generator, *, explore: bool
    ) -> tuple[Float32[np.ndarray, "N A"], np.random.Generator]:
        """Uniform in [-1, 1], exploring or not."""
        return state.uniform(-1, 1, (len(image), self._action_size)).astype(np.float32), state


@dataclass(frozen=True)
class EpisodeRecord:
    """How one episode went."""

    seed: int
    score: float
    """Undiscounted sum of rewards."""
    success: float
    """1.0 where any step solved the task, else 0.0."""
    episode_steps: int
    terminated: bool
    """Whether the task itself ended it, as against a time limit."""


@dataclass
class _Running:
    """The episode under way."""

    policy: Policy
    state: Any
    seed: int
    image: list[np.ndarray]
    action: list[np.ndarray]
    reward: list[float]
    success: float = 0.0
    terminated: bool = False

    def record(self) -> EpisodeRecord:
        score, steps = float(sum(self.reward)), len(self.reward) - 1
        return EpisodeRecord(self.seed, score, self.success, steps, self.terminated)


class Collector:
    """Steps one environment with exploration and adds each finished episode to the replay.

    Args:
        env: stepped by nobody else.
        replay: takes the episodes.
        seed: of the run; its episode number i has the seed `episode_seed(seed, i)`.
        episodes: finished so far, before a resume.
        timing: context in which to step (`environment`: physics and drawing) and to choose actions (`act`).
    """

    def __init__(
        self,
        env: "gymnasium.Env[Any, Any]",
        replay: Replay,
        *,
        seed: int,
        episodes: int = 0,
        timing: Callable[[str], AbstractContextManager[Any]] = nullcontext,
    ):
        self._env, self._replay, self._seed, self._timing = env, replay, seed, timing
        self._running: _Running | None = None
        self.episodes = episodes
        """Episodes finished so far, those before a resume among them."""

    def step(self, policy: Policy) -> EpisodeRecord | None:
        """One agent step, after a reset where an episode begins; the record of the episode it ended, if it did.

        A policy keeps the episode it began: another one given in its middle waits for the next. The official code
        resets the episode under way when the prefill ends; on the paper's tasks none is.
        """
        if self._running is None:
            with self._timing("environment"):
                self._running = _begin(self._env, policy, episode_seed(self._seed, self.episodes))
        running = self._running
        with self._timing("act"):
            action = _choose(running, True)
        with self._timing("environment"):
            ended = _advance(self._env, running, action)
        if not ended:
            return None
        self._replay.add(
            Episode(
                np.stack(running.image),
                np.stack(running.action),
                np.array(running.reward, np.float32),
                running.terminated,
            )
        )
        self._running = None
        self.episodes += 1
        return running.record()

    @property
    def running_steps(self) -> int:
        """Agent steps of the episode under way, 0 between episodes."""
        return 0 if self._running is None else len(self._running.reward) - 1


def evaluate(
    env: "gymnasium.Env[Any, Any]", policy: Policy, *, seeds: Sequence[int], explore: bool = False
) -> list[EpisodeRecord]:
    """One episode per seed, with the policy's mode or, exploring, with samples of it."""
    return [play_episode(env, policy, seed=seed, explore=explore)[0] for seed in seeds]


def each_episode(
    env: "gymnasium.Env[Any, Any]", policies: Mapping[str, tuple[Policy, bool]], *, seeds: Sequence[int]
) -> Iterator[tuple[str, EpisodeRecord, UInt8[np.ndarray, "T 3 H W"]]]:
    """Every policy on the same seeds, one episode at a time: `(name, record, frames)` as each ends.

    Args:
        env: stepped by nobody else meanwhile.
        policies: by name, each with whether it explores.
        seeds: of the episodes.
    """
    for name, (policy, explore) in policies.items():
        for seed in seeds:
            yield name, *play_episode(env, policy, seed=seed, explore=explore)


def play_episode(
    env: "gymnasium.Env[Any, Any]", policy: Policy, *, seed: int, explore: bool = False
) -> tuple[EpisodeRecord, UInt8[np.ndarray, "T 3 H W"]]:
    """One whole episode and what was seen in it, the reset's frame first: episode_steps + 1 frames."""
    running = _begin(env, policy, seed)
    while not _advance(env, running, _choose(running, explore)):
        pass
    return running.record(), np.stack(running.image)


def episode_seed(run_seed: int, episode: int) -> int:
    """Seed of a training episode: streams of neighbouring runs and episodes are unrelated."""
    return int(np.random.SeedSequence((TRAIN_STREAM, run_seed, episode)).generate_state(1)[0])


def evaluation_seeds(episodes: int) -> list[int]:
    """The same list for every run, method and evaluation point, apart from every training seed's stream."""
    return [int(np.random.SeedSequence((EVALUATION_STREAM, i)).generate_state(1)[0]) for i in range(episodes)]


def _begin(env: "gymnasium.Env[Any, Any]", policy: Policy, seed: int) -> _Running:
    frame, _ = env.reset(seed=seed)
    zero = np.zeros(env.action_space.shape or (), np.float32)
    return _Running(policy, policy.initial_state(1, seed=seed), seed, [_channels_first(frame)], [zero], [0.0])


def _choose(running: _Running, explore: bool) -> Float32[np.ndarray, "A"]:
    action, running.state = running.policy.act(running.image[-1][None], running.state, explore=explore)
    return action[0]


def _advance(env: "gymnasium.Env[Any, Any]", running: _Running, action: Float32[np.ndarray, "A"]) -> bool:
    """Steps, notes the row, and says whether the episode ended."""
    frame, reward, terminated, truncated, info = env.step(action)
    running.image.append(_channels_first(frame))
    running.action.append(action)
    running.reward.append(float(reward))
    running.success = max(running.success, float(info.get("success", 0.0)))
    running.terminated = bool(terminated)
    return bool(terminated or truncated)


def _channels_first(frame: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "3 H W"]:
    return np.ascontiguousarray(frame.transpose(2, 0, 1))
