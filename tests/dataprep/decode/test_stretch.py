"""Stretches of a long file are its frames by their number, in whatever order they are asked for."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from made_videos import counting_frames, read_numbers

from dataprep.decode.frames import DecodeSettings
from dataprep.decode.stretch import LongVideo, StretchReader, kept_frames

STARTS = ((0, 30), (30, 40), (110, 26), (70, 40), (180, 20))


def write_long(path: Path, codec: str, options: dict[str, str]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for pixels in counting_frames(200):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"g": "250", "bf": "3"}),  # one key frame
        ("libx264", {"g": "12", "bf": "3", "x264-params": "open-gop=1"}),
        ("libx264", {"g": "2"}),
        ("libx265", {"g": "20", "x265-params": "log-level=none"}),
        ("libsvtav1", {"g": "2", "crf": "30", "preset": "12"}),
    ],
)
def test_stretches_in_any_order(tmp_path: Path, codec: str, options: dict[str, str]) -> None:
    settings = DecodeSettings(min_frames=1)
    video = LongVideo(write_long(tmp_path / "long.mp4", codec, options), settings)
    assert video.frame_count == 200
    for start, length in STARTS:
        reader = StretchReader(video, settings, start=start, length=length, fps=10)
        assert read_numbers(np.stack(list(reader))) == [n % 64 for n in range(start, start + length)]


def test_stride_head_and_rate(make_video: Callable[..., Path]) -> None:
    file = make_video("a.mp4", counting_frames(60), fps=10)
    for settings, numbers in (
        (DecodeSettings(min_frames=1, stride=3), list(range(0, 30, 3))),
        (DecodeSettings(min_frames=1, stride=3, skip_head=4), list(range(6, 30, 3))),
        (DecodeSettings(min_frames=1, fps=20), [n // 2 for n in range(60)]),
        (DecodeSettings(min_frames=1, fps=5, stride=2), list(range(0, 30, 4))),
    ):
        reader = StretchReader(LongVideo(file, settings), settings, start=20, length=30, fps=10)
        shown = [(20 + n) % 64 for n in numbers]
        if settings.fps == 20:  # a tick halfway between two frames takes the earlier one
            shown = [20 + (n // 2) for n in range(59)]
        assert read_numbers(np.stack(list(reader))) == shown
        assert reader.output_fps == (settings.fps or 10) / settings.stride


def test_resampling_to_the_native_rate_changes_nothing() -> None:
    for fps in (10, 29.97, 30000 / 1001, 60):
        assert kept_frames(1000, fps, DecodeSettings(fps=fps)) == list(range(1000))
    assert kept_frames(0, 10, DecodeSettings(fps=5)) == []
    assert kept_frames(7, 10, DecodeSettings(fps=4)) == [0, 2, 5]
