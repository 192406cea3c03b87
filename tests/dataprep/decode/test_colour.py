"""What colours mean: the frame's tags, or the container's, or BT.601; and what cannot be shown is refused."""

import struct
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from made_videos import CASES
from PIL import Image

from dataprep.decode.frames import DecodeSettings, open_video
from dataprep.decode.video_file import VideoError

PQ_FILE, DOLBY_FILE = CASES / "pq_without_vui.mp4", CASES / "profile5.mp4"
PATCHES = (
    (200, 30, 30),
    (20, 200, 40),
    (30, 40, 200),
    (180, 180, 20),
    (20, 160, 160),
    (170, 30, 170),
    (128, 128, 128),
    (200, 120, 60),
)
"""In SDR, what the eight patches of `PQ_FILE` show."""
LUMA = {"601": (0.299, 0.114), "709": (0.2126, 0.0722)}
"""Weights of red and blue."""


def read(path: Path, **settings: object) -> np.ndarray:
    with open_video(path, DecodeSettings(**{"min_frames": 1, **settings})) as video:  # type: ignore[arg-type]
        return np.stack(list(video))


def patches(frame: np.ndarray) -> np.ndarray:
    """Mean colours of 2 x 4 cells, without their borders: [8, 3]."""
    cells = frame.reshape(2, frame.shape[0] // 2, 4, frame.shape[1] // 4, 3)
    return cells[:, 8:-8, :, 4:-4].mean((1, 3)).reshape(8, 3)


def with_colour(path: Path, primaries: int, transfer: int, matrix: int) -> Path:
    """A copy of the PQ file whose `colr` box says this."""
    data = PQ_FILE.read_bytes()
    place = data.index(b"nclx") + 4
    assert struct.unpack(">3H", data[place : place + 6]) == (9, 16, 9)
    path.write_bytes(data[:place] + struct.pack(">3H", primaries, transfer, matrix) + data[place + 6 :])
    return path


def as_sdr(matrix: str) -> np.ndarray:
    """The stored numbers of the PQ file's patches as SDR of limited range: u8 [8, 3] by the definition of the matrix."""
    with av.open(str(PQ_FILE)) as container:
        frame = next(container.decode(video=0))
    planes = []
    for plane in frame.planes:
        numbers = np.frombuffer(plane, np.uint16).reshape(plane.height, -1)[:, : plane.width]
        cells = numbers.reshape(2, plane.height // 2, 4, plane.width // 4)
        planes.append(cells[:, 8:-8, :, 8:-8].mean((1, 3)).ravel() / 4)  # 10 bits
    y, u, v = (planes[0] - 16) / 219, (planes[1] - 128) / 224, (planes[2] - 128) / 224
    red, blue = LUMA[matrix]
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    g = (y - red * r - blue * b) / (1 - red - blue)
    return 255 * np.stack([r, g, b], 1).clip(0, 1)


def test_a_transfer_function_that_only_the_container_tells(tmp_path: Path) -> None:
    assert np.abs(patches(read(PQ_FILE)[3]) - PATCHES).max() < 15
    hlg = with_colour(tmp_path / "hlg.mp4", 9, 18, 9)
    for path in (PQ_FILE, hlg):
        with open_video(path, DecodeSettings(min_frames=1)) as video:
            assert video.info.hdr
        with pytest.raises(VideoError, match="hdr_unsupported"):
            read(path, hdr="refuse")
    assert np.abs(patches(read(hlg)[3]) - PATCHES).max() > 15


@pytest.mark.parametrize(("told", "meant"), [(1, "709"), (2, "601"), (6, "601")])
@pytest.mark.parametrize("resize", ["area", "bicubic", "official"])
def test_a_matrix_that_only_the_container_tells_and_bt601_where_nobody_does(
    tmp_path: Path, told: int, meant: str, resize: str
) -> None:
    path = with_colour(tmp_path / "sdr.mp4", 2, 2, told)
    found = patches(read(path, resize=resize, hdr="refuse")[3])
    # The other two are bit for bit what their models compute, which is up to two grey levels too dark.
    assert np.abs(found - as_sdr(meant)).max() < (1 if resize == "area" else 3)
    assert np.abs(as_sdr("709") - as_sdr("601")).max() > 6


def test_grey_is_exact() -> None:
    """Frame i of this file has the grey level 20 + 3 i, before rounding to limited range and back."""
    levels = read(CASES / "a.mp4").mean((1, 2))
    assert np.abs(levels - (20 + 3 * np.arange(75))[:, None]).max() <= 1


@pytest.mark.parametrize("hdr", ["convert", "refuse"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"", b""),
        (b"dvh1", b"dvhe"),
        (b"dvh1", b"hvc1"),  # the dvcC box alone
        (b"dvcC", b"free"),  # the sample entry's name alone
        (b"dvcC\x01\x00\x0a", b"dvvC\x01\x00\x10"),  # profile 8 with no base layer either
    ],
)
def test_dolby_vision_without_a_base_layer_is_refused(
    tmp_path: Path, old: bytes, new: bytes, hdr: str
) -> None:
    data = DOLBY_FILE.read_bytes()
    assert old in data
    path = tmp_path / "dolby.mp4"
    path.write_bytes(data.replace(old, new, 1) if old else data)
    with pytest.raises(VideoError, match="hdr_unsupported: Dolby Vision"):
        read(path, hdr=hdr)


def test_dolby_vision_with_a_base_layer_is_read_by_it(tmp_path: Path) -> None:
    data = DOLBY_FILE.read_bytes()
    place = data.index(b"dvcC") + 4
    record = bytes([1, 0, 8 << 1, data[place + 3], 4 << 4])  # profile 8.4: HLG below
    path = tmp_path / "dolby.mp4"
    path.write_bytes(data[:place] + record + data[place + 5 :])
    assert len(read(path)) == 30


def test_dolby_vision_in_matroska(tmp_path: Path) -> None:
    source = tmp_path / "source.mp4"
    source.write_bytes(DOLBY_FILE.read_bytes().replace(b"dvh1", b"hvc1"))
    path = tmp_path / "dolby.mkv"
    with av.open(str(source)) as old, av.open(str(path), "w", options={"strict": "unofficial"}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    assert b"dvcC" in path.read_bytes()
    with pytest.raises(VideoError, match="hdr_unsupported: Dolby Vision"):
        read(path)


def test_a_picture_or_sound_with_a_videos_name_is_no_cut_video(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="not_a_video"):
        read(CASES / "sticker.mp4")
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "photo.avif")
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16_000))
    (tmp_path / "companion").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ")
    (tmp_path / "song.m4a").write_bytes(b"\0\0\0\x1cftypM4A \0\0\2\0isomiso2mp41")
    for name in ("moving.webp", "photo.avif", "sound.wav", "companion", "song.m4a"):
        path = tmp_path / "renamed.mov"
        path.write_bytes((tmp_path / name).read_bytes())
        with pytest.raises(VideoError, match="not_a_video"):
            read(path)


def test_a_cut_avi_stays_truncated(tmp_path: Path) -> None:
    path = tmp_path / "cut.avi"
    path.write_bytes((CASES / "capture.avi").read_bytes()[:200])
    with pytest.raises(VideoError, match="truncated"):
        read(path)
