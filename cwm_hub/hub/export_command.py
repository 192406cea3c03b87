"""`cwm-hub export`: a checkpoint as files that the official ContextWM code loads."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwm_hub.command_line import add_checkpoint

if TYPE_CHECKING:
    import argparse

EXAMPLES = (
    "cwm-hub export runs/mine/model --to official",
    "cwm-hub export owner/contextwm-mine --to official --suffix _s6000",
)


def add_arguments(parser: "argparse.ArgumentParser") -> None:
    """Add this sub-command's options."""
    add_checkpoint(parser)
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--suffix", default="", help="of the files, such as _s1150001 (default: none)")


def run(args: Any) -> Iterator[str]:
    """One line for each file.

    Raises:
        ConvertError, HubError: no such checkpoint, or one that the official code has no model for.
    """
    from cwm_hub.hub.official_export import export_official
    from cwm_hub.hub.pretrained import from_pretrained

    for path in export_official(from_pretrained(args.checkpoint), args.to, suffix=args.suffix):
        yield f"wrote {path}"
