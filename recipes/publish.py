"""Publishes a run's model with its scorecard, pictures and card: to a directory, or to the Hugging Face Hub.

    python recipes/publish.py --run runs/demo/contextwm-tiny --to runs/demo/hub/contextwm-tiny
    python recipes/publish.py --run runs/demo/contextwm-tiny --to hf://someone/contextwm-tiny --tag v1

`--to` is a Hub repository where it says `hf://owner/name`, is the address of its page, or is the owner/name of one that
exists, and a directory otherwise. What goes is `model/` or `agent/` of the run folder (loaded and checked first) with its
`train.json`, and, from the run folder or its `evaluation/`, `scorecard.json`, mp4 and png files. A second or
two for a directory; the Hub needs `hf auth login` once, and `--dry-run` shows what would go there without.
"""

import argparse
from pathlib import Path

from cwm_hub.hub.publish import PublishSettings, publish
from recipes.run.folder import one_sentence_errors


def main() -> None:
    """Prints where the model went and how to load it."""
    arguments = parse_arguments()
    settings = PublishSettings(
        name=arguments.name,
        revision=arguments.revision,
        tag=arguments.tag,
        pull_request=arguments.pr,
        public=arguments.public,
        licence=arguments.license,
        replace_card=arguments.card == "replace",
        pictures=arguments.pictures,
    )
    print("\n".join(publish(arguments.run, arguments.to, settings, dry_run=arguments.dry_run).lines()))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="run folder of a recipe")
    parser.add_argument("--to", required=True, help="a directory, or hf://owner/name on the Hub")
    parser.add_argument("--name", help="how the card says to load the model; --to by default")
    parser.add_argument("--revision", help="branch on the Hub, made when there is none")
    parser.add_argument("--tag", help="tag for the new commit on the Hub; one in use is refused")
    parser.add_argument("--pr", action="store_true", help="propose the commit as a pull request")
    parser.add_argument("--public", action="store_true", help="make a new Hub repository visible to all")
    parser.add_argument(
        "--license", help="of the weights; mit by default, other where the videos may not be passed on"
    )
    parser.add_argument(
        "--card",
        choices=("keep", "replace"),
        default="keep",
        help="keep what people wrote into the README.md that is there, or write it anew",
    )
    parser.add_argument(
        "--pictures",
        choices=("auto", "all", "none"),
        default="auto",
        help="mp4 and png files; auto sends frames to the Hub only where the videos' licences are recorded as allowing it",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show files and card, write and upload nothing"
    )
    return parser.parse_args()


if __name__ == "__main__":
    with one_sentence_errors():
        main()
