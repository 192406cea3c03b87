"""A video world model on held-out windows: the context it is shown, what it predicts, and its scorecard.

No draw touches torch's global random state. Shape key: N samples per window, B windows, T frames of a window, k context
frames, F feature of the posterior state.
"""

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Generator, Tensor

from cwm_hub.evaluation import perceptual
from cwm_hub.evaluation.held_out import HeldOut
from cwm_hub.evaluation.protocol import Protocol
from cwm_hub.evaluation.scorecard import scorecard
from cwm_hub.models.video_world_model import VideoWorldModel

BATCH_CLIPS = 16
"""Windows that pass through the model at once."""


def score(
    model: VideoWorldModel, held_out: HeldOut, protocol: Protocol, *, lpips: bool = False, fvd: bool = False
) -> tuple[dict[str, Any], UInt8[Tensor, "N B T 3 H W"], UInt8[Tensor, "B k 3 H W"] | None]:
    """Predict every window and score it.

    Args:
        model: In evaluation mode.
        held_out: The windows.
        protocol: Of `make_protocol`.
        lpips: Add that distance to the scores; `perceptual.check_lpips` says beforehand whether it can be measured.
        fvd: Add that of whole windows; see `perceptual.check_fvd`.

    Returns:
        The scorecard; the predictions on the CPU; the context frames on the model's device, None without context.
    """
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(protocol.seed)
    video = held_out.video.to(device)
    context = context_frames(model, video, protocol, generator)
    prediction = torch.stack(
        [predict(model, video, context, protocol, generator) for _ in range(protocol.samples)]
    ).cpu()
    card = scorecard(
        prediction,
        held_out.video,
        mean_frames=held_out.mean_frames,
        protocol=protocol,
        distances={"lpips": perceptual.lpips} if lpips else None,
    )
    card["frechet_encoder_distance"] = encoder_distance(
        model, prediction[0], held_out.video, protocol.observed_frames
    )
    if fvd:
        card["fvd"] = perceptual.video_distance(prediction[0].to(device), video, protocol.observed_frames)
    return card, prediction, context


def context_frames(
    model: VideoWorldModel, video: UInt8[Tensor, "B T 3 H W"], protocol: Protocol, generator: Generator
) -> UInt8[Tensor, "B k 3 H W"] | None:
    """What the decoder is shown; None for a model without context."""
    config = model.config.frame.context
    if config is None:
        return None
    if protocol.context == "official":
        order = torch.rand(video.shape[:2], generator=generator, device=video.device).argsort(1)
        return video[torch.arange(len(video), device=video.device)[:, None], order[:, : config.frames]]
    seen = video[:, : protocol.observed_frames]
    return model.default_context(seen if protocol.context == "last" else seen[:, : config.frames])


def predict(
    model: VideoWorldModel,
    video: UInt8[Tensor, "B T 3 H W"],
    context: UInt8[Tensor, "B k 3 H W"] | None,
    protocol: Protocol,
    generator: Generator,
) -> UInt8[Tensor, "B T 3 H W"]:
    """One prediction of every window; its first `observed_frames` are reconstructions."""
    return torch.cat(
        [
            model.predict(
                video[at : at + BATCH_CLIPS],
                observed_frames=protocol.observed_frames,
                context_frames=None if context is None else context[at : at + BATCH_CLIPS],
                sample=protocol.latents == "sampled",
                generator=generator,
            )
            for at in range(0, len(video), BATCH_CLIPS)
        ]
    )


@torch.no_grad()
def posterior_features(model: VideoWorldModel, video: UInt8[Tensor, "B T 3 H W"]) -> Float[Tensor, "B T F"]:
    """What the model knows at every frame of whole windows, every frame seen, by its most probable latents."""
    posteriors = (model.observe(part, sample=False)[0] for part in video.split(BATCH_CLIPS))
    return torch.cat([model.rssm.feature(posterior) for posterior in posteriors])


def encoder_distance(
    model: VideoWorldModel,
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
    model: VideoWorldModel, frames: UInt8[Tensor, "B T 3 H W"]
) -> Float[Tensor, "frames features"]:
    """Of every frame by itself, on the CPU."""
    device = next(model.parameters()).device
    parts = (model.frame_model.encode(part.to(device)) for part in frames.split(BATCH_CLIPS))
    return torch.cat([part.flatten(0, 1).cpu() for part in parts])
