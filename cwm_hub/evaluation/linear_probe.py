"""What a latent knows of the state: a linear probe, fitted on training videos and scored on held-out ones.

    frame               0    1    2   ...  T-1
    feature             f0   f1   f2       f(T-1)     posterior, every frame up to it seen, most probable latents
    target, state       s0   s1   s2       s(T-1)     what was logged when the frame was taken
    target, action      a1   a2   a3       -          where there is no state: what comes next, which no model was told

Ridge regression in closed form, in float64, on features brought to mean 0 and deviation 1. R2 is 1 - squared error /
variance of the held-out rows: 1 reads the column off, 0 is no better than a constant. A feature that tells videos apart and
nothing else earns none, since no held-out source video is among those of the fit.

Shape key: B windows, T frames of a window, N rows (frames), F feature, S columns of the target.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from cwm_hub.clips.clip_index import ClipSource
from cwm_hub.clips.loader import validation_windows
from cwm_hub.clips.remote_shards import pin_revision
from cwm_hub.clips.retries import FetchConfig, with_retries
from cwm_hub.evaluation.held_out import clip_facts
from cwm_hub.evaluation.intervals import BOOTSTRAP_FIELDS, mean_interval
from cwm_hub.evaluation.predict import WorldModel, posterior_features
from cwm_hub.evaluation.protocol import WINDOWS, Protocol, ScoringConfig
from cwm_hub.shards.index import read_index_table, read_recordings
from cwm_hub.shards.manifest import Manifest

ALPHAS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""Penalties that are tried: the one with the least error on every fourth training video, fitted on the others."""


class Rows(NamedTuple):
    """Frames of several source videos, one a row."""

    features: Float[np.ndarray, "N F"]
    target: Float[np.ndarray, "N S"]
    videos: Sequence[str]
    """Source video of each, or its recording where the index names one."""

    def take(self, chosen: np.ndarray) -> "Rows":
        """Those rows for which `chosen` is true."""
        videos = [video for video, keep in zip(self.videos, chosen, strict=True) if keep]
        return Rows(self.features[chosen], self.target[chosen], videos)


@dataclass(frozen=True)
class ProbeWindows:
    """Windows of one split."""

    video: UInt8[Tensor, "B T 3 H W"]
    action: Float32[Tensor, "B T A"] | None
    """What led to each frame; None where nothing needs it."""
    state: Float32[Tensor, "B T S"] | None
    videos: tuple[str, ...]
    """Source video of each."""


@dataclass(frozen=True)
class ProbeData:
    """What a probe of one data set is fitted on and scored on."""

    target: str
    """`state`, or `action` where the set has no state."""
    columns: tuple[str, ...]
    train: ProbeWindows
    """Of source videos that are not among the held-out ones."""
    held_out: ProbeWindows
    """The windows of the scorecard."""
    windows_asked: int
    """Train windows that were asked for: with fewer, others are drawn."""


def read_probe_data(
    config: ScoringConfig, place: str, *, train_windows: int, with_actions: bool
) -> ProbeData:
    """Read the windows of one shard directory.

    Args:
        config: Of the scorecard: the same held-out windows are read.
        place: The shard directory.
        train_windows: Windows of the train split to fit on, or all of a set that has fewer.
        with_actions: Whether the model takes actions.

    Raises:
        ValueError: a set with neither state nor action, too few training videos, or a target that never changes.
    """
    root = with_retries(partial(pin_revision, place), FetchConfig(), what=place)
    arrays = with_retries(partial(Manifest.load, root), FetchConfig(), what=root).arrays
    target = next((name for name in ("state", "action") if name in arrays), None)
    if target is None:
        raise ValueError(
            f"{place} holds neither state nor action beside its clips, so there is nothing to probe for; "
            "cwm-dataprep lerobot writes them where they were logged"
        )
    index = with_retries(partial(read_index_table, root), FetchConfig(), what=root)
    recordings = read_recordings(index)
    clips = {key: (recordings.get(video, video), words) for key, (video, words) in clip_facts(index).items()}
    read = partial(
        _read,
        root,
        config,
        clips,
        with_actions=with_actions or target == "action",
        with_state=target == "state",
    )
    held_out = read(config.split, config.windows or WINDOWS, or_fewer=config.windows is None)
    train = _without(read("train", train_windows, or_fewer=True), set(held_out.videos))
    if len(set(train.videos)) < 2:
        raise ValueError(
            f"{place}: a probe is fitted on at least two train videos that are not among the {config.split} windows, "
            f"got {len(set(train.videos))}"
        )
    data = ProbeData(target, arrays[target].names, train, held_out, train_windows)
    if not _varies(_target(held_out, target)).any():
        raise ValueError(
            f"{place}: {target} is the same in all held-out windows, so there is nothing to probe for"
        )
    return data


def probe_scores(model: WorldModel, data: Mapping[str, ProbeData], protocol: Protocol) -> dict[str, Any]:
    """What a scorecard gains: `probe_r2_state` or `probe_r2_action` or both, each data set -> `linear_probe`.

    Args:
        model: In evaluation mode.
        data: By data set.
        protocol: Of the scorecard, whose bootstrap is used.
    """
    bootstrap = {field: getattr(protocol, field) for field in BOOTSTRAP_FIELDS}
    scores: dict[str, Any] = {}
    for name, one in data.items():
        train, held_out = (_rows(model, windows, one.target) for windows in (one.train, one.held_out))
        found = linear_probe(train, held_out, columns=one.columns, bootstrap=bootstrap)
        windows = {
            "train_windows_asked": one.windows_asked,
            "train_windows": len(one.train.videos),
            "windows": len(one.held_out.videos),
        }
        scores.setdefault(f"probe_r2_{one.target}", {})[name] = found | windows
    return scores


