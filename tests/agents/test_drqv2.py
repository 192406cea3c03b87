"""DrQ-v2 against answers worked out by hand: shift, noise, target, what is skipped, exact continuation."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from cwm_hub.agents.agent import Agent
from cwm_hub.agents.drqv2 import DrQV2Agent, DrQV2Config, noisy, random_shift
from cwm_hub.agents.replay import TransitionBatch

SIZE = 16


def make_agent(**changes) -> DrQV2Agent:
    torch.manual_seed(0)
    small = {"image_size": SIZE, "channels": 4, "feature_units": 8, "hidden_units": 16}
    return DrQV2Agent(DrQV2Config(action_size=2, **(small | changes)))


def make_batch(seed: int = 0) -> TransitionBatch:
    rng = np.random.default_rng(seed)
    image, following = rng.integers(0, 256, (2, 6, 9, SIZE, SIZE), np.uint8)
    return TransitionBatch(
        image,
        rng.uniform(-1, 1, (6, 2)).astype(np.float32),
        rng.normal(size=6).astype(np.float32),
        np.array([0.5, 0.5, 0.5, 0.0, 0.0, 0.0], np.float32),
        following,
    )


def weights(agent: DrQV2Agent) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in agent.state_dict().items()}


def moved(before: dict[str, torch.Tensor], agent: DrQV2Agent) -> set[str]:
    return {name.partition(".")[0] for name, value in weights(agent).items() if not value.equal(before[name])}


def test_it_is_an_agent() -> None:
    assert isinstance(make_agent(), Agent)


def test_a_shift_moves_the_whole_image_and_repeats_its_border() -> None:
    """A pixel's value is 16 x row + column: every image is one of the 25 moves by up to 2 pixels, all of which come up."""
    torch.manual_seed(0)
    row, column = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    image = (SIZE * row + column).to(torch.uint8)[None, None].expand(500, 3, SIZE, SIZE)
    expected = {
        (down, right): (SIZE * (row + down).clamp(0, 15) + (column + right).clamp(0, 15)).to(torch.uint8)
        for down in range(-2, 3)
        for right in range(-2, 3)
    }
    seen = set()
    for shifted in random_shift(image, 2):
        (which,) = [move for move, pixels in expected.items() if pixels.equal(shifted[0])]
        assert shifted.equal(expected[which].expand(3, SIZE, SIZE))
        seen.add(which)
    assert seen == expected.keys()
    assert random_shift(image, 0).equal(image)


def test_noise_falls_linearly_with_the_updates_and_stays() -> None:
    agent = make_agent(noise_start=1.0, noise_end=0.2, noise_updates=100)
    told = []
    for agent.updates in (0, 50, 100, 1000):
        told.append(agent.noise)
    assert told == pytest.approx([1.0, 0.6, 0.2, 0.2])


def test_a_noisy_action_stays_inside_and_passes_the_gradient() -> None:
    torch.manual_seed(0)
    mean = torch.tensor([[0.999, -0.5]]).expand(2000, 2).clone().requires_grad_()
    action = noisy(mean, 1.0, clip=0.3)
    assert action.abs().max() < 1
    assert (action[:, 1] - mean[:, 1]).abs().max() <= 0.3 + 1e-6
    action.sum().backward()
    assert mean.grad.eq(1).all()


def test_the_target_is_the_reward_and_the_discounted_lesser_of_two_slow_values() -> None:
    """Critics that say 1 and 3, slow ones that say 2 and 5, discount 0.5 and at a termination 0."""
    agent = make_agent()
    for critics, values in ((agent.critics, (1.0, 3.0)), (agent.slow_critics, (2.0, 5.0))):
        for mlp, value in zip(critics.mlps, values, strict=True):
            nn.init.zeros_(mlp[-1].weight), nn.init.constant_(mlp[-1].bias, value)
    batch = make_batch()
    target = batch.reward + np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    metrics = agent.update_on(batch)
    expected = np.square(1 - target).mean() + np.square(3 - target).mean()
    assert metrics["critic_loss"].item() == pytest.approx(expected, rel=1e-5)
    assert metrics["critic_value"].item() == pytest.approx(2.0)


def test_the_critics_train_the_encoder_and_the_actor_does_not() -> None:
    agent = make_agent()
    before = weights(agent)
    agent.update_on(make_batch())
    assert moved(before, agent) == {"encoder", "actor", "critics", "slow_critics"}
    agent = make_agent()
    before, step = weights(agent), agent._step
    agent._step = lambda loss, *names: step(loss, *names) if names == ("actor",) else True
    agent.update_on(make_batch())
    assert moved(before, agent) == {"actor"}
    assert all(p.grad is None for p in (*agent.encoder.parameters(), *agent.critics.parameters()))


def test_slow_critics_follow_by_a_share() -> None:
    agent = make_agent(slow_share=0.25)
    before = agent.critics.mlps[0][0].weight.clone()
    agent.update_on(make_batch())
    expected = 0.75 * before + 0.25 * agent.critics.mlps[0][0].weight
    torch.testing.assert_close(agent.slow_critics.mlps[0][0].weight, expected)


def test_a_non_finite_update_is_skipped_and_counted() -> None:
    agent = make_agent()
    before, batch = weights(agent), make_batch()
    batch.reward[0] = np.nan
    agent.update_on(batch)
    assert (agent.updates, agent.skipped_updates) == (1, 1)
    assert not moved(before, agent)


def test_acting_sees_the_last_three_frames_oldest_first_and_explores_only_when_told() -> None:
    agent = make_agent()
    images = np.arange(5, dtype=np.uint8)[:, None, None, None, None] * np.ones(
        (5, 1, 3, SIZE, SIZE), np.uint8
    )
    state, seen = agent.initial_state(1, seed=3), []
    for image in images:
        mode, state = agent.act(image, state, explore=False)
        seen.append(state.frames[0][::3, 0, 0].tolist())
    assert seen == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]
    start = agent.initial_state(1, seed=3)
    one, _ = agent.act(images[0], start, explore=True)
    two, _ = agent.act(images[0], agent.initial_state(1, seed=3), explore=True)
    assert np.array_equal(one, two) and not np.array_equal(one, mode)


def test_updates_continue_bit_for_bit_from_weights_and_training_state() -> None:
    one = make_agent()
    one.update_on(make_batch(0))
    two = DrQV2Agent(one.config)
    two.load_state_dict(one.state_dict())
    two.load_training_state(deepcopy(one.training_state()))
    for agent in (one, two):
        torch.manual_seed(7)
        agent.update_on(make_batch(1))
    assert two.updates == 2
    assert not moved(weights(one), two)
