"""Acting in an environment: collecting episodes into the replay, and evaluating.

All randomness of an episode (goal, exploration, sampled latents) follows from its seed alone, so that a run that
resumes goes on exactly, in an episode's middle too: its actions are played again from the reset's seed (simulators have no
state to save by one word), and evaluating more or less often does not change training. Episodes that
are played at once are acted in one batch and draw each from their own generator: they go as they would alone, but for the
last digits of sums that a matrix product of more rows adds up in another order.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

from cwm_hub.agents.agent import Policy
from cwm_hub.agents.batched_state import from_plain, join, row_seeds, select, to_plain
from cwm_hub.agents.replay import Episode, Replay

if TYPE_CHECKING:
    import gymnasium

TRAIN_STREAM, EVALUATION_STREAM = 0, 1


class RandomPolicy:
    """Uniform actions: what fills the replay before the first update."""

    def __init__(self, action_size: int):
        self.action_size = action_size

    def initial_state(self, batch_size: int, *, seed: int) -> list[np.random.Generator]:
        """A generator of the episode's seed, for each row."""
        return [np.random.default_rng(of_row) for of_row in row_seeds(seed, batch_size)]

    def act(
        self, image: UInt8[np.ndarray, "N 3 H W"], state: list[np.random.Generator], *, explore: bool
    ) -> tuple[Float32[np.ndarray, "N A"], list[np.random.Generator]]:
        """Uniform in [-1, 1], exploring or not."""
        drawn = [of_row.uniform(-1, 1, self.action_size) for of_row in state]
        return np.array(drawn, np.float32), state


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
    visual_seed: int | None = None
    """Of its look, where the environment has looks (`dmcr`)."""

    def row(self) -> dict[str, Any]:
        """The fields by name, of which there is something to say."""
        return {name: value for name, value in vars(self).items() if value is not None}


class Seen(NamedTuple):
    """An episode as a film shows it, from the reset's frame on: T = episode_steps + 1."""

    image: UInt8[np.ndarray, "T 3 H W"]
    reward: Float32[np.ndarray, "T"]
    """Received on arrival at the frame."""
    success: Float32[np.ndarray, "T"]
    """1.0 from the first frame on that solved the task."""


@dataclass
class _Running:
    """The episode under way."""

    env: "gymnasium.Env[Any, Any]"
    policy: Policy
    state: Any
    """The policy's, of one row."""
    seed: int
    image: list[np.ndarray]
    action: list[np.ndarray]
    reward: list[float]
    success: list[float] = field(default_factory=lambda: [0.0])
    """Whether any step up to there solved the task."""
    terminated: bool = False
    visual_seed: int | None = None

    def record(self) -> EpisodeRecord:
        score, steps = float(sum(self.reward)), len(self.reward) - 1
        return EpisodeRecord(self.seed, score, self.success[-1], steps, self.terminated, self.visual_seed)

    def rows(self) -> dict[str, np.ndarray]:
        """Frames, actions and rewards up to now."""
        reward = np.array(self.reward, np.float32)
        return {"image": np.stack(self.image), "action": np.stack(self.action), "reward": reward}

    def episode(self) -> Episode:
        return Episode(**self.rows(), terminated=self.terminated)

    def seen(self) -> Seen:
        reward, success = np.array(self.reward, np.float32), np.array(self.success, np.float32)
        return Seen(np.stack(self.image), reward, success)


class KeptEpisode(NamedTuple):
    """An episode under way, as a checkpoint kept it."""

    number: int
    seed: int
    policy: Policy
    state: Any
    """The policy's, of one row."""
    rows: dict[str, np.ndarray]
    """Frames, actions and rewards."""
    chosen: Float32[np.ndarray, "A"] | None
    """Action of the step that was begun, None where none was."""


def kept_episodes(
    state: Sequence[Mapping[str, Any]], *, agent: Policy, random: RandomPolicy
) -> list[KeptEpisode]:
    """What `Collector.state` gave, played by the random policy or else by the agent.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is something else.
    """
    kept = []
    for one in state:
        policy = random if one["random"] else agent
        own = from_plain(one["state"], policy.initial_state(1, seed=one["seed"]))
        rows = {name: one[name].cpu().numpy() for name in ("image", "action", "reward")}
        chosen = one.get("chosen")  # once none was saved
        chosen = None if chosen is None else chosen.cpu().numpy()
        actions = rows["action"] if chosen is None else np.stack([*rows["action"], chosen])
        is_whole = {len(of_name) for of_name in rows.values()} == {len(rows["action"]) or None}
        if not is_whole or min(one["number"], one["seed"]) < 0 or actions.shape[1:] != (random.action_size,):
            raise ValueError("an episode under way is not whole")
        kept.append(KeptEpisode(one["number"], one["seed"], policy, own, rows, chosen))
    return kept


