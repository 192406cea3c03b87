"""Files of a checkpoint on the disk: found, read, and not what they should be, in one sentence."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cwm_hub.hub_client.errors import HubError


def local_path(path: str | os.PathLike[str]) -> Path:
    """A path as people write it: `~` is a home directory.

    Raises:
        HubError: of nobody here.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise HubError(f"{os.fspath(path)}: nobody has that home directory here") from error


def local_file(directory: Path, file: str) -> Path:
    """Path of a checkpoint directory's file, as `Checkpoint.fetch` wants it."""
    path = directory / file
    if not path.is_file():
        raise FileNotFoundError(path)
    return path


def read_json(path: Path, *, where: str) -> dict[str, Any]:
    """A mapping from a file.

    Raises:
        HubError: it cannot be read, is no JSON, or no mapping.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise HubError(f"{where} is not JSON: {error}") from error
    except OSError as error:
        raise HubError(f"{where} cannot be read: {error.strerror}") from error
    if not isinstance(content, dict):
        raise HubError(f"{where} expects a mapping, got a {type(content).__name__}")
    return content


@contextlib.contextmanager
def form_of(where: str) -> Iterator[None]:
    """Says which file is not what its recipe writes, in place of where the reading of it failed.

    Args:
        where: the file.

    Raises:
        HubError: the block met something else than it reads.
    """
    try:
        yield
    except HubError:
        raise
    except (
        AttributeError,
        IndexError,
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        RecursionError,
    ) as error:
        reason = "an entry is of another kind than it should be"
        if isinstance(error, KeyError):
            reason = f"there is no {error}"
        elif isinstance(error, ValueError) and type(error) is not ValueError:  # Python's own speaks of Python
            reason = " ".join(str(error).split())[:200]
        raise HubError(f"{where} does not have the form that the recipes write ({reason})") from error
