"""Reads over a network, which fail in many ways or never return: timeouts, retries with growing pauses, one sentence."""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cwm_hub.config import check_range
from cwm_hub.shards.codecs import ShardError

T = TypeVar("T")

PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
"""Between two tries: doubled after every failure without progress."""

PERMANENT = (
    FileNotFoundError,
    PermissionError,
    NotADirectoryError,
    IsADirectoryError,
    ShardError,
    ImportError,
)
"""Errors that another try does not mend. File systems raise too many kinds of others to list."""


@dataclass(frozen=True)
class FetchConfig:
    """How shards of remote roots are fetched."""

    cache_dir: str | None = None
    """Folder of fetched shards, shared by all processes; None: `$CWM_HUB_CACHE` or `~/.cache/cwm_hub/shards`."""
    cache_bytes: int = 64 * 2**30
    """Upper bound of that folder; the shards unused for longest go first."""
    retries: int = 6
    """Failures in a row, without a byte of progress, after which a shard counts as broken."""
    timeout_seconds: float = 60.0
    """Without an answer to one read for that long, it has failed."""

    def __post_init__(self) -> None:
        check_range(self, "retries", at_least=1)
        check_range(self, "timeout_seconds", above=0)

    @property
    def directory(self) -> Path:
        """The cache folder."""
        chosen = self.cache_dir or os.environ.get("CWM_HUB_CACHE") or "~/.cache/cwm_hub/shards"
        return Path(chosen).expanduser()


def call_within(function: Callable[[], T], *, timeout_seconds: float) -> T | Exception:
    """The result, or the exception, of a call that may never return: TimeoutError then, and the call is abandoned."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 (handed to the caller, whatever it is)
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        error = future.exception(timeout_seconds)
    except TimeoutError:
        return TimeoutError(f"no answer in {timeout_seconds:g} seconds")
    if error is None:
        return future.result()
    if isinstance(error, Exception):
        return error
    raise error


def with_retries(function: Callable[[], T], fetch: FetchConfig, *, what: str) -> T:
    """Call until it succeeds.

    Raises:
        ShardError: it failed `retries` times, or in a way that does not pass; one sentence.
    """
    for tries in range(1, fetch.retries + 1):
        result = call_within(function, timeout_seconds=fetch.timeout_seconds)
        if not isinstance(result, Exception):
            return result
        if isinstance(result, ShardError):
            raise result
        if isinstance(result, PERMANENT) or tries == fetch.retries:
            raise ShardError(f"{what} cannot be read (tried {tries} times): {one_line(result)}") from result
        pause(tries)
    raise AssertionError("a fetch has at least one try")


def pause(failures: int) -> None:
    """Sleep before the next try, longer after every failure in a row."""
    time.sleep(min(PAUSE_SECONDS * 2 ** (failures - 1), LONGEST_PAUSE_SECONDS))


def one_line(error: BaseException) -> str:
    """An error as one line, with its kind."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