@runtime_checkable
class _Beginning(Protocol):
    """An environment that works while others do: asked first, and then waited for by `reset` and `step`."""

    def begin_reset(self, seed: int) -> None: ...

    def begin_step(self, action: Float32[np.ndarray, "A"]) -> None: ...


class Collector:
    """Steps environments with exploration and adds each finished episode to the replay.

    They begin their episodes together and are acted in one batch; one whose episode ends early waits for the others. Those of
    `cwm_hub.envs.processes` work at the same time.

    Args:
        envs: alike; stepped by nobody else.
        replay: takes the episodes.
        seed: of the run; its episode number i has the seed `episode_seed(seed, i)`.
        episodes: begun before a resume.
        timing: context in which to step (`environment`: physics and drawing) and to choose actions (`act`).
    """

    def __init__(
        self,
        envs: "Sequence[gymnasium.Env[Any, Any]]",
        replay: Replay,
        *,
        seed: int,
        episodes: int = 0,
        timing: Callable[[str], AbstractContextManager[Any]] = nullcontext,
    ):
        self._envs, self._replay, self._seed, self._timing = envs, replay, seed, timing
        self._running = dict[int, _Running]()  # by the episode's number
        self._chosen: Float32[np.ndarray, "N A"] | None = None  # actions of the step that is begun
        self.episodes = episodes
        """Number of the next episode after those that are finished, those before a resume among them."""
        self.agent_steps = 0
        """Taken so far, in all environments together."""

    def begin_step(self, policy: Policy) -> None:
        """Reset where episodes begin, choose the next actions and ask for their steps, which `step` waits for; once before each.

        What happens in between, an update, goes on while the environments of `cwm_hub.envs.processes` simulate and draw.
        """
        if self._chosen is not None:
            return
        if not self._running:
            with self._timing("environment"):
                seeds = {number: episode_seed(self._seed, number) for number, _ in self._numbered()}
                for number, env in self._numbered():
                    if isinstance(env, _Beginning):
                        env.begin_reset(seeds[number])
                for number, env in self._numbered():
                    self._running[number] = _begin(env, policy, seeds[number])
        with self._timing("act"):
            self._chosen = _choose(list(self._running.values()), True)
        self._ask_for_steps()

    def step(self, policy: Policy) -> list[EpisodeRecord]:
        """An agent step in each environment, begun here or before; records of the episodes that ended.

        A policy keeps the episodes it began: another one given in their middle waits for the next. The official code
        resets the episode under way when the prefill ends; on the paper's tasks none is.
        """
        self.begin_step(policy)
        actions, self._chosen = self._chosen, None
        assert actions is not None
        finished = list[EpisodeRecord]()
        for (number, running), action in zip(list(self._running.items()), actions, strict=True):
            with self._timing("environment"):
                ended = _advance(running, action)
            if ended:
                del self._running[number]
                self._replay.add(running.episode())
                self.episodes = max(self.episodes, number + 1)
                finished.append(running.record())
        self.agent_steps += len(actions)
        return finished

    def _ask_for_steps(self) -> None:
        assert self._chosen is not None
        with self._timing("environment"):
            for running, action in zip(self._running.values(), self._chosen, strict=True):
                if isinstance(running.env, _Beginning):
                    running.env.begin_step(action)

    def _numbered(self) -> "list[tuple[int, gymnasium.Env[Any, Any]]]":
        """Environments with the numbers of the episodes that begin in them."""
        return list(enumerate(self._envs, self.episodes))

    def state(self) -> list[dict[str, Any]]:
        """The episodes under way, which `kept_episodes` reads: tensors, numbers and strings in dicts and lists."""
        chosen = [None] * len(self._running) if self._chosen is None else self._chosen
        return [
            {
                "number": number,
                "seed": running.seed,
                "random": isinstance(running.policy, RandomPolicy),
                "state": to_plain(running.state),
                "chosen": to_plain(action),
                **{name: to_plain(rows) for name, rows in running.rows().items()},
            }
            for (number, running), action in zip(self._running.items(), chosen, strict=True)
        ]

    def restore(self, kept: Sequence[KeptEpisode]) -> int:
        """Goes on with the episodes of a `state()`, in as many environments as those were; with the step that was begun too.

        Returns:
            Agent steps that are given up: 0, or those of all episodes under way where one of them, its actions played again,
            showed another frame or reward than it had.
        """
        again = dict[int, _Running]()
        for env, one in zip(self._envs, kept, strict=False):
            running = _begin(env, one.policy, one.seed)
            for action in one.rows["action"][1:]:
                _advance(running, action)
            if not all(np.array_equal(rows, one.rows[name]) for name, rows in running.rows().items()):
                return sum(len(lost.rows["reward"]) - 1 for lost in kept)
            running.state = one.state
            again[one.number] = running
        self._running = again
        chosen = [one.chosen for one in kept if one.chosen is not None]
        if chosen:
            self._chosen = np.stack(chosen)
            self._ask_for_steps()
        return 0

    @property
    def running_steps(self) -> int:
        """Agent steps of the episodes under way, 0 between episodes."""
        return sum(len(running.reward) - 1 for running in self._running.values())


