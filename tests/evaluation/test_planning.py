"""Open-loop planning error: by hand, of the model's own predictions, and of a model that knows what actions do."""

import pytest
import torch

from cwm_hub import create_model
from cwm_hub.evaluation import planning
from cwm_hub.evaluation.held_out import HeldOut
from cwm_hub.evaluation.planning import mistaken_share, plan_errors, planning_error
from cwm_hub.evaluation.protocol import Protocol
from cwm_hub.models.action_world_model import ActionWorldModel


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> ActionWorldModel:
    """Without training, decoded to noise that is another picture for every state."""

    def decode(self: ActionWorldModel, feature: torch.Tensor, context_frames: object) -> torch.Tensor:
        weights = torch.randn(feature.shape[-1], 3 * 32 * 32, generator=torch.manual_seed(2))
        return (128 + 40 * feature @ weights).clamp(0, 255).byte().unflatten(-1, (3, 32, 32))

    monkeypatch.setattr(ActionWorldModel, "decode", decode)
    torch.manual_seed(0)
    return create_model("action-contextwm-debug", overrides={"action_size": 2}).eval()  # type: ignore[return-value]


def windows(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.manual_seed(1)
    video = torch.randint(0, 256, (count, 7, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return video, 10 * torch.randn(count, 7, 2, generator=generator)


def test_the_share_of_plans_taken_for_better_by_hand():
    errors = torch.tensor(
        [[2.0, 1.0, 3.0], [1.0, 2.0, 3.0], [3.0, 3.0, 3.0], [1.0, 4.0, 2.0], [1.0, 5.0, 9.0]]
    )
    assert mistaken_share(errors).tolist() == [3 / 4, 0, (1 + 0.5 + 0.5) / 4]


def test_a_plan_leads_where_the_models_prediction_ends(model, monkeypatch):
    monkeypatch.setattr(planning, "BATCH_CLIPS", 2)
    video, action = windows(5)
    video[:, -1] = model.predict(video, action, observed_frames=3, sample=False)[:, -1]
    found = plan_errors(model, video, action, observed_frames=3)
    expected = []
    for plan in range(5):
        taken = torch.cat([action[:, :3], action.roll(-plan, 0)[:, 3:]], 1)
        last = model.predict(video, taken, observed_frames=3, sample=False)[:, -1].float()
        expected.append((last - video[:, -1].float()).square().mean((1, 2, 3)))
    torch.testing.assert_close(found, torch.stack(expected), rtol=0.02, atol=1)  # a grey level of rounding
    assert (found[0] < 1).all() and (found[1:] > 100).all()  # and plans lead to different places
    assert len(plan_errors(model, *windows(18), observed_frames=3)) == 16


def test_a_model_that_knows_its_actions_is_not_led_astray(model):
    """Goals are the model's own predictions. With the plans of three windows exchanged, the true one is among the others."""
    video, action = windows(6)
    video = torch.cat([video[:, :3], model.predict(video, action, observed_frames=3, sample=False)[:, 3:]], 1)
    names = [("one", f"film {row}", "key", 0) for row in range(3)]
    names += [("two", "film", "key", row) for row in range(3)]
    protocol = Protocol(observed_frames=3, horizon=4, resamples=50)
    held_out = HeldOut(video, names, [""] * 6, {}, {"one": "a", "two": "b"}, action)
    right = {"mean": 0, "plans": 3, "windows": 3}
    assert planning_error(model, held_out, protocol) == {
        "one": right | {"low": 0, "high": 0, "videos": 3},
        "two": right | {"videos": 1},
    }
    swapped = HeldOut(video, names, [""] * 6, {}, {"one": "a"}, action[[2, 0, 1, 3, 4, 5]])
    assert planning_error(model, swapped, protocol)["one"]["mean"] >= 0.5
