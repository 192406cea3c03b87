"""Heads, truncated normal, lambda return and the behaviour losses against answers worked out by hand."""

import math

import pytest
import torch
from torch import nn

from cwm_hub.agents.actor_critic import (
    ActorCritic,
    ActorCriticConfig,
    Imagination,
    frozen,
    imagine,
    lambda_return,
)
from cwm_hub.models.distributions import TruncatedNormal
from cwm_hub.models.heads import HeadConfig, PolicyHead, ScalarHead, gaussian_loss
from cwm_hub.models.rssm import RSSM, RSSMConfig

TINY = HeadConfig(layers=1, units=8)


def test_heads_have_four_layers_of_400_and_start_xavier_with_zero_bias() -> None:
    head = ScalarHead(2048, HeadConfig())
    linears = [module for module in head.modules() if isinstance(module, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in linears] == [(400, 2048), *[(400, 400)] * 3, (1, 400)]
    assert all(not layer.bias.any() for layer in linears)
    for layer in linears:
        bound = math.sqrt(6 / sum(layer.weight.shape))
        assert 0.9 * bound < layer.weight.abs().max() <= bound


def test_gaussian_loss_is_half_the_squared_error() -> None:
    assert gaussian_loss(torch.tensor([1.0, 2.0]), torch.tensor([4.0, 2.0])).tolist() == [4.5, 0.0]


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.1), (0.9, 0.1), (-0.999, 2.1)])
def test_truncated_normal_agrees_with_its_own_density(mean: float, std: float) -> None:
    policy = TruncatedNormal(torch.full((1, 1), mean), torch.full((1, 1), std))
    grid = torch.linspace(-1, 1, 200_001, dtype=torch.float64)
    density = policy.log_prob(grid[:, None].float()).double().exp()
    assert torch.trapezoid(density, grid) == pytest.approx(1, abs=1e-4)
    assert policy.entropy().item() == pytest.approx(
        -torch.trapezoid(density * density.log(), grid).item(), abs=1e-4
    )
    many = TruncatedNormal(torch.full((100_000, 1), mean), torch.full((100_000, 1), std))
    sample = many.rsample(torch.Generator().manual_seed(0))
    assert sample.min() > -1 and sample.max() < 1
    assert sample.mean().item() == pytest.approx(torch.trapezoid(density * grid, grid).item(), abs=0.01)


def test_a_nearly_uniform_policy_has_the_entropy_of_the_uniform() -> None:
    policy = TruncatedNormal(torch.zeros(1, 3), torch.full((1, 3), 50.0))
    assert policy.entropy().item() == pytest.approx(3 * math.log(2), abs=1e-3)


def test_extreme_policies_give_finite_samples_and_gradients() -> None:
    mean = torch.tensor([[-1.0, 1.0, 0.0]]).expand(2000, 3).clone().requires_grad_()
    std = torch.full((2000, 3), 0.1, requires_grad=True)
    TruncatedNormal(mean, std).rsample().sum().backward()
    assert mean.grad.isfinite().all() and std.grad.isfinite().all()
    assert mean.grad[:, 2].mean() == pytest.approx(1, abs=0.05)  # in the middle a sample moves with the mean


def test_lambda_return_at_its_two_ends_and_by_hand() -> None:
    reward = torch.tensor([[1.0], [2.0], [3.0]])
    value = torch.tensor([[9.0], [10.0], [20.0], [30.0]])
    discount = torch.full((3, 1), 0.5)
    one_step = lambda_return(reward, value, discount, 0.0)
    assert one_step.flatten().tolist() == [1 + 5, 2 + 10, 3 + 15]
    to_the_end = lambda_return(reward, value, discount, 1.0)
    assert to_the_end.flatten().tolist() == [1 + 1 + 0.75 + 3.75, 2 + 1.5 + 7.5, 3 + 15]
    half = lambda_return(reward, value, discount, 0.5)
    last = 3 + 15
    middle = 2 + 0.5 * (0.5 * 20 + 0.5 * last)
    assert half.flatten().tolist() == [1 + 0.5 * (0.5 * 10 + 0.5 * middle), middle, last]


def make_actor_critic(steps: int = 3, **changes) -> ActorCritic:
    torch.manual_seed(0)
    config = ActorCriticConfig(heads=TINY, imagined_steps=steps, **changes)
    return ActorCritic(config, feature_size=6, action_size=2)