def evaluate(
    env: "gymnasium.Env[Any, Any]", policy: Policy, *, seeds: Sequence[int], explore: bool = False
) -> list[EpisodeRecord]:
    """One episode per seed, with the policy's mode or, exploring, with samples of it."""
    return [record for record, _ in play([env], policy, seeds=seeds, explore=explore)]


def each_episode(
    envs: "Sequence[gymnasium.Env[Any, Any]]",
    policies: Mapping[str, tuple[Policy, bool]],
    *,
    seeds: Sequence[int],
    stopped: Callable[[], bool] = lambda: False,
    stepped: Callable[[int], None] = lambda steps: None,
) -> Iterator[tuple[str, EpisodeRecord, Seen]]:
    """Every policy on the same seeds: `(name, record, seen)` of its episodes, in the order of the seeds.

    Args:
        envs: alike, as many as episodes are played at once; stepped by nobody else meanwhile.
        policies: by name, each with whether it explores.
        seeds: of the episodes.
        stopped: asked before every step; where it says so, nothing more is played.
        stepped: told after every step how many agent steps it was, one in each of the episodes under way.
    """
    for name, (policy, explore) in policies.items():
        played = play(envs, policy, seeds=seeds, explore=explore, stopped=stopped, stepped=stepped)
        for record, seen in played:
            yield name, record, seen


def play(
    envs: "Sequence[gymnasium.Env[Any, Any]]",
    policy: Policy,
    *,
    seeds: Sequence[int],
    explore: bool = False,
    stopped: Callable[[], bool] = lambda: False,
    stepped: Callable[[int], None] = lambda steps: None,
) -> Iterator[tuple[EpisodeRecord, Seen]]:
    """An episode for each seed, and what was seen in it.

    An environment that is free takes the next seed; an episode waits for those of earlier seeds. Arguments as of
    `each_episode`.
    """
    free, waiting = list(envs), list(enumerate(seeds))
    running, over = dict[int, _Running](), dict[int, _Running]()
    for number in range(len(seeds)):
        while number not in over:
            if stopped():
                return
            while free and waiting:
                at, seed = waiting.pop(0)
                running[at] = _begin(free.pop(0), policy, seed)
            actions = _choose(list(running.values()), explore)
            ended = [_advance(one, action) for one, action in zip(running.values(), actions, strict=True)]
            stepped(len(ended))
            for at in [at for at, end in zip(running, ended, strict=True) if end]:
                over[at] = running.pop(at)
                free.append(over[at].env)
        done = over.pop(number)
        yield done.record(), done.seen()


def episode_seed(run_seed: int, episode: int) -> int:
    """Seed of a training episode: streams of neighbouring runs and episodes are unrelated."""
    return int(np.random.SeedSequence((TRAIN_STREAM, run_seed, episode)).generate_state(1)[0])


def evaluation_seeds(episodes: int) -> list[int]:
    """The same list for every run, method and evaluation point, apart from every training seed's stream."""
    return [int(np.random.SeedSequence((EVALUATION_STREAM, i)).generate_state(1)[0]) for i in range(episodes)]


def _begin(env: "gymnasium.Env[Any, Any]", policy: Policy, seed: int) -> _Running:
    frame, info = env.reset(seed=seed)
    zero = np.zeros(env.action_space.shape or (), np.float32)
    state = policy.initial_state(1, seed=seed)
    given = info.get("visual_seed")
    look = int(given) if isinstance(given, int | np.integer) else None
    return _Running(env, policy, state, seed, [_channels_first(frame)], [zero], [0.0], visual_seed=look)


def _choose(running: Sequence[_Running], explore: bool) -> Float32[np.ndarray, "N A"]:
    """An action for each of the episodes, which one policy plays."""
    image = np.stack([one.image[-1] for one in running])
    state = join([one.state for one in running])
    action, state = running[0].policy.act(image, state, explore=explore)
    for row, one in enumerate(running):
        one.state = state if len(running) == 1 else select(state, row)
    return action


def _advance(running: _Running, action: Float32[np.ndarray, "A"]) -> bool:
    """Steps, notes the row, and says whether the episode ended."""
    frame, reward, terminated, truncated, info = running.env.step(action)
    if not math.isfinite(reward):
        raise ValueError(
            f"the environment gave the reward {reward} at step {len(running.reward)} of an episode"
        )
    running.image.append(_channels_first(frame))
    running.action.append(action)
    running.reward.append(float(reward))
    running.success.append(max(running.success[-1], float(info.get("success", 0.0))))
    running.terminated = bool(terminated)
    return bool(terminated or truncated)


def _channels_first(frame: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "3 H W"]:
    return np.ascontiguousarray(frame.transpose(2, 0, 1))
