"""A name is a directory, a model shipped with the package, or a Hub repository at one revision."""

import contextlib
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path

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

import cwm_hub
from cwm_hub.config import nearest
from cwm_hub.hub.checkpoint import CONFIG, Checkpoint, CheckpointError, local_file

EMBEDDED = Path(__file__).parent / "embedded"
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
