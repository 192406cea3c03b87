"""How good is a video prediction? A scorecard whose protocol travels with its numbers.

Open-loop prediction: the model sees the first `observed_frames` of a held-out window and predicts the other
`horizon` without seeing them. Timeline of one window, observed_frames = 5, horizon = 3:

    frame           0  1  2  3  4 | 5  6  7
    model sees      x  x  x  x  x |
    horizon step                  | 1  2  3
    copy-last-frame               | 4  4  4     frame 4 repeated
    mean-frame                    | m  m  m     m: the average frame of the training shards, one constant picture

Where several data sets are scored at once, the mean frame is the average of theirs, each data set weighing the same;
`source_mean_frame` is then a third and stronger baseline, the average training frame of the window's own data set.

Everything here takes pictures, never a model or a file; distances in the features of a network (LPIPS, FVD) are in
`perceptual.py`. Shape key: N samples per window, B windows, T frames of a window, H W pixels.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cwm_hub.config import to_dict
from cwm_hub.evaluation.intervals import BOOTSTRAP_FIELDS, mean_interval
from cwm_hub.evaluation.protocol import METRICS, SCORECARD_VERSION, Protocol, ProtocolError, resampled
from cwm_hub.evaluation.words import BASELINES, CONTROLS

Measure = Callable[[Tensor, Tensor], Tensor]
"""Frames [*batch, 3, H, W] predicted and true, both uint8 -> a number each, [*batch]."""


def psnr(
    prediction: UInt8[Tensor, "*batch 3 H W"], target: UInt8[Tensor, "*batch 3 H W"], *, cap_db: float = 60.0
) -> Float[Tensor, "*batch"]:
    """Peak signal-to-noise ratio of every frame in dB (peak 255), at most `cap_db`."""
    from torchmetrics.functional.image import peak_signal_noise_ratio  # two seconds: not for who only trains

    value = peak_signal_noise_ratio(
        prediction.float(), target.float(), data_range=255.0, reduction="none", dim=(-3, -2, -1)
    )
    return value.clamp(max=cap_db)


def ssim(
    prediction: UInt8[Tensor, "*batch 3 H W"], target: UInt8[Tensor, "*batch 3 H W"]
) -> Float[Tensor, "*batch"]:
    """Structural similarity of every frame: Gaussian window 11x11, sigma 1.5, mean over the three channels."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    frames = prediction.flatten(0, -4).float(), target.flatten(0, -4).float()
    value = structural_similarity_index_measure(*frames, data_range=255.0, reduction="none")
    assert isinstance(value, Tensor)
    return value.reshape(prediction.shape[:-3])


def picture_hash(picture: UInt8[Tensor, "3 H W"]) -> str:
    """Sixteen hex digits that stand for one picture in a protocol."""
    return hashlib.sha256(picture.cpu().contiguous().numpy().tobytes()).hexdigest()[:16]


def scorecard(
    prediction: UInt8[Tensor, "N B T 3 H W"],
    target: UInt8[Tensor, "B T 3 H W"],
    *,
    mean_frames: Mapping[str, UInt8[Tensor, "3 H W"]],
    protocol: Protocol,
    distances: Mapping[str, Measure] | None = None,
    controls: Mapping[str, UInt8[Tensor, "B T 3 H W"]] | None = None,
) -> dict[str, Any]:
    """Score predictions of whole windows, together and per data set, beside the baselines.

    Args:
        prediction: One prediction of every window per sample; its first `observed_frames` are reconstructions.
        target: The windows, in the order of `protocol.windows`.
        mean_frames: Data set name -> the average frame of its own training shards.
        protocol: How the prediction was made.
        distances: Name -> further measure of every frame, lower being better, such as `perceptual.lpips`.
        controls: Name (one of `words.CONTROLS`) -> predictions by the same model with something taken from it.

    Returns:
        A JSON-ready dict: `protocol`, `together` and `sources` (data set name -> the same numbers), and `windows`
        with the scores of every window. PSNR is in dB, differences are model minus baseline of the same window.
        Intervals resample source videos, or recordings where the protocol names some (`bootstrap_interval`); `videos`, and
        `recordings` there, beside `windows` say how many there are; where there is one, there is no `low` and no `high`.
    """
    _check_shapes(prediction, target, mean_frames, protocol)
    names = [name for name, *_ in protocol.windows]
    pictures = _constant_pictures(names, mean_frames)
    scores = _frame_scores(prediction, target, pictures, protocol, distances or {}, controls or {})
    sources = {}
    for name in dict.fromkeys(names):
        rows = [row for row, owner in enumerate(names) if owner == name]
        sources[name] = _summary(_take(scores, rows), [protocol.windows[row] for row in rows], protocol)
    return {
        "format_version": SCORECARD_VERSION,
        "protocol": to_dict(protocol),  # as JSON has it, so that a fresh one equals one read back
        "together": _summary(scores, protocol.windows, protocol),
        "sources": sources,
        "windows": _window_rows(scores, protocol),
    }


# metric -> series ("model", "best_of_n", "reconstruction", a baseline) -> values [B, steps]
_Scores = dict[str, dict[str, np.ndarray]]


