"""The loader's promises, on shards whose pixels say which source and frame they are."""

import errno
import itertools
import math
import os
import shutil
import time
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_shards import numbered_frames, write_data_set, write_shards

from cwm_hub.clips import sampling
from cwm_hub.clips.clip_index import ClipSource
from cwm_hub.clips.loader import ClipBatch, ClipLoader, validation_windows
from cwm_hub.clips.local_shards import LocalShards, OpenFiles
from cwm_hub.clips.sampling import WindowTable, resume_batch
from cwm_hub.shards.codecs import ShardError, decode_clip
from cwm_hub.shards.extra_columns import add_columns
from cwm_hub.shards.index import INDEX, index_bytes, read_index, read_index_table
from cwm_hub.shards.manifest import Manifest, ShardRecord, shard_name
from cwm_hub.shards.storage import Root

WINDOW = 5


def loader(*roots: Path | ClipSource, **changes) -> ClipLoader:
    settings = {"batch_clips": 4, "window_frames": WINDOW, "seed": 0} | changes
    return ClipLoader([r if isinstance(r, ClipSource) else ClipSource(str(r)) for r in roots], **settings)


def take(clips: ClipLoader, count: int) -> list[ClipBatch]:
    return list(itertools.islice(clips, count))


def keys(batches: list[ClipBatch]) -> list[str]:
    return [key for batch in batches for key in batch.source]


def equal(left: list[ClipBatch], right: list[ClipBatch]) -> bool:
    return all(
        torch.equal(a.video, b.video) and (a.source, a.start) == (b.source, b.start)
        for a, b in zip(left, right, strict=True)
    )


def assert_uniform(counts: Counter, values: list) -> None:
    """Chi-square of the counts over the values, with a bound that a uniform draw passes but once in 3.5 million."""
    assert set(counts) <= set(values)
    expected = counts.total() / len(values)
    assert expected >= 5
    freedom = len(values) - 1
    chi_square = sum((counts[value] - expected) ** 2 / expected for value in values)
    assert chi_square < freedom + 5 * math.sqrt(2 * freedom)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """24 sources of 5 to 28 frames and one too short."""
    return write_shards(tmp_path_factory.mktemp("shards"), range(4, 29))


# What a batch is


@pytest.mark.parametrize("codec", ["raw", "jpeg", "h264"])
def test_a_batch_holds_the_frames_it_names(tmp_path, codec):
    clips = loader(write_shards(tmp_path, [20, 7, 5, 9, 40], codec=codec, size=16))
    for batch in take(clips, 5):
        assert batch.video.shape == (4, WINDOW, 3, 16, 16)
        assert batch.video.dtype == torch.uint8
        assert batch.is_first.tolist() == [[True] + [False] * (WINDOW - 1)] * 4
        for i in range(4):
            numbers = torch.arange(batch.start[i], batch.start[i] + WINDOW)
            off_by = (batch.video[i, :, 1].float().mean((1, 2)) - numbers).abs().max()
            assert off_by <= (0 if codec == "raw" else 3)  # lossy codecs change a grey level or two
            assert batch.source[i] == f"s{batch.label[i]:03d}_0000"


def test_a_window_of_a_later_piece_starts_where_its_source_video_says(tmp_path):
    pieces = {0: [(0, 20), (16, 40)], 1: [(0, 40)]}
    clips = loader(write_shards(tmp_path, [40, 40], pieces=pieces))
    starts = []
    for batch in take(clips, 20):
        assert batch.video[:, 0, 1, 0, 0].tolist() == list(batch.start)
        starts += [start for key, start in zip(batch.source, batch.start, strict=True) if key == "s000_0016"]
    assert max(starts) > 20


def test_two_sets_of_a_mixture_are_drawn_apart(root):
    batches = take(loader(root, root), 6)
    drawn = [pair for batch in batches for pair in zip(batch.source, batch.start, strict=True)]
    assert drawn[0::2] != drawn[1::2]


