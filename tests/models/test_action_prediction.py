"""The world model of fine-tuning on logged clips: open-loop prediction under given actions, and its training loss."""

import pytest
import torch
from torch import Tensor

from cwm_hub.models.action_world_model import ActionWorldModel
from cwm_hub.models.registry import create_model


@pytest.fixture
def model() -> ActionWorldModel:
    torch.manual_seed(0)
    return create_model("action-contextwm-debug").eval()  # type: ignore[return-value]


def clips() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randint(0, 256, (2, 6, 3, 32, 32), dtype=torch.uint8), 3 * torch.randn(2, 6, 4)


def test_prediction_is_filtering_and_then_the_prior_under_the_coming_actions(model: ActionWorldModel) -> None:
    video, action = clips()
    with torch.no_grad():
        state, features = model.initial(2), []
        for t in range(3):
            state = model.obs_step(state, video[:, t], action[:, t], torch.tensor([t == 0] * 2), sample=False)
            features.append(model.feature(state))
        latent = state.action
        for t in range(3, 6):
            latent = model.rssm.img_step(latent, action[:, t], sample=False)
            features.append(model.rssm.feature(latent))
        expected = model.frame_model.decode_pixels(torch.stack(features, 1), video[:, 2:3])
    predicted = model.predict(video, action, observed_frames=3, sample=False)
    assert (predicted.int() - expected.int()).abs().max() <= 1  # sums in another order


def test_an_action_reaches_its_own_frame_and_those_after_it(model: ActionWorldModel) -> None:
    video, action = clips()
    before = model.predict(video, action, observed_frames=3, sample=False)
    for t, reached in ((4, [4, 5]), (0, [])):  # what led to the first frame of a window counts for nothing
        other = action.clone()
        other[:, t] += 50
        after = model.predict(video, other, observed_frames=3, sample=False)
        assert [i for i in range(6) if not torch.equal(before[:, i], after[:, i])] == reached
    with pytest.raises(
        ValueError, match=r"observed_frames must lie in 1..5 for 6 frames and 6 actions, got 6"
    ):
        model.predict(video, action, observed_frames=6)


def test_heads_learn_only_where_there_is_something_to_learn(model: ActionWorldModel) -> None:
    video, action = clips()
    is_first = torch.tensor([[True] + [False] * 5] * 2)
    loss, metrics = model(video, is_first, action)
    loss.backward()
    assert not {"behavioural_reward_loss", "representative_reward_loss"} & metrics.keys()
    assert all(parameter.grad is None for parameter in model.behavioural_head.parameters())
    assert metrics["loss"] == metrics["image_loss"] + metrics["kl_loss"] + metrics["video_kl_loss"]
    assert metrics["video_kl_loss"] > 0

    torch.manual_seed(2)
    reward = torch.arange(12.0).reshape(2, 6)
    _, metrics = model(video, is_first, action, reward)
    torch.manual_seed(2)
    feature = model.observe(video, action, is_first).feature
    for name, head in (
        ("behavioural", model.behavioural_head),
        ("representative", model.representative_head),
    ):
        expected = 0.5 * ((head(feature) - reward) ** 2).mean()
        assert metrics[f"{name}_reward_loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_what_a_pretrained_model_lacks_stays_new(model: ActionWorldModel) -> None:
    torch.manual_seed(5)
    other = create_model("action-contextwm-debug", overrides={"continue_head": True})
    head = [parameter.clone() for parameter in other.continue_head.parameters()]  # type: ignore[union-attr]
    other.take_over(model)  # type: ignore[operator]
    ours = other.state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in model.state_dict().items())
    assert all(map(torch.equal, head, other.continue_head.parameters()))  # type: ignore[union-attr]
    smaller = create_model("action-contextwm-debug", overrides={"rssm.deter": 8, "video_rssm.deter": 8})
    with pytest.raises(ValueError, match="the pre-trained frame model does not fit the new one") as caught:
        smaller.take_over(model)  # type: ignore[operator]
    assert "decoder.input.weight is [" in str(caught.value) and len(str(caught.value)) < 400


def test_the_model_that_a_first_set_of_videos_gives_goes_on_with_actions() -> None:
    video = create_model("contextwm-small")
    stacked = create_model("action-contextwm-small")
    stacked.take_over(video)  # type: ignore[operator, arg-type]
    assert all(
        torch.equal(stacked.video_rssm.state_dict()[name], tensor)  # type: ignore[union-attr]
        for name, tensor in video.rssm.state_dict().items()  # type: ignore[union-attr]
    )