def linear_probe(
    train: Rows, held_out: Rows, *, columns: Sequence[str], bootstrap: Mapping[str, Any]
) -> dict[str, Any]:
    """Fit on some source videos and score on others.

    Args:
        train: Rows of two source videos or more.
        held_out: Rows of other source videos.
        columns: Names of the target's columns.
        bootstrap: What `bootstrap_interval` takes beside values and videos.

    Returns:
        R2 over all columns (`mean`, `low`, `high`) and of each (`columns`), the penalty chosen (`alpha`), the columns that
        are the same in all held-out rows and have no R2 (`constant`), and how many videos are behind it. Intervals
        resample held-out source videos; the variance that R2 divides by is that of all held-out rows.
    """
    alpha = choose_alpha(train)
    error = (predict_linear(train, held_out.features, alpha=alpha) - held_out.target) ** 2
    varies = _varies(held_out.target)
    shares = 1 - error[:, varies] / held_out.target[:, varies].var(0)  # their mean over rows is R2
    settings = {**bootstrap, "videos": held_out.videos}
    names = [name for name, kept in zip(columns, varies, strict=True) if kept]
    return {
        **mean_interval(shares.mean(1), settings),
        "columns": [
            {"name": name, **mean_interval(shares[:, at], settings)} for at, name in enumerate(names)
        ],
        "constant": [name for name, kept in zip(columns, varies, strict=True) if not kept],
        "alpha": alpha,
        "train_videos": len(set(train.videos)),
        "videos": len(set(held_out.videos)),
    }


def choose_alpha(train: Rows) -> float:
    """The penalty of `ALPHAS` that predicts every fourth source video best, from the others; every column counts the same."""
    apart = list(dict.fromkeys(train.videos))[::4]
    chosen = np.array([video in apart for video in train.videos])
    fitted, rest = train.take(~chosen), train.take(chosen)
    scale = _deviation(train.target)
    errors = [
        (((predict_linear(fitted, rest.features, alpha=alpha) - rest.target) / scale) ** 2).mean()
        for alpha in ALPHAS
    ]
    return ALPHAS[int(np.argmin(errors))]


def predict_linear(
    train: Rows, features: Float[np.ndarray, "M F"], *, alpha: float
) -> Float[np.ndarray, "M S"]:
    """What ridge regression predicts: w minimises mean squared error + alpha |w|^2, the mean of the target left free."""
    mean, scale = train.features.mean(0), _deviation(train.features)
    known, middle = (train.features - mean) / scale, train.target.mean(0)
    gram = known.T @ known / len(known) + alpha * np.eye(known.shape[1])
    weights = np.linalg.solve(gram, known.T @ (train.target - middle) / len(known))
    return (features - mean) / scale @ weights + middle


def _varies(target: Float[np.ndarray, "N S"]) -> np.ndarray:
    return np.ptp(target, axis=0) > 0


def _deviation(values: Float[np.ndarray, "N F"]) -> Float[np.ndarray, " F"]:
    """Of each column, 1 where it is constant."""
    return np.where(_varies(values), values.std(0), 1.0)


def _rows(model: WorldModel, windows: ProbeWindows, target: str) -> Rows:
    device = next(model.parameters()).device
    action = None if windows.action is None else windows.action.to(device)
    features = posterior_features(model, windows.video.to(device), action).double().cpu()
    rows = _target(windows, target)
    frames = len(rows) // len(features)  # the last frame of a window has no next action
    videos = [video for video in windows.videos for _ in range(frames)]
    return Rows(features[:, :frames].flatten(0, 1).numpy(), rows, videos)


def _target(windows: ProbeWindows, name: str) -> Float[np.ndarray, "N S"]:
    """Row after row of every window; of actions the next one."""
    values = windows.state if name == "state" else windows.action
    assert values is not None
    return values[:, int(name == "action") :].flatten(0, 1).double().numpy()


def _read(
    root: str,
    config: ScoringConfig,
    clips: Mapping[str, tuple[str, str]],
    split: str,
    count: int,
    *,
    or_fewer: bool,
    with_actions: bool,
    with_state: bool,
) -> ProbeWindows:
    batches = validation_windows(
        ClipSource(root, split=split),
        count=count,
        window_frames=config.observed_frames + config.horizon,
        seed=config.seed,
        or_fewer=or_fewer,
        with_actions=with_actions,
        with_state=with_state,
    )
    return ProbeWindows(
        torch.cat([batch.video for batch in batches]),
        torch.cat([batch.action for batch in batches if batch.action is not None]) if with_actions else None,
        torch.cat([batch.state for batch in batches if batch.state is not None]) if with_state else None,
        tuple(clips[key][0] for batch in batches for key in batch.source),
    )


def _without(windows: ProbeWindows, videos: set[str]) -> ProbeWindows:
    """Windows of other source videos than these."""
    kept = torch.tensor([video not in videos for video in windows.videos])
    return ProbeWindows(
        windows.video[kept],
        None if windows.action is None else windows.action[kept],
        None if windows.state is None else windows.state[kept],
        tuple(video for video in windows.videos if video not in videos),
    )