def test_a_block_reads_only_shards_whose_coming_was_announced(tmp_path, monkeypatch):
    """Or a remote set would fetch the wrong ones ahead and wait for every right one."""
    root = write_shards(tmp_path, [9] * 24, shards=6)
    announced, opened, plain_open = [], set(), LocalShards.open

    def open_shard(self, shard):
        assert shard in announced[-1]
        opened.add(shard)
        return plain_open(self, shard)

    monkeypatch.setattr(LocalShards, "prefetch", lambda self, shards: announced.append(shards))
    monkeypatch.setattr(LocalShards, "open", open_shard)
    take(loader(ClipSource(str(root), block_shards=1)), 12)
    assert opened == set(range(6))
    assert all(len(shards) == 2 for shards in announced)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_split_holds_its_own_clips_and_no_others(tmp_path, split):
    clips = {
        name: [(numbered_frames(n, 0, 9), {"key": f"{name}_{n}", "source": f"{name}_{n}"}) for n in range(4)]
        for name in ("train", "validation")
    }
    write_data_set(tmp_path, clips, name="two")
    batches = take(loader(ClipSource(str(tmp_path), split=split)), 3)
    assert set(keys(batches)) == {f"{split}_{n}" for n in range(4)}


def test_batches_move_between_devices_and_keep_their_names(root):
    batch = take(loader(root), 1)[0]
    moved = batch.to("meta")
    assert moved.video.device.type == moved.is_first.device.type == moved.label.device.type == "meta"
    assert moved.source == batch.source
    assert batch.video.permute(0, 1, 3, 4, 2).is_contiguous()  # channels last: no copy was made to move them


def test_memory_is_used_again_only_when_nothing_refers_to_it(root):
    stream = iter(loader(root, batch_clips=2))
    held = [next(stream) for _ in range(12)]
    assert len({batch.video.data_ptr() for batch in held}) == 12
    assert equal(held, take(loader(root, batch_clips=2), 12))
    view = held[3].video[1, :, 0].numpy()
    before = view.copy()
    addresses = {batch.video.data_ptr() for batch in held}
    del held
    later = [next(stream).video.data_ptr() for _ in range(12)]
    assert set(later) & addresses
    assert np.array_equal(view, before)


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_leaves_the_models_random_stream_alone(root, workers):
    before = torch.get_rng_state()
    take(loader(root, workers=workers), 3)
    assert torch.equal(before, torch.get_rng_state())


# One stream for any number of workers and ranks


def test_any_number_of_workers_gives_the_same_stream(root):
    alone = take(loader(root), 14)
    assert equal(alone, take(loader(root, workers=1), 14))
    assert equal(alone, take(loader(root, workers=2), 14))
    assert not equal(alone, take(loader(root, seed=1), 14))


def test_resume_is_start_batch(root):
    whole = take(loader(root), 14)
    assert equal(whole[9:], take(loader(root, start_batch=9), 5))
    assert equal(whole[9:], take(loader(root, start_batch=9, workers=2), 5))


def test_ranks_are_disjoint_and_together_complete(root):
    clips = loader(root)
    assert clips.samples_per_epoch == [24]
    ranks = [keys(take(loader(root, rank=rank, world_size=3), 2)) for rank in range(3)]
    together = [key for rank in ranks for key in rank]
    assert len(together) == len(set(together)) == 24
    assert equal(
        take(loader(root, batch_clips=12), 2),
        [_join(take(loader(root, rank=r, world_size=3), 2)[b] for r in range(3)) for b in range(2)],
    )


def _join(parts) -> ClipBatch:
    parts = list(parts)
    return ClipBatch(
        video=torch.cat([part.video for part in parts]),
        is_first=torch.cat([part.is_first for part in parts]),
        source=tuple(key for part in parts for key in part.source),
        start=tuple(start for part in parts for start in part.start),
        label=torch.cat([part.label for part in parts]),
    )


