"""A name is a directory, a model shipped with the package, or a Hub repository at one revision."""

import functools
import hashlib
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwm_hub.config import nearest
from cwm_hub.hub import catalogue
from cwm_hub.hub.checkpoint import (
    CONFIG,
    SCORECARD,
    SUFFIXES,
    WEIGHTS,
    Checkpoint,
    CheckpointError,
)
from cwm_hub.hub.files import local_file, local_path
from cwm_hub.hub_client.commit import hub_api
from cwm_hub.hub_client.errors import hub_errors
from cwm_hub.hub_client.names import HubName, hub_name

if TYPE_CHECKING:
    from huggingface_hub import HfApi

RUN_RESULTS = ("model", "agent")
"""Where pre-training and fine-tuning leave their result in a run folder."""


def find_checkpoint(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    token: str | bool | None = None,
) -> Checkpoint:
    """Finds a directory, an embedded model or a Hub repository, in this order, and pins its revision.

    Args:
        name_or_path: path of a checkpoint directory, or of a run folder, which stands for its model; a name such as "contextwm-tiny", or a Hub repository:
            "owner/name", "owner/name@revision", "hf://owner/name", or the address of its page.
        revision: branch, tag or commit on the Hub; resolved once, so that config and weights belong together even
            while someone pushes.
        cache_dir: the Hub's cache instead of the default one.
        local_files_only: take the Hub's cache as it is and ask no server.
        force_download: fetch every file anew although the cache has it.
        token: access token of the Hub instead of the logged-in one; False for none.

    Raises:
        CheckpointError: nothing by that name, or the Hub cannot be reached and the cache has no copy.
    """
    name = os.fspath(name_or_path)
    if not name.strip():
        raise CheckpointError(
            f"a checkpoint is named by a directory, an embedded name or owner/name, got {name!r}"
        )
    directory = local_path(name)
    if not directory.is_dir() and name in catalogue.embedded_names():
        directory = catalogue.EMBEDDED / name
    if directory.is_dir():
        if revision is not None:
            raise CheckpointError(
                f"revision {revision!r} was asked of {name}, which is a directory and has none"
            )
        return _in_directory(name, directory)
    found = hub_name(name)
    if found is None:
        raise CheckpointError(_not_found(name))
    found = found.at(revision)
    api = hub_api(token)
    with hub_errors(found.repo_id, found.revision):
        pinned = api.resolve_revision(
            found.repo_id, revision=found.revision, cache_dir=cache_dir, local_files_only=local_files_only
        )

    def download(file: str, *, force: bool = force_download) -> Path:
        with hub_errors(found.repo_id, found.revision):
            path = api.hf_hub_download(
                found.repo_id,
                file,
                revision=pinned,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                force_download=force,
            )
        return Path(path)

    commit = pinned.resolved

    def mend(file: str) -> bool:
        if local_files_only or not _damaged(api, found, commit, {file: download(file, force=False)}):
            return False
        warnings.warn(f"{found.repo_id}/{file} was damaged in the cache and is fetched anew", stacklevel=2)
        download(file, force=True)
        return True

    def damaged() -> list[str]:
        with hub_errors(found.repo_id, found.revision):
            files = api.list_repo_files(found.repo_id, revision=commit)
        if CONFIG not in files:
            raise CheckpointError(f"{found.repo_id} has no {CONFIG}: it is not a cwm_hub checkpoint")
        kept = [file for file in files if Path(file).suffix in SUFFIXES]
        return _damaged(api, found, commit, {file: download(file) for file in kept})

    return Checkpoint(found.repo_id, commit, download, mend, damaged)


def _in_directory(name: str, directory: Path) -> Checkpoint:
    """The checkpoint in a directory or, of a run folder, its result with the scorecard that lies beside it."""
    if (directory / CONFIG).is_file():
        return Checkpoint(name, None, functools.partial(local_file, directory))
    for result in RUN_RESULTS:
        if (directory / result / CONFIG).is_file():
            place = str(Path(name) / result)
            return Checkpoint(place, None, functools.partial(_run_file, directory, result))
    if (directory / "checkpoints").is_dir():
        raise CheckpointError(
            f"{name} is a run that has not ended: training leaves its model in {Path(name) / RUN_RESULTS[0]}, and an "
            f"agent in {Path(name) / RUN_RESULTS[1]}"
        )
    return Checkpoint(name, None, functools.partial(local_file, directory))


def _run_file(run: Path, result: str, file: str) -> Path:
    """A file of a run's result, as `publish` takes it: an evaluation's scorecard lies in a folder of its own."""
    for place in run_folders(run):
        if file == SCORECARD and (place / file).is_file():
            return place / file
    return local_file(run / result, file)


def run_folders(run: Path) -> list[Path]:
    """Where a run keeps what is told of its result, first come first served."""
    places = (run, run / "evaluation", *(run / name for name in RUN_RESULTS))
    return [folder for folder in places if folder.is_dir()]


def verify(name: str | os.PathLike[str], **options: Any) -> list[str]:
    """Names of a checkpoint's files that are other than they should be, down to the last bit.

    What came from the Hub is compared with what the Hub holds. A directory and an embedded model are read whole, every
    tensor by name and shape, and their weights compared with those that their scorecard was measured on, if any.

    Args:
        name: as in `find_checkpoint`.
        options: as in `find_checkpoint`; `from_pretrained(name, force_download=True)` mends what came from the Hub.

    Raises:
        CheckpointError: no such checkpoint, one that cannot be read, or no connection.
    """
    checkpoint = find_checkpoint(name, **options)
    if checkpoint.revision is not None:
        return checkpoint.damaged()
    checkpoint.load()
    measured = measured_weights(checkpoint.read(SCORECARD))
    return [WEIGHTS] if measured not in (None, checkpoint.identity()["weights_sha256"]) else []


def measured_weights(scorecard: Mapping[str, Any] | None) -> str | None:
    """Hash of the weights that a scorecard was measured on, where it says so."""
    checkpoint = (scorecard or {}).get("checkpoint")
    return checkpoint.get("weights_sha256") if isinstance(checkpoint, Mapping) else None


def _damaged(api: "HfApi", name: HubName, commit: str, files: Mapping[str, Path]) -> list[str]:
    """Those of the downloaded files that do not have the hash that the Hub records."""
    from huggingface_hub.hf_api import RepoFile

    with hub_errors(name.repo_id, name.revision):
        entries = api.get_paths_info(name.repo_id, list(files), revision=commit)
    return [
        entry.path
        for entry in entries
        if isinstance(entry, RepoFile)
        and _hash_of(files[entry.path], lfs=entry.lfs is not None)
        != (entry.lfs.sha256 if entry.lfs is not None else entry.blob_id)
    ]


def _hash_of(path: Path, *, lfs: bool) -> str:
    """Sha256 of an LFS file, git's blob hash of another."""
    if not lfs:
        content = path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _not_found(name: str) -> str:
    if os.sep in name or name.startswith((".", "~")):
        return f"no such directory: {name}"
    shipped = catalogue.embedded_names()
    hint = nearest(name, shipped) or f" (embedded: {', '.join(shipped) or 'none'})"
    return f"{name!r} is no directory, no embedded model and no Hub id of the form owner/name{hint}"
