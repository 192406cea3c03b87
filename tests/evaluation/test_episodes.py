"""What episodes say together, and agents that do not go with a task, worked out by hand."""

import pytest

from cwm_hub.agents.drqv2 import DrQV2Agent
from cwm_hub.agents.presets import agent_preset
from cwm_hub.agents.rollout import EpisodeRecord, RandomPolicy, each_episode, evaluate
from cwm_hub.envs import EnvConfig, make_env
from cwm_hub.evaluation.episodes import check_fits, differences, episode_rows, summary


def record(seed: int, score: float, success: float, steps: int = 20) -> EpisodeRecord:
    return EpisodeRecord(seed, score, success, steps, False)


def test_a_row_tells_whose_episode_it_is_and_how_it_went():
    rows = episode_rows({"mode": [record(7, 2.5, 1.0)], "sampled": [record(7, 1.0, 0.0)]}, task="dummy")
    assert rows == [
        {
            "task": "dummy",
            "policy": policy,
            "seed": 7,
            "score": score,
            "success": success,
            "episode_steps": 20,
            "terminated": False,
        }
        for policy, score, success in (("mode", 2.5, 1.0), ("sampled", 1.0, 0.0))
    ]


def test_summary_of_two_episodes_spans_both_and_of_one_has_no_interval():
    """The mean of two resampled values is the smaller, the middle or the larger: a quarter, a half, a quarter."""
    pair, lone = [record(0, 0.0, 0.0, 10), record(1, 4.0, 1.0, 20)], [record(0, 3.0, 1.0, 5)]
    found = summary(episode_rows({"mode": pair, "sampled": lone}, task="dummy"))
    assert found == {
        "mode": {
            "episodes": 2,
            "episode_steps": 15.0,
            "score": {"mean": 2.0, "low": 0.0, "high": 4.0},
            "success_rate": {"mean": 0.5, "low": 0.0, "high": 1.0},
        },
        "sampled": {
            "episodes": 1,
            "episode_steps": 5.0,
            "score": {"mean": 3.0},
            "success_rate": {"mean": 1.0},
        },
    }


def test_every_policy_plays_every_seed():
    env = make_env("dummy", image_size=16)
    policies = {"one": (RandomPolicy(1), True), "other": (RandomPolicy(1), False)}
    played = list(each_episode([env], policies, seeds=[3, 5]))
    alone = evaluate(env, RandomPolicy(1), seeds=[3, 5])
    assert [(name, record) for name, record, _ in played] == [(n, r) for n in policies for r in alone]
    assert {len(seen.image) for *_, seen in played} == {21}


@pytest.mark.parametrize(
    ("name", "size", "sentence"),
    [
        ("dummy", 16, "the agent sees 32 pixels a side and dummy draws 16: set its image_size to 32"),
        ("dummy", 32, "the agent's actions have 2 numbers and dummy takes 1: it cannot act there"),
    ],
)
def test_an_agent_of_other_frames_or_actions_is_refused(name: str, size: int, sentence: str):
    agent = DrQV2Agent(agent_preset("drqv2-tiny", action_size=2))
    with pytest.raises(ValueError, match=sentence):
        check_fits(agent, make_env(name, image_size=size), task=name)
    fitting = DrQV2Agent(agent_preset("drqv2-tiny", action_size=1))
    check_fits(fitting, make_env("dummy", image_size=32), task="dummy")


def test_differences_name_what_is_other_than_in_training():
    trained = EnvConfig("scenes", 32)
    assert differences(trained, trained) == {}
    other = EnvConfig("dummy", 32, action_repeat=2)
    assert differences(other, trained) == {"name": ["dummy", "scenes"], "action_repeat": [2, 1]}
