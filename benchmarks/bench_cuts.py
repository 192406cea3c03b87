"""Our shot cuts beside PySceneDetect's, on videos whose cuts are known.

    PYTHONPATH=tests python benchmarks/bench_cuts.py     # PySceneDetect too, where `scenedetect` and OpenCV are installed

Joins: the last 20 frames of each sample clip and the first 20 of each one of another recording (two of one recording
may continue each other). Dissolves: the same with 6, 12 and 25 mixed frames, each two cuts. Uncut: every sample clip at 1/1, 1/2, 1/3 and 1/5 of its rate. Marked and traps: the ten videos of
`tests/made_scenes.py`. Each detector sees the 64-pixel frames and no limit on the length of a shot.
"""

import importlib.util
import itertools
import time
from collections.abc import Callable, Iterator

import numpy as np
from made_scenes import SAMPLES, dissolve, marked_videos, real

from cwm_hub.shards.cells import frame_cells
from dataprep.decode.cuts import find_cuts

OFF = 2
"""Frames by which the beginning and the end of a dissolve may be off."""
KINDS = ("joins", "dissolves", "marked", "uncut", "traps")
Detector = Callable[[np.ndarray, float], tuple[int, ...]]


def videos() -> Iterator[tuple[str, np.ndarray, float, list[int]]]:
    """(set, frames, frames per second, cuts)."""
    names = sorted(path.name for path in SAMPLES.iterdir() if path.suffix in (".mp4", ".webm"))
    for one, other in itertools.permutations(names, 2):
        if one.split("_")[:2] != other.split("_")[:2]:
            yield "joins", np.concatenate([real(one)[-20:], real(other, 20)]), 25, [20]
            for mixed in (6, 12, 25):
                frames, cuts = dissolve(real(one)[-mixed - 15 :], real(other, mixed + 15), mixed)
                yield "dissolves", frames, 25, cuts
    for name, step in itertools.product(names, (1, 2, 3, 5)):
        yield "uncut", real(name)[::step], 25 / step, []
    for frames, cuts in marked_videos().values():
        yield "marked" if cuts else "traps", frames, 25, cuts


def reference(kind: str) -> Detector:
    """A detector of PySceneDetect with its own threshold."""
    import scenedetect

    def find(frames: np.ndarray, fps: float) -> tuple[int, ...]:
        detector = getattr(scenedetect, kind)(min_scene_len=1)
        found = []
        for number, frame in enumerate(frames):
            bgr = np.ascontiguousarray(frame[..., ::-1])
            found += detector.process_frame(scenedetect.FrameTimecode(number, float(fps)), bgr)
        found += detector.post_process(scenedetect.FrameTimecode(len(frames) - 1, float(fps)))
        return tuple(int(cut.frame_num) for cut in found)

    return find


def main() -> None:
    """Print a line for each detector and set."""
    detectors: dict[str, Detector] = {"ours": lambda frames, fps: find_cuts(frame_cells(frames), fps)}
    if importlib.util.find_spec("scenedetect"):
        detectors |= {kind: reference(kind) for kind in ("ContentDetector", "AdaptiveDetector")}
    every = list(videos())
    print(f"{'detector':<18}{'set':<10}{'found':>14}{'false':>7}{'frames':>8}{'us a frame':>12}")
    for (name, find), kind in itertools.product(detectors.items(), KINDS):
        hits = cuts = false = total = 0
        started = time.process_time()
        for _, frames, fps, truth in (video for video in every if video[0] == kind):
            found = set(find(frames, fps))
            near = OFF if kind == "dissolves" else 0
            hits += sum(any(abs(cut - one) <= near for one in found) for cut in truth)
            false += sum(all(abs(cut - one) > near for cut in truth) for one in found)
            cuts, total = cuts + len(truth), total + len(frames)
        cost = 1e6 * (time.process_time() - started) / total
        print(f"{name:<18}{kind:<10}{f'{hits} of {cuts}':>14}{false:>7}{total:>8}{cost:>12.1f}")


if __name__ == "__main__":
    main()