def test_every_epoch_has_every_source_once_in_another_order(root):
    epochs = [keys(take(loader(root, batch_clips=24, start_batch=epoch), 1)) for epoch in range(3)]
    assert len({frozenset(epoch) for epoch in epochs}) == 1
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert "s000_0000" not in epochs[0]  # four frames


# What is drawn


def drawn(clips: ClipLoader, samples: int) -> list[tuple[str, int]]:
    """(source, first frame in the source) of samples, without reading video."""
    clip_set = clips._batches.sets[0]
    rows = [clip_set.window(sample) for sample in range(samples)]
    return [
        (clip_set.index.key[row].as_py()[:4], int(clip_set.index.start[row]) + first) for row, first in rows
    ]


def test_windows_are_uniform_over_a_source_whose_pieces_overlap(tmp_path):
    pieces = {
        0: [(0, 20), (10, 30), (16, 36), (30, 33)],
        1: [(0, 9)],
    }  # sharing 10 and 14 frames; one too short
    clips = loader(write_shards(tmp_path, [36, 9], pieces=pieces))
    windows = drawn(clips, 6400)
    starts = {
        name: Counter(start for source, start in windows if source == name) for name in ("s000", "s001")
    }
    assert (
        starts["s000"].total() == starts["s001"].total() == 3200
    )  # a source counts once, whatever its pieces
    assert_uniform(starts["s000"], list(range(32)))
    assert_uniform(starts["s001"], list(range(5)))


def test_sampling_by_clip_and_by_frame(tmp_path):
    pieces = {0: [(0, 20), (16, 36)]}
    root = write_shards(tmp_path, [36, 9, 5], pieces=pieces)
    by_clip = loader(root, sampling="clip")
    assert by_clip.samples_per_epoch == [4]
    assert Counter(source for source, _ in drawn(by_clip, 400)) == {"s000": 200, "s001": 100, "s002": 100}
    by_frame = drawn(loader(root, sampling="frame"), 7000)
    everywhere = [("s000", i) for i in range(32)] + [("s001", i) for i in range(5)] + [("s002", 0)]
    assert_uniform(Counter(by_frame), everywhere)


def test_mixture_proportions_are_exact(tmp_path):
    roots = [write_shards(tmp_path / name, [9] * 4, name=name) for name in "abc"]
    clips = loader(*roots, batch_clips=12)
    for number in range(3):
        first = number * 12
        picks = [sampling.split_mixture(n, (Fraction(1, 3),) * 3) for n in range(first, first + 12)]
        assert Counter(which for which, _ in picks) == {0: 4, 1: 4, 2: 4}
    assert [fact["name"] for fact in clips.facts()] == ["a", "b", "c"]
    assert take(clips, 1)[0].video.shape[0] == 12


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.5, 0.2, 0.3], [7.0, 1.0], [1.0], [0.9, 0.05, 0.05]])
def test_a_mixture_numbers_each_sets_samples_without_gaps(weights):
    shares = sampling.mixture_shares(weights)
    assert sum(shares) == 1
    taken = [0] * len(weights)
    for n in range(1000):
        which, sample = sampling.split_mixture(n, shares)
        assert sample == taken[which]
        taken[which] += 1
        for share, count in zip(shares, taken, strict=True):
            assert abs(count - share * (n + 1)) < len(weights)


def test_filters_and_subsets(root):
    facts = loader(ClipSource(str(root), where={"num_frames": (10.0, 12.0)})).facts()[0]
    assert (facts["clips"], facts["filtered_clips"], facts["sources"]) == (3, 22, 3)
    small, large = (loader(ClipSource(str(root), subset=n, subset_seed=3)).diets()[0] for n in (5, 15))
    assert len(small) == 5
    assert set(small) < set(large)
    clips = loader(ClipSource(str(root), subset=5, subset_seed=3))
    assert sorted({key[:4] for key in keys(take(clips, 6))}) == small
    assert loader(ClipSource(str(root), subset=5, subset_seed=4)).diets()[0] != small


