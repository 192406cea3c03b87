"""`VideoWorldModel` as somebody uses it who trains something of their own on it: frame by frame, batch by batch."""

import subprocess
import sys

import pytest
import torch

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


REFUSALS = """
import torch
from cwm_hub import create_model

model = create_model("contextwm-debug").eval()
state, flag = model.initial(1), torch.zeros(1, dtype=torch.bool)
video = torch.zeros(1, 5, 3, 32, 32, dtype=torch.uint8)
for call in (
    lambda: model.encode(video[:, 0].float()),
    lambda: model.encode(video[..., :16]),
    lambda: model.obs_step(state, video[:, 0].float(), flag),
    lambda: model.obs_step(state, video[:, 0], flag.float()),
    lambda: model.observe(video, torch.zeros(1, 4, dtype=torch.bool)),
    lambda: model.observe(video[0]),
    lambda: model.predict(video.float()),
    lambda: model.predict(video.numpy()),
    lambda: model.encode(video[:, 0].numpy()),
    lambda: model.predict(video, observed_frames=6, horizon=1),
    lambda: model.predict(video, horizon=0),
    lambda: model.imagine(state, 0),
):
    try:
        call()
        print("taken")
    except ValueError as error:
        print(error)
"""


def test_what_is_no_frame_is_refused_in_one_sentence():
    """In a process of its own, as users have it: the test run's type checks would speak first."""
    said = subprocess.run([sys.executable, "-c", REFUSALS], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [
        "frames must be uint8 [..., 3, 32, 32], got torch.float32 [1, 3, 32, 32]",
        "frames must be uint8 [..., 3, 32, 32], got torch.uint8 [1, 5, 3, 32, 16]",
        "frames must be uint8 [..., 3, 32, 32], got torch.float32 [1, 3, 32, 32]",
        "is_first must be bool [1], got torch.float32 [1]",
        "is_first must be bool [1, 5], got torch.bool [1, 4]",
        "video must be uint8 [B, T, 3, 32, 32], got torch.uint8 [5, 3, 32, 32]",
        "video must be uint8 [B, T, 3, 32, 32], got torch.float32 [1, 5, 3, 32, 32]",
        "video must be a torch tensor, got ndarray",
        "frames must be a torch tensor, got ndarray",
        "observed_frames must lie in 1..5 for clips of 5 frames, got 6",
        "horizon is at least 1, got 0",
        "steps is at least 1, got 0",
    ]
