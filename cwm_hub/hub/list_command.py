"""`cwm-hub list`: models at hand, or what an owner has published."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

EXAMPLES = (
    "cwm-hub list",
    "cwm-hub list owner",
)


def add_arguments(parser: "argparse.ArgumentParser") -> None:
    """Add this sub-command's options."""
    parser.add_argument(
        "owner",
        nargs="?",
        metavar="OWNER",
        help="on the Hub (default: the package's models and those in the Hub's cache)",
    )


def run(args: Any) -> Iterator[str]:
    """A line for each model: name, type, size of its weights, where it is.

    Raises:
        HubError: no connection.
    """
    from itertools import chain

    from cwm_hub.hub.catalogue import cached_entries, embedded_entries, hub_entries

    if args.owner is None:
        entries = list(chain(embedded_entries(), cached_entries()))
    else:
        entries = list(hub_entries(args.owner))
    yield from (entry.line() for entry in entries)
    if not entries:
        yield f"{args.owner} has published no model of this library that you may see"
