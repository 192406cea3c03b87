"""The files of a data set, in a local folder or in a repository of the Hub: what is there, and each when it is needed.

A revision of the Hub is pinned to its commit when the data set is listed; workers fetch by that commit, into the cache
of `huggingface_hub`.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dataprep.decode.video_file import VideoError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
LOCATOR = re.compile(r"hub:(?P<id>[^@]+)@(?P<commit>[0-9a-f]+)/(?P<name>.+)")


@dataclass(frozen=True)
class Repository:
    """Files by their path below the root."""

    place: str
    """Absolute path of a folder, or a Hub id."""
    commit: str
    """Of the Hub; "" for a folder."""
    bytes: Mapping[str, int]
    """Size of every file."""

    def locate(self, name: str) -> str:
        """What a worker hands to `fetch`."""
        return f"hub:{self.place}@{self.commit}/{name}" if self.commit else os.path.join(self.place, name)  # noqa: PTH118

    def read(self, name: str) -> Path:
        """A local path of the file, fetched now where it is on the Hub.

        Raises:
            ValueError: The Hub cannot be reached or refuses.
        """
        if not self.commit:
            return Path(self.place, name)
        with _hub_errors(self.place):
            return _download(self.place, self.commit, name)


def open_repository(dataset: str, *, revision: str | None, folders: tuple[str, ...]) -> Repository:
    """List a data set.

    Args:
        dataset: A folder, or an id `owner/name` of the Hub.
        revision: Branch, tag or commit of the Hub; None: `main`.
        folders: Below the root; other files are listed only where they lie in the root itself.

    Raises:
        ValueError: There is neither, or the Hub cannot be reached or refuses.
    """
    root = Path(dataset)
    if root.is_dir():
        if revision is not None:
            raise ValueError(f"--revision {revision} is of a data set of the Hub, and {dataset} is a folder")
        return Repository(os.path.abspath(root), "", dict(_walk(root, folders)))  # noqa: PTH100
    if not HUB_ID.fullmatch(dataset) or root.exists():
        raise ValueError(
            f"there is no folder {dataset}, and it is no id (owner/name) of a data set of the Hub"
        )
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    with _hub_errors(dataset):
        api = HfApi()
        commit = api.dataset_info(dataset, revision=revision).sha
        assert commit is not None
        tree = api.list_repo_tree(dataset, recursive=True, revision=commit, repo_type="dataset")
        return Repository(
            dataset, commit, {file.path: file.size for file in tree if isinstance(file, RepoFile)}
        )


def fetch(locator: str) -> Path:
    """A local path of what `Repository.locate` named; the worker's side.

    Raises:
        VideoError: The Hub does not give it.
    """
    match = LOCATOR.fullmatch(locator)
    if match is None:
        return Path(locator)
    try:
        with _hub_errors(match["id"]):
            return _download(match["id"], match["commit"], match["name"])
    except ValueError as error:
        raise VideoError("unreadable", str(error)) from error


def _download(repository: str, commit: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(repository, name, repo_type="dataset", revision=commit))


def _walk(root: Path, folders: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    tops = [root / folder for folder in folders]
    for top in (root, *tops):
        for path, below, files in os.walk(top):
            if top == root:
                below.clear()
            for file in files:
                place = Path(path, file)
                if place.is_file():
                    yield place.relative_to(root).as_posix(), place.stat().st_size


@contextlib.contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """One sentence for what the Hub's client raises."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import httpx

    try:
        yield
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, httpx.TransportError) as error:
        raise ValueError(f"the Hub cannot be reached to read {repository}") from error
    except RevisionNotFoundError as error:
        raise ValueError(
            f"{repository} has no such revision on the Hub: name a branch, tag or commit"
        ) from error
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"there is no data set {repository} on the Hub, or it is private: log in with `hf auth login`"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise ValueError(
            f"the Hub answered {status} for {repository}: {' '.join(str(error).split())}"
        ) from error