def test_facts_count_what_is_left_out(root):
    facts = loader(root).facts()[0]
    assert facts == {
        "root": str(root),
        "name": "numbered",
        "manifest_hash": Manifest.load(root).hash,
        "licence": "unknown",
        "redistributable": False,
        "split": "train",
        "sources": 24,
        "clips": 24,
        "frames": sum(range(5, 29)),
        "windows": sum(range(1, 25)),
        "short_sources": 1,
        "filtered_clips": 0,
    }


def splitmix64(*words: int) -> int:
    """The published generator in plain integers, one step per word."""
    state, mask = 0, 2**64 - 1
    for word in words:
        state = ((state + 0x9E3779B97F4A7C15) & mask) ^ word
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        state ^= state >> 31
    return state


def test_the_stream_does_not_depend_on_library_versions():
    assert splitmix64(0) == int(sampling.hash_words(0)) == 0xE220A8397B1DCDAF  # first output for seed 0
    hashes = sampling.hash_words(7, np.arange(5), 2**63)
    assert hashes.tolist() == [splitmix64(7, i, 2**63) for i in range(5)]
    order = sampling.epoch_order(9, seed=7, epoch=2).tolist()
    assert order == sorted(range(9), key=lambda i: splitmix64(7, 1, 2, i))
    windows = sampling.draw_windows(np.array([0, 3, 10]), seed=7, epoch=2, rotate=False).tolist()
    assert windows == [splitmix64(7, 0, 2, 0) % 3, 3 + splitmix64(7, 0, 2, 1) % 7]


def test_window_table_by_hand():
    table = WindowTable.build(
        np.array([1, 0, 0]), np.array([0, 4, 0]), np.array([6, 6, 7]), window_frames=5
    )  # source 0: pieces 0-7 and 4-10, windows at 0 1 2 | 4 5; source 1: windows at 0 1
    assert len(table) == 7
    assert table.row.tolist() == [2, 1, 0]
    rows, firsts = table.locate(np.arange(7))
    assert rows.tolist() == [2, 2, 2, 1, 1, 0, 0]
    assert firsts.tolist() == [0, 1, 2, 0, 1, 0, 1]
    assert table.units("source", window_frames=5).tolist() == [0, 5, 7]
    assert table.units("clip", window_frames=5).tolist() == [0, 3, 5, 7]
    assert table.units("frame", window_frames=2).tolist() == [0, 2, 4, 7]


def test_window_table_with_cuts_by_hand():
    """Windows of 3: clip 0 holds frames 0-9, cut at 4 and 9; clip 1 frames 6-15 of the same source, cut at 9 (its 3)."""
    clips = np.array([0, 0]), np.array([0, 6]), np.array([10, 10])
    cuts = np.array([1, 0, 0]), np.array([3, 9, 4])
    table = WindowTable.build(*clips, window_frames=3, cuts=cuts)
    rows, firsts = table.locate(np.arange(len(table)))
    starts = np.array([0, 6])[rows] + firsts
    assert starts.tolist() == [0, 1, 4, 5, 6, 9, 10, 11, 12, 13]
    assert rows.tolist() == [0] * 5 + [1] * 5
    assert table.clips.tolist() == [0, 1]
    assert table.units("clip", window_frames=3).tolist() == [0, 5, 10]
    assert table.units("source", window_frames=3).tolist() == [0, 10]
    short = WindowTable.build(*clips, window_frames=8, cuts=cuts)
    assert (len(short), short.short_sources) == (0, 1)


def with_cuts(root: Path, cuts: dict[str, tuple[int, ...]]) -> Path:
    """The same shards, cuts named in the index."""
    Root.parse(root).write(
        INDEX, index_bytes([replace(row, cuts=cuts.get(row.source, ())) for row in read_index(root)])
    )
    return root


