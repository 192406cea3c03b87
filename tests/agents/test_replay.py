"""The ring against a plain list of episodes, its sampling laws, and its way back from disk."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from cwm_hub.agents.replay import Episode, Replay

SIZE = 4


def episode(number: int, rows: int, *, terminated: bool = False) -> Episode:
    """Row t of episode n has reward 100 n + t, action the same, and every pixel (10 n + t) % 256."""
    t = np.arange(rows)
    image = np.broadcast_to(
        ((10 * number + t) % 256).astype(np.uint8)[:, None, None, None], (rows, 3, SIZE, SIZE)
    )
    value = (100 * number + t).astype(np.float32)
    return Episode(image, value[:, None], value, terminated)


def make(capacity: int = 100, directory: Path | None = None, seed: int = 0) -> Replay:
    return Replay(capacity_steps=capacity, image_size=SIZE, action_size=1, seed=seed, directory=directory)


def held(replay: Replay) -> set[int]:
    """Numbers of the episodes that sampling can see."""
    batch = replay.sample_sequences(400, 3)
    return set((batch.reward[:, 0] // 100).astype(int))


def test_sequences_are_slices_of_one_episode_with_their_frames_and_actions() -> None:
    replay = make()
    for number in range(3):
        replay.add(episode(number, 12))
    batch = replay.sample_sequences(200, 5)
    assert np.all(np.diff(batch.reward, axis=1) == 1)
    assert np.array_equal(batch.action[..., 0], batch.reward)
    number, t = batch.reward // 100, batch.reward % 100
    assert np.array_equal(batch.image[:, :, 1, 2, 3], 10 * number + t)
    assert batch.is_first[:, 0].all()
    assert not batch.is_first[:, 1:].any()
    assert set(t[:, 0]) == set(range(8))  # every valid start comes up


def test_short_episodes_are_stored_but_never_drawn_whole_batches_need_one_long_enough() -> None:
    replay = make()
    replay.add(episode(0, 4))
    with pytest.raises(ValueError, match="no episode of 5 rows"):
        replay.sample_sequences(1, 5)
    replay.add(episode(1, 9))
    assert set(replay.sample_sequences(50, 5).reward[:, 0] // 100) == {1}
    assert replay.steps == 3 + 8


def test_a_short_episode_begins_anew_until_its_sequence_is_full() -> None:
    replay = make()
    replay.add(episode(0, 4, terminated=True))
    replay.add(episode(1, 9, terminated=True))
    batch = replay.sample_sequences(100, 6, repeat_short=True)
    short = batch.reward[:, 0] // 100 == 0
    assert 20 < short.sum() < 80
    assert (batch.reward[short] == [0, 1, 2, 3, 0, 1]).all() and (
        batch.image[short, :, 0, 0, 0] == batch.reward[short]
    ).all()
    assert (batch.is_first[short] == [1, 0, 0, 0, 1, 0]).all()
    assert (batch.is_terminal[short] == [0, 0, 0, 1, 0, 0]).all()
    assert (np.diff(batch.reward[~short], axis=1) == 1).all() and not batch.is_first[~short, 1:].any()
    assert np.array_equal(batch.is_terminal[~short], batch.reward[~short] == 108)


def test_frames_in_a_file_are_those_in_memory_and_leave_no_file_behind(tmp_path: Path) -> None:
    settings = {"capacity_steps": 50, "image_size": SIZE, "action_size": 1, "seed": 0}
    memory = Replay(**settings)
    file = Replay(**settings, directory=tmp_path, mapped=True)
    for number in range(9):  # twice round the ring
        memory.add(episode(number, 12)), file.add(episode(number, 12))
    again = Replay(**settings, directory=tmp_path, mapped=True)
    again.restore(file.state())
    assert isinstance(file._image.base, np.memmap)
    expected = memory.sample_sequences(40, 5)
    for replay in (file, again):
        drawn = replay.sample_sequences(40, 5)
        assert type(drawn.image) is np.ndarray
        assert all(np.array_equal(vars(drawn)[name], part) for name, part in vars(expected).items())
    assert {path.suffix for path in tmp_path.iterdir()} == {".npz"}


def test_a_full_disk_is_an_error_and_no_bus_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replay = Replay(
        capacity_steps=50, image_size=SIZE, action_size=1, seed=0, directory=tmp_path, mapped=True
    )
    asked = []

    def full(file: int, offset: int, size: int) -> None:
        asked.append((offset, size))
        raise OSError(errno.ENOSPC, "No space left on device")

    replay.add(episode(0, 12))
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        replay.add(episode(1, 20))
    assert asked == [(12 * 3 * SIZE**2, 20 * 3 * SIZE**2)] and not replay._image[12:].any()
    assert replay.episodes == 1


def test_favoured_ends_come_up_as_often_as_the_official_rule_says() -> None:
    replay = make()
    replay.add(episode(0, 21))
    plain = replay.sample_sequences(4000, 5).reward[:, 0] == 16
    favoured = replay.sample_sequences(4000, 5, favour_ends=True).reward[:, 0] == 16
    assert plain.mean() == pytest.approx(1 / 17, abs=0.02)
    assert favoured.mean() == pytest.approx(6 / 22, abs=0.03)


@pytest.mark.parametrize(
    "lengths",
    [
        [10] * 12,
        [7, 13, 5, 20, 11, 3, 30, 9, 8, 25],
        [10, 10, 11, 7, 10, 31],  # the last begins anew before the fourth, which is older than the fifth
    ],
)
def test_the_ring_holds_the_newest_episodes_unbroken(lengths: list[int]) -> None:
    replay = make(capacity=40)
    for number, rows in enumerate(lengths):
        replay.add(episode(number, rows))
        batch = replay.sample_sequences(400, min(3, rows))
        assert np.all(np.diff(batch.reward, axis=1) == 1)
        numbers = held(replay)
        assert number in numbers
        assert numbers == set(range(min(numbers), number + 1))
    assert replay.steps <= 40


def test_an_episode_larger_than_the_ring_is_refused() -> None:
    with pytest.raises(ValueError, match="replay_steps"):
        make(capacity=5).add(episode(0, 6))


def test_transitions_sum_discounted_rewards_and_stop_at_the_end() -> None:
    replay = make()
    replay.add(episode(0, 6, terminated=True))
    replay.add(episode(1, 6))
    batch = replay.sample_transitions(500, n_step=3, frame_stack=2, discount=0.5)
    seen = set()
    for image, action, reward, discount, following in zip(
        batch.image, batch.action, batch.reward, batch.discount, batch.next_image, strict=True
    ):
        number, t = divmod(int(action[0]) - 1, 100)  # the action after row t is stored on row t + 1
        seen.add((number, t))
        last = min(t + 3, 5)
        assert reward == sum(0.5**i * (100 * number + t + 1 + i) for i in range(last - t))
        assert discount == (0 if number == 0 and last == 5 else 0.5 ** (last - t))
        base = 10 * number
        assert image[:, 0, 0].tolist() == [base + max(t - 1, 0)] * 3 + [base + t] * 3
        assert following[:, 0, 0].tolist() == [base + last - 1] * 3 + [base + last] * 3
    assert seen == {(n, t) for n in (0, 1) for t in range(5)}


def test_restored_replay_goes_on_exactly_and_drops_what_came_after_the_mark(tmp_path: Path) -> None:
    one = make(capacity=40, directory=tmp_path)
    for number in range(6):
        one.add(episode(number, 9))
    state = one.state()
    one.add(episode(6, 9))  # collected after the checkpoint, then the run dies
    (tmp_path / "episode-00000007.part").write_bytes(b"half")

    two = make(capacity=40, directory=tmp_path, seed=99)
    two.restore(state)
    assert held(two) == {2, 3, 4, 5}
    assert not list(tmp_path.glob("*6.npz")) and not list(tmp_path.glob("*.part"))

    one = make(capacity=40)
    for number in range(6):
        one.add(episode(number, 9))
    two.restore(state)
    for number in range(6, 12):  # around the ring again: same places, same draws
        for replay in (one, two):
            replay.add(episode(number, 9))
        ours, theirs = one.sample_sequences(20, 4), two.sample_sequences(20, 4)
        assert np.array_equal(ours.reward, theirs.reward)
        assert np.array_equal(ours.image, theirs.image)


def test_files_of_evicted_episodes_go_only_when_told(tmp_path: Path) -> None:
    replay = make(capacity=20, directory=tmp_path)
    for number in range(4):
        replay.add(episode(number, 9))
    assert len(list(tmp_path.iterdir())) == 4
    replay.forget_evicted()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "episode-00000002.npz",
        "episode-00000003.npz",
    ]


def test_missing_episode_file_is_named(tmp_path: Path) -> None:
    replay = make(directory=tmp_path)
    replay.add(episode(0, 9))
    state = replay.state()
    next(tmp_path.iterdir()).unlink()
    with pytest.raises(ValueError, match=r"episode-00000000.npz is missing"):
        make(directory=tmp_path).restore(state)


@pytest.mark.parametrize("damage", ["cut", "flipped", "garbage", "empty", "array", "another", "short", "nan"])
def test_damaged_episode_file_is_named_in_one_sentence(tmp_path: Path, damage: str) -> None:
    replay = make(directory=tmp_path)
    replay.add(episode(0, 9))
    state = replay.state()
    path = next(tmp_path.iterdir())
    data = path.read_bytes()
    if damage == "another":
        make(directory=tmp_path).add(episode(0, 5))
    elif damage == "short":
        rows = dict(np.load(path))
        np.savez(path, **rows | {"action": rows["action"][:-1]})
    elif damage == "nan":
        np.savez(path, **dict(np.load(path)) | {"reward": np.full(9, np.nan, np.float32)})
    elif damage == "array":
        np.save(path.open("wb"), np.zeros(3))
    else:
        middle = len(data) // 2
        flipped = data[:300] + bytes([data[300] ^ 255]) + data[301:]
        path.write_bytes(
            {"cut": data[:middle], "flipped": flipped, "garbage": b"hello", "empty": b""}[damage]
        )
    with pytest.raises(ValueError, match=r"episode-00000000.npz is damaged.*begin a new run") as error:
        make(directory=tmp_path).restore(state)
    assert "\n" not in str(error.value)
