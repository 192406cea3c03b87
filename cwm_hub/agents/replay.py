"""Replay of finished episodes in one flat uint8 ring, optionally mirrored to disk so that a run can resume.

A row is one agent step: the frame, the action that led to it, the reward received on arrival. Row 0 of an episode
is the reset, with zero action and reward. An episode always lies in one piece, so that a sequence is one slice.

    row       0       1       2     ...   L-1
    image   reset   after a1 after a2
    action    0       a1      a2
    reward    0       r1      r2
"""

import math
import operator
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8

EPISODE_FILES = f"episode-{'[0-9]' * 8}.npz"


class DamagedEpisodeError(ValueError):
    """A file of the replay is missing or holds something else: one sentence that names it."""

    def __init__(self, path: Path, reason: str):
        super().__init__(f"{path} is {reason}; put back a copy of it, or begin a new run")


@dataclass(frozen=True)
class Episode:
    """A finished episode of L rows, the reset row first."""

    image: UInt8[np.ndarray, "L 3 H W"]
    action: Float32[np.ndarray, "L A"]
    reward: Float32[np.ndarray, "L"]
    terminated: bool
    """Whether the task ended it, as against a time limit."""

    def __len__(self) -> int:
        return len(self.reward)


@dataclass(frozen=True)
class SequenceBatch:
    """Training chunks; `is_first` marks each chunk's start, since no state is carried into it."""

    image: UInt8[np.ndarray, "B T 3 H W"]
    action: Float32[np.ndarray, "B T A"]
    reward: Float32[np.ndarray, "B T"]
    is_first: Bool[np.ndarray, "B T"]
    is_terminal: Bool[np.ndarray, "B T"]
    """True on arrival at a state where the task itself ended the episode; a time limit leaves it False."""


@dataclass(frozen=True)
class TransitionBatch:
    """N-step transitions over stacked frames, for model-free agents; C = 3 * frame_stack, oldest frame first."""

    image: UInt8[np.ndarray, "B C H W"]
    action: Float32[np.ndarray, "B A"]
    reward: Float32[np.ndarray, "B"]
    """Discounted sum of the next n rewards, fewer at an episode's end."""
    discount: Float32[np.ndarray, "B"]
    """What to multiply the value of `next_image` with: discount^n, or 0 after a termination."""
    next_image: UInt8[np.ndarray, "B C H W"]


@dataclass(frozen=True)
class _Slot:
    """Where an episode lies: its number since the run began, its first row, its length."""

    number: int
    start: int
    length: int
    terminated: bool

    @property
    def stop(self) -> int:
        return self.start + self.length


def bytes_of_a_row(*, image_size: int, action_size: int) -> int:
    """Memory of an agent step: its frame, its action and its reward."""
    return 3 * image_size**2 + 4 * action_size + 4


