"""`cwm-dataprep split`: a finished set with another part of it held out, without decoding a clip.

    cwm-dataprep split shards/mine --out shards/mine-split                      # a tenth of the recordings
    cwm-dataprep split shards/mine --validation-share 0.3 --out shards/mine-30

Clips of `train` and `validation` are divided anew, as `cwm-dataprep folder` divides videos: what shows one scene at the
same time stays in one split, and so do videos whose clips are equal byte for byte. `test` stays as it is.
"""

import argparse
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cwm_hub.command_line import how_many
from cwm_hub.config import check_range
from cwm_hub.shards.index import read_index
from cwm_hub.shards.manifest import Manifest, read_failures
from cwm_hub.shards.storage import Root
from dataprep.command_line import EXIT_DONE, add_options, option, positional, read_options
from dataprep.curation.copying import Clip, deal, find_copies, new_set, write_copy
from dataprep.sharding.plan import SPLITS
from dataprep.sharding.recordings import (
    DEFAULT_SHARE,
    hold_out,
    join_copies,
    parse_group_by,
    recording,
    too_few,
)

EPISODE = r"^episode_\d+"
"""What names a recording in a set that was made from a LeRobot one, whatever its cameras are called."""


@dataclass(frozen=True)
class SplitOptions:
    """Options of this sub-command."""

    root: str = positional("ROOT")
    """Shard directory or fsspec URL."""
    out: str = option(metavar="OUT")
    """New local directory; ROOT is left as it is."""
    validation_share: float = option(DEFAULT_SHARE, metavar="SHARE")
    """Of the recordings, chosen by a hash of their names; of two or more at least one."""
    group_by: str | None = option(None, metavar="REGEX")
    """What of a video's path names its recording; none: as the index or what the set was made with says, or the path
    without words for cameras and parts."""

    def __post_init__(self) -> None:
        check_range(self, "validation_share", above=0, below=1)
        parse_group_by(self.group_by or "")


EXAMPLES = (
    "cwm-dataprep split shards/mine --out shards/mine-again --validation-share 0.2",
    "cwm-dataprep split shards/mine --out shards/by-room --group-by '^[^/]+'",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this sub-command's options."""
    add_options(parser, SplitOptions)


def run(args: argparse.Namespace) -> int:
    """Copy into other splits; exit code 0."""
    options = read_options(SplitOptions, args)
    manifest = split_shards(
        options.root, options.out, validation_share=options.validation_share, group_by=options.group_by
    )
    counts = ", ".join(
        f"{split}: {how_many(sum(r.samples for r in rs), 'clip')}" for split, rs in manifest.splits.items()
    )
    print(f"{options.out}: {counts}; manifest {manifest.hash[:12]}")
    return EXIT_DONE


def split_shards(
    root: str | Path | Root, out: str | Path | Root, *, validation_share: float, group_by: str | None = None
) -> Manifest:
    """Write the set with `validation_share` of its recordings held out.

    Args:
        root: Shard directory, local or an fsspec URL.
        out: New local directory.
        validation_share: Of the recordings that are not in `test`.
        group_by: What of `source_path` names a recording; None: see `SplitOptions`.

    Raises:
        ValueError: There is one recording only, or `out` is remote or not empty.
    """
    root, out = Root.parse(root), Root.parse(out)
    manifest, rows = Manifest.load(root), read_index(root)
    pattern = group_by or _pattern(manifest)
    divisible = [Clip(root, row) for row in rows if row.split != "test"]
    recordings = name_recordings(divisible, group_by, pattern)
    held_out = hold_out(recordings.values(), validation_share)
    if not held_out:
        raise ValueError(f"{root}: {too_few(len(set(recordings.values())))}")
    by_split: dict[str, list[Clip]] = {split: [] for split in SPLITS}
    for row in rows:
        name = recordings.get(row.source)
        split = row.split if name is None else "validation" if name in held_out else "train"
        by_split[split].append(Clip(root, replace(row, split=split)))
    most = max(record.samples for record in manifest.shards)
    shards = {split: deal(clips, most=most) for split, clips in by_split.items() if clips}
    done = {"parent": manifest.hash, "validation_share": validation_share, "group_by": pattern}
    divided = replace(
        manifest,
        config={**manifest.config, "divided": [*manifest.config.get("divided", []), done]},
        plan_hash=hashlib.sha256(json.dumps(done, sort_keys=True).encode()).hexdigest(),
    )
    with new_set(out) as home:
        return write_copy(home, divided, shards, read_failures(root))


def name_recordings(clips: Sequence[Clip], asked: str | None, made_with: str | None = None) -> dict[str, str]:
    """The recording of each source video; those whose clips are equal byte for byte share one.

    Args:
        clips: of the set.
        asked: what of a path names it, now.
        made_with: the same where neither that nor the index says.
    """
    pattern = asked or made_with
    compiled = None if pattern is None else re.compile(pattern)
    names = {
        row.source: (row.recording if asked is None else "")
        or recording(row.source_path or row.source, compiled)
        for _, row, _ in clips
    }
    join_copies(names, find_copies(clips))
    return names


def _pattern(manifest: Manifest) -> str | None:
    source = manifest.config.get("source", {})
    return source.get("group_by") or (EPISODE if "codebase_version" in source else None)
