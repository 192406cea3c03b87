"""Shards in a plain webdataset pipeline, without our loader: decode, cut a window, batch, predict.

    python examples/webdataset_pipeline.py 'shards/mine/data/train-{00000..00003}-of-00004.tar'

`decoder` turns a clip's bytes into frames; everything else is webdataset's. Our `ClipLoader` decodes the window alone and not the
whole clip, and splits a set over processes so that each clip is seen once.
"""

import argparse

import numpy as np
import torch
import webdataset

from cwm_hub import from_pretrained, resize
from cwm_hub.shards import decoder

FRAMES = 8


def window(sample: dict) -> dict:
    """The first frames of a clip, channels first, with its label."""
    (suffix,) = sample.keys() & {"mp4", "jpg", "u8"}  # h264, JPEG film strip, raw
    frames = sample[suffix][:FRAMES]  # uint8 [T, H, W, 3]
    return {"video": np.moveaxis(frames, -1, 1), "label": sample["json"]["label"]}


def long_enough(sample: dict) -> bool:
    """Whether a clip has a window."""
    return sample["json"]["num_frames"] >= FRAMES


def main() -> None:
    """Print the shape of each batch and what was predicted from it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tars", help="one tar, or several with braces")
    parser.add_argument("--checkpoint", default="contextwm-tiny")
    args = parser.parse_args()
    model = from_pretrained(args.checkpoint)
    clips = webdataset.WebDataset(args.tars, shardshuffle=False).decode(decoder)
    batches = clips.select(long_enough).map(window).batched(4)
    for batch in batches:
        video = torch.from_numpy(np.stack(list(batch["video"])))
        future = model.predict(resize(video, model.image_size), observed_frames=4)
        print(
            f"labels {list(map(int, batch['label']))}  clips {list(video.shape)}  future {list(future.shape)}"
        )


if __name__ == "__main__":
    main()
