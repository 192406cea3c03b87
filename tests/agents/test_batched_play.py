"""Episodes that are played at once, each as if it were alone."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from cwm_hub.agents.agent import Agent
from cwm_hub.agents.batched_state import from_plain, join, row_seeds, select, to_plain
from cwm_hub.agents.dreamer import DreamerAgent
from cwm_hub.agents.drqv2 import DrQV2Agent
from cwm_hub.agents.presets import agent_preset
from cwm_hub.agents.replay import Replay
from cwm_hub.agents.rollout import Collector, RandomPolicy, episode_seed, play
from cwm_hub.envs.table import make_env
from cwm_hub.models.draws import draw

SIDE = 32


class Counted(gymnasium.Env):
    """An episode of seed n lasts n steps, and each step is rewarded with n."""

    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        self.seed, self.t = seed, 0
        return np.full((SIDE, SIDE, 3), seed, np.uint8), {}

    def step(self, action):
        self.t += 1
        over = self.t == self.seed
        return np.full((SIDE, SIDE, 3), self.seed, np.uint8), float(self.seed), over, False, {}


class Noting(RandomPolicy):
    """Notes which episodes it was asked about together."""

    def __init__(self):
        super().__init__(1)
        self.batches = []

    def act(self, image, state, *, explore):
        self.batches.append(image[:, 0, 0, 0].tolist())
        assert len(state) == len(image)
        return super().act(image, state, explore=explore)


@pytest.fixture(scope="module", params=["dreamer", "drqv2"])
def agent(request: pytest.FixtureRequest) -> Agent:
    torch.manual_seed(0)
    if request.param == "drqv2":
        return DrQV2Agent(agent_preset("drqv2-tiny", action_size=1))
    return DreamerAgent(agent_preset("contextwm-debug", action_size=1))


def test_a_free_environment_takes_the_next_seed_and_records_keep_their_order() -> None:
    """Two at once: 4 beside 1, then 2, then 3, which is left alone in the end."""
    policy = Noting()
    steps: list[int] = []
    played = list(play([Counted(), Counted()], policy, seeds=[4, 1, 2, 3], stepped=steps.append))
    assert policy.batches == [[4, 1], [4, 2], [4, 2], [4, 3], [3], [3]]
    assert steps == [2, 2, 2, 2, 1, 1]
    assert [(record.seed, record.episode_steps, record.score) for record, _ in played] == [
        (4, 4, 16.0),
        (1, 1, 1.0),
        (2, 2, 4.0),
        (3, 3, 9.0),
    ]
    assert [(len(seen.image), seen.image.min(), seen.image.max()) for _, seen in played] == [
        (n + 1, n, n) for n in (4, 1, 2, 3)
    ]


class Lasting(Counted):
    """Its episodes last so many steps, whatever the seed."""

    def __init__(self, steps):
        self.steps = steps

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=self.steps)


def collector_of(*envs: gymnasium.Env, side: int = SIDE) -> tuple[Collector, Replay]:
    replay = Replay(capacity_steps=200, image_size=side, action_size=1, seed=0)
    return Collector(envs, replay, seed=7), replay


def test_collected_episodes_begin_together_and_the_shorter_waits() -> None:
    """Of three steps and of one: the first round takes 2 + 1 + 1 agent steps, and the next begins with number 2."""
    (collector, replay), policy = collector_of(Lasting(3), Lasting(1)), Noting()
    told = []
    for _ in range(4):
        records = collector.step(policy)
        told.append(
            (
                [record.seed for record in records],
                collector.agent_steps,
                collector.running_steps,
                collector.episodes,
            )
        )
    seeds = [episode_seed(7, number) for number in range(4)]
    assert told == [([seeds[1]], 2, 1, 2), ([], 3, 2, 2), ([seeds[0]], 4, 0, 2), ([seeds[3]], 6, 1, 4)]
    assert policy.batches == [[3, 1], [3], [3], [3, 1]]
    assert (replay.episodes, replay.steps) == (3, 5)


def test_episodes_collected_at_once_are_those_collected_one_by_one() -> None:
    single, alone = collector_of(make_env("dummy", image_size=16), side=16)
    several, together = collector_of(*(make_env("dummy", image_size=16) for _ in range(3)), side=16)
    one_by_one = [record for _ in range(60) for record in single.step(RandomPolicy(1))]
    at_once = [record for _ in range(20) for record in several.step(RandomPolicy(1))]
    assert at_once == one_by_one and len(at_once) == 3
    ours, theirs = (replay.sample_sequences(20, 21) for replay in (alone, together))
    for part in ("image", "action", "reward"):
        assert np.array_equal(getattr(ours, part), getattr(theirs, part)), part


def test_nothing_more_is_played_once_stopped() -> None:
    asked = iter([False, False, True])
    policy = Noting()
    played = list(play([Counted(), Counted()], policy, seeds=[1, 4, 2], stopped=lambda: next(asked)))
    assert policy.batches == [[1, 4], [4, 2]]
    assert [record.seed for record, _ in played] == [1]


@pytest.mark.parametrize("explore", [False, True])
def test_an_agents_episode_does_not_depend_on_those_beside_it(agent: Agent, explore: bool) -> None:
    """Of five seeds by three at once; but for rounding, where a latent's two best classes are closer than that."""
    seeds = [3, 5, 7, 9, 11]
    envs = [make_env("dummy", image_size=SIDE) for _ in range(3)]
    alone = list(play(envs[:1], agent, seeds=seeds, explore=explore))
    together = list(play(envs, agent, seeds=seeds, explore=explore))
    for (record, one), (other, seen) in zip(alone, together, strict=True):
        assert (record.seed, record.success, len(one.image)) == (other.seed, other.success, len(seen.image))
        assert record.score == pytest.approx(other.score, abs=1e-3)
    assert len({round(record.score, 2) for record, _ in alone}) == 5


