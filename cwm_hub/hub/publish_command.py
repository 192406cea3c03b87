"""`cwm-hub publish`: a run's result to a directory or to the Hub. Torch is imported when it runs, not for its options."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

EXAMPLES = (
    "cwm-hub publish runs/mine published",
    "cwm-hub publish runs/mine hf://owner/contextwm-mine --tag v1 --dry-run",
)


def add_arguments(parser: "argparse.ArgumentParser") -> None:
    """Add this sub-command's options."""
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder of a recipe")
    parser.add_argument("to", metavar="TO", help="a directory, or hf://owner/name on the Hub")
    parser.add_argument("--name", help="how the card says to load the model (default: TO)")
    parser.add_argument("--revision", metavar="BRANCH", help="branch on the Hub, made when there is none")
    parser.add_argument("--tag", help="tag for the new commit on the Hub; one in use is refused")
    parser.add_argument("--pr", action="store_true", help="propose the commit as a pull request")
    parser.add_argument("--public", action="store_true", help="make a new Hub repository visible to all")
    parser.add_argument(
        "--license",
        help="of the weights (default: mit, and other where videos behind them may not be passed on)",
    )
    parser.add_argument(
        "--card",
        choices=("keep", "replace"),
        default="keep",
        help="keep what people wrote into the README.md that is there (default), or write it anew",
    )
    parser.add_argument(
        "--pictures",
        choices=("auto", "all", "none"),
        default="auto",
        help="mp4 and png files; auto sends frames to the Hub only where the videos' licences are recorded as allowing it",
    )
    parser.add_argument(
        "--space", type=Path, metavar="DIR", help="also a new folder for a Hugging Face Space with its page"
    )
    parser.add_argument(
        "--steps",
        action="store_true",
        help="also every checkpoint that a pre-training run kept, each on a branch step-<updates> of the repository",
    )
    parser.add_argument("--dry-run", action="store_true", help="show files and card, upload nothing")


def run(args: Any) -> Iterator[str]:
    """Lines that say where the model went and how to load it, or what a dry run would publish.

    Args:
        args: the options above by name, as this command's or as the recipe's settings.
    """
    from cwm_hub.hub.files import local_path
    from cwm_hub.hub.publish import PublishSettings, publish
    from cwm_hub.hub.publish_steps import publish_step, steps_of

    settings = PublishSettings(
        name=args.name,
        revision=args.revision,
        tag=args.tag,
        pull_request=args.pr,
        public=args.public,
        licence=args.license,
        replace_card=args.card == "replace",
        pictures=args.pictures,
        space=None if args.space is None else local_path(args.space),
    )
    run = Path(args.run)
    steps = steps_of(run, args.to, settings) if args.steps else []
    yield from publish(run, args.to, settings, dry_run=args.dry_run).lines()
    for step in steps:
        published = publish_step(run, step, args.to, settings, dry_run=args.dry_run)
        yield f"and to {published.place}" if args.dry_run else published.lines()[0]
