"""`VideoWorldModel` as somebody uses it who trains something of their own on it: frame by frame, batch by batch."""

import subprocess
import sys

import pytest
import torch

from cwm_hub.agents.presets import agent_preset
from cwm_hub.hub.checkpoint import CheckpointError
from cwm_hub.hub.pretrained import from_pretrained
from cwm_hub.models.action_world_model import ActionWorldModel
from cwm_hub.models.registry import create_model
from cwm_hub.models.rssm import RSSMState
from cwm_hub.models.video_world_model import VideoWorldModel


@pytest.fixture(scope="module")
def model() -> VideoWorldModel:
    torch.manual_seed(0)
    return create_model("contextwm-debug").eval()


def clips(batch: int, time: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, time, 3, 32, 32), dtype=torch.uint8, generator=generator)


def assert_same(left: RSSMState, right: RSSMState) -> None:
    for one, other in zip(left, right, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_frame_by_frame_is_what_the_whole_clip_is(model):
    video = clips(2, 4)
    whole, _ = model.observe(video, sample=False)
    state = model.initial(2)
    for time in range(4):
        state = model.obs_step(state, video[:, time], sample=False)
        assert_same(state, whole.select((slice(None), time)))
    assert model.feature(state).shape == (2, model.feature_size) and not model.feature(state).requires_grad


def test_a_state_goes_on_and_a_new_clip_forgets_it(model):
    video = clips(2, 4)
    whole, _ = model.observe(video, sample=False)
    first, _ = model.observe(video[:, :2], sample=False)
    last = first.select((slice(None), -1))
    second, _ = model.observe(video[:, 2:], state=last, sample=False)
    assert_same(second, whole.select((slice(None), slice(2, 4))))
    again = model.obs_step(last, video[:, 0], torch.tensor([True, True]), sample=False)
    assert_same(again, whole.select((slice(None), 0)))


def test_embeddings_do_not_depend_on_the_axes_in_front(model):
    video = clips(2, 3)
    assert torch.equal(model.encode(video), model.frame_model.encode(video))
    torch.testing.assert_close(model.encode(video[0]), model.encode(video)[0])
    torch.testing.assert_close(model.encode(video[0, 0]), model.encode(video)[0, 0])
    assert model.encode(video[:, :0]).shape == (len(video), 0, model.encode(video).shape[-1])


def test_the_horizon_may_be_any(model):
    video = clips(1, 5)
    assert model.predict(video, observed_frames=5, horizon=9).shape == (1, 14, 3, 32, 32)
    short = model.predict(video, observed_frames=3, horizon=2, sample=False)
    assert torch.equal(short, model.predict(video, observed_frames=3, sample=False))
    state = model.observe(video, sample=False)[0].select((slice(None), -1))
    assert model.feature(model.imagine(state, 9)).shape == (1, 9, model.feature_size)


def test_repeated_states_lie_side_by_side():
    state = RSSMState(torch.tensor([[1.0], [2.0]]), torch.zeros(2, 1, 1), torch.zeros(2, 1, 1))
    assert state.repeat(3).deter.flatten().tolist() == [1, 1, 1, 2, 2, 2]


PRINT = """
def show(*calls):
    for call in calls:
        try:
            call()
            print("taken")
        except ValueError as error:
            print(error)
"""

REFUSALS = """
import torch
from cwm_hub import create_model

model = create_model("contextwm-debug").eval()
state, flag = model.initial(1), torch.zeros(1, dtype=torch.bool)
video = torch.zeros(1, 5, 3, 32, 32, dtype=torch.uint8)
show(
    lambda: model.encode(video[:, 0].float()),
    lambda: model.encode(video[..., :16]),
    lambda: model.obs_step(state, video[:, 0].float(), flag),
    lambda: model.obs_step(state, video[:, 0], flag.float()),
    lambda: model.observe(video, torch.zeros(1, 4, dtype=torch.bool)),
    lambda: model(video, torch.zeros(1, 5)),
    lambda: model.obs_step(state, video[0, :2]),
    lambda: model.predict(video, context_frames=video[:, :1].float(), horizon=1),
    lambda: model.predict(video, context_frames=video[:, :1].repeat(2, 1, 1, 1, 1), horizon=1),
    lambda: model.observe(video[0]),
    lambda: model.predict(video.float()),
    lambda: model.predict(video.numpy()),
    lambda: model.encode(video[:, 0].numpy()),
    lambda: model.predict(video, observed_frames=6, horizon=1),
    lambda: model.predict(video, horizon=0),
    lambda: model.imagine(state, 0),
)
"""


def said_by(code: str) -> list[str]:
    run = [sys.executable, "-c", PRINT + code]
    return subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()


def test_what_is_no_frame_is_refused_in_one_sentence():
    """In a process of its own, as users have it: the test run's type checks would speak first."""
    assert said_by(REFUSALS) == [
        "frames must be uint8 [..., 3, 32, 32], got torch.float32 [1, 3, 32, 32]",
        "frames must be uint8 [..., 3, 32, 32], got torch.uint8 [1, 5, 3, 32, 16]",
        "frames must be uint8 [B, 3, 32, 32], got torch.float32 [1, 3, 32, 32]",
        "is_first must be bool [1], got torch.float32 [1]",
        "is_first must be bool [1, 5], got torch.bool [1, 4]",
        "is_first must be bool [1, 5], got torch.float32 [1, 5]",
        "there are 1 states and 2 frames: one state each (state.repeat(n) makes n of each)",
        "context_frames must be uint8 [B, k, 3, 32, 32], got torch.float32 [1, 1, 3, 32, 32]",
        "there are context frames of 2 clips and features of 1",
        "video must be uint8 [B, T, 3, 32, 32], got torch.uint8 [5, 3, 32, 32]",
        "video must be uint8 [B, T, 3, 32, 32], got torch.float32 [1, 5, 3, 32, 32]",
        "video must be a torch tensor, got ndarray",
        "frames must be a torch tensor, got ndarray",
        "observed_frames must lie in 1..5 for clips of 5 frames, got 6",
        "horizon is at least 1, got 0",
        "steps is at least 1, got 0",
    ]


def action_model(preset: str = "contextwm-debug", actions: int = 2) -> ActionWorldModel:
    torch.manual_seed(0)
    return ActionWorldModel(agent_preset(preset, action_size=actions).world).eval()


def actions(batch: int, time: int) -> torch.Tensor:
    return torch.rand(batch, time, 2, generator=torch.Generator().manual_seed(2)) * 2 - 1


@pytest.mark.parametrize("preset", ["contextwm-debug", "dreamerv2-mini"])
def test_a_prediction_under_actions_is_what_its_parts_give(preset):
    """Frame by frame with each action, then imagined with the rest, each feature decoded in the last frame seen."""
    model, video, done = action_model(preset), clips(2, 6), actions(2, 6)
    predicted = model.predict(video, done, observed_frames=3, sample=False)
    assert predicted.shape == video.shape and predicted.dtype == torch.uint8
    state, features = model.initial(2), []
    for time in range(3):
        first = torch.full((2,), time == 0)
        state = model.obs_step(state, video[:, time], done[:, time], first, sample=False)
        features.append(model.feature(state))
    future = model.imagine(state, done[:, 3:], sample=False)
    feature = torch.cat([torch.stack(features, 1), model.feature(future)], 1)
    context = None if model.config.frame.context is None else video[:, 2:3]
    parts = model.decode(feature, context)
    assert (parts.int() - predicted.int()).abs().max() <= 1
    assert not torch.equal(predicted, model.predict(video, -done, observed_frames=3, sample=False))
    assert torch.equal(predicted, model.predict(video[:, :3], done, observed_frames=3, sample=False))


def test_a_planner_tries_many_futures_at_once():
    model, video = action_model(), clips(2, 1)
    state = model.obs_step(model.initial(2), video[:, 0], torch.zeros(2, 2), sample=False)
    done = actions(6, 4)
    together = model.reward(model.imagine(state.repeat(3), done, sample=False))
    assert together.shape == (6, 4) and not together.requires_grad
    one = model.imagine(state.select(slice(1, 2)), done[4:5], sample=False)
    torch.testing.assert_close(model.reward(one)[0], together[4], atol=1e-5, rtol=1e-5)
    assert model.representative_head is not None
    torch.testing.assert_close(
        together,
        model.representative_reward(model.feature(model.imagine(state.repeat(3), done, sample=False))),
    )
    single = action_model("dreamerv2-mini")
    assert torch.equal(
        single.reward(single.initial(1)), single.behavioural_reward(single.feature(single.initial(1)))
    )


def test_acting_builds_no_graph(model):
    acting = action_model()
    state = acting.obs_step(acting.initial(1), clips(1, 1)[:, 0], torch.zeros(1, 2))
    future = acting.imagine(state, actions(1, 2))
    video_state = model.obs_step(model.initial(1), clips(1, 1)[:, 0])
    made = (*state.action, *(state.video or ()), *future.action, *video_state, *model.imagine(video_state, 2))
    assert not any(tensor.requires_grad for tensor in made)
    assert not model.encode(clips(1, 1)).requires_grad


ACTION_REFUSALS = """
import numpy as np
import torch
from cwm_hub.agents.dreamer import DreamerAgent
from cwm_hub.agents.drqv2 import DrQV2Agent
from cwm_hub.agents.presets import agent_preset

agent = DreamerAgent(agent_preset("contextwm-debug", action_size=2))
model = agent.world_model
state, image, action = model.initial(1), torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.zeros(1, 2)
imagined = model.imagine(state, action[:, None]).select((slice(None), -1))
video = image[:, None].repeat(1, 6, 1, 1, 1)
small = DrQV2Agent(agent_preset("drqv2-tiny", action_size=2))
show(
    lambda: model.obs_step(state, image.float(), action),
    lambda: model.obs_step(state, image[..., :16], action),
    lambda: model.obs_step(state, image, torch.zeros(1, 3)),
    lambda: model.obs_step(state, image, torch.zeros(1, 2, dtype=torch.int64)),
    lambda: model.obs_step(state, image, action.numpy()),
    lambda: model.obs_step(state, image, action, torch.ones(1)),
    lambda: model.obs_step(state.repeat(2), image, action),
    lambda: model.obs_step(imagined, image, action),
    lambda: model.observe(video, torch.zeros(1, 5, 2), torch.zeros(1, 6, dtype=torch.bool)),
    lambda: model.imagine(state, torch.zeros(4, 3, 2)),
    lambda: model.imagine(state, torch.zeros(1, 3, 1)),
    lambda: model.predict(video.float(), torch.zeros(1, 6, 2)),
    lambda: model.predict(video, torch.zeros(1, 5, 2), observed_frames=5),
    lambda: model.decode(torch.zeros(1, 1, model.feature_size), image[:, None].float()),
    lambda: agent.act(image.numpy() / 255, agent.initial_state(1), explore=False),
    lambda: agent.act(image, agent.initial_state(1), explore=False),
    lambda: small.act(np.zeros((1, 3, 64, 64), np.uint8), small.initial_state(1), explore=False),
)
"""


def test_wrong_actions_flags_and_states_are_refused_in_one_sentence():
    assert said_by(ACTION_REFUSALS) == [
        "image must be uint8 [B, 3, 32, 32], got torch.float32 [1, 3, 32, 32]",
        "image must be uint8 [B, 3, 32, 32], got torch.uint8 [1, 3, 32, 16]",
        "action must be float [1, 2], got torch.float32 [1, 3]",
        "action must be float [1, 2], got torch.int64 [1, 2]",
        "action must be a torch tensor, got ndarray",
        "is_first must be bool [1], got torch.float32 [1]",
        "there are 2 states and 1 images: one state each (state.repeat(n) makes n of each)",
        "an imagined state has seen no frames and cannot be filtered: go on from an observed one",
        "action must be float [1, 6, 2], got torch.float32 [1, 5, 2]",
        "action must be float [1, T, 2], got torch.float32 [4, 3, 2]",
        "action must be float [1, T, 2], got torch.float32 [1, 3, 1]",
        "video must be uint8 [B, T, 3, 32, 32], got torch.float32 [1, 6, 3, 32, 32]",
        "observed_frames must lie in 1..4 for 6 frames and 5 actions, got 5",
        "context_frames must be uint8 [B, k, 3, 32, 32], got torch.float32 [1, 1, 3, 32, 32]",
        "image must be uint8 [N, 3, 32, 32], got float64 [1, 3, 32, 32]",
        "image must be a NumPy array, got Tensor",
        "image must be uint8 [N, 3, 32, 32], got uint8 [1, 3, 64, 64]",
    ]


def test_a_model_works_in_the_type_that_it_was_asked_for(tmp_path):
    """float64 agrees with float32 to a grey level; bfloat16 has 8 bits, so only that it runs and keeps its type."""
    video = clips(2, 6)
    usual = from_pretrained("contextwm-tiny").predict(video, observed_frames=3, sample=False)
    fine = from_pretrained("contextwm-tiny", dtype=torch.float64)
    assert {parameter.dtype for parameter in fine.parameters()} == {torch.float64}
    assert (fine.predict(video, observed_frames=3, sample=False).int() - usual.int()).abs().max() <= 1
    coarse = from_pretrained("contextwm-tiny", dtype=torch.bfloat16)
    assert coarse.predict(video, observed_frames=3).shape == video.shape
    state = coarse.obs_step(coarse.initial(2), video[:, 0])
    assert {part.dtype for part in state} == {torch.bfloat16} == {coarse.encode(video).dtype}
    acting = action_model()
    acting.save_pretrained(tmp_path / "acting")
    for dtype in (torch.float64, torch.bfloat16):
        loaded = ActionWorldModel.from_pretrained(tmp_path / "acting", dtype=dtype)
        assert loaded.predict(video, actions(2, 6), observed_frames=3).shape == video.shape
        assert loaded.reward(loaded.initial(1)).dtype == dtype


def test_a_type_and_a_device_that_cannot_be_are_refused_first():
    with pytest.raises(
        CheckpointError, match=r"dtype is a floating-point torch.dtype such as .*, got torch.int8"
    ):
        from_pretrained("absent", dtype=torch.int8)
    with pytest.raises(CheckpointError, match="there is no device 'nowhere' here"):
        from_pretrained("absent", device="nowhere")


def test_what_was_loaded_says_where_it_came_from(tmp_path, model):
    model.save_pretrained(tmp_path / "mine")
    loaded = from_pretrained(tmp_path / "mine")
    assert (loaded.source, loaded.revision) == (str(tmp_path / "mine"), None)
    assert (
        from_pretrained("contextwm-tiny").source == "contextwm-tiny"
        and create_model("plainwm-debug").source is None
    )
