"""The page: a thin layer of gradio over `figures.look`, for `cwm-hub app` and for a Space."""

import html
import io
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from cwm_hub.figures.frames import write_video
from cwm_hub.figures.look import look
from cwm_hub.figures.sheet import png
from cwm_hub.hub.pretrained import from_pretrained
from cwm_hub.hub.space.clips import read_clip, sample_clips
from cwm_hub.models.video_world_model import VideoWorldModel

OBSERVED_FRAMES = 5
LARGEST_OPEN_LOOP = 29
"""Frames: the shortest sample clip has 34."""
LARGEST_UPLOAD = "200mb"
PICTURES = {
    "attention": "### Where it looks in the context frame",
    "composition": "### The clip's dynamics in the other clip's context",
}
"""Of a model with a context, with their headings."""


def make_page(name: str, *, revision: str | None = None, title: str | None = None) -> gr.Blocks:
    """The page of one model, on the CPU; `.launch()` starts it.

    Args:
        name: directory, embedded name or Hub repository of a video world model.
        revision: branch, tag or commit on the Hub.
        title: how the page calls it; by its name where absent.

    Raises:
        CheckpointError: it cannot be loaded, or is another kind of model.
    """
    model: VideoWorldModel = from_pretrained(name, revision=revision, expect=VideoWorldModel)
    title, samples = title or name, sample_clips()
    said = "Licences of the sample clips: `dataprep/samples/NOTICE` of the package."
    contextual = model.config.frame.context is not None
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(
            f"# {html.escape(title)}\nA world model sees the first {OBSERVED_FRAMES} frames of a clip and goes on alone. "
            f"Frames are squashed to {model.image_size} x {model.image_size} pixels. "
            f"{said if samples else 'This installation has no sample clips: upload one.'}"
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                clips = _clip_inputs("Clip", list(samples), 0)
                with gr.Column(visible=contextual):
                    others = _clip_inputs("Another clip, whose context is borrowed", list(samples), -1)
                steps = gr.Slider(1, LARGEST_OPEN_LOOP, value=20, step=1, label="Open-loop frames")
                button = gr.Button("Predict", variant="primary")
            with gr.Column(scale=3, min_width=300):
                gr.Markdown(
                    "### Truth and prediction\nThe bar below is grey while the model sees the frames, and orange when it goes on alone."
                )
                film = gr.Video(**_bare("film"), autoplay=True, loop=True, height=300)
        pictures = []
        for name, heading in PICTURES.items():
            gr.Markdown(heading, visible=contextual)
            pictures.append(gr.Image(**_bare(name), format="png", visible=contextual))
        show, inputs, outputs = _answer(model, samples), [*clips, *others, steps], [film, *pictures]
        button.click(show, inputs, outputs, api_name="predict", concurrency_limit=1, concurrency_id="look")
        if samples:
            page.load(show, inputs, outputs, api_visibility="private", concurrency_id="look")
    return page


def _bare(name: str) -> dict[str, Any]:
    """A picture or film without the label that gradio would lay over it."""
    return {"label": name, "show_label": False, "interactive": False, "buttons": ["download"]}


def _clip_inputs(label: str, samples: list[str], chosen: int) -> tuple[gr.Dropdown, gr.Video]:
    """A sample clip, or in its place a video of one's own."""
    sample = gr.Dropdown(
        samples, value=samples[chosen] if samples else None, label=label, visible=bool(samples)
    )
    with gr.Accordion("or upload a video in its place" if samples else label, open=not samples):
        return sample, gr.Video(label=label, show_label=False, sources=["upload"], height=140)


def _answer(model: VideoWorldModel, samples: dict[str, Path]) -> Callable[..., tuple]:
    """What the button does; bad input is one sentence on the page."""
    scratch = TemporaryDirectory(prefix="cwm-hub-app-")

    def clip(sample: str | None, upload: str | None, frames: int) -> Tensor | None:
        path = upload or samples.get(sample or "")
        return None if path is None else read_clip(path, size=model.image_size, frames=frames)

    def show(
        sample: str | None, upload: str | None, other: str | None, other_upload: str | None, open_loop: int
    ) -> tuple[str, Image.Image | None, Image.Image | None]:
        try:
            video = clip(sample, upload, OBSERVED_FRAMES + int(open_loop))
            if video is None:
                raise ValueError("choose a sample clip or upload a video")
            borrowed = clip(other, other_upload, OBSERVED_FRAMES)
            seen = look(model, video, borrowed, observed_frames=OBSERVED_FRAMES)
        except ValueError as error:
            raise gr.Error(html.escape(str(error)), print_exception=False) from error
        film = Path(scratch.name) / "film.mp4"  # one call at a time, and gradio copies it
        write_video(film, video, {"prediction": seen.prediction}, observed_frames=OBSERVED_FRAMES)
        return str(film), _picture(seen.attention), _picture(seen.composition)

    return show


def _picture(figure: Figure | None) -> Image.Image | None:
    return None if figure is None else Image.open(io.BytesIO(png(figure)))
