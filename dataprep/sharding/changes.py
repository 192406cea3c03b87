"""What differs between a plan that was recorded and the one that is asked for, in the words of the options."""

from collections.abc import Iterator, Mapping
from typing import Any

from cwm_hub.command_line import how_many
from cwm_hub.shards.storage import Root


def refuse_changes(root: Root, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Say what of a recorded plan differs from the one that is asked for now.

    Raises:
        ValueError: always.
    """
    options = [
        f"{_option(name)} was {old!r}, is {new!r}"
        for name, old, new in _differences(before, now)
        if name.startswith(("config.", "versions.", "licence", "redistributable"))
    ]
    videos = []
    if before["sources_hash"] != now["sources_hash"]:
        were, are = before["videos"], now["videos"]
        videos.append(
            f"it had {how_many(were, 'source video')}, listed now: {are}"
            if were != are
            else f"of the {are} source videos some are other files, or have other labels or splits"
        )
    if before["failures"] != now["failures"]:
        videos.append("other files could not be listed")
    # an option decides what is listed: where one changed, that is the reason
    add = "" if options else "add new videos with --append, mended ones with --retry-failures, "
    raise ValueError(
        f"{root} was begun otherwise: {'; '.join(options or videos)}. "
        f"Restore that, {add}use --overwrite, or choose another --out"
    )


def refuse_other_options(root: Root, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Compare the configurations of a set and of what is to be added to it.

    Raises:
        ValueError: they would give other clips of one video.
    """
    free = ("name", "source.", "limit")
    options = [
        f"{_option(name)} was {old!r}, is {new!r}"
        for name, old, new in _differences(before, now)
        if not name.startswith(free)
    ]
    if options:
        raise ValueError(
            f"{root} was made otherwise: {'; '.join(options)}. What is added is made as the set was"
        )


def _option(name: str) -> str:
    """`--size` for `config.decode.size`; a library's version is called by the library's name."""
    place, _, last = name.rpartition(".")
    return last if place == "versions" else "--" + last.replace("_", "-")


def _differences(before: Any, now: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(set(before) | set(now)):
            yield from _differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield name, before, now
