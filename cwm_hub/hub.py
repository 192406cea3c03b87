"""Checkpoints by name: loaded in one line, pushed to the Hugging Face Hub.

A name is a directory, a model shipped with the package, or a Hub repository at one revision; `cwm_hub.checkpoint`
reads and writes what is found there.
"""

import contextlib
import functools
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)
from huggingface_hub.utils import httpx
from torch import nn

import cwm_hub
from cwm_hub.checkpoint import CONFIG, SUFFIXES, Checkpoint, CheckpointError, local_file
from cwm_hub.checkpoint import save_pretrained as save_pretrained
from cwm_hub.config import nearest

EMBEDDED = Path(__file__).parent / "pretrained"
"""Checkpoints shipped inside the package, each a directory named as the model."""

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def find_checkpoint(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Checkpoint:
    """Finds a directory, an embedded model or a Hub repository, in this order, and pins its revision.

    Args:
        name_or_path: path of a checkpoint directory, a name such as "contextwm-tiny", or a Hub id "owner/name".
        revision: branch, tag or commit on the Hub; resolved once, so that config and weights belong together even
            while someone pushes.
        cache_dir: the Hub's cache instead of the default one.
        local_files_only: take the Hub's cache as it is and ask no server.
        token: access token of the Hub instead of the logged-in one; False for none.

    Raises:
        CheckpointError: nothing by that name, or the Hub cannot be reached and the cache has no copy.
    """
    name = os.fspath(name_or_path)
    directory = Path(name).expanduser()
    if not directory.is_dir() and name in embedded_names():
        directory = EMBEDDED / name
    if directory.is_dir():
        if revision is not None:
            raise CheckpointError(
                f"revision {revision!r} was asked of {name}, which is a directory and has none"
            )
        return Checkpoint(name, None, functools.partial(local_file, directory))
    if not HUB_ID.fullmatch(name):
        raise CheckpointError(_not_found(name))
    api = HfApi(token=token, library_name="cwm-hub", library_version=cwm_hub.__version__)
    with _hub_errors(name, revision):
        pinned = api.resolve_revision(
            name, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
        )

    def download(file: str) -> Path:
        with _hub_errors(name, revision):
            path = api.hf_hub_download(
                name, file, revision=pinned, cache_dir=cache_dir, local_files_only=local_files_only
            )
        return Path(path)

    return Checkpoint(name, pinned.resolved, download)


def from_pretrained(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    device: str | torch.device = "cpu",
    expect: type[nn.Module] | None = None,
) -> Any:
    """Loads a published model, of whatever class its config names, in eval mode.

    Args:
        name_or_path: a checkpoint directory, an embedded name such as "contextwm-tiny", or a Hub id "owner/name".
        revision: branch, tag or commit on the Hub.
        cache_dir: the Hub's cache instead of the default one.
        local_files_only: take the Hub's cache as it is and ask no server.
        token: access token of the Hub instead of the logged-in one; False for none.
        device: where the model is put.
        expect: refuse a checkpoint of any other class, before its weights are downloaded.

    Raises:
        CheckpointError: not found, not reachable, incomplete, corrupt, of another class or of a newer format.
    """
    checkpoint = find_checkpoint(
        name_or_path, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only, token=token
    )
    if expect is not None and not issubclass(checkpoint.model_class, expect):
        raise CheckpointError(
            f"{checkpoint} holds a {checkpoint.model_class.__name__}, expected a {expect.__name__}"
        )
    return checkpoint.load(device=device)


def push_to_hub(
    model_or_directory: nn.Module | str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool = True,
    revision: str | None = None,
    tag: str | None = None,
    message: str = "Upload checkpoint",
    token: str | bool | None = None,
) -> str:
    """Uploads a checkpoint directory, as it is, or a model to a Hub repository, and returns its address.

    The repository is made when there is none; one that exists keeps its visibility. A self-hosted Hub without Xet
    storage needs `HF_HUB_DISABLE_XET=1` in the environment before Python starts.

    Args:
        model_or_directory: what `save_pretrained` wrote, or a model, whose card then knows no training facts.
        repo_id: "owner/name".
        private: visibility of a new repository.
        revision: branch to commit to, made when there is none; the default branch by default.
        tag: a name to give the new commit.
        message: of the commit.
        token: access token instead of the logged-in one.

    Raises:
        CheckpointError: not a checkpoint, a file that may not be published, no right to write, or no connection.
    """
    if not HUB_ID.fullmatch(repo_id):
        raise CheckpointError(f"a Hub repository is named owner/name, got {repo_id!r}")
    if isinstance(model_or_directory, nn.Module):
        with tempfile.TemporaryDirectory() as scratch:
            saved = save_pretrained(model_or_directory, Path(scratch) / "model", name=repo_id)
            return push_to_hub(
                saved, repo_id, private=private, revision=revision, tag=tag, message=message, token=token
            )
    directory = Path(model_or_directory).expanduser()
    _check_publishable(directory)
    api = HfApi(token=token, library_name="cwm-hub", library_version=cwm_hub.__version__)
    with _hub_errors(repo_id, revision, unreached="was not pushed: the Hub or its storage was not reached"):
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id,
            folder_path=directory,
            revision=revision,
            commit_message=message,
            ignore_patterns=[".*", "*/.*"],
        )
        if tag is not None:
            api.create_tag(repo_id, tag=tag, revision=revision)
    return f"{api.endpoint}/{repo_id}" + (f"/tree/{revision}" if revision else "")


def embedded_names() -> list[str]:
    """Names of the checkpoints that come with the package."""
    return sorted(path.parent.name for path in EMBEDDED.glob(f"*/{CONFIG}"))


def _not_found(name: str) -> str:
    if os.sep in name or name.startswith((".", "~")):
        return f"no such directory: {name}"
    shipped = embedded_names()
    hint = nearest(name, shipped) or f" (embedded: {', '.join(shipped) or 'none'})"
    return f"{name!r} is no directory, no embedded model and no Hub id of the form owner/name{hint}"


@contextlib.contextmanager
def _hub_errors(
    repo_id: str,
    revision: str | None,
    *,
    unreached: str = "is not a directory, the Hub was not reached, and the local cache does not hold all of it",
) -> Iterator[None]:
    """Turns what the Hub's client raises into one sentence; a file that a repository lacks is FileNotFoundError."""
    try:
        yield
    except GatedRepoError as error:
        raise CheckpointError(
            f"{repo_id} is gated: ask for access on its page and log in with `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{repo_id} is neither a directory nor a Hub repository that you may see "
            "(a private one needs `hf auth login` or a token)"
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{repo_id} has no revision {revision or 'main'!r}") from error
    except (RevisionResolutionError, LocalEntryNotFoundError, ConnectionError, httpx.TransportError) as error:
        raise CheckpointError(f"{repo_id} {unreached}") from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(f"{repo_id} lacks a file") from error
    except (HFValidationError, LocalTokenNotFoundError) as error:
        raise CheckpointError(f"{repo_id}: {error}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        reason = (
            "log in with `hf auth login` and a token that may write there"
            if status in (401, 403)
            else str(error)
        )
        raise CheckpointError(
            f"the Hub answered {status} for {repo_id}: {' '.join(reason.split())}"
        ) from error


def _check_publishable(directory: Path) -> None:
    if not directory.is_dir():
        raise CheckpointError(f"no such directory: {directory}")
    find_checkpoint(directory).load()
    for path in sorted(directory.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(directory).parts)
        if path.is_file() and not hidden and path.suffix not in SUFFIXES:
            raise CheckpointError(
                f"{path} may not be published: a checkpoint holds only {' '.join(SUFFIXES)}"
            )