def test_no_window_crosses_a_cut(tmp_path):
    root = with_cuts(write_shards(tmp_path, [20, 20, 8]), {"s000": (7,), "s002": (4,)})
    clips = loader(root)
    drawn = Counter((batch.source[i][:4], batch.start[i]) for batch in take(clips, 400) for i in range(4))
    allowed = [("s000", start) for start in (0, 1, 2, *range(7, 16))]
    assert sorted(drawn) == allowed + [("s001", start) for start in range(16)]
    assert_uniform(
        Counter({start: n for (name, start), n in drawn.items() if name == "s000"}), [0, 1, 2, *range(7, 16)]
    )
    facts = clips.facts()[0]
    assert (facts["sources"], facts["clips"], facts["frames"]) == (2, 2, 40)
    assert (facts["windows"], facts["short_sources"]) == (28, 1)
    assert [loader(root, sampling=unit).samples_per_epoch for unit in ("source", "clip", "frame")] == [
        [2],
        [2],
        [5],
    ]
    held_out = validation_windows(ClipSource(str(root)), count=28, window_frames=WINDOW, seed=0)
    assert sum(len(batch.start) for batch in held_out) == 28
    with pytest.raises(ValueError, match="has 28 of 5 frames"):
        validation_windows(ClipSource(str(root)), count=29, window_frames=WINDOW, seed=0)


def test_cuts_are_ignored_where_asked_and_where_the_index_is_older(tmp_path):
    root = with_cuts(write_shards(tmp_path, [20]), {"s000": (7,)})
    kept = ClipSource(str(root), keep_cuts=True)
    assert loader(kept).facts()[0]["windows"] == 16
    assert loader(kept).fingerprint() != loader(root).fingerprint()
    older = read_index_table(root).drop_columns(["cuts"])
    Root.parse(root).write(INDEX, index_bytes(older))
    assert loader(root).facts()[0]["windows"] == 16
    assert [row.cuts for row in read_index(root)] == [()]


# Resuming


def test_resume_refuses_another_stream_and_restripes_another_world(root, tmp_path):
    saved = loader(root, world_size=2).fingerprint()
    assert resume_batch(saved, saved, batches=9) == 9
    assert resume_batch(saved, loader(root, batch_clips=8).fingerprint(), batches=9) == 9
    assert resume_batch(saved, loader(root).fingerprint(), batches=9) == 18
    with pytest.raises(ValueError, match="72 samples with global batches of 5 x 4"):
        resume_batch(saved, loader(root, world_size=5).fingerprint(), batches=9)
    with pytest.raises(ValueError, match="seed was 0 and is 1"):
        resume_batch(saved, loader(root, seed=1).fingerprint(), batches=9)
    other = write_shards(tmp_path, range(4, 30))
    with pytest.raises(ValueError, match=r"another data stream: sources was .*manifest_hash"):
        resume_batch(saved, loader(other, world_size=2).fingerprint(), batches=9)


def test_a_restriped_run_continues_with_the_next_sample(root):
    two = [take(loader(root, rank=rank, world_size=2), 3) for rank in range(2)]
    used = {(k, s) for rank in two for batch in rank for k, s in zip(batch.source, batch.start, strict=True)}
    one = loader(root, batch_clips=8)
    start = resume_batch(loader(root, world_size=2).fingerprint(), one.fingerprint(), batches=2)
    rest = take(loader(root, batch_clips=8, start_batch=start), 1)[0]
    assert set(zip(rest.source, rest.start, strict=True)) <= used
    assert rest.source[:4] == two[0][2].source


# Validation


