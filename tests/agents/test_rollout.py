"""Rows of the replay, seeds and success of collected and evaluated episodes, on the dummy environment."""

import gymnasium
import numpy as np
import pytest

from cwm_hub.agents.replay import Replay
from cwm_hub.agents.rollout import (
    Collector,
    RandomPolicy,
    episode_seed,
    evaluate,
    evaluation_seeds,
    kept_episodes,
    play,
)
from cwm_hub.envs.table import make_env


class BestPolicy:
    """Reads the environment's own answer."""

    def __init__(self, env):
        self.env = env

    def initial_state(self, batch_size, *, seed):
        return None

    def act(self, image, state, *, explore):
        return self.env.unwrapped.simulator.best_action()[None], state


def collect(policy, steps: int, *, episodes: int = 0):
    env = make_env("dummy", image_size=16)
    replay = Replay(capacity_steps=1000, image_size=16, action_size=1, seed=0)
    collector = Collector([env], replay, seed=7, episodes=episodes)
    records = [record for _ in range(steps) for record in collector.step(policy)]
    return replay, collector, records


def test_collected_rows_replay_the_episode() -> None:
    replay, collector, records = collect(RandomPolicy(1), 20)
    assert (replay.steps, replay.episodes, collector.episodes, len(records)) == (20, 1, 1, 1)
    rows = replay.sample_sequences(1, 21)
    env = make_env("dummy", image_size=16)
    frame, _ = env.reset(seed=episode_seed(7, 0))
    assert np.array_equal(rows.image[0, 0], frame.transpose(2, 0, 1))
    assert not rows.action[0, 0].any() and rows.reward[0, 0] == 0
    for t in range(1, 21):
        frame, reward, *_ = env.step(rows.action[0, t])
        assert np.array_equal(rows.image[0, t], frame.transpose(2, 0, 1))
        assert rows.reward[0, t] == np.float32(reward)
    assert records[0].score == np.float64(rows.reward.astype(np.float64).sum()) or np.isclose(
        records[0].score, rows.reward.sum()
    )


def test_collection_that_resumes_at_an_episode_start_goes_on_exactly() -> None:
    whole = collect(RandomPolicy(1), 60)[2]
    rest = collect(RandomPolicy(1), 40, episodes=1)[2]
    assert whole[1:] == rest
    assert len({record.seed for record in whole}) == 3


def test_collection_that_resumes_in_an_episodes_middle_goes_on_exactly() -> None:
    whole = collect(RandomPolicy(1), 60)[2]
    _, begun, records = collect(RandomPolicy(1), 27)
    env, replay = (
        make_env("dummy", image_size=16),
        Replay(capacity_steps=100, image_size=16, action_size=1, seed=0),
    )
    rest = Collector([env], replay, seed=7, episodes=begun.episodes)
    random = RandomPolicy(1)
    kept = kept_episodes(begun.state(), agent=random, random=random)
    assert rest.restore(kept) == 0 and rest.running_steps == 7
    records += [record for _ in range(33) for record in rest.step(random)]
    assert records == whole and (replay.episodes, rest.agent_steps) == (2, 33)


class Learning:
    """Acts by what it has learned so far."""

    learned = 0.0

    def initial_state(self, batch_size, *, seed):
        return None

    def act(self, image, state, *, explore):
        return np.full((len(image), 1), self.learned, np.float32), state


class Asked(gymnasium.Wrapper):
    """Notes what it was asked to begin."""

    def __init__(self, env):
        super().__init__(env)
        self.begun = []

    def begin_reset(self, seed):
        self.begun.append(seed)

    def begin_step(self, action):
        self.begun.append(float(action[0]))


def test_a_step_that_was_begun_is_of_the_policy_as_it_was_then_after_a_resume_too() -> None:
    """What is learned after `begin_step` shows in the step after: in each environment actions 0, then 0.5."""
    envs = [Asked(make_env("dummy", image_size=16)) for _ in range(4)]
    replay = Replay(capacity_steps=100, image_size=16, action_size=1, seed=0)
    policy, collector = Learning(), Collector(envs[:2], replay, seed=7)
    collector.begin_step(policy)
    policy.learned = 0.5
    collector.begin_step(policy)  # it is under way
    assert [env.begun for env in envs[:2]] == [[episode_seed(7, number), 0.0] for number in (0, 1)]
    again = Collector(envs[2:], replay, seed=7)
    assert again.restore(kept_episodes(collector.state(), agent=policy, random=RandomPolicy(1))) == 0
    assert [env.begun for env in envs[2:]] == [[0.0], [0.0]]
    for one in (collector, again):
        one.step(policy)
        one.step(policy)
        assert [episode["action"].flatten().tolist() for episode in one.state()] == [[0.0, 0.0, 0.5]] * 2


def test_episodes_under_way_are_given_up_together_where_one_does_not_go_as_it_went() -> None:
    envs = [make_env("dummy", image_size=16) for _ in range(2)]
    replay = Replay(capacity_steps=100, image_size=16, action_size=1, seed=0)
    random, begun = RandomPolicy(1), Collector(envs, replay, seed=7)
    for _ in range(7):
        begun.step(random)
    one, two = begun.state()
    for name in ("image", "reward"):
        other = two | {name: two[name].clone()}
        other[name][5] += 1
        rest = Collector(envs, replay, seed=7)
        assert rest.restore(kept_episodes([one, other], agent=random, random=random)) == 14
        assert rest.running_steps == 0
    empty = {name: one[name][:0] for name in ("image", "action", "reward")}
    with pytest.raises(ValueError, match="an episode under way is not whole"):
        kept_episodes([one | empty], agent=random, random=random)