def test_losses_weigh_later_steps_by_the_discount() -> None:
    """With values zeroed and reward 1, gamma = lambda = 0.5: targets 1.75, 1.5 and 1 less the bootstrap of 0."""
    behaviour = make_actor_critic(discount=0.5, lambda_=1.0, entropy_scale=0.0)
    for critic in (behaviour.critic, behaviour.slow_critic):
        nn.init.zeros_(critic.out.weight), nn.init.zeros_(critic.out.bias)
    line = Imagination(torch.randn(4, 5, 6), torch.zeros(3, 5, 2))
    loss = behaviour.loss(line, torch.ones(4, 5))
    targets = [1.75, 1.5, 1.0]
    assert loss.actor.item() == pytest.approx(-(1 * targets[1] + 0.5 * targets[2]) / 2)
    expected = sum(0.5**t * 0.5 * target**2 for t, target in enumerate(targets)) / 3
    assert loss.critic.item() == pytest.approx(expected)


def test_nothing_counts_after_an_imagined_end() -> None:
    """Reward 1, values 0, gamma 0.5, lambda 1; the episode goes on after z0 and z2, and after z1 with probability p.

    Targets from the end: 1, 1 + p/2, 1 + (1 + p/2)/2; weights 1, 1/2, p/4.
    """
    behaviour = make_actor_critic(discount=0.5, lambda_=1.0, entropy_scale=0.0)
    for critic in (behaviour.critic, behaviour.slow_critic):
        nn.init.zeros_(critic.out.weight), nn.init.zeros_(critic.out.bias)
    line = Imagination(torch.randn(4, 5, 6), torch.zeros(3, 5, 2))
    for p in (1.0, 0.5, 0.0):
        goes_on = torch.tensor([1.0, p, 1.0, 1.0])[:, None].expand(4, 5)
        loss = behaviour.loss(line, torch.ones(4, 5), goes_on)
        targets, weights = [1 + (1 + p / 2) / 2, 1 + p / 2, 1.0], [1, 0.5, p / 4]
        assert loss.actor.item() == pytest.approx(-(targets[1] + 0.5 * targets[2]) / 2)
        assert loss.critic.item() == pytest.approx(
            sum(w * 0.5 * t**2 for w, t in zip(weights, targets, strict=True)) / 3
        )
        constant = behaviour.loss(line, torch.ones(4, 5))
        assert (loss.critic == constant.critic) == (p == 1)


def test_actor_gradient_comes_through_the_dynamics_and_not_into_them() -> None:
    torch.manual_seed(0)
    rssm = RSSM(RSSMConfig(stoch=2, classes=2, deter=2, hidden=4, action_size=2), embed=3)
    behaviour = make_actor_critic(entropy_scale=0.0)
    head = ScalarHead(6, TINY)
    with frozen(rssm), frozen(head):
        line = imagine(rssm, behaviour.actor, rssm.initial(5), steps=3)
        loss = behaviour.loss(line, head(line.feature))
        (loss.actor + loss.critic).backward()
    assert line.feature.shape == (4, 5, 6)
    assert line.action.shape == (3, 5, 2)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in behaviour.actor.parameters())
    assert all(p.grad is None and p.requires_grad for p in (*rssm.parameters(), *head.parameters()))
    assert all(p.grad is None for p in behaviour.slow_critic.parameters())


def test_actor_learns_the_action_that_the_reward_wants() -> None:
    """A world whose feature is the last action, rewarded for its first number and against its second."""

    class Echo(RSSM):
        def feature(self, state):
            return state.deter

        def img_step(self, state, action, *, sample=True, generator=None):
            return state._replace(deter=torch.cat([action, torch.zeros(len(action), 4)], 1))

    echo = Echo(RSSMConfig(stoch=2, classes=2, deter=6, hidden=4, action_size=2), embed=3)
    behaviour = make_actor_critic(discount=0.9)
    optimiser = torch.optim.Adam(behaviour.parameters(), lr=2e-2)
    for _ in range(60):
        line = imagine(echo, behaviour.actor, echo.initial(16), steps=3)
        loss = behaviour.loss(line, line.feature[..., 0] - line.feature[..., 1])
        optimiser.zero_grad()
        (loss.actor + loss.critic).backward()
        optimiser.step()
        behaviour.copy_slow_critic()
    assert behaviour.actor(torch.zeros(1, 6)).mode.flatten().tolist() == pytest.approx([1, -1], abs=0.1)


def test_policy_head_bounds_mean_and_std() -> None:
    policy = PolicyHead(6, 2, TINY)(100 * torch.randn(1000, 6))
    assert policy.mean.abs().max() <= 1
    assert policy.std.min() >= 0.1 and policy.std.max() <= 2.1
