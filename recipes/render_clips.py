"""Films Meta-world's scripted experts: videos without actions, on tasks other than the one fine-tuned on.

    python recipes/render_clips.py --out runs/demo/rendered

Writes one mp4 per task and seed (5 tasks x 2 seeds by default), and what is already there stays, so that a
second call costs nothing. Needs headless GL; without it, one sentence says what to install and the exit code
is 3.
"""

import argparse
import itertools
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8

from cwm_hub.envs import gl_problem
from recipes.run.folder import RecipeError, one_sentence_errors

TASKS = ("drawer-open", "door-lock", "button-press-topdown-wall", "lever-pull", "dial-turn")
FPS = 25


def main() -> int:
    """Renders what is missing and prints one line per video."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the mp4 files")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), help="Meta-world task names without -v3")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--frames", type=int, default=40, help="frames per video")
    parser.add_argument("--image-size", type=int, default=64, help="side in pixels, even")
    parser.add_argument("--quality", choices=("exact", "close", "fast", "flat"), default="fast")
    arguments = parser.parse_args()

    if problem := gl_problem():
        print(problem, file=sys.stderr)
        return 3
    from cwm_hub.envs.metaworld import scripted_clip, task_names

    unknown = sorted(set(arguments.tasks) - set(task_names()))
    if unknown:
        raise RecipeError(f"unknown Meta-world tasks: {', '.join(unknown)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for task, seed in itertools.product(arguments.tasks, arguments.seeds):
        path = arguments.out / f"metaworld_{task}_{seed}.mp4"
        if not path.exists():
            clip = scripted_clip(
                task,
                seed=seed,
                frames=arguments.frames,
                image_size=arguments.image_size,
                quality=arguments.quality,
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
        sys.exit(main())
