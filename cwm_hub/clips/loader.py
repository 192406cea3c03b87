"""Shards -> batches of clips: an endless, seeded stream that any number of ranks and workers share exactly.

    loader = ClipLoader([ClipSource("shards/ssv2")], batch_clips=16, window_frames=25, seed=0)
    for batch in loader:                    # endless; the caller counts updates
        loss, metrics = model(batch.video, batch.is_first)

Global sample number n decides everything (see `sampling`): global batch g holds the samples from g * world * B, rank r
the B from there + r * B, worker g % workers makes it. So a stream is the same for any number of workers, a global
batch is the same for any number of ranks, and resuming is `start_batch`. Never hand the loader to
`accelerator.prepare`: it passes through untouched, and tensors move with `batch.to(accelerator.device)`.

Deviation from the paper (which draws videos uniformly with replacement): an epoch is a permutation of the source
videos, each giving one uniform window, so ranks never share a source inside an epoch and every source is seen equally
often; a mixture takes its sets in exact proportion instead of at random.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cwm_hub.clips import sampling
from cwm_hub.clips.clip_index import LOGGED, ClipSource, Usage, common_arrays
from cwm_hub.clips.local_shards import BrokenCount
from cwm_hub.clips.retries import FetchConfig
from cwm_hub.clips.sampling import Sampling
from cwm_hub.clips.window_stream import ClipSet, Window, open_clip_set
from cwm_hub.shards.arrays import row_type
from cwm_hub.shards.codecs import ShardError

KEPT_BATCHES = 4
"""Batches whose memory a process keeps for the next ones; the caller usually holds one while it asks for another."""

FINGERPRINT_VERSION = 1
"""Raised whenever the same settings would give another stream."""


@dataclass(frozen=True)
class ClipBatch:
    """Windows of B clips; uint8 until it is inside the model."""

    video: UInt8[Tensor, "B T 3 H W"]
    """Frames. In memory the channel comes last (`torch.channels_last` for every frame): no copy was made to move it."""
    is_first: Bool[Tensor, "B T"]
    """True at the first frame of every window."""
    source: tuple[str, ...]
    """Key of each clip."""
    start: tuple[int, ...]
    """First frame of each window, counted in the stored frames of its source video."""
    label: Int64[Tensor, " B"]
    """Class of each clip, -1 where unknown."""
    broken: tuple[tuple[str, str], ...] = ()
    """(shard or clip, reason) of what could not be read and was replaced in this batch."""
    action: Float32[Tensor, "B T A"] | None = None
    """`action[:, t]` led to frame t; zeros at the first frame of a video. None unless the loader was asked for it."""
    reward: Float32[Tensor, "B T"] | None = None
    """Received on arrival at each frame; None too where a set of the mixture has none."""
    is_terminal: Bool[Tensor, "B T"] | None = None
    """Whether the task itself ended on arrival at each frame; None as for the reward."""
    state: Float32[Tensor, "B T S"] | None = None
    """When each frame was taken; what a latent is asked for, and no input of a model. Only of `validation_windows`."""

    @property
    def logged(self) -> dict[str, Tensor]:
        """What there is of action, reward and is_terminal, by these names: what a world model with actions takes."""
        return {name: value for name in LOGGED if (value := getattr(self, name)) is not None}

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "ClipBatch":
        """The batch with its tensors on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "ClipBatch":
        """The batch in page-locked memory, from which a GPU copies on its own."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, move: Any) -> "ClipBatch":
        tensors = {"video": self.video, "is_first": self.is_first, "label": self.label} | self.logged
        tensors |= {} if self.state is None else {"state": self.state}
        return replace(self, **{name: move(tensor) for name, tensor in tensors.items()})


class ClipLoader:
    """Endless iterator of `ClipBatch`; every iteration starts at `start_batch`."""

    def __init__(
        self,
        sources: Sequence[ClipSource],
        *,
        batch_clips: int,
        window_frames: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        sampling: Sampling = "source",
        image_size: int | None = None,
        start_batch: int = 0,
        prefetch_batches: int = 4,
        pin_memory: bool = False,
        max_broken: int = 8,
        max_broken_share: float = 0.5,
        fetch: FetchConfig | None = None,
        with_actions: bool = False,
    ) -> None:
        """Read manifests and indices once; no video is read before the first batch.

        Args:
            sources: the mixture.
            batch_clips: windows per batch of this rank.
            window_frames: consecutive stored frames of a window (25 in the paper).
            seed: of everything drawn.
            rank: of this process.
            world_size: number of processes.
            workers: loader processes of this rank; 0 reads in the calling process. The stream is the same.
            sampling: an epoch holds every source video once (the paper), every clip once, or draws windows so that
                every frame counts the same (`frame`: long videos come more often).
            image_size: side in pixels that the model expects; None takes what the shards hold.
            start_batch: batches this rank has already used; the stream continues there.
            prefetch_batches: batches each worker keeps ready.
            pin_memory: give batches in page-locked memory.
            max_broken: shards or clips that may turn out unreadable before the run stops.
            max_broken_share: share of the clips of each source of which the same is true, in [0, 1].
            fetch: cache, retries and timeouts for remote roots; None takes `FetchConfig()`.
            with_actions: give the logged actions too, and rewards and ends where every source has them. The windows are
                the same.

        Raises:
            ShardError: a root that is not a finished shard directory, or image or action sizes that do not match.
            ValueError: weights, filters, subset or window length that leave nothing to sample, or no actions.
        """
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is outside a world of {world_size}")
        if not 0 <= max_broken_share <= 1:
            raise ValueError(f"max_broken_share must be in [0, 1], got {max_broken_share}")
        if batch_clips < 1 or start_batch < 0:
            raise ValueError(
                f"a loader needs batch_clips >= 1 and start_batch >= 0, got {batch_clips}, {start_batch}"
            )
        self.workers, self.start_batch = workers, start_batch
        self.prefetch_batches, self.pin_memory = prefetch_batches, pin_memory
        self._broken = BrokenCount(max_broken)
        self._batches = _Batches(
            sources,
            batch_clips=batch_clips,
            window_frames=window_frames,
            seed=seed,
            rank=rank,
            world_size=world_size,
            unit=sampling,
            fetch=fetch or FetchConfig(),
            max_broken=max_broken,
            max_broken_share=max_broken_share,
            arrays=LOGGED if with_actions else (),
        )
        height, width = self._batches.image_size
        if image_size is not None and (height, width) != (image_size, image_size):
            raise ShardError(
                f"{sources[0].root} holds {height}x{width} frames and the model takes {image_size}x{image_size}: "
                f"shard the videos again with --size {image_size}"
            )
        self.image_size = (height, width)

    def __iter__(self) -> Iterator[ClipBatch]:
        loader = DataLoader(
            self._batches,
            batch_size=None,
            sampler=_Count(self.start_batch),
            num_workers=self.workers,
            prefetch_factor=self.prefetch_batches if self.workers else None,
            pin_memory=self.pin_memory,
            worker_init_fn=_own_process_group,
            generator=torch.Generator(),  # or the loader takes its worker seeds from the model's random stream
        )
        for batch in loader:
            if isinstance(batch, ShardError):
                raise batch
            for name, reason in batch.broken:
                self._broken.add(name, reason)
            yield batch

    @property
    def broken(self) -> dict[str, str]:
        """Every shard or clip passed over in the batches given so far, with the reason."""
        return dict(self._broken.reasons)

    @property
    def logged(self) -> dict[str, tuple[int, ...]]:
        """What batches have beside the frames, and the shape of a row of each: `{"action": (4,), "reward": ()}`."""
        return self._batches.logged

    @property
    def samples_per_epoch(self) -> list[int]:
        """Samples after which each source's epoch ends, all ranks together."""
        return [len(clips) for clips in self._batches.sets]

    def facts(self) -> list[dict[str, Any]]:
        """Per source what is used and left out: root, name, manifest_hash, split, sources, clips, frames, ..."""
        return [clips.index.facts() for clips in self._batches.sets]

    def usage(self) -> list[Usage]:
        """Per source how much of it is used, for people."""
        return [clips.index.usage(self._batches.window_frames) for clips in self._batches.sets]

    def diets(self) -> list[list[str]]:
        """Per source the ids of the source videos that are sampled, sorted: the list to record with a subset."""
        return [clips.index.source_names.to_pylist() for clips in self._batches.sets]

    def fingerprint(self) -> dict[str, Any]:
        """Everything that decides the stream, as json: what a resumed run must find unchanged (`resume_batch`)."""
        return self._batches.fingerprint()


