"""Publishes a run's model with its scorecard, pictures and card: to a directory, or to the Hugging Face Hub.

    python recipes/publish.py --run runs/demo/contextwm-tiny --to runs/demo/hub/contextwm-tiny
    python recipes/publish.py --run runs/demo/contextwm-tiny --to hf://someone/contextwm-tiny --tag v1

`--to` is a Hub repository where it says `hf://owner/name`, is the address of its page, or is the owner/name of one that
exists, and a directory otherwise. What goes is `model/` or `agent/` of the run folder (loaded and checked first) with its
`train.json`, and, from the run folder or its `evaluation/`, `scorecard.json`, mp4 and png files. A second or
two for a directory; the Hub needs `hf auth login` once, and `--dry_run` shows what would go there without.
"""

from dataclasses import dataclass
from typing import Literal

from cwm_hub.hub.publish_command import run
from recipes.run.command_line import parse_config
from recipes.run.folder import one_sentence_errors


@dataclass(frozen=True, kw_only=True)
class PublishConfig:
    """What is published, and where to."""

    run: str
    """Run folder of a recipe."""
    to: str
    """A directory, or hf://owner/name on the Hub."""
    name: str | None = None
    """How the card says to load the model; `to` by default."""
    revision: str | None = None
    """Branch on the Hub, made when there is none."""
    tag: str | None = None
    """Tag for the new commit on the Hub; one in use is refused."""
    pr: bool = False
    """Propose the commit as a pull request."""
    public: bool = False
    """Make a new Hub repository visible to all."""
    license: str | None = None
    """Of the weights; mit by default, other where the videos may not be passed on."""
    card: Literal["keep", "replace"] = "keep"
    """Keep what people wrote into the README.md that is there, or write it anew."""
    pictures: Literal["auto", "all", "none"] = "auto"
    """mp4 and png files; auto sends frames to the Hub only where the videos' licences are recorded as allowing it."""
    space: str | None = None
    """Also a new folder for a Hugging Face Space with the page of the model."""
    steps: bool = False
    """Also every checkpoint that a pre-training run kept, each on a branch step-<updates> of the repository."""
    dry_run: bool = False
    """Show files and card, write and upload nothing."""


def main(config: PublishConfig) -> None:
    """Prints where the model went and how to load it."""
    for line in run(config):
        print(line)


if __name__ == "__main__":
    with one_sentence_errors():
        main(parse_config(PublishConfig, description=__doc__))
