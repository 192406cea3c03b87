"""Behaviour learned in imagination: DreamerV2's actor-critic (arXiv 2010.02193) on the action-conditional RSSM.

Time comes first here, as imagination and the lambda return run over it. Axes: I imagined steps, N starting
states, F feature, A action. The timeline, for I = 3:

    state       z0   z1   z2   z3        z0 is a posterior of the batch, the others are imagined
    action         a1   a2   a3          a_t is drawn from the policy at z_(t-1), and leads to z_t
    reward      r0   r1   r2   r3        predicted at z_t
    target      t0   t1   t2             lambda returns; t_t begins with r_t, the bootstrap is v3
    go on       c0   c1   c2             probability that the episode does after z_t, 1 without a continue head
    weight       1   d0   d0 d1          d_t = discount * c_t: whether t is reached, and how much it counts
    actor            t1   t2             what a1 and a2 bring; a3 leads only to the bootstrap
    critic      v0   v1   v2             regress the targets
"""

import contextlib
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cwm_hub.config import check_range
from cwm_hub.models.heads import HeadConfig, PolicyHead, ScalarHead, gaussian_loss
from cwm_hub.models.rssm import RSSM, RSSMState


@dataclass(frozen=True)
class ActorCriticConfig:
    """Behaviour learning; the defaults are the paper's."""

    heads: HeadConfig = field(default_factory=HeadConfig)
    """Actor and critic MLPs."""
    imagined_steps: int = 15
    """Steps imagined from every posterior state of the batch."""
    discount: float = 0.99
    """Gamma, per agent step."""
    lambda_: float = 0.95
    """Weight of the longer returns in the lambda return."""
    entropy_scale: float = 1e-4
    """Weight of the policy's entropy in nats."""
    slow_critic_updates: int = 100
    """Updates between whole copies of the critic into the slow one."""

    def __post_init__(self):
        check_range(self, "imagined_steps", at_least=2)  # of a single one the actor has no target
        check_range(self, "discount", "lambda_", at_least=0, at_most=1)
        check_range(self, "entropy_scale", at_least=0)
        check_range(self, "slow_critic_updates", at_least=1)


class Imagination(NamedTuple):
    """Imagined lines from N states, the starting state first."""

    feature: Float[Tensor, "J N F"]
    """J = I + 1 features."""
    action: Float[Tensor, "I N A"]


class ActorCriticLoss(NamedTuple):
    """The two losses, to be minimised by an optimiser each, and detached scalars to log."""

    actor: Float[Tensor, ""]
    critic: Float[Tensor, ""]
    metrics: dict[str, Tensor]


class ActorCritic(nn.Module):
    """Policy, critic and its slow copy; the losses on imagined lines."""

    def __init__(self, config: ActorCriticConfig, *, feature_size: int, action_size: int):
        super().__init__()
        self.config = config
        self.actor = PolicyHead(feature_size, action_size, config.heads)
        self.critic = ScalarHead(feature_size, config.heads)
        self.slow_critic = deepcopy(self.critic).requires_grad_(False)

    def loss(
        self,
        line: Imagination,
        reward: Float[Tensor, "J N"],
        continue_probability: Float[Tensor, "J N"] | None = None,
    ) -> ActorCriticLoss:
        """Losses of imagined lines; the actor's gradient goes back through reward, value and dynamics.

        DreamerV2 knows from the replay whether a starting state is terminal; here the head says so of it too.
        """
        config = self.config
        reward, value = reward.float(), self.slow_critic(line.feature).float()
        discount = torch.full_like(reward[:-1], config.discount)
        if continue_probability is not None:
            discount = discount * continue_probability[:-1]
        target = lambda_return(reward[:-1], value, discount, config.lambda_)
        weight = torch.cat([torch.ones_like(discount[:1]), discount[:-1].detach()]).cumprod(0)

        entropy = self.actor(line.feature[:-2].detach()).entropy()
        objective = target[1:] + config.entropy_scale * entropy
        actor = -(weight[:-1] * objective).mean()
        prediction = self.critic(line.feature[:-1].detach())
        critic = (weight * gaussian_loss(prediction, target.detach())).mean()
        metrics = {
            "actor_loss": actor,
            "critic_loss": critic,
            "policy_entropy": entropy.mean(),
            "imagined_return": target.mean(),
            "imagined_reward": reward.mean(),
            "critic_value": prediction.mean(),
        }
        return ActorCriticLoss(actor, critic, {name: scalar.detach() for name, scalar in metrics.items()})

    def copy_slow_critic(self) -> None:
        """Makes the slow critic equal to the critic."""
        self.slow_critic.load_state_dict(self.critic.state_dict())


def imagine(
    rssm: RSSM,
    actor: PolicyHead,
    start: RSSMState,
    *,
    steps: int,
    generator: torch.Generator | None = None,
) -> Imagination:
    """Rolls policy and prior forward from N states.

    The policy sees detached features, so that the gradient reaches an action through its own state only, and
    earlier actions through the dynamics.
    """
    state = start
    features, actions = [rssm.feature(state)], []
    for _ in range(steps):
        action = actor(features[-1].detach()).rsample(generator)
        state = rssm.img_step(state, action, generator=generator)
        actions.append(action)
        features.append(rssm.feature(state))
    return Imagination(torch.stack(features), torch.stack(actions))


def lambda_return(
    reward: Float[Tensor, "I N"],
    value: Float[Tensor, "I+1 N"],
    discount: Float[Tensor, "I N"],
    lambda_: float,
) -> Float[Tensor, "I N"]:
    """TD(lambda) targets of the first I states of an imagined line; time FIRST, as the recursion runs over it.

    return[t] = reward[t] + discount[t] * ((1 - lambda) * value[t + 1] + lambda * return[t + 1]), and
    return[I] = value[I]: `value` has one row more than `reward`, its last row the bootstrap, its first unused.
    """
    returns = []
    following = value[-1]
    for t in reversed(range(len(reward))):
        following = reward[t] + discount[t] * ((1 - lambda_) * value[t + 1] + lambda_ * following)
        returns.append(following)
    return torch.stack(returns[::-1])


@contextlib.contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Lets gradients through a module but computes none for its parameters, which behaviour learning never uses."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