def test_validation_windows_are_fixed_distinct_and_spread(root):
    first = validation_windows(ClipSource(str(root)), count=40, window_frames=WINDOW, seed=5, batch_clips=16)
    again = validation_windows(ClipSource(str(root)), count=40, window_frames=WINDOW, seed=5, batch_clips=16)
    assert equal(first, again)
    assert [len(batch.source) for batch in first] == [16, 16, 8]
    assert len({(k, s) for b in first for k, s in zip(b.source, b.start, strict=True)}) == 40
    assert len(set(keys(first)[:24])) == 24
    with pytest.raises(
        ValueError, match=r"301 validation windows were asked for, and .* has 300 of 5 frames"
    ):
        validation_windows(ClipSource(str(root)), count=301, window_frames=WINDOW, seed=5)
    every = validation_windows(ClipSource(str(root)), count=301, window_frames=WINDOW, seed=5, or_fewer=True)
    assert sum(len(batch.source) for batch in every) == 300


# What a user can get wrong


def test_bad_input_is_one_sentence(root, tmp_path):
    with pytest.raises(ShardError, match="is not a finished shard directory"):
        loader(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"has no train clip of at least 29 frames$"):
        loader(root, window_frames=29)
    with pytest.raises(ValueError, match=r"of at least 5 frames within \{'motion': \(99.0, 255.0\)\}"):
        loader(ClipSource(str(root), where={"motion": (99.0, 255.0)}))
    with pytest.raises(ValueError, match="cannot filter by 'moton', choose one of num_frames"):
        loader(ClipSource(str(root), where={"moton": (0.0, 1.0)}))
    table = add_columns(
        read_index_table(root), {"speed": {"s003": 2.0, "s004": 5.0}, "robot": {"s003": "arm"}}
    )
    own = shutil.copytree(root, tmp_path / "own")
    (own / INDEX).write_bytes(index_bytes(table))
    fast = loader(ClipSource(str(own), where={"speed": (1.0, 3.0)}))
    assert fast.diets() == [["s003"]]
    with pytest.raises(ValueError, match=r"cannot filter by 'robot', choose one of .*moving, speed"):
        loader(ClipSource(str(own), where={"robot": (0.0, 1.0)}))
    with pytest.raises(ValueError, match="it has: train; cwm-dataprep split makes one"):
        loader(ClipSource(str(root), split="validation"))
    with pytest.raises(ValueError, match="a subset of 25 sources was asked for, and there are 24"):
        loader(ClipSource(str(root), subset=25))
    with pytest.raises(ValueError, match="weights must be positive"):
        loader(ClipSource(str(root), weight=0.0))
    with pytest.raises(ValueError, match="rank 2 is outside a world of 2"):
        loader(root, rank=2, world_size=2)
    with pytest.raises(
        ShardError, match="holds 8x8 frames and the model takes 64x64: shard the videos again"
    ):
        loader(root, image_size=64)
    with pytest.raises(ShardError, match=r"holds 8x8 frames and .*large 16x16: a mixture needs one size"):
        loader(root, write_shards(tmp_path / "large", [9, 9], size=16))
    with pytest.raises(ValueError, match="at least one frame"):
        loader(root, window_frames=0)


def test_a_missing_or_cut_shard_is_found_before_training(tmp_path):
    tar = write_shards(tmp_path, [9, 9]) / "data/train-00001-of-00002.tar"
    tar.write_bytes(tar.read_bytes()[:-512])
    with pytest.raises(ShardError, match=r"train-00001-of-00002\.tar has 4096 bytes, the manifest says 4608"):
        loader(tmp_path)
    tar.unlink()
    with pytest.raises(
        ShardError, match=r"train-00001-of-00002\.tar is missing, though the manifest lists it"
    ):
        loader(tmp_path)