def validation_windows(
    source: ClipSource,
    *,
    count: int,
    window_frames: int,
    seed: int,
    batch_clips: int = 16,
    or_fewer: bool = False,
    fetch: FetchConfig | None = None,
    with_actions: bool = False,
    with_state: bool = False,
) -> list[ClipBatch]:
    """A fixed list of `count` distinct windows for evaluation, in batches of at most `batch_clips`.

    They come from as many source videos as possible: one window each before any gives a second one. With `or_fewer` a
    split that has less gives all that it has. `with_state` gives the states too, where the set has some.

    Raises:
        ShardError, ValueError: as `ClipLoader`, or fewer windows than asked for.
    """
    batches = _Batches(
        [source],
        batch_clips=batch_clips,
        window_frames=window_frames,
        seed=seed,
        rank=0,
        world_size=1,
        unit="source",
        fetch=fetch or FetchConfig(),
        max_broken=0,
        max_broken_share=0.0,
        arrays=(*(LOGGED if with_actions else ()), *(("state",) if with_state else ())),
    )
    clips = batches.sets[0]
    windows = len(clips.index.windows)
    count = min(count, windows) if or_fewer else count
    if not 0 < count <= windows:
        raise ValueError(
            f"{count} validation windows were asked for, and {source.root} has {windows} of {window_frames} frames "
            f"in its {source.split} split"
        )
    chosen: dict[tuple[int, int], int] = {}
    sample = 0
    while len(chosen) < count:
        chosen.setdefault(clips.window(sample), sample)
        sample += 1
    numbers = list(chosen.values())
    return [
        batches.collect([(clips, n) for n in numbers[at : at + batch_clips]])
        for at in range(0, count, batch_clips)
    ]