def test_random_episodes_are_bit_for_bit_those_alone() -> None:
    envs = [make_env("dummy", image_size=16) for _ in range(3)]
    alone = list(play(envs[:1], RandomPolicy(1), seeds=range(5)))
    together = list(play(envs, RandomPolicy(1), seeds=range(5)))
    for (record, one), (other, seen) in zip(alone, together, strict=True):
        assert record == other and all(map(np.array_equal, one, seen))


def test_rows_are_joined_and_taken_out_alike(agent: Agent) -> None:
    """Two episodes, one of them two steps ahead: joined they act as apart, and each goes on with its own numbers."""
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 3, SIDE, SIDE), np.uint8)
    ahead, late = agent.initial_state(1, seed=1), agent.initial_state(1, seed=2)
    for image in images[:2]:
        _, ahead = agent.act(image, ahead, explore=True)
    again = agent.initial_state(1, seed=1)
    for image in images[:2]:
        _, again = agent.act(image, again, explore=True)
    other = agent.initial_state(1, seed=2)
    both = join([ahead, late])
    for image in images[2:]:
        action, both = agent.act(np.concatenate([image, 255 - image]), both, explore=True)
        one, again = agent.act(image, again, explore=True)
        two, other = agent.act(255 - image, other, explore=True)
        assert action == pytest.approx(np.concatenate([one, two]), abs=1e-5)
    taken_out, _ = agent.act(images[0], select(both, 1), explore=True)
    apart, _ = agent.act(images[0], other, explore=True)
    assert taken_out == pytest.approx(apart, abs=1e-5)


def test_a_state_that_was_kept_goes_on_with_its_own_numbers(agent: Agent, tmp_path: Path) -> None:
    """As a checkpoint keeps it, beside a random policy's: a generator of NumPy."""
    images = np.random.default_rng(0).integers(0, 256, (5, 1, 3, SIDE, SIDE), np.uint8)
    for policy in (agent, RandomPolicy(1)):
        state = policy.initial_state(1, seed=4)
        for image in images[:2]:
            _, state = policy.act(image, state, explore=True)
        torch.save(to_plain(state), tmp_path / "state.pt")
        again = from_plain(
            torch.load(tmp_path / "state.pt", weights_only=True), policy.initial_state(1, seed=5)
        )
        for image in images[2:]:
            expected, state = policy.act(image, state, explore=True)
            action, again = policy.act(image, again, explore=True)
            assert np.array_equal(action, expected)


def test_a_generator_a_row_draws_what_it_would_alone() -> None:
    def seeded(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    cpu = torch.device("cpu")
    for kind in (torch.rand, torch.randn):
        rows = draw(kind, (2, 3, 20), device=cpu, generator=seeded(5, 6))
        for row, generator in zip(rows, seeded(5, 6), strict=True):
            assert torch.equal(row, kind((1, 3, 20), generator=generator)[0])
        whole = draw(kind, (2, 20), device=cpu, generator=seeded(5)[0])
        assert torch.equal(whole, kind((2, 20), generator=seeded(5)[0]))
    with pytest.raises(AssertionError, match="1 generators for 2 rows"):
        draw(torch.rand, (2, 3), device=cpu, generator=seeded(5))


def test_the_first_row_of_a_batch_is_a_batch_of_one(agent: Agent) -> None:
    image = np.zeros((3, 3, SIDE, SIDE), np.uint8)
    three, _ = agent.act(image, agent.initial_state(3, seed=5), explore=True)
    one, _ = agent.act(image[:1], agent.initial_state(1, seed=5), explore=True)
    assert three[:1] == pytest.approx(one, abs=1e-5)
    assert len(np.unique(three.round(4))) == 3
    seeds = row_seeds(5, 4)
    assert seeds[0] == 5 and len(set(seeds)) == 4 and row_seeds(5, 2) == seeds[:2]
