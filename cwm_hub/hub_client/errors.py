"""Whatever the Hub's client, the network and the disk raise, in one sentence of one class."""

import contextlib
import errno
from collections.abc import Iterator
from typing import Any

DISK = (
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EFBIG,
    errno.EIO,
    errno.EISDIR,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)
"""Numbers by which the system refuses a file; a refused connection has others."""


class HubError(ValueError):
    """A repository, a checkpoint or the way to either is not what it should be: one sentence for the user."""


@contextlib.contextmanager
def hub_errors(
    repo_id: str,
    revision: str | None = None,
    *,
    unreached: str = "is not a directory, the Hub was not reached, and the local cache does not hold all of it",
) -> Iterator[None]:
    """Turns what the Hub's client, its network and its disk raise into one sentence.

    Args:
        repo_id: what the sentence is about.
        revision: the one that was asked for.
        unreached: what no connection means here.

    Raises:
        HubError: the sentence.
        FileNotFoundError: the repository lacks a file, for which the caller has a better sentence.
    """
    try:
        yield
    except HubError:
        raise
    except Exception as error:
        sentence = _sentence(error, repo_id, revision, unreached)
        if sentence is None:
            raise
        raise sentence from error


def _sentence(error: Exception, repo_id: str, revision: str | None, unreached: str) -> Exception | None:
    """The error to raise instead, or None where this one is a programmer's."""
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    if isinstance(error, errors.GatedRepoError):
        return HubError(f"{repo_id} is gated: ask for access on its page and log in with `hf auth login`")
    if isinstance(error, errors.RepositoryNotFoundError):
        return HubError(
            f"{repo_id} is neither a directory nor a Hub repository that you may see "
            "(a private one needs `hf auth login` or a token)"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return HubError(f"{repo_id} has no revision {revision or 'main'!r}")
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return FileNotFoundError(f"{repo_id} lacks a file")
    answer = next((cause for cause in _causes(error) if isinstance(cause, errors.HfHubHTTPError)), None)
    if answer is not None:
        said = (
            error if isinstance(error, ValueError) else answer
        )  # the client lists what is wrong with a card
        return HubError(_answered(answer.response.status_code, _one_line(said), repo_id))
    disk = next((cause for cause in _causes(error) if getattr(cause, "errno", None) in DISK), None)
    if disk is not None:
        place = f" at {disk.filename}" if disk.filename else ""
        return HubError(f"{repo_id}: the disk or the Hub's cache{place} cannot be used: {disk.strerror}")
    broken = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
    if any(isinstance(cause, broken) for cause in _causes(error)):
        return HubError(f"{repo_id}: the connection to the Hub broke off, before all was through; try again")
    network = (ConnectionError, httpx.TransportError)
    unfound = (errors.RevisionResolutionError, errors.EntryNotFoundError)
    if isinstance(error, unfound) or any(isinstance(cause, network) for cause in _causes(error)):
        return HubError(f"{repo_id} {unreached}")
    if isinstance(error, errors.HFValidationError | errors.LocalTokenNotFoundError):
        return HubError(f"{repo_id}: {_one_line(error)}")
    if isinstance(error, OSError | ValueError | RuntimeError):  # a body cut short, refused yaml, Xet's own
        return HubError(f"the Hub's client failed for {repo_id}: {_one_line(error)}")
    return None


def _answered(status: int, reason: str, repo_id: str) -> str:
    if status in (401, 403):
        reason = "log in with `hf auth login`, with a token that may do that"
    if status == 412:
        reason = "somebody else has committed meanwhile: run it again"
    return f"the Hub answered {status} for {repo_id}: {reason}"


def _causes(error: BaseException | None) -> Iterator[Any]:
    """The error and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:300] + "..."