def test_no_number_is_given_twice_whichever_episode_ends_first() -> None:
    """An episode's number is its seed."""
    envs = [
        gymnasium.wrappers.TimeLimit(make_env("dummy", image_size=16), max_episode_steps=steps)
        for steps in (3, 2)
    ]
    replay = Replay(capacity_steps=100, image_size=16, action_size=1, seed=0)
    collector = Collector(envs, replay, seed=7)
    records = [record for _ in range(6) for record in collector.step(RandomPolicy(1))]
    assert [record.seed for record in records] == [episode_seed(7, number) for number in (1, 0, 3, 2)]


def test_a_policy_keeps_the_episode_it_began() -> None:
    env = make_env("dummy", image_size=16)
    replay = Replay(capacity_steps=100, image_size=16, action_size=1, seed=0)
    collector = Collector([env], replay, seed=0)
    collector.step(RandomPolicy(1))
    best = BestPolicy(env)
    mixed = next(record for _ in range(19) for record in collector.step(best))
    alone = next(record for _ in range(20) for record in collector.step(best))
    assert mixed.success == 0 or mixed.score < alone.score
    assert alone.success == 1


def test_evaluation_is_one_episode_per_seed_and_repeats_exactly() -> None:
    env = make_env("dummy", image_size=16)
    seeds = evaluation_seeds(4)
    best = evaluate(env, BestPolicy(env), seeds=seeds)
    random = evaluate(env, RandomPolicy(1), seeds=seeds)
    assert random == evaluate(env, RandomPolicy(1), seeds=seeds)
    assert [record.seed for record in best] == seeds
    assert [record.success for record in best] == [1.0] * 4
    assert all(ours.score > theirs.score for ours, theirs in zip(best, random, strict=True))
    for record in best:
        env.reset(seed=record.seed)
        assert np.isclose(record.score, env.unwrapped.simulator.best_return(), atol=1e-3)


def test_an_episode_comes_with_every_frame_from_the_reset_on() -> None:
    env = make_env("dummy", image_size=16)
    ((record, film),) = play([env], BestPolicy(env), seeds=[3])
    assert [record] == evaluate(env, BestPolicy(env), seeds=[3])
    frame, _ = env.reset(seed=3)
    seen, rewards, successes, ended = [frame], [0.0], [0.0], False
    while not ended:
        frame, reward, _, ended, info = env.step(env.unwrapped.simulator.best_action())
        seen.append(frame)
        rewards.append(reward)
        successes.append(info["success"])
    assert len(film.image) == record.episode_steps + 1 == 21
    assert np.array_equal(film.image, np.stack(seen).transpose(0, 3, 1, 2))
    assert np.array_equal(film.reward, np.array(rewards, np.float32))
    assert (
        np.array_equal(film.success, successes) and 0 < film.success.mean() < 1
    )  # once solved, it stays there


def test_training_and_evaluation_seeds_are_apart() -> None:
    training = {episode_seed(run, i) for run in range(5) for i in range(200)}
    assert len(training) == 1000
    assert not training & set(evaluation_seeds(200))
    assert evaluation_seeds(3) == evaluation_seeds(5)[:3]


class Fleeting(gymnasium.Env):
    """Solved at its second step only; a time limit ends it at the third, or the task itself where `terminates`."""

    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, *, terminates: bool):
        self.terminates = terminates

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros((16, 16, 3), np.uint8), {}

    def step(self, action):
        self.t += 1
        over = self.t == 3
        success = {"success": float(self.t == 2)}
        frame = np.zeros((16, 16, 3), np.uint8)
        return frame, 0.0, over and self.terminates, over and not self.terminates, success


class Noting(RandomPolicy):
    """Notes whether it was asked to explore."""

    def __init__(self):
        super().__init__(1)
        self.explored = []

    def act(self, image, state, *, explore):
        self.explored.append(explore)
        return super().act(image, state, explore=explore)


def test_any_step_that_solved_the_task_makes_a_success_and_a_time_limit_is_no_termination() -> None:
    for terminates in (True, False):
        env = Fleeting(terminates=terminates)
        replay = Replay(capacity_steps=10, image_size=16, action_size=1, seed=0)
        collector = Collector([env], replay, seed=0)
        (record,) = [one for _ in range(3) for one in collector.step(RandomPolicy(1))]
        assert record.success == 1
        last = replay.sample_transitions(50, n_step=1).discount.min()
        assert last == (0 if terminates else np.float32(0.99))


def test_a_reward_that_is_no_number_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make_env("dummy", image_size=32)
    step = env.step
    monkeypatch.setattr(env, "step", lambda action: (step(action)[0], float("nan"), False, False, {}))
    with pytest.raises(ValueError, match="the environment gave the reward nan at step 1 of an episode"):
        evaluate(env, RandomPolicy(1), seeds=[0])


def test_collection_explores_and_evaluation_does_not() -> None:
    policy, env = Noting(), Fleeting(terminates=False)
    collector = Collector([env], Replay(capacity_steps=10, image_size=16, action_size=1, seed=0), seed=0)
    for _ in range(3):
        collector.step(policy)
    evaluate(env, policy, seeds=[0])
    assert policy.explored == [True] * 3 + [False] * 3