def test_an_index_that_does_not_fit_its_manifest_is_refused(tmp_path):
    good = write_shards(tmp_path / "good", [9, 9], shards=2)
    other = write_shards(tmp_path / "other", [9, 9], shards=1)
    (good / INDEX).write_bytes((other / INDEX).read_bytes())
    with pytest.raises(
        ShardError, match=r"the index names data/train-00000-of-00001\.tar, the manifest does not"
    ):
        loader(good)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_clip_is_passed_over_counted_and_bounded(tmp_path, workers):
    root = write_shards(tmp_path, [9] * 12, codec="jpeg", shards=1)
    tar = root / "data/train-00000-of-00001.tar"
    data = tar.read_bytes()
    place = data.index(b"s003_0000.jpg") + 512
    tar.write_bytes(data[:place] + bytes(64) + data[place + 64 :])
    clips = loader(root, workers=workers)
    batches = take(clips, 6)
    assert "s003_0000" not in keys(batches)
    assert list(clips.broken) == ["clip s003_0000"]
    assert equal(batches, take(loader(root), 6))
    with pytest.raises(ShardError, match="more than 0 allowed; the last: clip s003_0000: damaged JPEG"):
        take(loader(root, workers=workers, max_broken=0), 6)


def fail_reads(monkeypatch: pytest.MonkeyPatch, root: Path, clips: set[str], number: int) -> None:
    """The system fails to read these clips, as a dying disk (EIO) or a file replaced over NFS (ESTALE) does."""
    places = [(r.offset, r.offset + r.size) for r in read_index(root) if r.key in clips]
    for name in ("pread", "preadv"):
        plain = getattr(os, name)

        def read(descriptor, what, offset, *rest, plain=plain):
            if any(start <= offset < stop for start, stop in places):
                raise OSError(number, os.strerror(number))
            return plain(descriptor, what, offset, *rest)

        monkeypatch.setattr(os, name, read)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("codec", "number"), [("raw", errno.EIO), ("jpeg", errno.ESTALE)])
def test_a_clip_that_the_system_cannot_read_is_passed_over_and_named(
    tmp_path, monkeypatch, codec, number, workers
):
    root = write_shards(tmp_path, [9] * 6, codec=codec, shards=1)
    fail_reads(monkeypatch, root, {"s003_0000"}, number)
    clips = loader(root, workers=workers)
    assert set(keys(take(clips, 6))) == {f"s{n:03d}_0000" for n in (0, 1, 2, 4, 5)}
    assert clips.broken == {"clip s003_0000": os.strerror(number)}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_source_is_not_worn_down_to_its_last_clips(tmp_path, monkeypatch, workers):
    """More than half of the clips of one source, though another one is large and whole."""
    root = write_shards(tmp_path / "small", [9] * 6, shards=1)
    other = write_shards(tmp_path / "large", [9] * 40, shards=1)
    fail_reads(monkeypatch, root, {f"s{n:03d}_0000" for n in range(5)}, errno.EIO)
    small, large = ClipSource(str(root)), ClipSource(str(other), where={"label": (20.0, 39.0)})
    with pytest.raises(ShardError, match=r"small: 4 of 6 clips cannot be read, more than the share of 0.5"):
        take(loader(small, large, workers=workers, max_broken=1000), 20)
    got = keys(take(loader(small, workers=workers, max_broken=5, max_broken_share=0.9), 6))
    assert set(got) == {"s005_0000"}


def test_a_shard_that_is_gone_counts_with_its_clips(tmp_path):
    root = write_shards(tmp_path, [9] * 6, shards=3)
    clips = loader(root, max_broken_share=0.3)
    (root / "data/train-00001-of-00003.tar").unlink()
    with pytest.raises(ShardError, match=r"2 of 6 clips cannot be read, more than the share of 0.3"):
        take(clips, 6)


def test_a_share_is_a_share(root):
    with pytest.raises(ValueError, match=r"max_broken_share must be in \[0, 1\], got 8.0"):
        loader(root, max_broken_share=8.0)


# Other tools


def _prepared_keys() -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import gather_object

    AcceleratorState._reset_state(reset_partial_state=True)  # what the forked test process had made of it
    accelerator = Accelerator(cpu=True)
    plain = loader(Path(os.environ["SHARDS"]), rank=accelerator.process_index, world_size=2, batch_clips=6)
    prepared = accelerator.prepare(plain)
    assert prepared is plain
    together = gather_object(keys(take(prepared, 2)))
    assert accelerator.num_processes == 2
    assert len(together) == len(set(together)) == 24


