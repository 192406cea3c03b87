"""The video-based bonus: first in first out, nearest neighbours, normalisation."""

import pytest
import torch

from cwm_hub.agents.intrinsic import IntrinsicBonus, IntrinsicConfig


def make(**changes) -> IntrinsicBonus:
    config = IntrinsicConfig(
        **({"queue_size": 8, "projection_size": 2, "k": 2, "window_frames": 1} | changes)
    )
    bonus = IntrinsicBonus(2, config)
    bonus.projection.copy_(torch.eye(2))
    return bonus


def test_bonus_is_the_mean_distance_to_the_k_nearest_by_hand() -> None:
    bonus = make(momentum=1.0)  # the magnitude stays 1
    feature = torch.tensor([[[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]]])
    assert bonus(feature)[0].tolist() == pytest.approx([0.5, (18**0.5) / 2, 0.5])


def test_window_is_a_mean_over_frames() -> None:
    bonus = make(window_frames=2, momentum=1.0)
    feature = torch.tensor([[[0.0, 0.0], [2.0, 0.0], [4.0, 0.0], [0.0, 0.0]]])
    assert bonus(feature).shape == (1, 3)
    assert bonus.queue[:3, 0].tolist() == [1.0, 3.0, 2.0]


def test_the_oldest_leave_first_and_seen_places_lose_their_bonus() -> None:
    bonus = make(momentum=1.0, k=1 + 1)
    far, near = torch.full((1, 4, 2), 10.0), torch.zeros(1, 4, 2)
    bonus(near)
    first = bonus(far + torch.arange(4.0)[None, :, None])
    again = bonus(far + torch.arange(4.0)[None, :, None])
    assert again.sum() < first.sum()
    assert not (bonus.queue == 0).all(1).any()  # eight newer ones have pushed the zeros out
    assert bonus.filled == 8


def test_magnitude_follows_the_bonus_with_its_momentum() -> None:
    bonus = make(momentum=0.9)
    feature = torch.tensor([[[0.0, 0.0], [0.0, 8.0]]])
    assert bonus(feature)[0].tolist() == pytest.approx([4 / (0.9 + 0.4)] * 2)
    assert bonus.magnitude.item() == pytest.approx(1.3)


def test_too_few_windows_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="at least k=2 windows"):
        make()(torch.zeros(1, 1, 2))


def test_projection_has_standard_deviation_one_over_its_size() -> None:
    torch.manual_seed(0)
    bonus = IntrinsicBonus(2048, IntrinsicConfig())
    assert bonus.projection.shape == (2048, 128)
    assert bonus.projection.std().item() == pytest.approx(1 / 128, rel=0.01)


def test_under_autocast_distances_are_float32_ones() -> None:
    """Places 0.001 apart at 1, which bfloat16 cannot tell apart."""
    feature = torch.tensor([[[1.0, 0.0], [1.001, 0.0], [1.002, 0.0]]])
    with torch.autocast("cpu", torch.bfloat16):
        bonus = make(momentum=1.0)(feature)
    assert bonus[0].tolist() == pytest.approx([0.0005] * 3, rel=1e-3)
