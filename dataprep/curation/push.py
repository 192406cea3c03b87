"""`cwm-dataprep push`: publish a shard directory as a Hub data set, private unless told otherwise.

The directory first gets its card, statistics and contact sheet (README.md, meta/stats.json, meta/preview.jpg), so
`--dry-run` shows all that would be published. To a set that lies elsewhere nothing is written, and its shards pass
through memory one at a time. Shards of videos whose licence does not let others publish them go
nowhere without `--i-have-redistribution-rights`; `--metadata-only` publishes manifest, index and statistics instead, by
which others can check shards that they made from their own download.
"""

import argparse
import contextlib
import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from cwm_hub.command_line import how_many
from cwm_hub.hub_client.cards import CARD, merged
from cwm_hub.hub_client.commit import NOTHING_NEW, Target, check_files, publish_files
from cwm_hub.hub_client.errors import HubError
from cwm_hub.hub_client.names import hub_name
from cwm_hub.shards.index import INDEX
from cwm_hub.shards.manifest import FAILURES, MANIFEST, Manifest, ShardRecord
from cwm_hub.shards.storage import Root
from dataprep.command_line import EXIT_DONE, EXIT_VERIFY, add_options, option, positional
from dataprep.curation.preview import preview_jpeg
from dataprep.curation.stats import measure
from dataprep.curation.verify import Problem, check_digest, verify

STATS, PREVIEW = "meta/stats.json", "meta/preview.jpg"
METADATA = (CARD, MANIFEST, INDEX, FAILURES, STATS, "meta/steering.parquet")


@dataclass(frozen=True)
class PushOptions:
    """Options of this sub-command."""

    root: str = positional("ROOT")
    """Finished shard directory or fsspec URL, such as s3://bucket/sets/mine."""
    repository: str = positional("OWNER/NAME")
    """Data set repository, made when there is none."""
    public: bool = False
    """Make a new repository public; without it, private."""
    title: str | None = None
    """Heading of the card; none: the repository's name."""
    revision: str | None = option(None, metavar="BRANCH")
    """Branch to commit to; none: main."""
    tag: str | None = None
    """Name for the new commit, refused where it is in use; none: manifest-<first digits of its hash>."""
    card: Literal["keep", "replace"] = "keep"
    """Keep what people wrote into the README.md that is there, or write it anew."""
    i_have_redistribution_rights: bool = False
    """Publish shards although their manifest records no licence that lets others publish them."""
    metadata_only: bool = False
    """Publish no clip: manifest, index, statistics, card."""
    sample: int = 1000
    """Videos whose pixels the statistics read."""
    dry_run: bool = False
    """Write card, statistics and preview, publish nothing."""


