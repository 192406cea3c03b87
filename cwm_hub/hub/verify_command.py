"""`cwm-hub verify`: a checkpoint against what the Hub holds or, of a directory, against what it says of itself."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

EXAMPLES = (
    "cwm-hub verify owner/contextwm-mine",
    "cwm-hub verify owner/contextwm-mine@v1",
)


def add_arguments(parser: "argparse.ArgumentParser") -> None:
    """Add this sub-command's options."""
    parser.add_argument(
        "checkpoint", metavar="NAME", help="owner/name[@revision], an embedded name or a directory"
    )


def run(args: "argparse.Namespace") -> Iterator[str]:
    """One line where every file is as it should be.

    Raises:
        HubError: names the files that are not.
    """
    from cwm_hub.hub.checkpoint import SCORECARD
    from cwm_hub.hub.names import find_checkpoint, measured_weights, verify
    from cwm_hub.hub_client.errors import HubError

    found = find_checkpoint(args.checkpoint)
    damaged = verify(args.checkpoint)
    if damaged and found.revision:
        raise HubError(
            f"{args.checkpoint}: {', '.join(damaged)} in the cache is other than what the Hub holds; "
            "from_pretrained(..., force_download=True) fetches it anew"
        )
    if damaged:
        raise HubError(f"{args.checkpoint}: {damaged[0]} is other than what its {SCORECARD} was measured on")
    if found.revision:
        yield f"{args.checkpoint}: every file in the cache is as it was published"
    elif measured_weights(found.read(SCORECARD)):
        yield f"{args.checkpoint}: whole, with the weights that its {SCORECARD} was measured on"
    else:
        yield f"{args.checkpoint}: whole; no {SCORECARD} says which weights it had"
