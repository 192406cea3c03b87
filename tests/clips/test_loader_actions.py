"""Actions beside the windows: the rows of the same frames, local and remote, for any number of workers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_shards import logged_rows, numbered_frames, write_data_set, write_shards

from cwm_hub.clips import window_stream
from cwm_hub.clips.clip_index import ClipSource
from cwm_hub.clips.loader import ClipBatch, ClipLoader, validation_windows
from cwm_hub.clips.retries import FetchConfig
from cwm_hub.shards.codecs import ShardError
from cwm_hub.shards.index import read_index

LENGTHS = [30, 60, 40]
PIECES = {1: [(0, 40), (16, 56), (32, 60)]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "logged", LENGTHS, pieces=PIECES, logged=True)


def check(batch: ClipBatch, frames: int) -> None:
    assert batch.action is not None and batch.reward is not None and batch.is_terminal is not None
    assert (batch.action.dtype, batch.action.shape) == (torch.float32, (len(batch.source), frames, 2))
    for i, start in enumerate(batch.start):
        source = int(batch.video[i, 0, 0, 0, 0])
        rows = logged_rows(source, start, start + frames)
        assert np.array_equal(batch.action[i], rows["action"])
        assert np.array_equal(batch.reward[i], rows["reward"])
        assert np.array_equal(batch.is_terminal[i], rows["is_terminal"])
        assert int(batch.video[i, -1, 1, 0, 0]) == start + frames - 1  # and the frames are those


@pytest.mark.parametrize("workers", [0, 1])
def test_rows_are_those_of_the_frames(root: Path, workers: int) -> None:
    loader = ClipLoader(
        [ClipSource(str(root))], batch_clips=3, window_frames=9, seed=0, workers=workers, with_actions=True
    )
    assert loader.logged == {"action": (2,), "reward": (), "is_terminal": ()}
    starts = set()
    for _, batch in zip(range(40), loader, strict=False):
        check(batch, 9)
        starts |= set(batch.start)
    assert min(starts) == 0 and max(starts) > 32  # of the last piece too


@pytest.mark.parametrize("kept", [0, 2000])
def test_rows_that_no_longer_fit_into_memory_are_read_again(
    root: Path, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window_stream, "LOGGED_BYTES", kept)
    loader = ClipLoader([ClipSource(str(root))], batch_clips=3, window_frames=9, seed=0, with_actions=True)
    for _, batch in zip(range(30), loader, strict=False):
        check(batch, 9)
    (clips,) = loader._batches.sets
    held = [len(rows) for rows in clips._logged.values()]
    assert 1 <= len(held) < 5 and (len(held) == 1 or sum(held) <= kept) and sum(held) == clips._logged_bytes


def test_the_windows_are_the_same_with_and_without(root: Path) -> None:
    streams = []
    for flag in (False, True):
        loader = ClipLoader(
            [ClipSource(str(root))], batch_clips=3, window_frames=9, seed=5, with_actions=flag
        )
        streams.append([(b.source, b.start, b.video) for _, b in zip(range(5), loader, strict=False)])
    for plain, logged in zip(*streams, strict=True):
        assert plain[:2] == logged[:2] and torch.equal(plain[2], logged[2])
    loader = ClipLoader([ClipSource(str(root))], batch_clips=3, window_frames=9, seed=5)
    batch = next(iter(loader))
    assert (batch.action, batch.reward, batch.is_terminal, batch.logged, loader.logged) == (
        None,
        None,
        None,
        {},
        {},
    )


def test_held_out_windows_and_moved_batches(root: Path) -> None:
    batches = validation_windows(
        ClipSource(str(root), split="train"), count=5, window_frames=9, seed=0, with_actions=True
    )
    for batch in batches:
        check(batch, 9)
        moved = batch.to("meta")
        assert {name: tensor.device.type for name, tensor in moved.logged.items()} == dict.fromkeys(
            ("action", "reward", "is_terminal"), "meta"
        )


def test_behind_a_url(root: Path, tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(root), "/logged-actions", recursive=True)
    fetch = FetchConfig(cache_dir=str(tmp_path / "cache"))
    loader = ClipLoader(
        [ClipSource("memory://logged-actions")],
        batch_clips=3,
        window_frames=9,
        seed=0,
        fetch=fetch,
        with_actions=True,
    )
    check(next(iter(loader)), 9)


def test_rewards_are_given_where_every_set_has_them(root: Path, tmp_path: Path) -> None:
    bare = write_shards(tmp_path / "bare", LENGTHS, logged=True, rewards=False)
    sources = [ClipSource(str(root)), ClipSource(str(bare))]
    batch = next(iter(ClipLoader(sources, batch_clips=4, window_frames=9, seed=0, with_actions=True)))
    assert list(batch.logged) == ["action"]


def test_sets_without_actions_or_with_others_are_refused(root: Path, tmp_path: Path) -> None:
    plain = write_shards(tmp_path / "plain", LENGTHS)
    with pytest.raises(ValueError, match=f"{plain} holds no actions beside its clips; cwm-dataprep lerobot"):
        ClipLoader([ClipSource(str(plain))], batch_clips=1, window_frames=9, seed=0, with_actions=True)
    clip = {"key": "a", "source": "a", "arrays": {"action": np.zeros((30, 3), np.float32)}}
    wide = write_data_set(tmp_path / "wide", {"train": [(numbered_frames(0, 0, 30), clip)]}, name="wide")
    sources = [ClipSource(str(root)), ClipSource(str(wide))]
    with pytest.raises(ShardError, match=r"holds actions of 2 numbers and .* of 3: a mixture needs one size"):
        ClipLoader(sources, batch_clips=1, window_frames=9, seed=0, with_actions=True)


def test_damaged_rows_cost_their_clip(root: Path) -> None:
    row = read_index(root)[0]
    data = bytearray((root / row.shard).read_bytes())
    data[row.arrays_offset : row.arrays_offset + 4] = b"junk"
    (root / row.shard).write_bytes(data)
    loader = ClipLoader([ClipSource(str(root))], batch_clips=3, window_frames=9, seed=0, with_actions=True)
    for _, batch in zip(range(10), loader, strict=False):
        check(batch, 9)
        assert row.key not in batch.source
    assert loader.broken == {f"clip {row.key}": "damaged arrays: no whole npz"}


def test_held_out_windows_give_the_state_of_their_frames(tmp_path: Path) -> None:
    frames = numbered_frames(0, 0, 30)
    state = np.stack([np.arange(30), np.arange(30) ** 2], 1).astype(np.float32)
    clip = {"key": "a", "source": "a", "arrays": {"state": state}}
    source = ClipSource(str(write_data_set(tmp_path / "state", {"train": [(frames, clip)]}, name="state")))
    (batch,) = validation_windows(source, count=4, window_frames=5, seed=0, with_state=True)
    assert batch.state is not None and batch.logged == {} and batch.action is None
    for rows, start in zip(batch.state, batch.start, strict=True):
        assert np.array_equal(rows, state[start : start + 5])
    moved = batch.to("meta").state
    assert moved is not None and moved.device.type == "meta"
    (plain,) = validation_windows(source, count=4, window_frames=5, seed=0)
    assert plain.state is None and plain.start == batch.start


def test_a_set_without_state_gives_none(root: Path) -> None:
    (batch,) = validation_windows(
        ClipSource(str(root)), count=4, window_frames=5, seed=0, with_actions=True, with_state=True
    )
    assert batch.state is None and batch.action is not None
