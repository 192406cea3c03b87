"""A model on held-out windows sees what the protocol lets it see, and its scores are those of its predictions."""

import math

import pytest
import torch

from cwm_hub import create_model
from cwm_hub.evaluation import words
from cwm_hub.evaluation.held_out import HeldOut, make_protocol
from cwm_hub.evaluation.predict import (
    context_frames,
    context_gap,
    foreign_windows,
    posterior_features,
    predict,
    score,
)
from cwm_hub.evaluation.protocol import Protocol, ScoringConfig
from cwm_hub.evaluation.scorecard import psnr


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    return create_model("contextwm-debug").eval()


def predicted(model, video: torch.Tensor, **protocol) -> torch.Tensor:
    settings = Protocol(observed_frames=3, horizon=3, image_size=32, latents="mode", **protocol)
    generator = torch.Generator().manual_seed(0)
    context = context_frames(model, video, settings, generator)
    return predict(model, video, context, settings, generator)


def test_only_the_official_protocol_sees_the_future(model):
    video = torch.randint(0, 256, (8, 6, 3, 32, 32), dtype=torch.uint8, generator=torch.manual_seed(2))
    other_future = video.clone()
    other_future[:, 3:] = 255 - other_future[:, 3:]
    for context in ("last", "first"):
        assert torch.equal(
            predicted(model, video, context=context), predicted(model, other_future, context=context)
        )
    official = predicted(model, video, context="official"), predicted(model, other_future, context="official")
    assert not torch.equal(*official)


def test_context_frame_is_the_one_the_protocol_names(model):
    video = torch.arange(6, dtype=torch.uint8)[None, :, None, None, None].expand(2, 6, 3, 32, 32)
    for context, expected in (("last", 2), ("first", 0)):
        protocol = Protocol(observed_frames=3, horizon=3, image_size=32, context=context)
        frames = context_frames(model, video, protocol, torch.Generator())
        assert frames.unique().tolist() == [expected]
    protocol = Protocol(observed_frames=3, horizon=3, image_size=32, context="official")
    many = context_frames(
        model, video.expand(2, 6, 3, 32, 32).repeat(50, 1, 1, 1, 1), protocol, torch.Generator()
    )
    assert many.unique().tolist() == [0, 1, 2, 3, 4, 5]


def test_scores_are_those_of_the_predictions_and_no_global_draw_is_made(model):
    video = torch.randint(0, 256, (3, 6, 3, 32, 32), dtype=torch.uint8, generator=torch.manual_seed(3))
    windows = [("set", f"film {row}", "key", 0) for row in range(3)]
    held_out = HeldOut(video, windows, [""] * 3, {"set": video[0, 0]}, {"set": "hash"})
    protocol = make_protocol(ScoringConfig(observed_frames=3, horizon=3, samples=2), held_out)
    before = torch.get_rng_state()
    card, prediction, context = score(model, held_out, protocol)
    assert torch.equal(torch.get_rng_state(), before)
    expected = psnr(prediction[:, :, 3:], video[:, 3:].expand(2, -1, -1, -1, -1, -1)).mean().item()
    assert card["together"]["model"]["psnr_db"]["mean"] == pytest.approx(expected)
    assert torch.equal(context, video[:, 2:3])
    assert card["frechet_encoder_distance"]["frames"] == 9


def test_posterior_features_do_not_depend_on_the_batches(model, monkeypatch):
    video = torch.randint(0, 256, (3, 4, 3, 32, 32), dtype=torch.uint8, generator=torch.manual_seed(4))
    whole = posterior_features(model, video)
    monkeypatch.setattr("cwm_hub.evaluation.predict.BATCH_CLIPS", 2)
    torch.testing.assert_close(posterior_features(model, video), whole)


def test_every_window_is_predicted_with_its_own_context(model, monkeypatch):
    monkeypatch.setattr("cwm_hub.evaluation.predict.BATCH_CLIPS", 2)
    video = torch.randint(0, 256, (4, 6, 3, 32, 32), dtype=torch.uint8, generator=torch.manual_seed(5))
    apart = torch.cat([predicted(model, part) for part in video.split(2)])
    assert torch.equal(predicted(model, video), apart)


