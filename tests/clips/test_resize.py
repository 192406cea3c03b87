"""`cwm_hub.resize`: an environment's frames as data preparation would have stored them."""

import subprocess
import sys

import av
import numpy as np
import pytest
import torch

import cwm_hub
from cwm_hub.shards import Root, decode_clip, read_index
from dataprep.__main__ import main


def lossless(path, frames: np.ndarray) -> None:
    """A video in which every pixel is as it was."""
    with av.open(str(path), "w") as target:
        stream = target.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "bgr0"
        for pixels in frames:
            target.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        target.mux(stream.encode(None))


@pytest.mark.parametrize("filter_", ["area", "bicubic", "official"])
def test_what_a_shard_holds_before_the_codec(tmp_path, filter_):
    """Through the whole of data preparation, with the codec that keeps every pixel."""
    frames = np.random.default_rng(0).integers(0, 256, (30, 72, 96, 3), np.uint8)
    (tmp_path / "videos").mkdir()
    lossless(tmp_path / "videos" / "a.mkv", frames)
    options = ["--size", "32", "--codec", "raw", "--resize", filter_, "--workers", "0"]
    assert main(["folder", str(tmp_path / "videos"), "--out", str(tmp_path / "set"), *options]) == 0
    root = Root.parse(tmp_path / "set")
    (row,) = read_index(root)
    stored = decode_clip((tmp_path / "set" / row.shard).read_bytes()[row.offset :][: row.size], "raw")
    assert np.array_equal(stored, cwm_hub.resize(frames, 32, resize=filter_))


def test_a_quarter_of_the_picture_is_its_mean():
    """By hand: an output pixel is the mean of the four under it."""
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    frames[:, :2, :2] = 200
    frames[:, 2:, 2:, 0] = [[10, 30], [50, 70]]
    small = cwm_hub.resize(frames, 2)
    assert small.shape == (2, 2, 2, 3) and np.array_equal(small[0], small[1])
    assert abs(int(small[0, 0, 0, 0]) - 200) <= 1 and abs(int(small[0, 1, 1, 0]) - 40) <= 4


def test_tensors_have_their_channels_first_and_leading_axes_stay():
    frames = np.random.default_rng(1).integers(0, 256, (2, 3, 20, 10, 3), np.uint8)
    tensor = torch.from_numpy(frames).movedim(-1, -3)
    small = cwm_hub.resize(tensor, 16)
    assert small.shape == (2, 3, 3, 16, 16) and small.dtype == torch.uint8
    assert np.array_equal(small.movedim(-3, -1).numpy(), cwm_hub.resize(frames, 16))
    assert np.array_equal(cwm_hub.resize(frames[0, 0], 16), cwm_hub.resize(frames, 16)[0, 0])


REFUSALS = """
import numpy as np, torch
from cwm_hub import resize
for arguments in ((np.zeros((4, 4, 3)), 2), (torch.zeros(4, 4, 3, dtype=torch.uint8), 2), ([1], 2), (np.zeros((4, 4, 3), np.uint8), 0)):
    try:
        resize(*arguments)
    except ValueError as error:
        print(error)
try:
    resize(np.zeros((4, 4, 3), np.uint8), 2, resize="lanczos")
except ValueError as error:
    print(error)
"""


def test_what_is_no_frame_is_refused_in_one_sentence():
    said = subprocess.run([sys.executable, "-c", REFUSALS], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [
        "frames must be uint8 [..., h, w, 3], got float64 [4, 4, 3]",
        "frames must be uint8 [..., 3, h, w], got torch.uint8 [4, 4, 3]",
        "frames must be a NumPy array or a torch tensor, got list",
        "size is at least 1, got 0",
        "resize is one of area, bicubic, official, got 'lanczos'",
    ]
