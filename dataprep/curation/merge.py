"""`cwm-dataprep merge`: several finished sets as one, their clips copied as they are encoded.

    cwm-dataprep merge shards/kitchen shards/lab --out shards/robots

A mixture with weights needs no merging (the loader takes several sets); one set is for keeping, moving and publishing.
Splits stay what they are, and what is held out in one set is kept out of training in all: of videos with equal clips,
those in `train` are left out and listed among the failures.
"""

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cwm_hub.command_line import how_many
from cwm_hub.shards.index import ClipRow, read_index
from cwm_hub.shards.manifest import Manifest, read_failures
from cwm_hub.shards.storage import Root
from dataprep.command_line import EXIT_DONE, add_options, option, positional, read_options
from dataprep.curation.copying import Clip, deal, find_copies, new_set, write_copy
from dataprep.sharding.plan import SPLITS
from dataprep.sharding.recordings import find_leaks


@dataclass(frozen=True)
class MergeOptions:
    """Options of this sub-command."""

    roots: tuple[str, ...] = positional("ROOT")
    """Shard directories or fsspec URLs, two or more."""
    out: str = option(metavar="OUT")
    """New local directory."""
    name: str | None = None
    """Of the new set; none: the names of all."""
    number: bool = False
    """Put the number of its set before every key (1-, 2-), for sets whose videos bear the same names."""


EXAMPLES = (
    "cwm-dataprep merge shards/a shards/b --out shards/both",
    "cwm-dataprep merge shards/a shards/b shards/c --out shards/all --name all",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this sub-command's options."""
    add_options(parser, MergeOptions)


def run(args: argparse.Namespace) -> int:
    """Copy all into one; exit code 0."""
    options = read_options(MergeOptions, args)
    manifest = merge_shards(options.roots, options.out, name=options.name, number=options.number)
    counts = ", ".join(
        f"{split}: {how_many(sum(r.samples for r in rs), 'clip')}" for split, rs in manifest.splits.items()
    )
    print(f"{options.out}: {counts}; manifest {manifest.hash[:12]}")
    return EXIT_DONE


def merge_shards(
    roots: Sequence[str | Path | Root],
    out: str | Path | Root,
    *,
    name: str | None = None,
    number: bool = False,
) -> Manifest:
    """Write the clips of all sets into one.

    Args:
        roots: Shard directories, local or fsspec URLs.
        out: New local directory.
        name: Of the new set.
        number: Tell videos of one key apart by their set.

    Raises:
        ValueError: Fewer than two sets, sets of other sizes or codecs, one video key in two sets, or `out` is not empty.
    """
    places = [Root.parse(root) for root in roots]
    manifests = [Manifest.load(place) for place in places]
    if len(places) < 2:
        raise ValueError(f"merge takes two sets or more, got {len(places)}")
    _check_alike(places, manifests)
    clips: list[Clip] = []
    for order, place in enumerate(places, start=1):
        mark = f"{order}-" if number else ""
        clips += [Clip(place, _renamed(row, mark, order), row.source) for row in read_index(place)]
    _check_keys(clips)
    failures = [failure for place in places for failure in read_failures(place)]
    split = {clip.row.source: clip.row.split for clip in clips}
    path = {clip.row.source: clip.row.source_path for clip in clips}
    leaks = find_leaks(find_copies(clips), split)
    for source, copy in leaks.items():
        detail = f"the same clips as {path[copy]}, of another split"
        failures.append({"source_path": path[source], "reason": "duplicate", "detail": detail})
    most = max(record.samples for manifest in manifests for record in manifest.shards)
    by_split = {s: [c for c in clips if c.row.split == s and c.row.source not in leaks] for s in SPLITS}
    shards = {s: deal(kept, most=most) for s, kept in by_split.items() if kept}
    with new_set(Root.parse(out)) as home:
        return write_copy(home, _merged(manifests, name), shards, failures)


def _renamed(row: ClipRow, mark: str, order: int) -> ClipRow:
    """A clip as the new set calls it; recordings of two sets may bear one name and are two."""
    recording = row.recording and f"{order}-{row.recording}"
    return replace(row, key=mark + row.key, source=mark + row.source, recording=recording)


def _merged(manifests: Sequence[Manifest], name: str | None) -> Manifest:
    parts = [
        {
            "name": one.name,
            "manifest": one.hash,
            "licence": one.licence,
            "config": one.config,
            "versions": one.versions,
        }
        for one in manifests
    ]
    hashes = "".join(one.hash for one in manifests)
    return replace(
        manifests[0],
        name=name or "-".join(dict.fromkeys(one.name for one in manifests)),
        config={**manifests[0].config, "merged": parts},
        plan_hash=hashlib.sha256(hashes.encode()).hexdigest(),
        licence=" and ".join(dict.fromkeys(one.licence for one in manifests)),
        redistributable=all(one.redistributable for one in manifests),
    )


def _check_alike(places: Sequence[Root], manifests: Sequence[Manifest]) -> None:
    for place, manifest in zip(places[1:], manifests[1:], strict=True):
        ours, theirs = ((one.image_size, one.codec) for one in (manifests[0], manifest))
        if ours != theirs:
            raise ValueError(
                f"{places[0]} holds {ours[0]} px {ours[1]} clips and {place} {theirs[0]} px {theirs[1]}: "
                "one set has one size and one codec"
            )
        logged = [
            {name: facts.names for name, facts in one.arrays.items()} for one in (manifests[0], manifest)
        ]
        if logged[0] != logged[1]:
            raise ValueError(
                f"beside the frames {places[0]} holds {_logged(logged[0])} and {place} {_logged(logged[1])}: "
                "one set logs the same for every clip"
            )


def _logged(columns: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(f"{name} ({', '.join(names)})" for name, names in columns.items()) or "nothing"


def _check_keys(clips: Sequence[Clip]) -> None:
    owner: dict[str, Root] = {}
    twice = 0
    first = ""
    for place, row, _ in clips:
        if owner.setdefault(row.key, place) != place:
            twice, first = twice + 1, first or row.key
    if twice:
        raise ValueError(
            f"{how_many(twice, 'clip key is', 'clip keys are')} in two sets, such as {first}: --number tells them apart"
        )