def test_draws_come_from_the_protocols_seed_and_the_mode_has_none(model):
    video = torch.randint(0, 256, (2, 6, 3, 32, 32), dtype=torch.uint8, generator=torch.manual_seed(6))
    windows = [("set", f"film {row}", "key", 0) for row in range(2)]
    held_out = HeldOut(video, windows, ["", ""], {"set": video[0, 0]}, {"set": "hash"})

    def prediction(**settings) -> torch.Tensor:
        config = ScoringConfig(observed_frames=3, horizon=3, **settings)
        return score(model, held_out, make_protocol(config, held_out))[1]

    assert torch.equal(prediction(seed=1), prediction(seed=1))
    assert not torch.equal(prediction(seed=1), prediction(seed=2))
    assert torch.equal(prediction(seed=1, latents="mode"), prediction(seed=2, latents="mode"))


def still_films(*grey: int) -> HeldOut:
    """A window of each of two films for every grey level, of that level throughout."""
    video = torch.tensor([level for level in grey for _ in range(2)], dtype=torch.uint8)
    video = video[:, None, None, None, None].repeat(1, 6, 3, 32, 32)
    windows = [("set", f"film {level}", "key", 0) for level in grey for _ in range(2)]
    return HeldOut(video, windows, [""] * len(windows), {"set": video[0, 0]}, {"set": "hash"})


def test_the_context_gap_is_what_another_videos_frame_costs(model, monkeypatch):
    """Who draws its context frame is without error with its own, hence at the cap, and 10 or 20 levels off with another's."""

    def draw_context(video, *, context_frames, **_):
        return context_frames[:, -1:].expand_as(video)

    monkeypatch.setattr(model, "predict", draw_context)
    held_out = still_films(100, 110, 130)
    protocol = make_protocol(ScoringConfig(observed_frames=3, horizon=3), held_out)
    context = context_frames(model, held_out.video, protocol, torch.Generator())
    gap = context_gap(model, held_out, protocol, context)
    foreign = sum(20 * math.log10(255 / off) for off in (10, 20, 30)) / 3
    assert gap["own"]["mean"] == pytest.approx(60.0)
    assert gap["foreign"]["mean"] == pytest.approx(foreign, rel=1e-5)
    assert gap["difference"]["mean"] == pytest.approx(60 - foreign, rel=1e-5)
    assert gap["difference"]["low"] < 60 - foreign < gap["difference"]["high"]
    assert "60.00 dB with a window's own" in words.context_sentence(gap)


def test_the_context_gap_compares_the_same_latents(model):
    """The same frame in place of the foreign one leaves no difference at all, though latents are drawn."""
    video = torch.randint(0, 256, (4, 6, 3, 32, 32), dtype=torch.uint8, generator=torch.manual_seed(5))
    windows = [("set", f"film {row}", "key", 0) for row in range(4)]
    held_out = HeldOut(video, windows, [""] * 4, {"set": video[0, 0]}, {"set": "hash"})
    protocol = make_protocol(ScoringConfig(observed_frames=3, horizon=3), held_out)
    gap = context_gap(model, held_out, protocol, video[:1, :1].expand(4, 1, 3, 32, 32))
    assert (gap["difference"]["low"], gap["difference"]["high"]) == (0, 0)


def test_a_scorecard_has_the_gap_where_there_is_another_videos_context(model):
    for levels in ((100,), (100, 130)):
        held_out = still_films(*levels)
        protocol = make_protocol(ScoringConfig(observed_frames=3, horizon=3), held_out)
        card, _, context = score(model, held_out, protocol)
        gap = None if len(levels) == 1 else context_gap(model, held_out, protocol, context)
        assert card.get("context_gap_psnr_db") == gap


def test_a_foreign_window_is_the_next_of_another_video():
    films = [("a", "x"), ("a", "x"), ("a", "y"), ("b", "x")]
    assert foreign_windows(films) == [2, 2, 3, 0]
    with pytest.raises(ValueError, match="two source videos"):
        foreign_windows(films[:2])