EXAMPLES = (
    "cwm-dataprep push shards/mine owner/clips --dry-run",
    "cwm-dataprep push shards/ssv2 owner/ssv2-shards --metadata-only",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this sub-command's options."""
    add_options(parser, PushOptions)


def run(args: argparse.Namespace) -> int:
    """Verify, render, upload; exit code 0, or 3 where the directory is not what its manifest says."""
    root = Root.parse(args.root)
    if root.home is not None:
        return publish(args, root, root.home)
    with TemporaryDirectory() as folder:
        return publish(args, root, Path(folder))


def publish(args: argparse.Namespace, root: Root, home: Path) -> int:
    """`run`, with the local folder for what is made here: the set's own, or an empty one."""
    name = hub_name(args.repository, kind="dataset")
    if name is None:
        raise ValueError(f"a Hub repository is named owner/name, got {args.repository!r}")
    name = name.at(args.revision)
    manifest = Manifest.load(root)
    target = Target(
        name.repo_id,
        "dataset",
        private=not args.public,
        revision=name.revision,
        tag=args.tag or f"manifest-{manifest.hash[:12]}",
        move_tag=args.tag is None,  # the same shards under a card that changed
        replace_card=args.card == "replace",
    )
    with_clips = not args.metadata_only
    if with_clips and not args.dry_run:
        check_rights(manifest, args.root, claimed=args.i_have_redistribution_rights)
    problems = verify(root, "quick")
    if not problems and with_clips and not args.dry_run and root.home is not None:
        problems = find_damaged(home, manifest)
    if problems:
        print(
            f"{problems[0].where}: {problems[0].what} ({how_many(len(problems), 'problem')}; see cwm-dataprep verify)"
        )
        return EXIT_VERIFY
    title = args.title or name.repo_id.partition("/")[2]
    if root.home is None:
        copy_small_files(root, home)
    files = render(
        root,
        home,
        manifest,
        repository=name.repo_id,
        title=title,
        with_clips=with_clips,
        sample=args.sample,
        keep_card=args.card == "keep",
    )
    here = {file: home / file for file in files}
    shards = {record.file: record for record in manifest.shards} if with_clips else {}
    if args.dry_run:
        size = sum(path.stat().st_size for path in here.values()) + sum(s.bytes for s in shards.values())
        print("\n".join((*files, *shards)))
        check_files(here)
        read = f"; read {home / CARD}" if root.home is not None else ""
        print(f"would publish {how_many(len(files) + len(shards), 'file')}, {size / 1e6:.1f} MB{read}")
        return EXIT_DONE
    passing = {}
    if root.home is not None:
        here |= {file: home / file for file in shards}
    else:
        passing = {file: partial(shard_bytes, root, record) for file, record in shards.items()}
    published = publish_files(
        target,
        here,
        stale=lambda path, card: path.startswith(("data/", "meta/")),
        message=f"Publish {manifest.name}",
        passing=passing,
    )
    print(published.url if published.changed else NOTHING_NEW.format(place=published.url))
    return EXIT_DONE


def copy_small_files(root: Root, home: Path) -> None:
    """What a remote set has of `METADATA`, into a local folder."""
    for file in METADATA:
        with contextlib.suppress(FileNotFoundError):
            Root.parse(home).write(file, root.read(file))


def find_damaged(home: Path, manifest: Manifest) -> list[Problem]:
    """Shards that have another sha256 than the manifest's, which `verify` of its quick level does not ask for."""
    problems: list[Problem] = []
    for record in manifest.shards:
        with (home / record.file).open("rb") as file:
            problems += check_digest(file, record)
    return problems


def shard_bytes(root: Root, record: ShardRecord) -> bytes:
    """A shard of a remote set.

    Raises:
        HubError: it cannot be read, or is not what the manifest says; nothing is committed then.
    """
    try:
        data = root.read(record.file)
    except OSError as error:
        raise HubError(f"{root}: {record.file} cannot be read: {error}") from error
    if hashlib.sha256(data).hexdigest() != record.sha256:
        raise HubError(f"{root}: {record.file} has another sha256 than the manifest's: nothing was published")
    return data


def check_rights(manifest: Manifest, root: str, *, claimed: bool) -> None:
    """Refuse to publish what the recorded licence does not let others publish.

    Raises:
        ValueError: It does not, and nobody claims the right.
    """
    if not manifest.redistributable and not claimed:
        raise ValueError(
            f"{root}: the recorded licence ({manifest.licence}) does not let others publish these clips, not even "
            "privately: add --metadata-only, or --i-have-redistribution-rights if you hold them"
        )


def render(
    root: Root,
    home: Path,
    manifest: Manifest,
    *,
    repository: str,
    title: str,
    with_clips: bool = True,
    sample: int = 1000,
    keep_card: bool = True,
) -> list[str]:
    """Write card, statistics and (with clips) contact sheet of a set into a local folder; returns the files to publish but shards."""
    from dataprep.curation.card import dataset_card

    stats, out = measure(root, sample=sample), Root.parse(home)
    out.write(STATS, json.dumps(stats, indent=1).encode() + b"\n")
    if with_clips:
        out.write(PREVIEW, preview_jpeg(root))
    card = dataset_card(
        manifest,
        stats,
        repository=repository,
        title=title,
        with_clips=with_clips,
        preview=PREVIEW if with_clips else None,
    )
    there = home / CARD
    if keep_card and there.is_file():
        card = merged(there.read_text(encoding="utf-8"), card, kind="dataset")
    out.write(CARD, card.encode())
    return [file for file in METADATA if (home / file).is_file()] + ([PREVIEW] if with_clips else [])
