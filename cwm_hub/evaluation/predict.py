"""A world model on held-out windows: the context it is shown, what it predicts, and its scorecard.

One with actions predicts open loop under the logged actions. Beside it stands what the same model, with the same draws,
predicts under the actions of another window: what the right ones are worth (`shuffled_actions`).

No draw touches torch's global random state. Shape key: N samples per window, B windows, T frames of a window, k context
frames, F feature of the posterior state.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Float32, UInt8
from torch import Generator, Tensor

from cwm_hub.evaluation import perceptual
from cwm_hub.evaluation.held_out import HeldOut
from cwm_hub.evaluation.intervals import mean_interval
from cwm_hub.evaluation.protocol import Protocol, resampled
from cwm_hub.evaluation.scorecard import psnr, scorecard
from cwm_hub.models.action_world_model import ActionWorldModel
from cwm_hub.models.video_world_model import VideoWorldModel

BATCH_CLIPS = 16
"""Windows that pass through the model at once."""

WorldModel = VideoWorldModel | ActionWorldModel


def score(
    model: WorldModel,
    held_out: HeldOut,
    protocol: Protocol,
    *,
    lpips: bool = False,
    fvd: bool = False,
    predicted: Callable[[int], object] | None = None,
) -> tuple[dict[str, Any], UInt8[Tensor, "N B T 3 H W"], UInt8[Tensor, "B k 3 H W"] | None]:
    """Predict every window and score it.

    Args:
        model: In evaluation mode.
        held_out: The windows, with their actions where the model takes actions.
        protocol: Of `make_protocol`.
        lpips: Add that distance to the scores; `perceptual.check_lpips` says beforehand whether it can be measured.
        fvd: Add that of whole windows; see `perceptual.check_fvd`.
        predicted: Told how many windows more have been predicted, whenever some have; a window counts once a sample.

    Returns:
        The scorecard; the predictions on the CPU; the context frames on the model's device, None without context.
    """
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(protocol.seed)
    video, seen = held_out.video.to(device), protocol.observed_frames
    context = context_frames(model, video, protocol, generator)
    action = None if held_out.action is None else held_out.action.to(device)
    draws = generator.get_state()
    prediction = torch.stack(
        [
            predict(model, video, context, protocol, generator, action, predicted=predicted)
            for _ in range(protocol.samples)
        ]
    ).cpu()
    controls = {}
    if action is not None:
        generator.set_state(draws)
        others = torch.cat([action[:, :seen], action.roll(1, 0)[:, seen:]], 1)
        controls["shuffled_actions"] = predict(model, video, context, protocol, generator, others).cpu()
    card = scorecard(
        prediction,
        held_out.video,
        mean_frames=held_out.mean_frames,
        protocol=protocol,
        distances={"lpips": perceptual.lpips} if lpips else None,
        controls=controls,
    )
    card["frechet_encoder_distance"] = encoder_distance(model, prediction[0], held_out.video, seen)
    if fvd:
        card["fvd"] = perceptual.video_distance(prediction[0].to(device), video, seen)
    if context is not None and card["together"]["videos"] > 1:
        card["context_gap_psnr_db"] = context_gap(model, held_out, protocol, context)
    return card, prediction, context


def context_frames(
    model: WorldModel, video: UInt8[Tensor, "B T 3 H W"], protocol: Protocol, generator: Generator
) -> UInt8[Tensor, "B k 3 H W"] | None:
    """What the decoder is shown; None for a model without context."""
    config = model.config.frame.context
    if config is None:
        return None
    if protocol.context == "official":
        order = torch.rand(video.shape[:2], generator=generator, device=video.device).argsort(1)
        return video[torch.arange(len(video), device=video.device)[:, None], order[:, : config.frames]]
    seen = video[:, : protocol.observed_frames]
    return model.frame_model.default_context(seen if protocol.context == "last" else seen[:, : config.frames])


def predict(
    model: WorldModel,
    video: UInt8[Tensor, "B T 3 H W"],
    context: UInt8[Tensor, "B k 3 H W"] | None,
    protocol: Protocol,
    generator: Generator,
    action: Float32[Tensor, "B T A"] | None = None,
    *,
    predicted: Callable[[int], object] | None = None,
) -> UInt8[Tensor, "B T 3 H W"]:
    """One prediction of every window, under `action` where the model takes some; its first `observed_frames` are
    reconstructions."""
    parts = []
    for at in range(0, len(video), BATCH_CLIPS):
        rows = slice(at, at + BATCH_CLIPS)
        given = () if action is None else (action[rows],)
        prediction = model.predict(
            video[rows],
            *given,
            observed_frames=protocol.observed_frames,
            context_frames=None if context is None else context[rows],
            sample=protocol.latents == "sampled",
            generator=generator,
        )
        parts.append(prediction)
        if predicted is not None:
            predicted(len(prediction))
    return torch.cat(parts)


def context_gap(
    model: WorldModel, held_out: HeldOut, protocol: Protocol, context: UInt8[Tensor, "B k 3 H W"]
) -> dict[str, Any]:
    """How much of a prediction comes from its context: PSNR in dB with a window's own frame, and with another video's.

    The latents are the same, draw by draw, so that the difference is the decoder's use of the context alone. Where it is
    small, the model does not read its context, and no result of it says anything for or against contexts.

    Args:
        model: In evaluation mode.
        held_out: The windows.
        protocol: Of `make_protocol`.
        context: Context frame of every window, as `score` returns it.

    Returns:
        `own`, `foreign` and their `difference`, each `mean`, `low` and `high` over source videos.

    Raises:
        ValueError: the windows are of one video.
    """
    videos = [(data_set, video) for data_set, video, *_ in held_out.windows]
    seen = protocol.observed_frames
    future = held_out.video[:, seen:]
    video = held_out.video.to(context.device)
    action = None if held_out.action is None else held_out.action.to(context.device)
    scores = {}
    for name, shown in (("own", context), ("foreign", context[foreign_windows(videos)])):
        generator = Generator(context.device).manual_seed(protocol.seed)
        prediction = predict(model, video, shown, protocol, generator, action).cpu()
        scores[name] = psnr(prediction[:, seen:], future, cap_db=protocol.psnr_cap_db).mean(1).numpy()
    scores["difference"] = scores["own"] - scores["foreign"]
    bootstrap = {
        "videos": resampled(videos, protocol.recordings),
        "resamples": protocol.resamples,
        "confidence": protocol.confidence,
        "seed": protocol.seed,
    }
    return {name: mean_interval(values, bootstrap) for name, values in scores.items()}


def foreign_windows(videos: Sequence[tuple[str, str]]) -> list[int]:
    """For each window the next one, round the end, of another source video.

    Raises:
        ValueError: there is only one.
    """
    if len(set(videos)) < 2:
        raise ValueError("a foreign context needs windows of two source videos")
    count = len(videos)
    return [
        next(row % count for row in range(at + 1, at + count) if videos[row % count] != videos[at])
        for at in range(count)
    ]


@torch.no_grad()
def posterior_features(
    model: WorldModel,
    video: UInt8[Tensor, "B T 3 H W"],
    action: Float32[Tensor, "B T A"] | None = None,
) -> Float[Tensor, "B T F"]:
    """What the model knows at every frame of whole windows, every frame seen, by its most probable latents."""
    if isinstance(model, VideoWorldModel):
        posteriors = (model.observe(part, sample=False)[0] for part in video.split(BATCH_CLIPS))
        return torch.cat([model.rssm.feature(posterior) for posterior in posteriors])
    assert action is not None
    is_first = torch.zeros(video.shape[:2], dtype=torch.bool, device=video.device)
    is_first[:, 0] = True
    parts = zip(*(one.split(BATCH_CLIPS) for one in (video, action, is_first)), strict=True)
    return torch.cat([model.observe(*part, sample=False).feature for part in parts])


def encoder_distance(
    model: WorldModel,
    prediction: UInt8[Tensor, "B T 3 H W"],
    video: UInt8[Tensor, "B T 3 H W"],
    observed_frames: int,
) -> dict[str, Any]:
    """Fréchet distances of open-loop frames to the true ones, in the features of this model's own frame encoder.

    Not FID and not FVD. Every encoder is a ruler of its own: values compare within one checkpoint, not between two.
    """
    future = video[:, observed_frames:]
    truth = _frame_features(model, future)
    last = video[:, observed_frames - 1 : observed_frames].expand_as(future)
    predicted = _frame_features(model, prediction[:, observed_frames:])
    return {
        "model": perceptual.frechet_distance(predicted, truth),
        "copy_last_frame": perceptual.frechet_distance(_frame_features(model, last), truth),
        "frames": len(truth),
        "features": truth.shape[1],
    }


@torch.no_grad()
def _frame_features(
    model: WorldModel, frames: UInt8[Tensor, "B T 3 H W"]
) -> Float[Tensor, "frames features"]:
    """Of every frame by itself, on the CPU."""
    device = next(model.parameters()).device
    parts = (model.frame_model.encode(part.to(device)) for part in frames.split(BATCH_CLIPS))
    return torch.cat([part.flatten(0, 1).cpu() for part in parts])
