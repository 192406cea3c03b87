"""Frames stand upright: every matrix of a container, and the one that the bitstream tells once."""

import itertools
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from made_videos import CASES, write_video

from dataprep.decode.frames import DecodeSettings, open_video
from dataprep.decode.stretch import LongVideo

COLOURS = {"R": (255, 0, 0), "G": (0, 255, 0), "B": (0, 0, 255), "W": (255, 255, 255)}
STORED = np.array([["R", "G"], ["B", "W"]])
"""The corners of the stored picture."""


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    picture = np.array([[COLOURS[name] for name in row] for row in STORED], np.uint8)
    frames = np.broadcast_to(picture.repeat(48, 0).repeat(64, 1), (36, 96, 128, 3))
    return write_video(tmp_path / "stored.mp4", frames)


def corners(frame: np.ndarray) -> list[list[str]]:
    """The nearest colour in the middle of each quarter."""

    def nearest(pixel: np.ndarray) -> str:
        return min(COLOURS, key=lambda name: np.abs(np.array(COLOURS[name]) - pixel.astype(int)).sum())

    return [[nearest(frame[y, x]) for x in (16, 48)] for y in (16, 48)]


def all_corners(path: Path) -> list[list[list[str]]]:
    """Of the frames, without repetitions of the one before."""
    with open_video(path, DecodeSettings(min_frames=1)) as video:
        return [key for key, _ in itertools.groupby(corners(frame) for frame in video)]


@pytest.mark.parametrize("matrix", list(itertools.product((1, -1), (1, -1), (False, True))))
@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_every_matrix_of_a_container(stored: Path, suffix: str, matrix: tuple[int, int, bool]) -> None:
    """x' = sx x and y' = sy y; or, turned, x' = sy y and y' = sx x: what becomes of the stored corners can be read off."""
    sx, sy, turned = matrix
    path = stored.with_name(f"turned.{suffix}")
    with av.open(str(stored)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        rows = [0, sx, 0, sy, 0, 0] if turned else [sx, 0, 0, 0, sy, 0]
        stream.set_display_matrix([value << 16 for value in rows] + [0, 0, 1 << 30])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    wanted = STORED[::sy, ::sx]
    assert all_corners(path) == [(wanted.T if turned else wanted).tolist()]
    with open_video(path, DecodeSettings(min_frames=1)) as video:
        assert (video.info.width, video.info.height) == ((96, 128) if turned else (128, 96))
        assert video.info.mirrored == ((sx * sy < 0) != turned)
    long = LongVideo(path, DecodeSettings())
    stretch = [corners(long.pixels(frame, number)) for number, frame in long.stretch(20, 2)]
    assert stretch == 2 * [(wanted.T if turned else wanted).tolist()]


def test_a_mirror_that_the_bitstream_tells_holds_for_every_frame() -> None:
    assert all_corners(CASES / "selfie.mp4") == [[["G", "R"], ["W", "B"]]]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(
    ("told", "wanted"),
    [("rotate=90", [["G", "W"], ["R", "B"]]), ("rotate=180:flip=horizontal", [["B", "W"], ["R", "G"]])],
)
def test_what_one_key_frame_tells_holds_until_the_next_word(
    stored: Path, suffix: str, told: str, wanted: list[list[str]]
) -> None:
    """Three groups of pictures, of which FFmpeg lets only the first speak."""
    path = stored.with_name(f"told.{suffix}")
    with av.open(str(stored)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        words = BitStreamFilterContext(
            f"h264_metadata=display_orientation=insert:{told}",
            in_stream=source.streams.video[0],
            out_stream=stream,
        )
        for packet in source.demux(video=0):
            for changed in words.filter(packet if packet.dts is not None else None):
                changed.stream = stream
                target.mux(changed)
    assert all_corners(path) == [wanted]
