"""`cwm-hub info`: what a checkpoint says of itself, without loading its weights."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cwm_hub.command_line import add_checkpoint

if TYPE_CHECKING:
    import argparse

EXAMPLES = (
    "cwm-hub info contextwm-tiny",
    "cwm-hub info owner/contextwm-mine@v1",
)


def add_arguments(parser: "argparse.ArgumentParser") -> None:
    """Add this sub-command's options."""
    add_checkpoint(parser)


def run(args: Any) -> Iterator[str]:
    """Facts, parents, training, scores and configuration, a line each.

    Raises:
        HubError: no such checkpoint, or one that is not what the format says.
    """
    from cwm_hub.hub.description import describe
    from cwm_hub.hub.names import find_checkpoint

    told = describe(find_checkpoint(args.checkpoint))
    yield told.name
    for title, facts in (
        ("", told.facts),
        ("made from", told.parents),
        ("training", told.training),
        ("config", told.config),
    ):
        yield from _section(title, facts)
    yield from told.scores
    if told.episodes is not None:
        scores = {key: value for key, value in told.episodes.items() if not isinstance(value, Mapping)}
        yield "evaluation: " + ", ".join(f"{key} {value}" for key, value in scores.items())
    if not told.scores and told.episodes is None:
        yield "no evaluation"


def _section(title: str, facts: Mapping[str, str]) -> Iterator[str]:
    if title and facts:
        yield f"{title}:"
    for key, value in facts.items():
        yield f"  {key:<36} {value}"
