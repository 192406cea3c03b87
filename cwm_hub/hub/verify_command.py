"""`cwm-hub verify`: the cache's copy of a checkpoint against what the Hub holds, down to the last bit."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: "argparse.ArgumentParser") -> None:
    """Add this sub-command's options."""
    parser.add_argument(
        "checkpoint", metavar="REPO", help="owner/name, owner/name@revision or hf://owner/name"
    )


def run(args: "argparse.Namespace") -> Iterator[str]:
    """One line where every file is as published.

    Raises:
        HubError: names the files that are not.
    """
    from cwm_hub.hub.names import verify
    from cwm_hub.hub_client.errors import HubError

    damaged = verify(args.checkpoint)
    if damaged:
        raise HubError(
            f"{args.checkpoint}: {', '.join(damaged)} in the cache is other than what the Hub holds; "
            "from_pretrained(..., force_download=True) fetches it anew"
        )
    yield f"{args.checkpoint}: every file in the cache is as it was published"
