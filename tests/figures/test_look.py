"""What a model makes of one clip: the pictures hold the frames that they should, and no part is shown that is not there."""

import numpy as np
import pytest
import torch
from test_figures import channels_last, contains, rendered

from cwm_hub.figures.look import look
from cwm_hub.figures.sheet import enlarged
from cwm_hub.models.registry import create_model

SIDE, GUTTER, CELL = 32, 122, 96
"""Pixels: of a frame, of the names at the left of a composition, of a frame in it."""


def noise(frames: int, seed: int = 0) -> torch.Tensor:
    size = (1, frames, 3, SIDE, SIDE)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=torch.manual_seed(seed))


def test_the_context_is_the_last_frame_seen_and_the_borrowed_one_the_others(tmp_path) -> None:
    model, video, other = create_model("contextwm-debug").eval(), noise(6), noise(2, seed=1)
    seen = look(model, video, other, observed_frames=3, seed=7)
    generator = torch.Generator().manual_seed(7)
    assert torch.equal(seen.prediction, model.predict(video, observed_frames=3, generator=generator))
    contexts = rendered(seen.composition, tmp_path)[:, : GUTTER + CELL]
    frames = [*video[0], *other[0]]
    shown = [contains(contexts, enlarged(channels_last(frame), CELL // SIDE)) for frame in frames]
    assert shown == [at in (2, 7) for at in range(8)]
    attention = rendered(seen.attention, tmp_path)
    assert contains(attention, enlarged(channels_last(video[0, 2]), 128 // SIDE))


def test_ones_own_context_changes_nothing(tmp_path) -> None:
    model, video = create_model("contextwm-debug").eval(), noise(4)
    picture = rendered(look(model, video, video[:, :2], observed_frames=2).composition, tmp_path)
    truth, own, composed = (picture[top : top + CELL, GUTTER:] for top in (34, 34 + 98, 34 + 2 * 98))
    assert np.array_equal(own, composed) and not np.array_equal(own, truth)


def test_a_part_that_the_model_lacks_has_no_picture() -> None:
    video, other = noise(4), noise(2, seed=1)
    plain = create_model("plainwm-debug").eval()
    assert look(plain, video, other, observed_frames=2)[1:] == (None, None)
    concat = create_model("contextwm-debug", overrides={"frame.context.mixing": "concat"}).eval()
    _, attention, composition = look(concat, video, other, observed_frames=2)
    assert attention is None and composition is not None
    assert look(create_model("contextwm-debug").eval(), video, observed_frames=2).composition is None
    with pytest.raises(ValueError, match=r"video must be uint8 \[B, T, 3, 32, 32\]"):
        look(plain, video[..., :8], observed_frames=2)
