"""Known answers: every expected number is derived by hand in the comment above it."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from cwm_hub.evaluation import intervals, words
from cwm_hub.evaluation import scorecard as scoring
from cwm_hub.evaluation.comparison import compare_designs
from cwm_hub.evaluation.protocol import Protocol, ProtocolError
from cwm_hub.evaluation.scorecard import scorecard


def grey(level: int, *shape: int) -> torch.Tensor:
    return torch.full((*shape, 3, 12, 12), level, dtype=torch.uint8)


# --- PSNR and SSIM


def test_psnr_of_a_constant_error():
    # Every pixel off by 16 levels: 20 log10(255 / 16) = 24.0484 dB; off by 255: 0 dB.
    value = scoring.psnr(torch.stack([grey(116), grey(255)]), torch.stack([grey(100), grey(0)]))
    assert value.tolist() == pytest.approx([20 * math.log10(255 / 16), 0.0], abs=1e-4)


def test_psnr_counts_every_pixel_of_a_frame_once():
    # One channel of three off by 30, so the mean squared error is 300: 10 log10(65025 / 300) = 23.3596 dB.
    frame = grey(100)
    frame[0] += 30
    assert scoring.psnr(frame[None], grey(100)[None]).item() == pytest.approx(
        10 * math.log10(65025 / 300), abs=1e-4
    )


def test_psnr_of_an_exact_copy_is_the_cap_and_not_infinite():
    assert scoring.psnr(grey(7, 2, 3), grey(7, 2, 3)).tolist() == [[60.0] * 3] * 2
    assert scoring.psnr(grey(7, 1), grey(7, 1), cap_db=48.0).item() == 48.0


def test_ssim_of_constant_pictures_is_the_luminance_term():
    # No variance: contrast and structure are 1 and SSIM = (2xy + c1) / (x² + y² + c1) with c1 = (0.01 * 255)².
    c1 = 2.55**2
    expected = (2 * 100 * 50 + c1) / (100**2 + 50**2 + c1)
    value = scoring.ssim(grey(100, 2, 3), grey(50, 2, 3))
    assert value.shape == (2, 3)
    assert value.flatten().tolist() == pytest.approx([expected] * 6, abs=1e-5)


def test_ssim_of_itself_is_one():
    video = torch.randint(0, 256, (2, 3, 3, 16, 16), dtype=torch.uint8, generator=torch.manual_seed(0))
    assert scoring.ssim(video, video).flatten().tolist() == pytest.approx([1.0] * 6)


# --- intervals


def test_bootstrap_interval_of_constants_has_no_width():
    low, high = intervals.bootstrap_interval(np.full((5, 2), [1.0, 2.0]))
    assert low.tolist() == pytest.approx([1, 2]) and high.tolist() == pytest.approx([1, 2])


def test_bootstrap_interval_of_two_values():
    # The mean of two draws from {0, 1} is 0, 1/2, 1 with chances 1/4, 1/2, 1/4: 95 % covers [0, 1], 40 % only 1/2.
    values = np.array([0.0, 1.0])
    assert intervals.bootstrap_interval(values) == (0.0, 1.0)
    assert intervals.bootstrap_interval(values, confidence=0.4) == (0.5, 0.5)


def test_bootstrap_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(3)
    drawn = [
        intervals.bootstrap_interval(rng.normal(size=60), resamples=300, confidence=0.9) for _ in range(400)
    ]
    covered = np.mean([low <= 0 <= high for low, high in drawn])
    assert 0.85 < covered < 0.94  # 0.9, less the small-sample bias; standard error 0.015


def test_bootstrap_interval_resamples_whole_videos():
    # Two videos of two equal windows each: the mean of two draws from {0, 1}, as if there were one window of each.
    # Taken as four windows apart, the mean could also be 1/4 and 3/4, and 40 % would be [1/4, 3/4].
    values, videos = np.array([0.0, 1.0, 0.0, 1.0]), ["a", "b", "a", "b"]
    assert intervals.bootstrap_interval(values, videos=videos, confidence=0.4) == (0.5, 0.5)
    assert intervals.bootstrap_interval(values, confidence=0.4) == (0.25, 0.75)
    # Three windows of a and one of b: a mean over windows, 0, 1/4 (one draw each) or 1.
    values, videos = np.array([0.0, 0.0, 0.0, 1.0]), ["a", "a", "a", "b"]
    assert intervals.bootstrap_interval(values, videos=videos, confidence=0.4) == (0.25, 0.25)
    assert intervals.bootstrap_interval(values, videos=videos) == (0.0, 1.0)


def test_bootstrap_interval_needs_two_values_and_two_videos():
    with pytest.raises(ValueError, match="at least two values, got 1"):
        intervals.bootstrap_interval(np.zeros((1, 4)))
    with pytest.raises(ValueError, match="at least two source videos, got 1"):
        intervals.bootstrap_interval(np.zeros((4, 2)), videos=["a"] * 4)


def test_the_mean_of_one_video_has_no_interval():
    values, bootstrap = np.array([[0.0, 1.0], [1.0, 3.0]]), {"videos": ["a", "a"]}
    assert intervals.mean_interval(values, bootstrap) == {"mean": [0.5, 2.0]}
    assert intervals.mean_interval(values[:, 0], bootstrap) == {"mean": 0.5}
    both = intervals.mean_interval(values[:, 0], {"videos": ["a", "b"]})
    assert both == {"mean": 0.5, "low": 0.0, "high": 1.0}


def test_interquartile_mean_cuts_a_quarter_at_each_end():
    # Eight runs over two tasks, sorted 0 1 2 3 4 5 6 100: the middle four are 2 3 4 5, mean 3.5.
    result = intervals.interquartile_mean({"reach": [0.0, 2.0, 4.0, 100.0], "push": [6.0, 1.0, 3.0, 5.0]})
    assert result["iqm"] == 3.5
    assert result["runs"] == 8
    assert result["low"] < 3.5 < result["high"]


def test_interquartile_mean_resamples_within_tasks():
    # Runs of one task are equal, so every stratified resample is the data itself: the interval has no width.
    result = intervals.interquartile_mean({"easy": [1.0] * 4, "hard": [0.0] * 4})
    assert (result["iqm"], result["low"], result["high"]) == (0.5, 0.5, 0.5)


def test_interquartile_means_interval_draws_as_many_runs_as_there_are():
    # Two runs: the mean of two draws from {0, 1} is 1/2 in half of the resamples, which 40 % in the middle are.
    result = intervals.interquartile_mean({"reach": [0.0, 1.0]}, confidence=0.4)
    assert (result["low"], result["high"]) == (0.5, 0.5)


def test_interquartile_mean_names_the_empty_task():
    with pytest.raises(ValueError, match="'reach': 0"):
        intervals.interquartile_mean({"reach": []})


# --- the scorecard: two windows of a 3-frame protocol, levels chosen so that every score is a constant error

WINDOWS = (("toy", "film a", "a", 0), ("toy", "film b", "b", 4))
MEAN = {"toy": grey(80)}
PROTOCOL = Protocol(
    observed_frames=1,
    horizon=2,
    image_size=12,
    data={"toy": "0" * 16},
    mean_frames={"toy": scoring.picture_hash(MEAN["toy"])},
    windows=WINDOWS,
)


def db(error: float) -> float:
    return 20 * math.log10(255 / error)


def toy_target() -> torch.Tensor:
    """Window a brightens 100, 110, 120; window b darkens 60, 50, 40."""
    return torch.stack(
        [torch.stack([grey(level) for level in levels]) for levels in ((100, 110, 120), (60, 50, 40))]
    )


def toy_card(error: int = 5, protocol: Protocol = PROTOCOL) -> dict:
    prediction = (toy_target().int() + error).to(torch.uint8)
    return scorecard(prediction[None], toy_target(), mean_frames=MEAN, protocol=protocol)


def test_scorecard_scores_only_open_loop_frames_beside_the_baselines():
    card = toy_card()["together"]
    assert card["windows"] == 2
    assert card["model"]["psnr_db"]["mean"] == pytest.approx(db(5), abs=1e-4)
    assert card["model"]["psnr_db"]["low"] == pytest.approx(db(5), abs=1e-4)
    # Copying the last seen frame is off by 10 after one step and by 20 after two, in both windows.
    assert card["copy_last_frame"]["psnr_db"]["per_step"]["mean"] == pytest.approx([db(10), db(20)], abs=1e-4)
    # The mean frame (80) is off by 30, 40 in window a and by 30, 40 in window b.
    assert card["mean_frame"]["psnr_db"]["per_step"]["mean"] == pytest.approx([db(30), db(40)], abs=1e-4)
    assert card["model_minus_mean_frame"]["psnr_db"]["mean"] == pytest.approx(
        db(5) - (db(30) + db(40)) / 2, abs=1e-4
    )
    assert card["reconstruction"]["psnr_db"]["per_step"]["mean"] == pytest.approx([db(5)], abs=1e-4)
    assert "best_of_n" not in card


def test_of_several_frames_seen_the_last_is_copied():
    # Seen 100, 110 (or 60, 50), asked for 120 (or 40): the last is off by 10, the first by 20.
    card = toy_card(protocol=dataclasses.replace(PROTOCOL, observed_frames=2, horizon=1))["together"]
    assert card["copy_last_frame"]["psnr_db"]["mean"] == pytest.approx(db(10), abs=1e-4)


def test_scorecard_is_json_and_its_protocol_survives():
    card = toy_card()
    assert json.loads(json.dumps(card)) == card
    assert card["windows"][1] == pytest.approx(
        {
            "source": "toy",
            "video": "film b",
            "key": "b",
            "start": 4,
            "psnr_db": db(5),
            "ssim": card["windows"][1]["ssim"],
        }
        | {"copy_last_frame_psnr_db": (db(10) + db(20)) / 2, "mean_frame_psnr_db": (db(30) + db(40)) / 2},
        abs=1e-4,
    )


def test_best_of_n_is_kept_apart_from_the_mean():
    protocol = dataclasses.replace(PROTOCOL, samples=2)
    prediction = torch.stack([(toy_target().int() + error).to(torch.uint8) for error in (5, 10)])
    card = scorecard(prediction, toy_target(), mean_frames=MEAN, protocol=protocol)["together"]
    assert card["model"]["psnr_db"]["mean"] == pytest.approx((db(5) + db(10)) / 2, abs=1e-4)
    assert card["best_of_n"]["psnr_db"]["mean"] == pytest.approx(db(5), abs=1e-4)


def test_a_distance_has_baselines_and_its_best_is_the_lowest():
    def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a.float() - b.float()).abs().mean((-3, -2, -1))

    protocol = dataclasses.replace(PROTOCOL, samples=2)
    prediction = torch.stack([(toy_target().int() + error).to(torch.uint8) for error in (5, 10)])
    card = scorecard(
        prediction,
        toy_target(),
        mean_frames=MEAN,
        protocol=protocol,
        distances={"distance": distance},
    )["together"]
    assert card["model"]["distance"]["mean"] == 7.5 and card["best_of_n"]["distance"]["mean"] == 5.0
    assert card["copy_last_frame"]["distance"]["per_step"]["mean"] == [10.0, 20.0]
    assert card["model_minus_mean_frame"]["distance"]["mean"] == 7.5 - 35.0


def test_sources_are_scored_apart_and_together():
    other = grey(90)
    windows = (*WINDOWS, ("render", "film c", "c", 0), ("render", "film d", "d", 0))
    hashes = PROTOCOL.mean_frames | {"render": scoring.picture_hash(other)}
    protocol = dataclasses.replace(PROTOCOL, windows=windows, mean_frames=hashes)
    target = torch.cat([toy_target(), toy_target()])
    prediction = target.int()
    prediction[:2] += 5
    prediction[2:] += 10
    card = scorecard(
        prediction.to(torch.uint8)[None], target, mean_frames=MEAN | {"render": other}, protocol=protocol
    )
    assert card["sources"]["toy"]["model"]["psnr_db"]["mean"] == pytest.approx(db(5), abs=1e-4)
    assert card["sources"]["render"]["model"]["psnr_db"]["mean"] == pytest.approx(db(10), abs=1e-4)
    assert card["together"]["model"]["psnr_db"]["mean"] == pytest.approx((db(5) + db(10)) / 2, abs=1e-4)
    # The mean of both data sets' mean frames, 80 and 90, is 85: off by 25, 35 and by 35, 45.
    assert card["sources"]["render"]["mean_frame"]["psnr_db"]["mean"] == pytest.approx(
        sum(db(error) for error in (25, 35, 35, 45)) / 4, abs=1e-4
    )
    # Its own mean frame (90): off by 20 and 30 in the bright window, by 40 and 50 in the dark one.
    own = sum(db(error) for error in (20, 30, 40, 50)) / 4
    assert card["sources"]["render"]["source_mean_frame"]["psnr_db"]["mean"] == pytest.approx(own, abs=1e-4)
    margin = card["sources"]["render"]["model_minus_source_mean_frame"]["psnr_db"]["mean"]
    assert margin == pytest.approx(db(10) - own, abs=1e-4)
    assert "source_mean_frame" not in toy_card()["together"]


def test_compare_gives_paired_differences():
    reread = json.loads(json.dumps(toy_card(10)))
    result = compare_designs({"ten": [reread], "five": [toy_card(5)]})
    ahead = pytest.approx(db(5) - db(10), abs=1e-4)
    for part in (result["together"], result["sources"]["toy"]):
        difference = part["designs"]["five"]["psnr_db"]["minus_first"]
        assert difference == {"mean": ahead, "low": ahead, "high": ahead, "seeds": [ahead]}


def test_intervals_resample_recordings_where_videos_share_one():
    # Films a and b are cameras of one recording, c is alone. Errors 5, 5, 10: whatever is drawn of {a and b, c}, the mean is
    # one recording's or, weighed by its windows, of both.
    prediction = torch.cat([toy_target().int() + 5, toy_target()[:1].int() + 10]).to(torch.uint8)
    target = torch.cat([toy_target(), toy_target()[:1]])
    windows = (*WINDOWS, ("toy", "film c", "c", 0))
    shared = {"toy/film a": "take 1", "toy/film b": "take 1"}
    protocol = dataclasses.replace(PROTOCOL, windows=windows, recordings=shared)
    card = scorecard(prediction[None], target, mean_frames=MEAN, protocol=protocol)
    part = card["sources"]["toy"]
    assert (part["windows"], part["videos"], part["recordings"]) == (3, 3, 2)
    assert words.intervals_over(part) == "intervals over recordings"
    middle = {
        "confidence": 0.45
    }  # a quarter of the draws is twice the one, a quarter twice the other, half both
    both = scorecard(
        prediction[None], target, mean_frames=MEAN, protocol=dataclasses.replace(protocol, **middle)
    )
    score = both["together"]["model"]["psnr_db"]
    assert score["low"] == score["high"] == pytest.approx((2 * db(5) + db(10)) / 3, abs=1e-4)
    apart = scorecard(
        prediction[None],
        target,
        mean_frames=MEAN,
        protocol=dataclasses.replace(protocol, recordings={}, **middle),
    )
    assert "recordings" not in apart["together"]
    assert apart["together"]["model"]["psnr_db"]["low"] < apart["together"]["model"]["psnr_db"]["high"]
    compared = compare_designs({"one": [both], "other": [both]})["together"]
    assert compared["recordings"] == 2
    ends = compared["designs"]["one"]["psnr_db"]
    assert ends["low"] == ends["high"] == pytest.approx(score["low"], abs=1e-4)
    one = dataclasses.replace(PROTOCOL, recordings=shared)
    assert (
        words.intervals_over(toy_card(protocol=one)["together"])
        == "no interval, as all windows are of one recording"
    )


def test_a_scorecard_of_before_recordings_compares_with_one_that_has_none():
    old = toy_card(10)
    del old["protocol"]["recordings"]
    assert compare_designs({"old": [old], "new": [toy_card(5)]})["together"]["windows"] == 2
    new = toy_card(protocol=dataclasses.replace(PROTOCOL, recordings={"toy/film a": "take 1"}))
    with pytest.raises(ProtocolError, match=r"do not compare: recordings$"):
        compare_designs({"old": [old], "new": [new]})


def test_compare_refuses_another_protocol_and_names_the_fields():
    other = toy_card(protocol=dataclasses.replace(PROTOCOL, context="official", seed=1))
    with pytest.raises(ProtocolError, match=r"measured differently and do not compare: context, seed$"):
        compare_designs({"a": [toy_card()], "b": [other]})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"horizon": 3}, "windows of 4 frames of 12 px, got 3 frames"),
        ({"image_size": 16}, "of 16 px, got 3 frames of 12x12 px"),
        ({"windows": WINDOWS[:1]}, "lists 1 windows, got 2"),
        (
            {"windows": (("toy", "film a", "a", 0), ("other", "film b", "b", 0))},
            "at least two windows of every data set, 'toy' has one",
        ),
        ({"mean_frames": {"toy": "f" * 16}}, "mean frame of 'toy' is not the one"),
        ({"samples": 2}, r"expected predictions of shape \(2, 2, 3, 3, 12, 12\)"),
    ],
)
def test_scorecard_refuses_what_its_protocol_does_not_describe(change, sentence):
    with pytest.raises(ProtocolError, match=sentence):
        toy_card(protocol=dataclasses.replace(PROTOCOL, **change))


def test_protocol_refuses_an_empty_horizon():
    with pytest.raises(ValueError, match="horizon is at least 1, got 0"):
        Protocol(horizon=0)
