"""Pictures of what a world model does: every function takes tensors or numbers and returns a matplotlib `Figure`.

    figures.save(figures.prediction_grid(video, {"contextwm": model.predict(video)}, observed_frames=5), "grid.png")

No pyplot: figures have no global state.

Shape key: B windows, T frames, N clips, Q query positions, H W pixels, h w positions of a context map, F feature.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from cwm_hub.evaluation.probes import separability
from cwm_hub.figures.films import write_mp4
from cwm_hub.figures.sheet import (
    FAINT,
    INK,
    OPEN_LOOP,
    PAPER,
    SEEN,
    STYLE,
    Sheet,
    enlarged,
    pixel_scale,
)

ERROR_LEVELS = 64
"""Mean absolute difference, in 0-255 units, that an error picture shows in its brightest colour."""

# --- frames


def prediction_grid(
    truth: UInt8[Tensor, "B T 3 H W"],
    predictions: Mapping[str, UInt8[Tensor, "B T 3 H W"]],
    *,
    observed_frames: int,
    captions: Sequence[str] | None = None,
) -> Figure:
    """Truth, every model and its error over time, the frames that the models saw marked.

    Args:
        truth: Windows, a block of rows each.
        predictions: Name -> reconstructions of the observed frames, then the open-loop prediction.
        observed_frames: Frames that the models saw.
        captions: One line per window.

    Ten time steps are shown: a longer window is thinned evenly, observed and predicted frames apart.
    """
    times = _shown_times(truth.shape[1], observed_frames, 10)
    # 64 pixels are 64: a sheet twice as wide is shrunk by every page, its words with it.
    cell = truth.shape[-1] * (scale := pixel_scale(truth.shape[-1], 90))
    names = ["truth", *itertools.chain.from_iterable((name, "error") for name in predictions)]
    block = len(names) * (cell + 2) + 26
    gutter = max(_GUTTER, *(16 + 7 * len(name) for name in names))
    sheet = Sheet(gutter + len(times) * (cell + 2) + 10, 44 + len(truth) * block + 18)
    left = {
        time: gutter + at * (cell + 2) + (4 if time >= observed_frames else 0)
        for at, time in enumerate(times)
    }
    _mark_time(sheet, left, cell, observed_frames)
    for window in range(len(truth)):
        top = 44 + window * block
        sheet.words(captions[window] if captions else "", gutter, top + 8, colour=FAINT, size=7.5)
        rows = [_frames(truth[window])]
        for video in predictions.values():
            rows += [_frames(video[window]), _error_picture(video[window], truth[window])]
        for row, (name, pictures) in enumerate(zip(names, rows, strict=True)):
            y = top + 18 + row * (cell + 2)
            sheet.words(
                name, gutter - 8, y + cell // 2, align="right", colour=FAINT if name == "error" else INK
            )
            for time in times:
                sheet.picture(pictures[time], left[time], y, scale)
    note = f"error: mean |difference| of the channels, black 0, brightest {ERROR_LEVELS} grey levels of 255 or more"
    sheet.words(note, gutter, sheet.height - 11, colour=FAINT, size=7.5)
    return sheet.figure()


def attention_figure(
    context: UInt8[Tensor, "B 3 H W"],
    decoded: UInt8[Tensor, "B 3 H W"],
    attention: Float[Tensor, "B Q h w"],
    queries: Sequence[tuple[float, float]],
    *,
    captions: Sequence[str] | None = None,
) -> Figure:
    """Where in the context frame each chosen position of a reconstructed frame looks.

    Every map is drawn relative to its own largest weight, so a flat one is bright all over: what its peak is over a
    uniform map is written under it.

    Args:
        context: Context frame of every window, the last one where there are several.
        decoded: Reconstruction of the window's last frame from latents that have seen it; it is no prediction.
        attention: Weights over that context frame's tokens, one map per query. A map sums to 1, or to the share
            that is left to it by earlier context frames.
        queries: (row, column) of every query position as shares of the picture, in the order of `attention`; the
            ring is at the centre of the token in which the position lies.
        captions: One line per window.
    """
    side = context.shape[-1]
    cell = side * (scale := pixel_scale(side, 128))
    block = cell + 46
    sheet = Sheet(16 + (2 + len(queries)) * (cell + 6), 44 + len(context) * block + 40)
    for at, title in enumerate(
        ["context frame", "reconstruction", *(f"query {n + 1}" for n in range(len(queries)))]
    ):
        sheet.words(title, 8 + at * (cell + 6), 18, size=9.0)
    for window in range(len(context)):
        top = 44 + window * block
        sheet.words(captions[window] if captions else "", 8, top - 9, colour=FAINT, size=7.5)
        sheet.picture(_frames(context[window]), 8, top, scale)
        sheet.picture(_frames(decoded[window]), 14 + cell, top, scale)
        for number, (row, column) in enumerate(queries):
            left = 8 + (2 + number) * (cell + 6)
            weights = attention[window, number]
            sheet.picture(_heat(context[window], weights), left, top, scale)
            sheet.words(_sharpness(weights), left, top + cell + 14, colour=FAINT, size=7.5)
            y, x = (
                round((int(share * tokens) + 0.5) / tokens * cell)
                for share, tokens in zip((row, column), weights.shape, strict=True)
            )
            for start in (14 + cell, left):
                sheet.mark(start + x, top + y, str(number + 1))
    notes = (
        "reconstruction: the window's last frame, from latents that have seen it; ring: the token that asks",
        "colour: attention over the last context frame, mean of heads, relative to each map's peak",
    )
    for line, note in enumerate(notes):
        sheet.words(note, 8, sheet.height - 26 + 14 * line, colour=FAINT, size=7.5)
    return sheet.figure()


def composition_figure(
    dynamics: UInt8[Tensor, "B T 3 H W"],
    own_context: UInt8[Tensor, "B 3 H W"],
    own: UInt8[Tensor, "B T 3 H W"],
    context: UInt8[Tensor, "B 3 H W"],
    composed: UInt8[Tensor, "B T 3 H W"],
) -> Figure:
    """The dynamics of A decoded with the context frame of another clip B, at eight times: what the latents carry, and what not.

    Args:
        dynamics: Windows A, a block of rows each.
        own_context: Context frame of A.
        own: A, decoded from latents of its every frame in its own context.
        context: Context frame of B.
        composed: The same latents decoded in the context of B.
    """
    side = context.shape[-1]
    cell = side * (scale := pixel_scale(side, 96))
    times = np.linspace(0, dynamics.shape[1] - 1, min(8, dynamics.shape[1])).round().astype(int)
    width = _GUTTER + cell + 14 + len(times) * (cell + 2) + 10
    sheet = Sheet(width, 50 + len(context) * (3 * (cell + 2) + 18))
    sheet.words("context frame", _GUTTER, 18, size=8.5)
    for at, time in enumerate(times):
        sheet.words(
            f"frame {time + 1}",
            _GUTTER + cell + 14 + at * (cell + 2) + cell // 2,
            18,
            align="center",
            size=8.5,
        )
    for window in range(len(context)):
        top = 34 + window * (3 * (cell + 2) + 18)
        rows = [
            ("A, truth", None, dynamics),
            ("dynamics of A,\ncontext of A", own_context, own),
            ("dynamics of A,\ncontext of B", context, composed),
        ]
        for row, (name, shown, video) in enumerate(rows):
            y = top + row * (cell + 2)
            sheet.words(name, _GUTTER - 8, y + cell // 2, align="right")
            if shown is not None:
                sheet.picture(_frames(shown[window]), _GUTTER, y, scale)
            for at, time in enumerate(times):
                sheet.picture(_frames(video[window, time]), _GUTTER + cell + 14 + at * (cell + 2), y, scale)
    note = "A, B: windows of different videos; latents inferred from every frame of A, only the context frame is exchanged"
    sheet.words(note, _GUTTER, sheet.height - 10, colour=FAINT, size=7.5)
    return sheet.figure()


def write_video(
    path: str | Path,
    truth: UInt8[Tensor, "B T 3 H W"],
    predictions: Mapping[str, UInt8[Tensor, "B T 3 H W"]],
    *,
    observed_frames: int,
) -> Path:
    """An mp4 of truth beside predictions: a grey bar under the frames that were seen, an orange one in open loop.

    Two windows across, every pixel at least 4 x 4, eight frames a second; the last frame stays for half a second.
    """
    pictures = []
    for time in range(truth.shape[1]):
        when = f"seen {time + 1}" if time < observed_frames else f"+{time + 1 - observed_frames}"
        videos = {name: _frames(video[:, time]) for name, video in {"truth": truth, **predictions}.items()}
        colour = SEEN if time < observed_frames else OPEN_LOOP
        pictures.append(_video_picture(videos, when, colour))
    return write_mp4(path, [*pictures, *pictures[-1:] * 4], frames_per_second=8.0)


def _video_picture(videos: Mapping[str, np.ndarray], when: str, colour: str) -> Image.Image:
    """One frame of the mp4, its sides even as yuv420p wants them; `videos` are [B, H, W, 3]."""
    windows, side = next(iter(videos.values())).shape[:2]
    cell = side * (scale := max(4, pixel_scale(side, 192)))
    width, height = len(videos) * (cell + 2) + 14, cell + 34
    size = min(windows, 2) * width, -(-windows // 2) * height
    canvas = Image.new("RGB", (size[0] + size[0] % 2, size[1] + size[1] % 2), PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=13)
    for window in range(windows):
        for at, (name, frames) in enumerate(videos.items()):
            x = window % 2 * width + 6 + at * (cell + 2)
            y = window // 2 * height + 20
            canvas.paste(Image.fromarray(enlarged(frames[window], scale)), (x, y))
            draw.text((x, y - 4), name, fill=INK, font=font, anchor="ls")
            if at == 0:
                draw.text((x + cell - 6, y - 4), when, fill=colour, font=font, anchor="rs")
            draw.rectangle((x, y + cell + 2, x + cell - 1, y + cell + 5), fill=colour)
    return canvas


# --- latents


def latent_embedding(
    features: Float[np.ndarray, "N F"], labels: Sequence[int], names: Mapping[int, str]
) -> tuple[Figure, dict[str, float]]:
    """t-SNE of clip features coloured by label, and `metrics.separability` of the features themselves.

    Args:
        features: Time-averaged latents, one row per clip.
        labels: Class of every clip.
        names: Class -> words.
    """
    from sklearn.manifold import TSNE

    numbers = separability(features, labels)
    perplexity = min(30.0, (len(features) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 4.0), dpi=150, layout="constrained")
        axes = figure.subplots()
        for label, colour in zip(sorted(set(labels)), itertools.cycle(mpl.color_sequences["tab10"])):
            chosen = points[np.asarray(labels) == label]
            axes.plot(
                *chosen.T, "o", ms=5, color=colour, alpha=0.8, mew=0, label=names.get(label, str(label))
            )
        axes.set(title="Time-averaged latents, t-SNE", xticks=[], yticks=[], frame_on=False)
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
        axes.set_xlabel(
            f"silhouette {numbers['silhouette']:.2f}, nearest neighbours {100 * numbers['knn_accuracy']:.0f} % right\n"
            f"(commonest label {100 * numbers['chance']:.0f} %)",
            fontsize=8,
        )
    return figure, numbers


# --- drawing

_GUTTER = 122


def _mark_time(sheet: Sheet, left: Mapping[int, int], cell: int, observed_frames: int) -> None:
    """Column headings: frames seen, then the horizon of every open-loop frame."""
    for words, colour, times in (
        ("seen by the model", SEEN, [time for time in left if time < observed_frames]),
        ("predicted open loop", OPEN_LOOP, [time for time in left if time >= observed_frames]),
    ):
        start, stop = left[times[0]], left[times[-1]] + cell
        sheet.words(words, start, 9, colour=colour, size=8.5)
        sheet.bar(start, 17, stop - start, 3, colour)
        for time in times:
            text = f"{time + 1}" if time < observed_frames else f"+{time + 1 - observed_frames}"
            sheet.words(text, left[time] + cell // 2, 31, align="center", colour=colour)


def _shown_times(frames: int, observed_frames: int, columns: int) -> list[int]:
    """At most `columns` frames, both ends of the observed and of the open-loop part among them."""
    if frames <= columns:
        return list(range(frames))
    seen = max(2, min(observed_frames, columns // 4))
    past = np.linspace(0, observed_frames - 1, min(seen, observed_frames))
    future = np.linspace(observed_frames, frames - 1, columns - len(past))
    return sorted({int(time) for time in np.concatenate([past, future]).round()})


def _frames(video: Tensor) -> np.ndarray:
    """Channels last, as pictures are drawn."""
    return video.movedim(-3, -1).cpu().numpy()


def _error_picture(prediction: Tensor, truth: Tensor) -> np.ndarray:
    error = (prediction.int() - truth.int()).abs().float().mean(-3).cpu().numpy() / ERROR_LEVELS
    return _coloured(error)


def _coloured(share: np.ndarray) -> np.ndarray:
    return (mpl.colormaps["inferno"](share.clip(0, 1))[..., :3] * 255).astype(np.uint8)


def _sharpness(weights: Tensor) -> str:
    """How far an attention map is from a uniform one, and its share of the weight where it has not all of it."""
    share = float(weights.sum())
    peak = f"peak {float(weights.max()) * weights.numel() / share:.1f} x uniform"
    return peak if share > 0.995 else f"{peak}\n{100 * share:.0f} % of the weight"


def _heat(frame: Tensor, weights: Tensor) -> np.ndarray:
    """A darkened grey frame with attention laid over it, every weight a block of pixels."""
    block = frame.shape[-1] // weights.shape[-1]
    share = (weights / weights.max()).cpu().numpy().repeat(block, 0).repeat(block, 1)
    grey = _frames(frame).mean(-1, keepdims=True) * 0.6
    return (grey * (1 - share[..., None]) + _coloured(share) * share[..., None]).astype(np.uint8)
