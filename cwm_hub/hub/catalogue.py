"""Which models are at hand: those of the package, those in the Hub's cache, and what an owner has published. No torch."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cwm_hub.hub_client.commit import hub_api
from cwm_hub.hub_client.errors import HubError, hub_errors

EMBEDDED = Path(__file__).parent / "embedded"
"""Checkpoints shipped inside the package, each a directory named as the model."""
CONFIG, WEIGHTS = "config.json", "model.safetensors"
TAG = "cwm-hub"
"""What every card of ours is tagged with."""


@dataclass(frozen=True)
class Entry:
    """One model."""

    name: str
    """What `from_pretrained` takes."""
    kind: str
    """Its `model_type`, or the task that its card names where only the card was read."""
    where: str
    """package, cache or Hub; on the Hub also whether it is private."""
    bytes: int | None = None
    """Of the weights, where they are here."""

    def line(self) -> str:
        """The entry as a line of a table."""
        size = "" if self.bytes is None else f"{self.bytes / 1e6:.1f} MB"
        return f"{self.name:<36} {self.kind:<18} {size:>10}  {self.where}"


def embedded_names() -> list[str]:
    """Names of the checkpoints that come with the package."""
    return sorted(path.parent.name for path in EMBEDDED.glob(f"*/{CONFIG}"))


def embedded_entries() -> Iterator[Entry]:
    """The package's own."""
    for name in embedded_names():
        yield _entry(name, EMBEDDED / name, "package")


def cached_entries(cache_dir: str | Path | None = None) -> Iterator[Entry]:
    """Every commit of ours in the Hub's cache, named so that it loads without a network.

    Args:
        cache_dir: instead of the default one.

    Raises:
        HubError: it cannot be read.
    """
    from huggingface_hub import CacheNotFound, scan_cache_dir

    with hub_errors("the cache"):
        try:
            repositories = scan_cache_dir(cache_dir).repos
        except CacheNotFound:
            return
    for repository in sorted(repositories, key=lambda one: one.repo_id):
        for revision in sorted(repository.revisions, key=lambda one: one.last_modified):
            folder = revision.snapshot_path
            if repository.repo_type == "model" and _model_type(folder) is not None:
                yield _entry(f"{repository.repo_id}@{revision.commit_hash[:12]}", folder, "cache")


def hub_entries(owner: str, *, token: str | bool | None = None) -> Iterator[Entry]:
    """What an owner has published with this library and you may see.

    Raises:
        HubError: no connection.
    """
    if not owner or "/" in owner:
        raise HubError(f"an owner is a user's or an organisation's name on the Hub, got {owner!r}")
    with hub_errors(owner, unreached="was not looked up: the Hub was not reached"):
        found = list(hub_api(token).list_models(author=owner, filter=TAG))
    for model in sorted(found, key=lambda one: one.id):
        where = "Hub, private" if model.private else "Hub"
        yield Entry(model.id, model.pipeline_tag or "", where)


def _entry(name: str, folder: Path, where: str) -> Entry:
    weights = folder / WEIGHTS
    return Entry(name, str(_model_type(folder)), where, weights.stat().st_size if weights.is_file() else None)


def _model_type(folder: Path) -> Any:
    """What `config.json` says, or None where it is none of ours."""
    try:
        header = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    ours = isinstance(header, dict) and "cwm_hub_version" in header
    return header.get("model_type") if ours else None
