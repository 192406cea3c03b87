"""`cwm-dataprep push`: publish a shard directory as a Hub data set, private unless told otherwise.

The directory first gets its card, statistics and contact sheet (README.md, meta/stats.json, meta/preview.jpg), so
`--dry-run` shows all that would be published. Shards of videos whose licence does not let others publish them go
nowhere without `--i-have-redistribution-rights`; `--metadata-only` publishes manifest, index and statistics instead, by
which others can check shards that they made from their own download.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cwm_hub.command_line import how_many
from cwm_hub.hub_client.cards import CARD, merged
from cwm_hub.hub_client.commit import NOTHING_NEW, Target, check_files, publish_files
from cwm_hub.hub_client.names import hub_name
from cwm_hub.shards.index import INDEX
from cwm_hub.shards.manifest import FAILURES, MANIFEST, Manifest
from cwm_hub.shards.storage import Root
from dataprep.command_line import EXIT_DONE, EXIT_VERIFY, add_options, option, positional
from dataprep.curation.preview import preview_jpeg
from dataprep.curation.stats import measure
from dataprep.curation.verify import verify

STATS, PREVIEW = "meta/stats.json", "meta/preview.jpg"
METADATA = (CARD, MANIFEST, INDEX, FAILURES, STATS, "meta/steering.parquet")


@dataclass(frozen=True)
class PushOptions:
    """Options of this sub-command."""

    root: str = positional("ROOT")
    """Finished local shard directory."""
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
    home = Root.parse(args.root).home
    if home is None:
        raise ValueError(f"push takes a local directory, got {args.root}")
    name = hub_name(args.repository, kind="dataset")
    if name is None:
        raise ValueError(f"a Hub repository is named owner/name, got {args.repository!r}")
    name = name.at(args.revision)
    manifest = Manifest.load(home)
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
    problems = verify(str(home), "quick")
    if problems:
        print(
            f"{problems[0].where}: {problems[0].what} ({how_many(len(problems), 'problem')}; see cwm-dataprep verify)"
        )
        return EXIT_VERIFY
    title = args.title or name.repo_id.partition("/")[2]
    files = render(
        home,
        manifest,
        repository=name.repo_id,
        title=title,
        with_clips=with_clips,
        sample=args.sample,
        keep_card=args.card == "keep",
    )
    size = sum((home / file).stat().st_size for file in files)
    if args.dry_run:
        print("\n".join(files))
        check_files({file: home / file for file in files})
        print(f"would publish {how_many(len(files), 'file')}, {size / 1e6:.1f} MB; read {home / CARD}")
        return EXIT_DONE
    print(upload(home, target, files))
    return EXIT_DONE


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
    home: Path,
    manifest: Manifest,
    *,
    repository: str,
    title: str,
    with_clips: bool = True,
    sample: int = 1000,
    keep_card: bool = True,
) -> list[str]:
    """Write card, statistics and (with clips) contact sheet into the directory; returns the files to publish."""
    from dataprep.curation.card import dataset_card

    root = Root.parse(home)
    stats = measure(root, sample=sample)
    root.write(STATS, json.dumps(stats, indent=1).encode() + b"\n")
    if with_clips:
        root.write(PREVIEW, preview_jpeg(root))
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
    root.write(CARD, card.encode())
    files = [file for file in METADATA if (home / file).is_file()]
    return files + ([PREVIEW, *(record.file for record in manifest.shards)] if with_clips else [])


def upload(home: Path, target: Target, files: list[str]) -> str:
    """Make the repository hold exactly these files, in one commit; returns its address, and whether they were all there already. Run again, it resumes.

    Raises:
        HubError: A tag in use, no right to write there, or no connection.
    """
    published = publish_files(
        target,
        {file: home / file for file in files},
        stale=lambda path, card: path.startswith(("data/", "meta/")),
        message=f"Publish {Manifest.load(home).name}",
    )
    return published.url if published.changed else NOTHING_NEW.format(place=published.url)