class Replay:
    """The newest episodes, up to a capacity in agent steps.

    With a directory every episode is also written there, so that `restore` rebuilds the ring as it was at a
    checkpoint: `state()` is the high-water mark, and episodes collected after it are dropped. With `mapped`, frames
    are in a memory-mapped file of the directory in place of memory; it has no name and is gone with the process.
    """

    def __init__(
        self,
        *,
        capacity_steps: int,
        image_size: int,
        action_size: int,
        seed: int,
        directory: Path | None = None,
        mapped: bool = False,
    ):
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
        frames = (capacity_steps, 3, image_size, image_size)
        # Either takes room page by page as rows are written.
        self._file = tempfile.TemporaryFile(dir=directory) if mapped else None  # noqa: SIM115  # as long as the replay
        self._image = np.zeros(frames, np.uint8) if self._file is None else _mapped(frames, self._file)
        self._action = np.zeros((capacity_steps, action_size), np.float32)
        self._reward = np.zeros(capacity_steps, np.float32)
        self._slots: list[_Slot] = []
        self._head = 0
        self._added = 0
        self._rng = np.random.default_rng(seed)
        self._directory = directory

    @property
    def steps(self) -> int:
        """Agent steps held, reset rows not counted."""
        return sum(slot.length - 1 for slot in self._slots)

    @property
    def episodes(self) -> int:
        """Episodes held."""
        return len(self._slots)

    def shorter_than(self, rows: int) -> tuple[int, int]:
        """Episodes held that have fewer rows than this, and their agent steps: no sequence of so many is drawn from them."""
        short = [slot.length - 1 for slot in self._slots if slot.length < rows]
        return len(short), sum(short)

    def add(self, episode: Episode) -> None:
        """Stores an episode, over the oldest ones where there is no room left.

        Raises:
            ValueError: it is longer than the replay.
        """
        if len(episode) > len(self._reward):
            raise ValueError(
                f"an episode of {len(episode)} rows does not fit a replay of {len(self._reward)}: raise replay_steps"
            )
        if self._head + len(episode) > len(self._reward):
            self._slots = [slot for slot in self._slots if slot.start < self._head]
            self._head = 0
        slot = _Slot(self._added, self._head, len(episode), episode.terminated)
        self._slots = [s for s in self._slots if s.stop <= slot.start or s.start >= slot.stop]
        if self._directory is not None:
            _write_episode(self._path(slot.number), episode)
        self._write(slot, episode)
        self._head, self._added = slot.stop, self._added + 1

    def sample_sequences(
        self, batch: int, steps: int, *, favour_ends: bool = False, repeat_short: bool = False
    ) -> SequenceBatch:
        """Slices of `steps` rows: an episode uniformly, then a start uniformly.

        Episodes shorter than `steps` are never drawn, or begin anew until the sequence is full. With ends favoured the
        start is drawn from `steps` more values and clipped to the last valid one, as the official code does on
        Meta-world: a 501-row episode's last 50 rows come up in 10% of the draws.

        Raises:
            ValueError: no episode is long enough.
        """
        slots = [slot for slot in self._slots if slot.length >= (1 if repeat_short else steps)]
        if not slots:
            raise ValueError(f"the replay holds no episode of {steps} rows yet ({self.episodes} episodes)")
        drawn = [slots[i] for i in self._rng.integers(len(slots), size=batch)]
        last = np.array([max(slot.length - steps, 0) for slot in drawn])
        start = self._rng.integers(last + 1 + (steps if favour_ends else 0))
        rows: list[slice] = []
        is_first, is_terminal = np.zeros((2, batch, steps), bool)
        for one, (slot, skipped) in enumerate(zip(drawn, np.minimum(start, last), strict=True)):
            length = min(steps, slot.length)
            for at in range(0, steps, length):
                piece = slice(slot.start + skipped, slot.start + skipped + min(length, steps - at))
                rows.append(piece)
                is_first[one, at] = True
                end = at + piece.stop - piece.start - 1
                is_terminal[one, end] = slot.terminated and piece.stop == slot.stop
        image, action, reward = (
            np.concatenate([ring[r] for r in rows]).reshape(batch, steps, *ring.shape[1:])
            for ring in (self._image, self._action, self._reward)
        )
        return SequenceBatch(image, action, reward, is_first, is_terminal)

    def sample_transitions(
        self, batch: int, *, n_step: int = 3, frame_stack: int = 3, discount: float = 0.99
    ) -> TransitionBatch:
        """Transitions uniform over all steps held; frames before the reset repeat the reset's.

        Raises:
            ValueError: the replay is empty.
        """
        if not self.steps:
            raise ValueError("the replay is empty")
        lengths = np.array([slot.length - 1 for slot in self._slots])
        step = self._rng.integers(lengths.sum(), size=batch)
        which = np.searchsorted(lengths.cumsum(), step, side="right")
        row = step - (lengths.cumsum() - lengths)[which]
        first = np.array([slot.start for slot in self._slots])[which]
        end = np.array([slot.length - 1 for slot in self._slots])[which]
        terminated = np.array([slot.terminated for slot in self._slots])[which]
        following = np.minimum(row + n_step, end)
        powers = discount ** np.arange(n_step, dtype=np.float32)
        ahead = row[:, None] + 1 + np.arange(n_step)
        reward = self._reward[first[:, None] + np.minimum(ahead, end[:, None])] * (ahead <= end[:, None])
        over = terminated & (following == end)
        return TransitionBatch(
            self._stacked(first, row, frame_stack),
            self._action[first + row + 1],
            (reward * powers).sum(1).astype(np.float32),
            np.where(over, 0, discount ** (following - row)).astype(np.float32),
            self._stacked(first, following, frame_stack),
        )

    def state(self) -> dict[str, Any]:
        """The high-water mark: which episodes lie where, and the sampler's random state; plain JSON."""
        slots = [[slot.number, slot.start, slot.length] for slot in self._slots]
        return {
            "added": self._added,
            "head": self._head,
            "slots": slots,
            "rng": self._rng.bit_generator.state,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Rebuilds the ring of a `state()` from the directory and drops every episode written after it.

        Raises:
            ValueError: there is no directory.
            DamagedEpisodeError: a file of an episode of the state is missing or damaged.
        """
        if self._directory is None:
            raise ValueError("a replay without a directory cannot be restored")
        self._slots = []
        rings: dict[str, np.ndarray] = {"image": self._image, "action": self._action, "reward": self._reward}
        for number, start, length in state["slots"]:
            path = self._path(number)
            if not path.is_file():
                raise DamagedEpisodeError(path, "missing")
            episode = _read_episode(path, rings, length)
            self._write(_Slot(number, start, length, episode.terminated), episode)
        self._head, self._added = operator.index(state["head"]), operator.index(state["added"])
        self._rng.bit_generator.state = state["rng"]
        for path in self._directory.glob("episode-*.part"):
            path.unlink()
        for path in self._directory.glob(EPISODE_FILES):
            if int(path.stem.removeprefix("episode-")) >= self._added:
                path.unlink()

    def forget_evicted(self) -> None:
        """Deletes the files of episodes no longer held; call it once a checkpoint of the present state is safe."""
        if self._directory is None:
            return
        held = {slot.number for slot in self._slots}
        for path in self._directory.glob(EPISODE_FILES):
            if int(path.stem.removeprefix("episode-")) not in held:
                path.unlink()

    def _write(self, slot: _Slot, episode: Episode) -> None:
        rows = slice(slot.start, slot.stop)
        # A full disk is an error here, and would be a SIGBUS in the assignment.
        if self._file is not None and hasattr(os, "posix_fallocate"):
            row = self._image[0].nbytes
            os.posix_fallocate(self._file.fileno(), slot.start * row, slot.length * row)
        self._image[rows], self._action[rows], self._reward[rows] = (
            episode.image,
            episode.action,
            episode.reward,
        )
        self._slots.append(slot)

    def _stacked(self, first: np.ndarray, row: np.ndarray, frames: int) -> UInt8[np.ndarray, "B C H W"]:
        back = np.arange(frames - 1, -1, -1)
        rows = first[:, None] + np.maximum(row[:, None] - back, 0)
        image = self._image[rows]
        return image.reshape(len(row), frames * 3, *image.shape[-2:])

    def _path(self, number: int) -> Path:
        assert self._directory is not None
        return self._directory / f"episode-{number:08d}.npz"


def _mapped(shape: tuple[int, ...], file: IO[bytes]) -> UInt8[np.ndarray, "..."]:
    file.truncate(math.prod(shape))
    return np.asarray(np.memmap(file, np.uint8, "r+", shape=shape))


def _write_episode(path: Path, episode: Episode) -> None:
    """Uncompressed, whole or not at all."""
    partial = path.with_suffix(".part")
    with partial.open("wb") as file:
        np.savez(
            file,
            image=episode.image,
            action=episode.action,
            reward=episode.reward,
            terminated=np.array(episode.terminated),
        )
    partial.replace(path)


def _read_episode(path: Path, like: Mapping[str, np.ndarray], length: int) -> Episode:
    """Of so many rows, each as those of `like`."""
    try:
        with np.load(path, allow_pickle=False) as data:
            rows, terminated = {name: data[name] for name in like}, bool(data["terminated"])
    except Exception as error:  # zip, zlib and NumPy have each their own
        raise DamagedEpisodeError(path, f"damaged ({error})") from error
    for name, of_name in like.items():
        if (rows[name].dtype, rows[name].shape) != (of_name.dtype, (length, *of_name.shape[1:])):
            found, wanted = f"{rows[name].dtype} {rows[name].shape}", f"{of_name.dtype} {of_name.shape[1:]}"
            raise DamagedEpisodeError(path, f"damaged: {name} is {found}, expected {length} rows of {wanted}")
    if not np.isfinite(rows["reward"]).all():
        raise DamagedEpisodeError(path, "damaged: a reward is no finite number")
    return Episode(**rows, terminated=terminated)
