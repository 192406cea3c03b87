"""Which window is sample n: the arithmetic of the loader, with no file, no state and no torch.

A data set of clips is one axis of windows, ordered by source video and then by time; `WindowTable` builds it from the
index. A sampling unit (a source video, a clip, or an equal share of all windows) is an interval of that axis. In each
epoch every unit gives one uniformly drawn window, in an order drawn anew:

    sample n  --split_mixture-->  data set j, its sample m  --m // units, m % units-->  epoch, position
              --epoch_windows-->  window  --WindowTable.locate-->  clip, frame

Everything is a pure function of (seed, n), so that ranks and workers only slice n, and resuming is starting at n.
The hash is our own (splitmix64) because NumPy does not promise that its generators stay the same for ever.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Sampling = Literal["source", "clip", "frame"]
Ints = NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_DRAW, _ORDER, _SHARDS, _ROTATE, _SUBSTITUTE = range(5)  # what a hash is for; keeps the draws independent


def hash_words(*words: int | np.integer | Ints) -> NDArray[np.uint64]:
    """Hash integers (scalars or arrays, broadcast) to 64 uniform bits: one splitmix64 step per word."""
    with np.errstate(over="ignore"):
        state = np.zeros((), np.uint64)
        for word in words:
            state = (state + _GOLDEN) ^ np.asarray(word).astype(np.uint64)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return np.asarray(state)


def mixture_shares(weights: Sequence[float]) -> tuple[Fraction, ...]:
    """Weights as exact shares that sum to one; equal weights give exactly 1/n each.

    Raises:
        ValueError: no weight at all, or one that is not a positive number.
    """
    if not weights or not all(0 < weight < float("inf") for weight in weights):
        raise ValueError(f"mixture weights must be positive numbers, got {list(weights)}")
    exact = [Fraction(weight).limit_denominator(1_000_000) for weight in weights]
    if 0 in exact:
        raise ValueError(f"a mixture weight below one in a million is too small, got {list(weights)}")
    return tuple(weight / sum(exact) for weight in exact)


def split_mixture(sample: int, shares: Sequence[Fraction]) -> tuple[int, int]:
    """(data set, its own sample number) of global sample `sample`, in exact proportion to the shares.

    The first set takes sample n where floor(n * share) steps up, the rest are split the same way, so that after any
    n samples every set is within len(shares) samples of its share.
    """
    rest = Fraction(1)
    for number, share in enumerate(shares[:-1]):
        part = share / rest
        before = sample * part.numerator // part.denominator
        if (sample + 1) * part.numerator // part.denominator > before:
            return number, before
        sample, rest = sample - before, rest - share
    return len(shares) - 1, sample


@dataclass(frozen=True)
class WindowTable:
    """Every window of `window_frames` consecutive frames of a data set, each exactly once.

    A source cut into overlapping pieces holds some windows twice; here a window belongs to the first piece that has
    it, so that a uniform draw from a source's interval is uniform over the source video. Of a clip with cuts, each shot is
    an interval of its own: no window reaches over a cut.
    """

    row: Ints
    """Index row of the clip of each shot that owns windows, by source and then by time."""
    first: Ints
    """Frame inside the clip where the shot's first own window starts."""
    edge: Ints
    """Shot i owns the windows edge[i] to edge[i + 1]."""
    source: Ints
    """Source number of each of these shots."""
    short_sources: int
    """Sources left out because no shot of theirs is as long as the window."""

    @classmethod
    def build(
        cls,
        source: Ints,
        start_frame: Ints,
        num_frames: Ints,
        *,
        window_frames: int,
        cuts: tuple[Ints, Ints] | None = None,
    ) -> "WindowTable":
        """From one entry per clip: its source's number, where it starts in the source video, and its length.

        `cuts` are (clip, frame inside it that begins a new shot), in any order.
        """
        if window_frames < 1:
            raise ValueError(f"a window needs at least one frame, got {window_frames}")
        row, shot, length = np.arange(len(num_frames)), np.zeros(len(num_frames), np.int64), num_frames
        if cuts is not None:
            row, shot, length = _shots(num_frames, *cuts)
        order = np.lexsort((start_frame[row] + shot, source[row]))
        row, shot, length = row[order], shot[order], length[order]
        source, start = source[row], start_frame[row] + shot
        span = int((start + length).max(initial=0)) + 1
        start = start + source * span  # sources end to end, so that one running maximum serves all of them
        stop = start + np.maximum(length - window_frames + 1, 0)
        covered = np.maximum.accumulate(np.concatenate(([0], stop)))[:-1]
        first_window = np.maximum(start, covered)
        count = np.maximum(stop - first_window, 0)
        used = count > 0
        return cls(
            row=row[used],
            first=(shot + first_window - start)[used],
            edge=np.concatenate(([0], np.cumsum(count[used]))),
            source=source[used],
            short_sources=_distinct(source).size - _distinct(source[used]).size,
        )

    def __len__(self) -> int:
        return int(self.edge[-1])

    @property
    def clips(self) -> Ints:
        """Index rows of the clips that own windows, ascending."""
        return np.unique(self.row)

    @property
    def sources(self) -> Ints:
        """Numbers of the sources that own windows, ascending."""
        return _distinct(self.source)

    def keep(self, sources: Ints) -> "WindowTable":
        """The windows of these source numbers only."""
        kept = np.isin(self.source, sources)
        edge = np.concatenate(([0], np.cumsum(np.diff(self.edge)[kept])))
        return replace(self, row=self.row[kept], first=self.first[kept], edge=edge, source=self.source[kept])

    def units(self, sampling: Sampling, *, window_frames: int) -> Ints:
        """Edges of the sampling units on the window axis; `frame` makes as many equal shares as windows fit in."""
        if sampling != "frame":
            of = self.row if sampling == "clip" else self.source
            change = np.flatnonzero(np.diff(of)) + 1
            return self.edge[np.concatenate(([0], change, [len(of)]))]
        count = max(1, len(self) // window_frames)
        return np.arange(count + 1) * len(self) // count

    def locate(self, window: Ints) -> tuple[Ints, Ints]:
        """(index row, first frame inside that clip) of each window."""
        shot = np.searchsorted(self.edge, window, side="right") - 1
        return self.row[shot], self.first[shot] + window - self.edge[shot]


def _shots(num_frames: Ints, clip: Ints, frame: Ints) -> tuple[Ints, Ints, Ints]:
    """(clip, first frame inside it, length) of every shot of clips that are cut at these frames, by clip and time."""
    every = np.arange(len(num_frames))
    clip, first = np.concatenate([every, clip]), np.concatenate([np.zeros_like(every), frame])
    order = np.lexsort((first, clip))
    clip, first = clip[order], first[order]
    is_last = np.append(clip[1:] != clip[:-1], True)[: len(clip)]
    stop = np.where(is_last, num_frames[clip], np.append(first[1:], 0)[: len(clip)])
    return clip, first, stop - first


def _distinct(ascending: Ints) -> Ints:
    return ascending[np.flatnonzero(np.diff(ascending, prepend=-1))]


def shard_order(shards: int, *, seed: int, epoch: int) -> Ints:
    """The order in which an epoch's blocks walk through the shards."""
    return np.argsort(hash_words(seed, _SHARDS, epoch, np.arange(shards)), kind="stable")


def draw_windows(units: Ints, *, seed: int, epoch: int, rotate: bool) -> Ints:
    """One uniformly drawn window per unit.

    Args:
        units: edges of the units.
        seed: of this data set's stream.
        epoch: number of the epoch.
        rotate: turn the axis by a random amount first; makes a draw from shares whose sizes differ by one uniform.
    """
    windows = np.uint64(units[-1])
    number = np.arange(len(units) - 1)
    offset = hash_words(seed, _DRAW, epoch, number) % np.diff(units).astype(np.uint64)
    drawn = units[:-1].astype(np.uint64) + offset
    if rotate:
        drawn = (drawn + hash_words(seed, _ROTATE, epoch) % windows) % windows
    return drawn.astype(np.int64)


def epoch_order(units: int, *, seed: int, epoch: int, block: Ints | None = None) -> Ints:
    """The order of an epoch's units: all shuffled, or, where `block` numbers them, shuffled inside each block."""
    key = hash_words(seed, _ORDER, epoch, np.arange(units))
    return np.argsort(key, kind="stable") if block is None else np.lexsort((key, block))


def substitute_position(position: int, tries: int, *, seed: int, epoch: int, low: int, high: int) -> int:
    """Where to look instead when the clip at `position` is broken: uniform in [low, high), the same every time."""
    return low + int(hash_words(seed, _SUBSTITUTE, epoch, position, tries) % np.uint64(high - low))


def choose_subset(names: Sequence[str], count: int, *, seed: int) -> list[str]:
    """A seeded choice of `count` names, sorted; it depends on the names alone, and 1,500 of them are within 15,000.

    Raises:
        ValueError: fewer names than asked for.
    """
    if not 0 < count <= len(names):
        raise ValueError(f"a subset of {count} sources was asked for, and there are {len(names)}")

    def key(name: str) -> bytes:
        return hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=16).digest()

    return sorted(sorted(names, key=key)[:count])


def resume_batch(saved: dict[str, Any], current: dict[str, Any], *, batches: int) -> int:
    """Where a run that used `batches` batches under fingerprint `saved` continues under `current`.

    Another world size or batch is re-striped: the stream is numbered by samples, so it continues exactly after the
    last sample used, if that is the end of a global batch of the new size.

    Raises:
        ValueError: something else changed, named in the sentence, or the batches do not line up.
    """
    shape = ("world_size", "batch_clips")
    names = [
        name for name in sorted(saved | current) if name not in shape and saved.get(name) != current.get(name)
    ]
    if names:
        changes = "; ".join(f"{name} was {saved.get(name)!r} and is {current.get(name)!r}" for name in names)
        raise ValueError(f"cannot resume on another data stream: {changes}")
    samples = batches * saved["world_size"] * saved["batch_clips"]
    start, rest = divmod(samples, current["world_size"] * current["batch_clips"])
    if rest:
        raise ValueError(
            f"cannot resume after {samples} samples with global batches of "
            f"{current['world_size']} x {current['batch_clips']}: resume with one that divides {samples}"
        )
    return start
