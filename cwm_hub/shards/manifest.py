"""`meta/manifest.json`: what a set of shards holds and how it came to be; and the videos that gave no clip."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from cwm_hub.config import ConfigError, from_dict, to_dict
from cwm_hub.shards.arrays import ArrayFacts
from cwm_hub.shards.codecs import ShardError
from cwm_hub.shards.storage import Root

FORMAT_VERSION = 1
"""Version of the directory format that this code writes, the highest that it reads. What 1.1 added, older readers pass
over: they see the same clips without it."""

MANIFEST = "meta/manifest.json"

FAILURES = "meta/failures.jsonl"


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """What the manifest says of one tar."""

    file: str
    """`data/train-00000-of-00004.tar`."""
    samples: int
    """Clips inside."""
    frames: int
    """Stored frames inside."""
    bytes: int
    """Size of the tar."""
    sha256: str
    """Of the tar."""


def shard_name(split: str, index: int, count: int) -> str:
    """`data/train-00000-of-00004.tar`, the form from which Hub readers infer the split."""
    return f"data/{split}-{index:05d}-of-{count:05d}.tar"


@dataclass(frozen=True)
class Manifest:
    """`meta/manifest.json`: what the set holds and how it came to be; its `hash` is how checkpoints name the set."""

    name: str
    """Short name of the data set: `ssv2`, `folder`, ..."""
    codec: str
    """One of `CODECS`."""
    image_size: int
    """Pixels of a side of a stored frame."""
    splits: dict[str, tuple[ShardRecord, ...]]
    """Shards of each split, in order."""
    config: dict[str, Any] = field(default_factory=dict)
    """The full configuration the shards were written with; under `arrays`, where readers of 1.0 do not look, what lies
    beside the clips (see `arrays`)."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of the tool and of the libraries that decide the bytes."""
    plan_hash: str = ""
    """sha256 of configuration and source list; "" where there was no plan."""
    licence: str = "unknown"
    """Licence of the source videos."""
    redistributable: bool = False
    """Whether the sources' licence lets others publish shards of them."""
    format_version: int = FORMAT_VERSION
    """Format of the directory."""

    @property
    def hash(self) -> str:
        """sha256 of the canonical json."""
        return hashlib.sha256(
            json.dumps(to_dict(self), sort_keys=True, separators=(",", ":")).encode()
        ).hexdigest()

    @property
    def arrays(self) -> dict[str, ArrayFacts]:
        """What was logged beside the clips, by name; empty where nothing was.

        Raises:
            ShardError: what the manifest says of them is not of this format.
        """
        try:
            return {
                name: from_dict(ArrayFacts, facts, where=f"{MANIFEST}: arrays.{name}")
                for name, facts in self.config.get("arrays", {}).items()
            }
        except (ConfigError, AttributeError) as error:
            raise ShardError(f"{MANIFEST}: the arrays are not described as in format 1.1: {error}") from error

    @property
    def shards(self) -> tuple[ShardRecord, ...]:
        """The shards of all splits, in order."""
        return tuple(record for records in self.splits.values() for record in records)

    def save(self, root: str | Path | Root) -> None:
        """Write `meta/manifest.json` atomically."""
        Root.parse(root).write(MANIFEST, json.dumps(to_dict(self), indent=1).encode() + b"\n")

    @classmethod
    def load(cls, root: str | Path | Root) -> Self:
        """Read `meta/manifest.json`.

        Raises:
            ShardError: there is none, or it is not one of this format.
        """
        where = f"{root}/{MANIFEST}"
        try:
            data = json.loads(Root.parse(root).read(MANIFEST))
        except FileNotFoundError as error:
            raise ShardError(f"{root} is not a finished shard directory: it has no {MANIFEST}") from error
        except ValueError as error:
            raise ShardError(f"{where}: damaged json: {error}") from error
        version = data.get("format_version") if isinstance(data, dict) else None
        if not isinstance(version, int):
            raise ShardError(f"{where}: not a shard manifest")
        if version > FORMAT_VERSION:
            raise ShardError(f"{where}: format {version} is newer than this cwm-hub reads ({FORMAT_VERSION})")
        try:
            return from_dict(cls, data, where=where)
        except ConfigError as error:
            raise ShardError(str(error)) from error


def failures_bytes(failures: Iterable[Mapping[str, str]]) -> bytes:
    """`meta/failures.jsonl` as bytes: one json object with `source_path`, `reason`, `detail` a line."""
    return b"".join(json.dumps(dict(failure)).encode() + b"\n" for failure in failures)


def read_failures(root: str | Path | Root) -> list[dict[str, str]]:
    """The lines of `meta/failures.jsonl`; none where there is no such file: the set did not come from videos.

    Raises:
        ShardError: a line is damaged.
    """
    try:
        lines = Root.parse(root).read(FAILURES).splitlines()
    except FileNotFoundError:
        return []
    failures = []
    for number, line in enumerate(lines, start=1):
        try:
            failure = json.loads(line)
        except ValueError:
            failure = None
        if not isinstance(failure, dict) or set(failure) != {"source_path", "reason", "detail"}:
            raise ShardError(f"{FAILURES}: line {number} is not source_path, reason and detail")
        if not all(isinstance(value, str) for value in failure.values()):
            raise ShardError(f"{FAILURES}: line {number} holds what is no text")
        failures.append(failure)
    return failures
