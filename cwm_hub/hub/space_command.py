"""`cwm-hub space`: the folder of a Space that shows a model. Torch is imported when it runs, not for its options."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

EXAMPLES = ("cwm-hub space contextwm-tiny space", "cwm-hub space owner/contextwm-mine@v1 space")


def add_arguments(parser: "argparse.ArgumentParser") -> None:
    """Add this sub-command's options."""
    known = "video world model: embedded name, directory or owner/name"
    parser.add_argument("model", metavar="MODEL", help=known)
    parser.add_argument("to", metavar="DIR", type=Path, help="a new folder")


def run(args: "argparse.Namespace") -> Iterator[str]:
    """A line that says where the folder is and how it becomes a Space.

    Args:
        args: the options above by name.
    """
    from cwm_hub.hub.files import local_path
    from cwm_hub.hub.space.folder import write_space

    place = write_space(args.model, local_path(args.to))
    yield f"{place}: python {place / 'app.py'} tries it, hf upload OWNER/NAME {place} --repo-type space publishes it"