def _check_shapes(
    prediction: Tensor, target: Tensor, mean_frames: Mapping[str, Tensor], protocol: Protocol
) -> None:
    windows, frames, _, height, width = target.shape
    expected = (protocol.samples, *target.shape)
    if tuple(prediction.shape) != expected:
        raise ProtocolError(f"expected predictions of shape {expected}, got {tuple(prediction.shape)}")
    if (frames, height, width) != (protocol.window_frames, protocol.image_size, protocol.image_size):
        raise ProtocolError(
            f"the protocol wants windows of {protocol.window_frames} frames of {protocol.image_size} px, "
            f"got {frames} frames of {height}x{width} px"
        )
    if windows != len(protocol.windows):
        raise ProtocolError(f"the protocol lists {len(protocol.windows)} windows, got {windows}")
    names = [name for name, *_ in protocol.windows]
    for name in dict.fromkeys(names):
        if names.count(name) < 2:
            raise ProtocolError(f"scores need at least two windows of every data set, {name!r} has one")
        if picture_hash(mean_frames[name]) != protocol.mean_frames.get(name):
            raise ProtocolError(f"the mean frame of {name!r} is not the one that the protocol names")


def _constant_pictures(names: Sequence[str], mean_frames: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Baseline -> the picture of every window, uint8 [B, 3, H, W]."""
    data_sets = list(dict.fromkeys(names))
    overall = torch.stack([mean_frames[name] for name in data_sets]).double().mean(0).round().byte()
    pictures = {"mean_frame": overall.expand(len(names), *overall.shape)}
    if len(data_sets) > 1:
        pictures["source_mean_frame"] = torch.stack([mean_frames[name] for name in names])
    return pictures


def _frame_scores(
    prediction: Tensor,
    target: Tensor,
    pictures: Mapping[str, Tensor],
    protocol: Protocol,
    distances: Mapping[str, Measure],
    controls: Mapping[str, Tensor],
) -> _Scores:
    seen = protocol.observed_frames
    past, future = target[:, :seen], target[:, seen:]
    baselines = {"copy_last_frame": past[:, -1:].expand_as(future)}
    baselines |= {name: picture.unsqueeze(1).expand_as(future) for name, picture in pictures.items()}
    baselines |= {name: frames[:, seen:] for name, frames in controls.items()}
    measures: dict[str, Measure] = {
        "psnr_db": partial(psnr, cap_db=protocol.psnr_cap_db),
        "ssim": ssim,
        **distances,
    }
    scores: _Scores = {}
    for metric, measure in measures.items():
        samples = np.stack([_numpy(measure(sample[:, seen:], future)) for sample in prediction])
        means = samples.mean(-1)
        best = means.argmin(0) if metric in distances else means.argmax(0)
        scores[metric] = {
            "model": samples.mean(0),
            "best_of_n": samples[best, np.arange(len(best))],
            "reconstruction": np.mean(
                [_numpy(measure(sample[:, :seen], past)) for sample in prediction], axis=0
            ),
            **{name: _numpy(measure(picture, future)) for name, picture in baselines.items()},
        }
    return scores


def _numpy(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()


def _take(scores: _Scores, rows: list[int]) -> _Scores:
    return {
        metric: {name: value[rows] for name, value in series.items()} for metric, series in scores.items()
    }


def _summary(
    scores: _Scores, windows: Sequence[tuple[str, str, str, int]], protocol: Protocol
) -> dict[str, Any]:
    """Series -> metric -> mean over windows and horizon with its interval, and the same for every horizon step."""
    videos = [(name, video) for name, video, _, _ in windows]
    groups = resampled(videos, protocol.recordings)
    summary: dict[str, Any] = {"windows": len(windows), "videos": len(set(videos))}
    if groups != videos:
        summary["recordings"] = len(set(groups))
    bootstrap = {field: getattr(protocol, field) for field in BOOTSTRAP_FIELDS} | {"videos": groups}
    for metric, series in scores.items():
        margins = {
            f"model_minus_{name}": series["model"] - series[name]
            for name in (*BASELINES, *CONTROLS)
            if name in series
        }
        for name, values in (series | margins).items():
            if name == "best_of_n" and protocol.samples == 1:
                continue
            overall = mean_interval(values.mean(1), bootstrap)
            summary.setdefault(name, {})[metric] = overall | {"per_step": mean_interval(values, bootstrap)}
    return summary


def _window_rows(scores: _Scores, protocol: Protocol) -> list[dict[str, Any]]:
    """One row per window: where it comes from and its means over the horizon."""
    rows = []
    for row, (source, video, key, start) in enumerate(protocol.windows):
        numbers = {metric: float(scores[metric]["model"][row].mean()) for metric in METRICS}
        psnr_db = scores["psnr_db"]
        baselines = {
            f"{name}_psnr_db": float(psnr_db[name][row].mean()) for name in BASELINES if name in psnr_db
        }
        rows.append({"source": source, "video": video, "key": key, "start": start, **numbers, **baselines})
    return rows
