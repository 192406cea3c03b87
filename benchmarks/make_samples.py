"""Cut the clips of `dataprep/samples/` from their original recordings; kept so that the embedded default can be remade.

    python benchmarks/make_samples.py ORIGINALS dataprep/samples

ORIGINALS holds the files named in `CUTS` (where they come from: dataprep/samples/NOTICE). Prints one line a clip with
its frames, bytes and motion, so that a still one is seen at once.
"""

import argparse
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation

from cwm_hub.shards.measures import measure_clip


@dataclass(frozen=True)
class Cut:
    """Every `step`-th frame from `first` on, `count` of them; `crop` is left, top, width, height in source pixels."""

    original: str
    first: int
    count: int
    step: int
    fps: int
    crop: tuple[int, int, int, int]
    width: int
    height: int


def hand(original: str, part: int, step: int, fps: int) -> Cut:
    """One of four successive stretches of a hand moving an object, whole picture."""
    return Cut(original, part * 54 * step, 54, step, fps, (0, 0, 640, 480), 240, 180)


BALANCE_TRAIN, BALANCE_LATER = (0, 66), (66, 34)
"""First frame and number of frames of a balancing clip and of its held-out continuation."""


def balance(scene: str, camera: int, stretch: tuple[int, int]) -> Cut:
    """A man balancing, at 60 frames a second, square round him."""
    top = {1: 230, 2: 220, 3: 230, 4: 330}[camera]
    return Cut(f"pose2sim_{scene}_cam0{camera}.mp4", *stretch, 1, 60, (64, top, 960, 960), 200, 200)


CUTS = {
    **{f"hand_box_{part}.webm": hand("opencv_box.mp4", part, step=2, fps=20) for part in range(4)},
    **{f"hand_cup_{part}.webm": hand("opencv_cup.mp4", part, step=1, fps=25) for part in range(4)},
    **{
        f"balance_{scene}_cam{camera}.mp4": balance(scene, camera, BALANCE_TRAIN)
        for scene in ("multi", "single")
        for camera in (1, 2, 3, 4)
    },
    **{
        f"balance_{scene}_cam{camera}_later.mp4": balance(scene, camera, BALANCE_LATER)
        for scene, camera in (("multi", 1), ("multi", 3), ("single", 2), ("single", 4))
    },
    "outdoor_0.webm": Cut("sports2d_demo.mp4", 0, 54, 2, 15, (150, 0, 1324, 994), 240, 180),
    "outdoor_1.webm": Cut("sports2d_demo.mp4", 108, 54, 1, 30, (100, 300, 924, 694), 240, 180),
    "outdoor_2.webm": Cut("sports2d_demo.mp4", 162, 54, 1, 30, (100, 300, 924, 694), 240, 180),
}
ENCODERS = {
    ".webm": ("libvpx-vp9", {"crf": "38", "b": "0", "deadline": "good", "cpu-used": "1"}),
    ".mp4": ("libx264", {"crf": "30", "preset": "veryslow"}),
}


def read_cut(path: Path, cut: Cut) -> np.ndarray:
    """The cut's frames, u8 [T, H, W, 3]."""
    frames: list[np.ndarray] = []
    left, top, width, height = cut.crop
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        for index, frame in enumerate(container.decode(stream)):
            if index >= cut.first and (index - cut.first) % cut.step == 0:
                pixels = frame.to_ndarray(format="rgb24")[top : top + height, left : left + width]
                small = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(
                    cut.width, cut.height, "rgb24", interpolation=Interpolation.AREA
                )
                frames.append(small.to_ndarray())
            if len(frames) == cut.count:
                return np.stack(frames)
    raise SystemExit(f"{path} ends {cut.count - len(frames)} frames before the cut does")


def write_cut(path: Path, frames: np.ndarray, fps: int) -> None:
    """Encode by the file's suffix: VP9 in webm, H.264 in mp4."""
    codec, options = ENCODERS[path.suffix]
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.codec_context.thread_count = 1
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def main() -> None:
    """Make every cut."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("originals", type=Path)
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    total = 0
    for name, cut in CUTS.items():
        frames = read_cut(args.originals / cut.original, cut)
        write_cut(args.target / name, frames, cut.fps)
        size = (args.target / name).stat().st_size
        total += size
        print(
            f"{name:28s} {len(frames)} frames {size:7d} bytes  motion {measure_clip(frames, 25).motion:.2f}"
        )
    print(f"{len(CUTS)} clips, {total} bytes")


if __name__ == "__main__":
    main()
