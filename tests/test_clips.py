"""The loader's promises, on shards whose pixels say where they come from."""

import itertools
from collections import Counter

import pytest
import torch
from synthetic_shards import write_shards

from cwm_hub.clips import ClipBatch, ClipLoader, ClipSource, resume_batch, validation_windows
from cwm_hub.sampling import SamplingError
from cwm_hub.shards import ShardError

WINDOW = 5


def loader(root, **changes) -> ClipLoader:
    settings = {"batch_clips": 4, "window_frames": WINDOW, "seed": 0} | changes
    return ClipLoader([ClipSource(str(root))], **settings)


def take(clips: ClipLoader, count: int) -> list[ClipBatch]:
    return list(itertools.islice(clips, count))


def equal(left: list[ClipBatch], right: list[ClipBatch]) -> bool:
    return all(
        torch.equal(a.video, b.video) and (a.source, a.start) == (b.source, b.start)
        for a, b in zip(left, right, strict=True)
    )


def test_batch_holds_the_frames_it_names(tmp_path):
    batch = take(loader(write_shards(tmp_path, [20, 7, 5, 9, 300])), 1)[0]
    assert batch.video.shape == (4, WINDOW, 3, 8, 8)
    assert batch.video.dtype == torch.uint8
    assert batch.is_first.tolist() == [[True, False, False, False, False]] * 4
    for i in range(4):
        numbers = batch.video[i, :, 1, 0, 0].long() + 256 * batch.video[i, :, 2, 0, 0].long()
        assert numbers.tolist() == list(range(batch.start[i], batch.start[i] + WINDOW))
        assert (batch.video[i, :, 0] == batch.label[i]).all()
        assert batch.source[i] == f"s{batch.label[i]:03d}_0000"


def test_any_number_of_workers_gives_the_same_stream(tmp_path):
    root = write_shards(tmp_path, range(5, 30))
    alone = take(loader(root), 12)
    assert equal(alone, take(loader(root, workers=1), 12))
    assert equal(alone, take(loader(root, workers=2), 12))
    assert not equal(alone, take(loader(root, seed=1), 12))


def test_resume_is_start_batch(tmp_path):
    root = write_shards(tmp_path, range(5, 30))
    assert equal(take(loader(root), 12)[7:], take(loader(root, start_batch=7, workers=2), 5))
