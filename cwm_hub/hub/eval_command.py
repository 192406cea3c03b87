"""`cwm-hub eval`: a published evaluation done again by its recorded protocol, and how far apart the numbers are."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cwm_hub.command_line import add_checkpoint

if TYPE_CHECKING:
    import argparse

EXAMPLES = (
    "cwm-hub eval contextwm-tiny --data runs/embedded/real runs/embedded/metaworld",
    "cwm-hub eval owner/agent --env scenes",
)


def add_arguments(parser: "argparse.ArgumentParser") -> None:
    """Add this sub-command's options."""
    add_checkpoint(parser)
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="ROOT",
        help="shard directories of the scorecard, in any order, made again under their names where need be (default: where its training recorded them)",
    )
    parser.add_argument("--env", metavar="NAME", help="an agent's task (default: the recorded one)")


def run(args: Any) -> Iterator[str]:
    """A line for each number, published and measured, and the largest difference.

    Raises:
        HubError: nothing was published that could be reproduced, or its data is not here.
    """
    from cwm_hub.hub.names import find_checkpoint
    from cwm_hub.hub.reproduce import reproduce_episodes, reproduce_scorecard

    checkpoint = find_checkpoint(args.checkpoint)
    if checkpoint.header["model_type"].endswith("_agent"):
        found = reproduce_episodes(checkpoint, env_name=args.env)
    else:
        found = reproduce_scorecard(checkpoint, args.data)
    yield from found.remade
    yield f"{'':<40} {'published':>12} {'measured':>12} {'difference':>12}"
    for number in found.numbers:
        unit = f" {number.unit}" if number.unit else ""
        difference = number.measured - number.published
        yield f"{number.what + unit:<40} {number.published:>12.4f} {number.measured:>12.4f} {difference:>+12.4f}"
    far = found.largest
    if far is not None:
        yield f"largest difference of a window: {far.measured - far.published:+.4g} {far.unit} ({far.what})"
