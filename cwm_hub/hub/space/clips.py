"""The clips that the page shows: a few that come with the package, and what people upload."""

import itertools
from pathlib import Path

import av
import av.error
import av.filter
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

import cwm_hub

SAMPLES = Path(cwm_hub.__file__).parents[1] / "dataprep" / "samples"
"""Beside the library in a wheel as in the repository; NOTICE there has their licences."""
HELD_OUT = ("hand_box_3.webm", "hand_cup_3.webm", "outdoor_2.webm", "balance_multi_cam1_later.mp4")
"""One validation clip of each kind: not in the training of contextwm-tiny, but of the recordings that are."""

CONTAINERS = {"format_whitelist": "mov,mp4,matroska,webm,avi", "protocol_whitelist": "file"}
"""What FFmpeg may open: a playlist called .mp4 would make it read other files of this machine."""
LARGEST_PIXELS = 4096 * 4096
"""Of a frame: a small file can ask for gigabytes."""


def sample_clips() -> dict[str, Path]:
    """Names and files of the sample clips; empty in an installation without them."""
    return {Path(name).stem: SAMPLES / name for name in HELD_OUT if (SAMPLES / name).is_file()}


def read_clip(path: str | Path, *, size: int, frames: int) -> UInt8[Tensor, "1 T 3 H W"]:
    """The first frames of a video, squashed to `size` pixels by data preparation's default filter.

    Equal to what `cwm-dataprep folder` encodes, but that HDR is not tone-mapped, a mirrored recording stays mirrored and
    damage is not looked for.

    Args:
        path: mp4, mov, mkv, webm or avi.
        size: height and width that come out.
        frames: T.

    Raises:
        ValueError: not a video, frames that are too large, or too few.
    """
    name, clip = Path(path).name, []
    try:
        with av.open(f"file:{path}", options=CONTAINERS) as container:
            if not container.streams.video:
                raise ValueError(f"{name} has sound and no video")
            stream = container.streams.video[0]
            if stream.width * stream.height > LARGEST_PIXELS:
                raise ValueError(f"{name} has frames of {stream.width} x {stream.height}: make them smaller")
            graph = av.filter.Graph()
            source, sink = graph.add_buffer(template=stream), graph.add("buffersink")
            scale = graph.add("scale", f"{size}:{size}:flags=area+accurate_rnd")
            formats = [graph.add("format", pixels) for pixels in ("gbrp", "rgb24")]
            graph.link_nodes(source, scale, *formats, sink).configure()
            for frame in itertools.islice(container.decode(stream), frames):
                source.push(frame)
                scaled = sink.pull()
                assert isinstance(scaled, av.VideoFrame)
                clip.append(np.rot90(scaled.to_ndarray(), frame.rotation // 90))
    except av.error.FFmpegError as error:
        raise ValueError(f"{name} cannot be read as mp4, mov, mkv, webm or avi: {error.strerror}") from error
    if len(clip) < frames:
        raise ValueError(
            f"{name} has {len(clip)} frames, and {frames} are needed: take a longer clip or predict fewer"
        )
    return torch.from_numpy(np.stack(clip)).movedim(-1, -3)[None]
