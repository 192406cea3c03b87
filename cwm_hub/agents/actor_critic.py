"""Behaviour learned in imagination: DreamerV2's actor-critic (arXiv 2010.02193) on the action-conditional RSSM."""

import torch
from jaxtyping import Float
from torch import Tensor


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
    if len(value) != len(reward) + 1:
        raise ValueError(
            f"lambda_return expects one more value than rewards, got {len(value)} and {len(reward)}"
        )
    returns = []
    following = value[-1]
    for t in reversed(range(len(reward))):
        following = reward[t] + discount[t] * ((1 - lambda_) * value[t + 1] + lambda_ * following)
        returns.append(following)
    return torch.stack(returns[::-1])