def _own_process_group(worker: int) -> None:
    """Ctrl-C and SIGTERM to a trainer's group are the trainer's: without its workers it could not save and end in peace."""
    os.setpgrp()


class _Count(Sampler[int]):
    """Batch numbers from `start` for ever."""

    def __init__(self, start: int) -> None:
        self._start = start

    def __iter__(self) -> Iterator[int]:
        number = self._start
        while True:
            yield number
            number += 1


class _BatchMemory:
    """Memory for the frames of a batch, used again once nothing refers to it any more.

    Fresh memory costs a page fault every 4 kB, which took twice as long as reading raw shards into it.
    """

    def __init__(self) -> None:
        self._kept: list[NDArray[np.uint8]] = []
        probe = [np.empty(0, np.uint8)]
        self._unused = sys.getrefcount(probe[0])
        """References to an array that only the list holds, as `take` counts them."""

    def take(self, shape: tuple[int, ...]) -> UInt8[Tensor, "..."]:
        """An uninitialised tensor; the array below it lives as long as any tensor that shares its memory."""
        for number in range(len(self._kept)):
            if sys.getrefcount(self._kept[number]) == self._unused and self._kept[number].shape == shape:
                return torch.from_numpy(self._kept[number])
        array = np.empty(shape, np.uint8)
        if len(self._kept) < KEPT_BATCHES:
            self._kept.append(array)
        return torch.from_numpy(array)

    def __reduce__(self) -> tuple[type["_BatchMemory"], tuple[()]]:
        return _BatchMemory, ()


