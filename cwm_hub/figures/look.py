"""What a video world model makes of clips, as pictures: its prediction, where it looks, its dynamics in another context.

Shape key: B windows, T frames, k context frames, F feature, H W pixels.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from torch import Tensor

from cwm_hub.evaluation.predict import posterior_features
from cwm_hub.figures.frames import attention_figure, composition_figure
from cwm_hub.models.video_world_model import VideoWorldModel

QUERIES = ((0.3125, 0.3125), (0.3125, 0.6875), (0.6875, 0.3125), (0.6875, 0.6875))
"""Query positions of the attention figure, (row, column) as shares of the picture: fixed, so that none is picked."""


class Look(NamedTuple):
    """One clip as a model sees it; a picture is None where the model has no such part."""

    prediction: UInt8[Tensor, "1 T 3 H W"]
    attention: Figure | None
    composition: Figure | None


def look(
    model: VideoWorldModel,
    video: UInt8[Tensor, "1 T 3 H W"],
    other: UInt8[Tensor, "1 t 3 H W"] | None = None,
    *,
    observed_frames: int,
    seed: int = 0,
) -> Look:
    """Predicts one clip open loop from its first frames, and draws what its context does.

    Args:
        model: in evaluation mode.
        video: the clip.
        other: a clip whose last frame is the context in the composition; without one there is none.
        observed_frames: frames that the model sees.
        seed: of the latents that are drawn.

    Raises:
        ValueError: frames of another size than the model's, nothing to observe or nothing to predict.
    """
    generator = torch.Generator(video.device).manual_seed(seed)
    prediction = model.predict(video, observed_frames=observed_frames, generator=generator)
    context = model.default_context(video[:, :observed_frames])
    if context is None:
        return Look(prediction, None, None)
    feature = posterior_features(model, video)
    borrowed = None if other is None else model.default_context(other)
    composition = None if borrowed is None else composition_of(model, video, feature, context, borrowed)
    return Look(prediction, attention_of(model, feature, context), composition)


def attention_of(
    model: VideoWorldModel,
    feature: Float[Tensor, "B T F"],
    context: UInt8[Tensor, "B k 3 H W"],
    *,
    captions: list[str] | None = None,
) -> Figure | None:
    """`attention_figure` of the last frame's feature; None for a model without cross-attention."""
    if model.config.frame.context is None or model.config.frame.context.mixing != "attention":
        return None
    weights = model.attention_maps(feature[:, -1:], context)[:, 0]
    side = round(weights.shape[1] ** 0.5)
    rows = [int(row * side) * side + int(column * side) for row, column in QUERIES]
    last_map = weights[:, rows, -side * side :].unflatten(-1, (side, side))
    decoded = model.decode(feature[:, -1:], context)[:, 0]
    return attention_figure(context[:, -1], decoded, last_map, QUERIES, captions=captions)


def composition_of(
    model: VideoWorldModel,
    video: UInt8[Tensor, "B T 3 H W"],
    feature: Float[Tensor, "B T F"],
    context: UInt8[Tensor, "B k 3 H W"],
    other: UInt8[Tensor, "B k 3 H W"],
) -> Figure:
    """`composition_figure` of these windows, decoded in their own context and in the other one."""
    own, composed = model.decode(feature, context), model.decode(feature, other)
    return composition_figure(video, context[:, -1], own, other[:, -1], composed)
