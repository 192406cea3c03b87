"""A linear probe: what it reads off, what it must not, and which rows belong together."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_shards import write_data_set

from cwm_hub import create_model
from cwm_hub.evaluation import linear_probe as probes
from cwm_hub.evaluation.linear_probe import (
    ALPHAS,
    ProbeWindows,
    Rows,
    choose_alpha,
    linear_probe,
    predict_linear,
    probe_scores,
    read_probe_data,
)
from cwm_hub.evaluation.predict import posterior_features
from cwm_hub.evaluation.protocol import Protocol, ScoringConfig

BOOTSTRAP = {"resamples": 200, "confidence": 0.95, "seed": 0}
SHORT = ScoringConfig(observed_frames=2, horizon=3, windows=4)


def rows(features: np.ndarray, target: np.ndarray, *, first: int = 0, per_video: int = 5) -> Rows:
    return Rows(features, target, [f"film {first + row // per_video}" for row in range(len(target))])


def test_a_state_that_is_linear_in_the_features_is_read_off():
    random = np.random.default_rng(0)
    features = random.normal(size=(200, 6)) * [1, 10, 100, 1e-3, 1, 1] + 50
    target = np.stack([features[:, 1] - 3 * features[:, 3], np.full(200, 4.0), features[:, 2]], 1)
    found = linear_probe(
        rows(features[:150], target[:150]),
        rows(features[150:], target[150:], first=30),
        columns=("x", "still", "y"),
        bootstrap=BOOTSTRAP,
    )
    assert [column["name"] for column in found["columns"]] == ["x", "y"] and found["constant"] == ["still"]
    for one in (found, *found["columns"]):
        assert [one["low"], one["mean"], one["high"]] == pytest.approx([1, 1, 1], abs=1e-9)
    assert (found["train_videos"], found["videos"], found["alpha"]) == (30, 10, ALPHAS[0])


def test_noise_says_nothing():
    random = np.random.default_rng(1)
    features, target = random.normal(size=(400, 6)), random.normal(size=(400, 2))
    found = linear_probe(
        rows(features[:300], target[:300]),
        rows(features[300:], target[300:], first=60),
        columns=("x", "y"),
        bootstrap=BOOTSTRAP,
    )
    assert -0.1 < found["mean"] < 0.02 and found["low"] < 0.02


def test_r2_by_hand_and_its_interval_over_videos():
    # One feature that is the target in training; held out it is off by 1 in one of two videos: 1 - mean(1, 0) / var.
    train = np.array([[-1.0], [1.0]] * 4)
    held_out, off = np.array([[-2.0], [2.0]] * 10), np.array([[1.0]] * 10 + [[0.0]] * 10)
    found = linear_probe(
        rows(train, train, per_video=2),
        rows(held_out + off, held_out, first=4, per_video=10),
        columns=("x",),
        bootstrap=BOOTSTRAP,
    )
    assert found["mean"] == pytest.approx(1 - 0.5 / 4, abs=1e-4)
    # Resamples of two videos: both off, one of them, none.
    assert [found["low"], found["high"]] == pytest.approx([1 - 1 / 4, 1], abs=1e-4)


def test_a_feature_that_only_tells_videos_apart_earns_nothing_on_others():
    random = np.random.default_rng(2)
    code, place = random.normal(size=(40, 40)), random.normal(size=(40, 1))  # of a video, in all its frames
    features, target = code.repeat(5, 0), place.repeat(5, 0)
    train, held_out = rows(features[:150], target[:150]), rows(features[150:], target[150:], first=30)
    of_itself = predict_linear(train, train.features, alpha=1e-6)
    assert 1 - ((of_itself - train.target) ** 2).mean() / train.target.var() > 0.999
    assert linear_probe(train, held_out, columns=("x",), bootstrap=BOOTSTRAP)["mean"] < 0.1
    assert choose_alpha(train) >= 1  # its own choice is made on other videos too


def test_ridge_without_penalty_is_least_squares():
    random = np.random.default_rng(3)
    features, target, others = (random.normal(size=size) for size in ((60, 5), (60, 2), (7, 5)))
    with_one = np.hstack([features, np.ones((60, 1))])
    weights = np.linalg.lstsq(with_one, target, rcond=None)[0]
    expected = np.hstack([others, np.ones((7, 1))]) @ weights
    np.testing.assert_allclose(
        predict_linear(rows(features, target), others, alpha=1e-12), expected, rtol=1e-8
    )


def test_the_penalty_is_on_the_weights_of_standardised_features():
    train = rows(np.array([[10.0], [30.0]]), np.array([[5.0], [9.0]]), per_video=1)  # standardised: -1 and 1
    # w = cov / (1 + alpha) = 2 / (1 + 1); 40 is standardised 2.
    assert predict_linear(train, np.array([[40.0]]), alpha=1.0).tolist() == [[7 + 2 * 1]]


def write_set(root: Path, *arrays: str, still: bool = False) -> Path:
    """Frame t of every video is as bright as its state and as the action that follows it."""
    random = np.random.default_rng(4)
    splits: dict[str, list] = {"train": [], "validation": []}
    for number in range(12):
        bright = random.integers(0, 200, 13)
        frames = np.broadcast_to(bright[:12, None, None, None], (12, 32, 32, 3)).astype(np.uint8)
        action = np.concatenate([[0], bright[:11]])
        logged = {"state": bright[:12] * (0 if still else 2), "action": action}
        key, split = f"s{number:02d}", "train" if number < 8 else "validation"
        values = {name: logged[name][:, None].astype(np.float32) for name in arrays}
        splits[split].append((frames, {"key": key, "source": key} | ({"arrays": values} if values else {})))
    return write_data_set(root, splits, name="bright")


def brightness(model: object, video: torch.Tensor, action: torch.Tensor | None = None) -> torch.Tensor:
    return video[:, :, :1, 0, 0].float()


@pytest.mark.parametrize(
    ("arrays", "key"),
    [
        (("action", "state"), "probe_r2_state"),
        (("state",), "probe_r2_state"),
        (("action",), "probe_r2_action"),
    ],
)
def test_a_row_is_a_frame_and_its_state_or_its_next_action(tmp_path, monkeypatch, arrays, key):
    root = write_set(tmp_path / "bright", *arrays)
    data = read_probe_data(SHORT, str(root), train_windows=20, with_actions="action" in arrays)
    assert set(data.held_out.videos) == {f"s{number:02d}" for number in range(8, 12)}
    assert set(data.train.videos) == {f"s{number:02d}" for number in range(8)}
    monkeypatch.setattr(probes, "posterior_features", brightness)
    model = create_model("plainwm-debug").eval()
    scores = probe_scores(model, {"bright": data}, Protocol(resamples=200))
    (found,) = scores.pop(key).values()
    assert not scores
    assert found["mean"] == pytest.approx(1, abs=1e-6)
    assert (found["windows"], found["videos"], found["train_windows"], found["train_videos"]) == (4, 4, 20, 8)
    shuffled = replace(data, held_out=rolled(data.held_out))
    assert probe_scores(model, {"bright": shuffled}, Protocol(resamples=200))[key]["bright"]["mean"] < 0.5


def rolled(windows: ProbeWindows) -> ProbeWindows:
    """Frames one step later than what was logged."""
    return ProbeWindows(windows.video.roll(1, 1), windows.action, windows.state, windows.videos)


@pytest.mark.parametrize("name", ["contextwm-debug", "action-contextwm-debug"])
def test_the_features_are_the_models_own_posterior(tmp_path, name):
    with_actions = name.startswith("action")
    root = write_set(tmp_path / "bright", "state", "action")
    data = read_probe_data(SHORT, str(root), train_windows=20, with_actions=with_actions)
    torch.manual_seed(0)
    model = create_model(name, overrides={"action_size": 1} if with_actions else {}).eval()
    found = probe_scores(model, {"set": data}, Protocol(resamples=50))["probe_r2_state"]["set"]

    def by_hand(part: ProbeWindows) -> Rows:
        assert part.state is not None and (part.action is not None) == with_actions
        features = posterior_features(model, part.video, part.action).double()
        videos = [video for video in part.videos for _ in range(5)]
        return Rows(features.reshape(len(videos), -1).numpy(), part.state.reshape(-1, 1).numpy(), videos)

    bootstrap = {**BOOTSTRAP, "resamples": 50}
    expected = linear_probe(
        by_hand(data.train), by_hand(data.held_out), columns=data.columns, bootstrap=bootstrap
    )
    assert {key: found[key] for key in ("mean", "low", "high")} == pytest.approx(
        {key: expected[key] for key in ("mean", "low", "high")}, rel=1e-4
    )


def test_no_source_video_is_on_both_sides(tmp_path):
    root = write_set(tmp_path / "bright", "state")
    config = ScoringConfig(observed_frames=2, horizon=3, windows=4, split="train")
    data = read_probe_data(config, str(root), train_windows=100, with_actions=False)
    assert len(set(data.held_out.videos)) == len(set(data.train.videos)) == 4
    assert not set(data.held_out.videos) & set(data.train.videos)
    assert len(data.train.video) == len(data.train.videos) == len(data.train.state) == 4 * 8


@pytest.mark.parametrize(
    ("arrays", "options", "sentence"),
    [
        ((), {}, "holds neither state nor action beside its clips"),
        (("state",), {"windows": 7, "split": "train"}, "at least two train videos .* got 1"),
        (("state",), {"still": True}, "state is the same in all held-out windows"),
    ],
)
def test_what_cannot_be_probed_is_one_sentence(tmp_path, arrays, options, sentence):
    root = write_set(tmp_path / "bright", *arrays, still=options.pop("still", False))
    config = ScoringConfig(observed_frames=2, horizon=3, **{"windows": 4, **options})
    with pytest.raises(ValueError, match=sentence):
        read_probe_data(config, str(root), train_windows=100, with_actions=False)
