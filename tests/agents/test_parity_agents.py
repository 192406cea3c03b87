"""Outputs of the official code's heads, policy, lambda return and intrinsic bonus, to 1e-5 relative."""

from pathlib import Path

import pytest
from parity_check import head_weights
from safetensors.torch import load_file
from torch import Tensor, nn

from cwm_hub.agents.actor_critic import lambda_return
from cwm_hub.agents.intrinsic import IntrinsicBonus, IntrinsicConfig
from cwm_hub.models.heads import HeadConfig, PolicyHead, ScalarHead

PARITY = Path(__file__).parents[1] / "fixtures" / "parity"


@pytest.fixture(params=["contextualized", "plainresnet"])
def golden(request: pytest.FixtureRequest) -> dict[str, Tensor]:
    return load_file(PARITY / request.param / "golden.safetensors")


def assert_close(ours: Tensor, official: Tensor) -> None:
    assert ours.shape == official.shape
    assert (ours - official).abs().max() <= 1e-5 * official.abs().max()


def load_official(head: nn.Module, golden: dict[str, Tensor], name: str) -> nn.Module:
    """Fills a head with the official weights `w/<name>/...`, strictly."""
    output = "mean" if isinstance(head, PolicyHead) else "out"
    head.load_state_dict(head_weights(golden, name, output=output))
    return head


@pytest.mark.parametrize(
    ("name", "output"),
    [("reward", "reward_mean"), ("aux_reward", "aux_reward_mean"), ("critic", "critic_mean")],
)
def test_scalar_heads_equal_official(golden: dict[str, Tensor], name: str, output: str) -> None:
    feature = golden["feat"]
    head = load_official(ScalarHead(feature.shape[-1], HeadConfig(4, 16)), golden, name)
    assert_close(head(feature), golden[output])


def test_policy_equals_official(golden: dict[str, Tensor]) -> None:
    feature = golden["feat"]
    head = load_official(PolicyHead(feature.shape[-1], 4, HeadConfig(4, 16)), golden, "actor")
    policy = head(feature)
    assert_close(policy.mean, golden["actor_mean"])
    assert_close(policy.std, golden["actor_std"])
    assert_close(policy.mode, golden["actor_mode"])
    assert_close(policy.log_prob(golden["actor_action"]), golden["actor_log_prob"])
    assert_close(policy.entropy(), golden["actor_entropy"])


def test_lambda_return_equals_official(golden: dict[str, Tensor]) -> None:
    returns = lambda_return(golden["lr_reward"], golden["lr_value"], golden["lr_discount"], 0.95)
    assert_close(returns, golden["lr_return"])


def test_intrinsic_bonus_equals_official_over_three_calls(golden: dict[str, Tensor]) -> None:
    config = IntrinsicConfig(beta=1.0, queue_size=32, projection_size=8, k=4, window_frames=3, momentum=0.99)
    bonus = IntrinsicBonus(golden["ib_feat1"].shape[-1], config)
    bonus.projection.copy_(golden["ib_projection"])
    for call, feature in enumerate(("ib_feat1", "ib_feat2", "ib_feat1"), start=1):
        total = golden["ib_reward"][:, :4] + config.beta * bonus(golden[feature])
        assert_close(total, golden[f"ib_total_reward{call}"])
