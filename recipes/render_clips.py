"""Films Meta-world's scripted experts: videos without actions, on tasks other than the one fine-tuned on.

    python recipes/render_clips.py --out runs/demo/rendered

Writes one mp4 per task and seed (5 tasks x 2 seeds by default), and what is already there stays, so that a
second call costs nothing. Needs headless GL; without it, one sentence says what to install and the exit code
is 3.
"""

import itertools
import sys
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
from jaxtyping import UInt8

from cwm_hub.envs import gl_problem
from cwm_hub.envs.metaworld import scripted_clip, task_names
from recipes.run.command_line import parse_config
from recipes.run.folder import RecipeError, one_sentence_errors

TASKS = ("drawer-open", "door-lock", "button-press-topdown-wall", "lever-pull", "dial-turn")
FPS = 25


@dataclass(frozen=True, kw_only=True)
class RenderConfig:
    """What is filmed."""

    out: str
    """Folder of the mp4 files."""
    tasks: list[str] = field(default_factory=lambda: list(TASKS))
    """Meta-world task names without -v3."""
    seeds: list[int] = field(default_factory=lambda: [0, 1])
    """Seeds of every task."""
    frames: int = 40
    """Frames of a video."""
    image_size: int = 64
    """Side in pixels, even."""
    quality: Literal["exact", "close", "fast", "flat"] = "fast"
    """How the scene is drawn."""


def main(config: RenderConfig) -> int:
    """Renders what is missing and prints one line per video."""
    if problem := gl_problem():
        print(problem, file=sys.stderr)
        return 3
    unknown = sorted(set(config.tasks) - set(task_names()))
    if unknown:
        raise RecipeError(f"unknown Meta-world tasks: {', '.join(unknown)}")
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    for task, seed in itertools.product(config.tasks, config.seeds):
        path = out / f"metaworld_{task}_{seed}.mp4"
        if not path.exists():
            clip = scripted_clip(
                task,
                seed=seed,
                frames=config.frames,
                image_size=config.image_size,
                quality=config.quality,
            )
            write_mp4(path, clip)
        print(f"{path}  {path.stat().st_size} bytes")
    return 0


def write_mp4(path: Path, clip: UInt8[np.ndarray, "T H W 3"]) -> None:
    """Encodes visually lossless h264 (crf 10); the file appears whole or not at all."""
    partial = path.with_suffix(".part.mp4")
    with av.open(str(partial), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "10", "threads": "1"})
        stream.height, stream.width, stream.pix_fmt = clip.shape[1], clip.shape[2], "yuv420p"
        stream.time_base = Fraction(1, FPS)
        for image in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    partial.replace(path)


if __name__ == "__main__":
    with one_sentence_errors():
        sys.exit(main(parse_config(RenderConfig, description=__doc__)))
