"""`cwm-hub verify`: a checkpoint against what the Hub holds or, of a directory, against what it says of itself."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cwm_hub.command_line import add_checkpoint

if TYPE_CHECKING:
    import argparse

EXAMPLES = (
    "cwm-hub verify owner/contextwm-mine",
    "cwm-hub verify owner/contextwm-mine@v1",
)


def add_arguments(parser: "argparse.ArgumentParser") -> None:
    """Add this sub-command's options."""
    add_checkpoint(parser)


def run(args: "argparse.Namespace") -> Iterator[str]:
    """One line where every file is as it should be.

    Raises:
        HubError: names the files that are not.
    """
    from cwm_hub.hub.checkpoint import SCORECARD
    from cwm_hub.hub.names import find_checkpoint, measured_weights, verify
    from cwm_hub.hub_client.errors import HubError

    found = find_checkpoint(args.checkpoint)
    name = found.name if found.revision is None else args.checkpoint
    damaged = verify(args.checkpoint)
    if damaged and found.revision:
        raise HubError(
            f"{name}: {', '.join(damaged)} in the cache is other than what the Hub holds; "
            "from_pretrained(..., force_download=True) fetches it anew"
        )
    if damaged:
        raise HubError(f"{name}: {damaged[0]} is other than what its {SCORECARD} was measured on")
    if found.revision:
        yield f"{name}: every file in the cache is as it was published"
    elif measured_weights(found.read(SCORECARD)):
        yield f"{name}: whole, with the weights that its {SCORECARD} was measured on"
    else:
        yield f"{name}: whole; no {SCORECARD} says which weights it had"