class _Batches(Dataset[ClipBatch | ShardError]):
    """Batch g of one rank as a pure function of g; what a loader worker holds."""

    def __init__(
        self,
        sources: Sequence[ClipSource],
        *,
        batch_clips: int,
        window_frames: int,
        seed: int,
        rank: int,
        world_size: int,
        unit: Sampling,
        fetch: FetchConfig,
        max_broken: int,
        max_broken_share: float,
        arrays: Sequence[str],
    ) -> None:
        self._broken, self._memory = BrokenCount(max_broken), _BatchMemory()
        self._shares = sampling.mixture_shares([source.weight for source in sources])
        self._batch_clips, self.window_frames, self._seed = batch_clips, window_frames, seed
        self._rank, self._world_size, self._unit = rank, world_size, unit
        self.sets = [
            open_clip_set(
                source,
                window_frames=window_frames,
                unit=unit,
                seed=seed,
                number=number,
                fetch=fetch,
                max_broken_share=max_broken_share,
            )
            for number, source in enumerate(sources)
        ]
        self.image_size = self.sets[0].index.image_size
        for clips in self.sets[1:]:
            if clips.index.image_size != self.image_size:
                first, other = ("x".join(map(str, found.index.image_size)) for found in (self.sets[0], clips))
                raise ShardError(
                    f"{sources[0].root} holds {first} frames and {clips.index.source.root} {other}: "
                    "a mixture needs one size"
                )
        self.logged = common_arrays([clips.index for clips in self.sets], arrays)
        self._logged_row = row_type(self.logged)
        for clips in self.sets:
            clips.logged_row = self._logged_row

    def __getitem__(self, batch: int) -> ClipBatch | ShardError:
        """The batch, or the error in its place: raised in a worker it would reach the user with two tracebacks."""
        first = (batch * self._world_size + self._rank) * self._batch_clips
        picks = [sampling.split_mixture(n, self._shares) for n in range(first, first + self._batch_clips)]
        try:
            return self.collect([(self.sets[number], sample) for number, sample in picks])
        except ShardError as error:
            return ShardError(str(error))

    def collect(self, samples: Sequence[tuple[ClipSet, int]]) -> ClipBatch:
        """Read these samples into one batch."""
        frames = self._memory.take((len(samples), self.window_frames, *self.image_size, 3))
        out = frames.numpy()
        windows = [clips.read(sample, out[i], self._broken) for i, (clips, sample) in enumerate(samples)]
        is_first = np.zeros(
            out.shape[:2], np.bool_
        )  # numpy: a call of torch costs as much as reading a window
        is_first[:, 0] = True
        return ClipBatch(
            video=frames.permute(0, 1, 4, 2, 3),
            is_first=torch.from_numpy(is_first),
            source=tuple(window.key for window in windows),
            start=tuple(window.start for window in windows),
            label=torch.from_numpy(np.array([window.label for window in windows], np.int64)),
            broken=tuple(pair for window in windows for pair in window.broken.items()),
            **self._columns(windows),
        )

    def _columns(self, windows: Sequence[Window]) -> dict[str, Tensor]:
        """What was logged beside the frames, [B, T, ...] of each array."""
        if not self.logged:
            return {}
        rows = np.frombuffer(b"".join(window.logged for window in windows), self._logged_row)
        rows = rows.reshape(len(windows), self.window_frames)
        return {name: torch.from_numpy(rows[name].copy()) for name in self.logged}

    def fingerprint(self) -> dict[str, Any]:
        """See `ClipLoader.fingerprint`; roots may move, so they are not part of it."""
        return {
            "version": FINGERPRINT_VERSION,
            "seed": self._seed,
            "sampling": self._unit,
            "window_frames": self.window_frames,
            "batch_clips": self._batch_clips,
            "world_size": self._world_size,
            "sources": [clips.fingerprint() for clips in self.sets],
            "shares": [str(share) for share in self._shares],
        }
