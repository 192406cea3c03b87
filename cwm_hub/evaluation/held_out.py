"""Held-out windows of shard directories, the mean frames beside them, and the protocol of scores on them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from cwm_hub.clips.clip_index import ClipSource
from cwm_hub.clips.loader import ClipLoader, validation_windows
from cwm_hub.clips.remote_shards import pin_revision
from cwm_hub.clips.retries import FetchConfig, with_retries
from cwm_hub.evaluation.protocol import WINDOWS, Protocol, ProtocolError, ScoringConfig
from cwm_hub.evaluation.scorecard import picture_hash
from cwm_hub.shards.codecs import ShardError
from cwm_hub.shards.index import read_index_table, read_recordings
from cwm_hub.shards.manifest import Manifest

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class HeldOut:
    """Held-out windows of every shard directory, one after another."""

    video: UInt8[Tensor, "B T 3 H W"]
    """Their frames."""
    windows: list[tuple[str, str, str, int]]
    """(data set, source video, clip key, first frame) of each."""
    labels: list[str]
    """Class of each in words, or its number, "" where unknown."""
    mean_frames: dict[str, UInt8[Tensor, "3 H W"]]
    """Data set -> average training frame."""
    manifests: dict[str, str]
    """Data set -> manifest hash."""
    action: Float32[Tensor, "B T A"] | None = None
    """What led to each frame, where it was asked for."""
    recordings: dict[str, str] = field(default_factory=dict)
    """As in `Protocol`, of the windows' videos."""

    def shown(self, count: int) -> list[int]:
        """Rows for a figure: the first windows of every data set in turn, at most `count`."""
        seen: Counter[str] = Counter()
        turns = []
        for row, (data_set, *_) in enumerate(self.windows):
            turns.append((seen[data_set], row))
            seen[data_set] += 1
        return sorted(row for _, row in sorted(turns)[:count])

    def captions(self, rows: Sequence[int]) -> list[str]:
        """Where each of these windows comes from."""
        return ["{0}: {2}, from frame {3}".format(*self.windows[row]) for row in rows]


def read_held_out(
    config: ScoringConfig,
    roots: Sequence[str],
    *,
    image_size: int,
    names: Sequence[str] | None = None,
    with_actions: bool = False,
) -> HeldOut:
    """Read the windows and the mean frames; data sets are called by `names`, or by their folder's name.

    A directory behind a URL is read with the loader's retries, and one on the Hub at the commit that it names now.

    Raises:
        ProtocolError: two directories of one name.
        ShardError, ValueError: a directory that cannot give what was asked, actions among it.
    """
    names = names or [root.rstrip("/").rsplit("/", 1)[-1] for root in roots]
    if len(set(names)) < len(names):
        raise ProtocolError(f"data sets are told apart by their folder's name, got {', '.join(names)}")
    videos, actions, windows, labels, mean_frames, manifests = [], [], [], [], {}, {}
    recordings: dict[str, str] = {}
    for name, place in zip(names, roots, strict=True):
        root = with_retries(partial(pin_revision, place), FetchConfig(), what=place)
        manifest = with_retries(partial(Manifest.load, root), FetchConfig(), what=root)
        index = with_retries(partial(read_index_table, root), FetchConfig(), what=root)
        clips, recording_of = clip_facts(index), read_recordings(index)
        if manifest.image_size != image_size:
            raise ShardError(
                f"{root} holds {manifest.image_size} px frames and the model takes {image_size} px: shard the videos again "
                f"with --size {image_size}"
            )
        manifests[name] = manifest.hash
        batches = validation_windows(
            ClipSource(root, split=config.split),
            count=config.windows or WINDOWS,
            or_fewer=config.windows is None,
            window_frames=config.observed_frames + config.horizon,
            seed=config.seed,
            with_actions=with_actions,
        )
        for batch in batches:
            videos.append(batch.video)
            actions.append(batch.action)
            labels += [clips[key][1] for key in batch.source]
            windows += [
                (name, clips[key][0], key, start)
                for key, start in zip(batch.source, batch.start, strict=True)
            ]
            used = {clips[key][0] for key in batch.source} & recording_of.keys()
            recordings |= {f"{name}/{video}": recording_of[video] for video in used}
        mean_frames[name] = mean_frame(root, frames=config.mean_frame_frames, seed=config.seed)
    action = torch.cat([one for one in actions if one is not None]) if with_actions else None
    return HeldOut(torch.cat(videos), windows, labels, mean_frames, manifests, action, recordings)


def clip_facts(index: "pyarrow.Table") -> dict[str, tuple[str, str]]:
    """Key of every clip -> its source video, and words of its class: its number where it has no words, "" where none."""
    columns = index.select(["key", "source", "label", "label_text"]).to_pydict()
    return {
        key: (source, text or (str(label) if label >= 0 else ""))
        for key, source, label, text in zip(*columns.values(), strict=True)
    }


def mean_frame(root: str, *, frames: int, seed: int) -> UInt8[Tensor, "3 H W"]:
    """The baseline's constant picture: the average of training frames drawn uniformly."""
    loader = ClipLoader([ClipSource(root)], batch_clips=frames, window_frames=1, seed=seed, sampling="frame")
    return next(iter(loader)).video.double().mean((0, 1)).round().byte()


def make_protocol(config: ScoringConfig, held_out: HeldOut) -> Protocol:
    """The protocol that travels with the scores."""
    return Protocol(
        observed_frames=config.observed_frames,
        horizon=config.horizon,
        context="official" if config.protocol == "official" else config.context,
        latents=config.latents,
        samples=config.samples,
        seed=config.seed,
        image_size=held_out.video.shape[-1],
        split=config.split,
        data=held_out.manifests,
        mean_frames={name: picture_hash(picture) for name, picture in held_out.mean_frames.items()},
        windows=tuple(held_out.windows),
        recordings=dict(sorted(held_out.recordings.items())),
    )
