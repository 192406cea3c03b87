"""Does a measure of motion tell a clip in which something moves from a still one? Made clips whose answer is known.

    PYTHONPATH=tests python benchmarks/bench_motion.py [--clips 480] [--seed 2]

Half of the clips are still: a picture (made, or of a sample clip) with grain, with flicker, with a drifting exposure, or two
pictures with a cut. In the other half a thin arm swings, the camera pans, or it is a sample clip at 1/1, 1/2 or 1/3 of its rate.
10 to 60 frames a second; grain of 0 to 8 grey levels; half of the made clips go through H.264 at three times the size (crf 20 to
33, a key frame every 12, 25 or 250 frames) with twice the grain. `LEAST` and the other constants were chosen with the seeds 0 and 1.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
from made_scenes import SAMPLES, add_noise, arm, gain, pan, real, scene, still

from cwm_hub.shards.cells import frame_cells
from cwm_hub.shards.measures import Measures, measure_clip
from cwm_hub.shards.moving import STILL
from dataprep.decode.cuts import find_cuts
from dataprep.decode.frames import DecodeSettings, open_video

NAMES = sorted(path.name for path in SAMPLES.iterdir() if path.suffix in (".mp4", ".webm"))
RATES = {"hand_box": 20.0, "hand_cup": 25.0, "outdoor_0": 15.0, "outdoor": 30.0, "balance": 60.0}
KINDS = ("grain", "flicker", "exposure", "two pictures", "arm", "pan", "arm ", "sample clip")
MOVING = KINDS[4:]


def clips(count: int, draw: np.random.Generator) -> Iterator[tuple[str, np.ndarray, float]]:
    """(kind, frames, frames per second)."""
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        fps, length = float(draw.choice([10, 12, 25, 30, 60])), int(draw.choice([30, 50, 80]))
        grain = float(draw.choice([0, 0.5, 1, 2, 4] + [8] * (kind not in MOVING)))
        if kind == "sample clip":
            name, step = str(draw.choice(NAMES)), int(draw.choice([1, 2, 3]))
            rate = next(rate for start, rate in RATES.items() if name.startswith(start))
            yield kind, add_noise(real(name)[::step], grain / 2, seed=number), rate / step
            continue
        frames = _made(kind.strip(), fps, length, draw)
        if draw.random() < 0.5:
            frames = _through_h264(
                add_noise(frames.repeat(3, 1).repeat(3, 2), 2 * grain, seed=number), fps, draw
            )
        else:
            frames = add_noise(frames, grain, seed=number)
        yield kind.strip(), frames, fps


def _made(kind: str, fps: float, length: int, draw: np.random.Generator) -> np.ndarray:
    picture = _picture(draw)
    if kind == "arm":
        value = picture[25:44, 30:34].mean() + draw.choice([-1, 1]) * draw.uniform(50, 120)
        speed, thickness = draw.uniform(0.3, 1.5), draw.uniform(1, 3)
        value = int(value if 0 <= value <= 255 else 255 * (value < 0))
        return arm(picture, length, fps=fps, radians_a_second=speed, thickness=thickness, value=value)
    if kind == "pan":
        wide = scene(int(draw.integers(10**6)), width=256, contrast=draw.uniform(0.3, 1))
        return pan(wide, length, pixels_a_frame=draw.uniform(3, 60) / fps)
    frames = still(picture, length)
    if kind == "flicker":
        frames = gain(frames, 1 + draw.uniform(0.03, 0.2) * np.sin(draw.uniform(0.5, 3) * np.arange(length)))
    elif kind == "exposure":
        frames = gain(frames, np.linspace(1, draw.uniform(0.5, 1.4), length))
    elif kind == "two pictures":
        frames[length // 2 :] = _picture(draw)
    return frames


def _picture(draw: np.random.Generator) -> np.ndarray:
    if draw.random() < 0.5:
        return scene(int(draw.integers(10**6)), contrast=draw.uniform(0.2, 1))
    return real(str(draw.choice(NAMES)))[0]


def _through_h264(frames: np.ndarray, fps: float, draw: np.random.Generator) -> np.ndarray:
    options = {"crf": str(draw.integers(20, 34)), "g": str(draw.choice([12, 25, 250])), "preset": "veryfast"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=round(fps), options=options)
            stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
            for pixels in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode(None))
        with open_video(path, DecodeSettings()) as video:
            return np.stack(list(video))


def report(name: str, moving: np.ndarray, at_rest: np.ndarray, threshold: float | None) -> None:
    """Area under the ROC curve; moving clips found with 1 % of the still ones; both shares at a threshold."""
    area = (moving[:, None] > at_rest).mean() + 0.5 * (moving[:, None] == at_rest).mean()
    found = (moving > np.quantile(at_rest, 0.99)).mean()
    line = f"{name:<26}{area:>8.4f}{found:>12.3f}"
    if threshold is not None:
        line += f"{(moving >= threshold).mean():>12.3f}{(at_rest >= threshold).mean():>12.3f}"
    print(line)


def main() -> None:
    """Print the ROC's figures for each measure, and how the new one is spread over each kind of clip."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clips", type=int, default=480)
    parser.add_argument("--seed", type=int, default=2)
    args = parser.parse_args()
    measured: list[tuple[str, float, Measures]] = []
    for kind, frames, fps in clips(args.clips, np.random.default_rng(args.seed)):
        measured.append((kind, fps, measure_clip(frames, fps, find_cuts(frame_cells(frames), fps))))
    is_moving = np.array([kind in MOVING for kind, *_ in measured])
    columns: dict[str, Callable[[float, Measures], float]] = {
        "motion (0-255 a frame)": lambda fps, measures: measures.motion,
        "motion x fps": lambda fps, measures: measures.motion * fps,
        "moving": lambda fps, measures: measures.moving,
    }
    print(f"{'':<26}{'area':>8}{'at 1% false':>12}{f'>= {STILL}':>12}{'false':>12}")
    for name, value in columns.items():
        values = np.array([value(fps, measures) for _, fps, measures in measured])
        report(name, values[is_moving], values[~is_moving], STILL if name == "moving" else None)
    print(f"\n{'moving of':<26}{'clips':>8}{'5%':>9}{'median':>9}{'95%':>9}")
    for kind in dict.fromkeys(kind.strip() for kind in KINDS):
        values = np.array([measures.moving for found, _, measures in measured if found == kind])
        low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
        print(f"{kind:<26}{len(values):>8}{low:>9.4f}{middle:>9.4f}{high:>9.4f}")


if __name__ == "__main__":
    main()