def test_accelerate_prepare_passes_the_loader_through(root, monkeypatch):
    """Prepared, a sharded torch DataLoader silently loses half of its clips at two ranks; ours must lose none."""
    from accelerate import debug_launcher

    monkeypatch.setenv("SHARDS", str(root))
    debug_launcher(_prepared_keys, num_processes=2)


def test_accelerate_prepare_data_loader_refuses_it(root):
    from accelerate import Accelerator

    with pytest.raises(AttributeError, match="dataset"):
        Accelerator(cpu=True).prepare_data_loader(loader(root))


def test_plain_webdataset_reads_the_same_clips(root):
    import webdataset as wds

    files = [str(path) for path in sorted((root / "data").iterdir())]
    samples = {sample["__key__"]: sample for sample in wds.WebDataset(files, shardshuffle=False)}
    assert len(samples) == 25
    for batch in take(loader(root), 6):
        for i, key in enumerate(batch.source):
            frames = decode_clip(samples[key]["u8"], "raw")[batch.start[i] : batch.start[i] + WINDOW]
            assert np.array_equal(frames, batch.video[i].permute(0, 2, 3, 1).numpy())


# Scale


def sparse_shards(root: Path, sources: int, shards: int) -> Path:
    """The index of a set of SSv2's size over tars that are holes: reading gives black frames."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = np.arange(sources)
    shard, place = number % shards, number // shards
    frames = 20 + number % 60
    payload = 16 + 80 * 8 * 8 * 3
    per_shard = -(-sources // shards) * payload
    names = np.array([shard_name("train", i, shards) for i in range(shards)])
    keys = np.char.add("ssv2_", number.astype(str))
    columns = {
        "key": keys, "split": np.full(sources, "train"), "shard": names[shard], "offset": place * payload,
        "size": np.full(sources, payload), "num_frames": frames, "fps": np.full(sources, 12.0),
        "start_frame": np.zeros(sources, int), "source": keys, "source_path": keys, "source_frames": frames,
        "label": number % 174, "label_text": np.full(sources, "something"), "width": np.full(sources, 8),
        "height": np.full(sources, 8), "codec": np.full(sources, "raw"), "motion": np.full(sources, 2.0),
        "luma": np.full(sources, 99.0),
    }  # fmt: skip
    for directory in ("data", "meta"):
        (root / directory).mkdir()
    for name in names:
        with (root / name).open("wb") as file:
            file.truncate(per_shard)
    pq.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), root / INDEX)
    records = tuple(ShardRecord(str(name), sources // shards, 0, per_shard, "0" * 64) for name in names)
    Manifest(name="sparse", codec="raw", image_size=8, splits={"train": records}).save(root)
    return root


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
def test_512_shards_with_8_ranks_of_4_workers_start_in_seconds(tmp_path):
    root = sparse_shards(tmp_path, sources=193_690, shards=512)
    streams, first, seconds = [], [], []
    for rank in range(8):
        started = time.monotonic()
        streams.append(
            iter(loader(root, rank=rank, world_size=8, workers=4, window_frames=25, batch_clips=16))
        )
        first.append(next(streams[-1]))
        seconds.append(time.monotonic() - started)
    assert len(set(keys(first))) == 8 * 16
    assert sorted(seconds)[4] < 30, (
        f"a rank takes {sorted(seconds)[4]:.1f} s from the index to its first batch"
    )


def test_blocks_of_fewer_than_no_shards_are_refused():
    with pytest.raises(ValueError, match="block_shards is at least 0, got -1"):
        ClipSource("somewhere", block_shards=-1)


def test_open_tars_are_closed_though_python_ends(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = OpenFiles()
    descriptor = files.put(0, next((root / "data").iterdir()))
    with monkeypatch.context() as ending:
        ending.setattr("cwm_hub.clips.local_shards.os", None)
        files.__del__()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    files._files.clear()
