"""Films scripted experts with noise on their actions: videos without actions, to pre-train on.

    python recipes/render_clips.py --out runs/demo/rendered                 # Meta-world, tasks other than reach
    python recipes/render_clips.py --env scenes --out runs/demo/scenes      # scenes that no agent is evaluated on

Writes one mp4 per task and seed (Meta-world: 5 tasks x 2 seeds by default; scenes: 100 seeds), and what is already there
stays, so that a second call costs nothing. Meta-world needs headless GL; without it, one sentence says what to install
and the exit code is 3.
"""

import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Literal

import av
import numpy as np
from jaxtyping import UInt8

from cwm_hub.command_line import Pace, how_many
from cwm_hub.envs import gl_problem, scenes
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
    env: Literal["metaworld", "scenes"] = "metaworld"
    """Whose expert is filmed."""
    tasks: list[str] = field(default_factory=lambda: list(TASKS))
    """Meta-world task names without -v3; scenes has none."""
    seeds: list[int] | None = None
    """Seeds of every task; null is 0 and 1 on Meta-world, 0 to 99 on scenes."""
    count: int | None = None
    """In place of `seeds`: so many, from `first_seed` on."""
    first_seed: int = 0
    """The first of `count`."""
    backgrounds: int | None = None
    """On scenes: the clips share so many backgrounds in turn; null gives each its own."""
    frames: int = 40
    """Frames of a video."""
    image_size: int = 64
    """Side in pixels, even."""
    quality: Literal["exact", "close", "fast", "flat"] = "fast"
    """How Meta-world is drawn."""


def main(config: RenderConfig) -> int:
    """Renders what is missing; prints how far it is, and at the end where the videos are."""
    if config.env == "metaworld" and (problem := gl_problem()):
        print(problem, file=sys.stderr)
        return 3
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    wanted = {out / f"{name}.mp4": draw for name, draw in clips(config).items()}
    missing = {path: draw for path, draw in wanted.items() if not path.exists()}
    pace = Pace(len(missing), "videos")
    for path, draw in missing.items():
        write_mp4(path, draw())
        pace.add(1)
    kilobytes = sum(path.stat().st_size for path in wanted) / 1000
    print(
        f"{how_many(len(wanted), 'video')} in {out}, {len(missing):,} of them new, {kilobytes:,.0f} kB together"
    )
    return 0


def clips(config: RenderConfig) -> dict[str, Callable[[], UInt8[np.ndarray, "T H W 3"]]]:
    """Name of every video asked for, and what draws it."""
    shape = {"frames": config.frames, "image_size": config.image_size}
    if config.env == "scenes":
        seeds = chosen_seeds(config) or range(100)
        return {
            f"scenes_{seed}": partial(scenes.scripted_clip, seed=seed, scene=scene, **shape)
            for seed, scene in zip(seeds, backgrounds(seeds, config.backgrounds), strict=True)
        }
    unknown = sorted(set(config.tasks) - set(task_names()))
    if unknown:
        raise RecipeError(f"unknown Meta-world tasks: {', '.join(unknown)}")
    return {
        f"metaworld_{task}_{seed}": partial(scripted_clip, task, seed=seed, quality=config.quality, **shape)
        for task, seed in itertools.product(config.tasks, chosen_seeds(config) or (0, 1))
    }


def chosen_seeds(config: RenderConfig) -> Sequence[int] | None:
    """The seeds asked for, either way; None where none were.

    Raises:
        RecipeError: both ways at once, or none of something.
    """
    if config.count is None:
        return config.seeds
    if config.seeds is not None or config.count < 1:
        raise RecipeError("give --seeds or a --count of at least 1, not both")
    return range(config.first_seed, config.first_seed + config.count)


def backgrounds(seeds: Sequence[int], count: int | None) -> list[int | None]:
    """The seed whose background each clip has: its own, or those of the first `count` seeds in turn.

    Raises:
        RecipeError: none at all.
    """
    if count is None:
        return [None for _ in seeds]
    if count < 1:
        raise RecipeError(f"--backgrounds is at least 1, got {count}")
    return [seeds[at % count] for at in range(len(seeds))]


def write_mp4(path: Path, clip: UInt8[np.ndarray, "T H W 3"]) -> None:
    """Encodes visually lossless h264 (crf 10); the file appears whole or not at all."""
    unfinished = path.with_suffix(".part.mp4")
    with av.open(str(unfinished), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "10", "threads": "1"})
        stream.height, stream.width, stream.pix_fmt = clip.shape[1], clip.shape[2], "yuv420p"
        stream.time_base = Fraction(1, FPS)
        for image in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    unfinished.replace(path)


if __name__ == "__main__":
    with one_sentence_errors():
        sys.exit(main(parse_config(RenderConfig, description=__doc__)))
