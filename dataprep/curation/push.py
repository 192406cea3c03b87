"""`cwm-dataprep push`: publish a shard directory as a Hub data set, private unless told otherwise.

The directory first gets its card, statistics and contact sheet (README.md, meta/stats.json, meta/preview.jpg), so
`--dry-run` shows all that would be published. Shards of videos whose licence does not let others publish them go
nowhere without `--i-have-redistribution-rights`; `--metadata-only` publishes manifest, index and statistics instead, by
which others can check shards that they made from their own download.
"""

import argparse
import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cwm_hub import __version__
from cwm_hub.shards.index import INDEX
from cwm_hub.shards.manifest import FAILURES, MANIFEST, Manifest
from cwm_hub.shards.storage import Root
from dataprep.command_line import EXIT_DONE, EXIT_VERIFY, add_options, option, positional
from dataprep.curation.preview import preview_jpeg
from dataprep.curation.stats import measure
from dataprep.curation.verify import verify

STATS, PREVIEW, CARD = "meta/stats.json", "meta/preview.jpg", "README.md"
METADATA = (CARD, MANIFEST, INDEX, FAILURES, STATS, "meta/steering.parquet")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


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
    """Name for the new commit; none: manifest-<first digits of its hash>."""
    i_have_redistribution_rights: bool = False
    """Publish shards although their manifest records no licence that lets others publish them."""
    metadata_only: bool = False
    """Publish no clip: manifest, index, statistics, card."""
    sample: int = 1000
    """Videos whose pixels the statistics read."""
    dry_run: bool = False
    """Write card, statistics and preview, publish nothing."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this sub-command's options."""
    add_options(parser, PushOptions)


def run(args: argparse.Namespace) -> int:
    """Verify, render, upload; exit code 0, or 3 where the directory is not what its manifest says."""
    home = Root.parse(args.root).home
    if home is None:
        raise ValueError(f"push takes a local directory, got {args.root}")
    if not HUB_ID.fullmatch(args.repository):
        raise ValueError(f"a Hub repository is named owner/name, got {args.repository!r}")
    manifest = Manifest.load(home)
    with_clips = not args.metadata_only
    if with_clips and not args.dry_run:
        check_rights(manifest, args.root, claimed=args.i_have_redistribution_rights)
    problems = verify(str(home), "quick")
    if problems:
        print(f"{problems[0].where}: {problems[0].what} ({len(problems)} problems; see cwm-dataprep verify)")
        return EXIT_VERIFY
    title = args.title or args.repository.partition("/")[2]
    files = render(
        home, manifest, repository=args.repository, title=title, with_clips=with_clips, sample=args.sample
    )
    size = sum((home / file).stat().st_size for file in files)
    if args.dry_run:
        print("\n".join(files))
        print(f"would publish {len(files)} files, {size / 1e6:.1f} MB; read {home / CARD}")
        return EXIT_DONE
    tag = args.tag or f"manifest-{manifest.hash[:12]}"
    print(upload(home, args.repository, files, private=not args.public, revision=args.revision, tag=tag))
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
    root.write(CARD, card.encode())
    files = [file for file in METADATA if (home / file).is_file()]
    return files + ([PREVIEW, *(record.file for record in manifest.shards)] if with_clips else [])


def upload(
    home: Path, repository: str, files: list[str], *, private: bool, revision: str | None, tag: str
) -> str:
    """Make the repository hold exactly these files; returns its address. Run again, it resumes.

    Raises:
        ValueError: No right to write there, or no connection.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name="cwm-hub", library_version=__version__)
    with _hub_errors(repository):
        api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, repo_type="dataset", branch=revision, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            repo_type="dataset",
            folder_path=home,
            revision=revision,
            allow_patterns=files,
            delete_patterns=["data/*", "meta/*"],
            commit_message=f"Publish {Manifest.load(home).name}",
        )
        api.create_tag(repository, repo_type="dataset", tag=tag, revision=revision, exist_ok=True)
    return f"{api.endpoint}/datasets/{repository}"


@contextlib.contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """One sentence for what the Hub's client raises."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )
    from huggingface_hub.utils import httpx

    try:
        yield
    except (OfflineModeIsEnabled, httpx.TransportError) as error:
        raise ValueError(f"the Hub cannot be reached to publish {repository}") from error
    except (HFValidationError, LocalTokenNotFoundError) as error:
        raise ValueError(f"{repository}: {' '.join(str(error).split())}") from error
    except HfHubHTTPError as error:
        status: Any = error.response.status_code
        reason = (
            "log in with `hf auth login` and a token that may write there"
            if status in (401, 403)
            else str(error)
        )
        raise ValueError(f"the Hub answered {status} for {repository}: {' '.join(reason.split())}") from error
