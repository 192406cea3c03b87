"""Publishes a run's model with its scorecard, pictures and card: to a directory, or to the Hugging Face Hub.

    python recipes/publish.py --run runs/demo/contextwm-tiny --to runs/demo/hub/contextwm-tiny
    python recipes/publish.py --run runs/demo/contextwm-tiny --to someone/contextwm-tiny --tag v1

`--to` is a Hub repository where it has the form owner/name and there is no local directory `owner`, or where it
says `hf://owner/name`. What goes is `model/` or `agent/` of the run folder (loaded and checked first) with its
`train.json`, and, from the run folder or its `evaluation/`, `scorecard.json`, `prediction.mp4` and the png files. A second or
two for a directory; the Hub needs `hf auth login` once.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from cwm_hub.hub.checkpoint import Checkpoint, CheckpointError, save_pretrained
from cwm_hub.hub.names import HUB_ID, find_checkpoint
from cwm_hub.hub.pretrained import push_to_hub
from recipes.run.folder import one_sentence_errors

HUB_PREFIX = "hf://"
MODEL_FOLDERS = ("model", "agent")
"""Where pre-training and fine-tuning leave their result."""


def main() -> None:
    """Prints where the model went and how to load it."""
    place, name = publish(parse_arguments())
    print(f'published to {place}; load it with cwm_hub.from_pretrained("{name}")')


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="run folder of a recipe")
    parser.add_argument("--to", required=True, help="a directory, or owner/name on the Hub")
    parser.add_argument("--name", help="how the card says to load the model; --to by default")
    parser.add_argument("--revision", help="branch on the Hub, made when there is none")
    parser.add_argument("--tag", help="tag for the new commit on the Hub")
    parser.add_argument("--public", action="store_true", help="make a new Hub repository visible to all")
    parser.add_argument(
        "--pictures",
        choices=("auto", "all", "none"),
        default="auto",
        help="mp4 and png files; auto sends frames to the Hub only where the videos' licences are recorded as allowing it",
    )
    return parser.parse_args()


def publish(arguments: argparse.Namespace) -> tuple[str, str]:
    """Returns the place where the model now is, and the name that loads it."""
    run, target = arguments.run, hub_id(arguments.to)
    model_folder = next((run / folder for folder in MODEL_FOLDERS if (run / folder).is_dir()), None)
    if model_folder is None:
        missing = "no such run folder" if not run.is_dir() else "the run has no model/ or agent/ yet"
        raise CheckpointError(f"{run}: {missing}")
    if target is None and (arguments.revision or arguments.tag or arguments.public):
        raise CheckpointError(
            f"--revision, --tag and --public are for the Hub, and {arguments.to} is a directory"
        )
    found = find_checkpoint(model_folder)
    train, scorecard = read_json(run, "train.json"), read_json(run, "scorecard.json")
    check_scorecard(scorecard, found)
    name = arguments.name or target or arguments.to
    shown = arguments.pictures == "all" or (
        arguments.pictures == "auto" and (target is None or redistributable(train))
    )
    facts: dict[str, Any] = {
        "train": train,
        "scorecard": scorecard,
        "assets": pictures(run) if shown else {},
        "name": name,
    }
    model = found.load()
    if target is None:
        return str(save_pretrained(model, arguments.to, **facts)), name
    with tempfile.TemporaryDirectory() as scratch:
        staged = save_pretrained(model, Path(scratch) / "model", **facts)
        url = push_to_hub(
            staged, target, private=not arguments.public, revision=arguments.revision, tag=arguments.tag
        )
    return url, name


def hub_id(to: str) -> str | None:
    """The repository that `--to` names, or None where it names a directory."""
    if to.startswith(HUB_PREFIX):
        return to.removeprefix(HUB_PREFIX)
    is_path = not HUB_ID.fullmatch(to) or Path(to).parent.is_dir()
    return None if is_path else to


def read_json(run: Path, file: str) -> dict[str, Any] | None:
    """A JSON file of the run folder or of one of its folders, the first that has it, or None."""
    found = (find_checkpoint(folder).read(file) for folder in folders(run))
    return next((content for content in found if content is not None), None)


def pictures(run: Path) -> dict[str, Path]:
    """The mp4 and png files of the run folder and its evaluation, by name."""
    found: dict[str, Path] = {}
    for folder in folders(run):
        for path in (*sorted(folder.glob("*.mp4")), *sorted(folder.glob("*.png"))):
            found.setdefault(path.name, path)
    return found


def folders(run: Path) -> list[Path]:
    """Where a run keeps what is published, first come first served."""
    return [
        folder
        for folder in (run, run / "evaluation", *(run / name for name in MODEL_FOLDERS))
        if folder.is_dir()
    ]


def check_scorecard(scorecard: dict[str, Any] | None, model: Checkpoint) -> None:
    """Refuses numbers that were measured on other weights than those to be published."""
    measured = (scorecard or {}).get("checkpoint", {}).get("weights_sha256")
    if measured is not None and measured != model.identity()["weights_sha256"]:
        raise CheckpointError(
            f"the scorecard was measured on other weights than {model}: run recipes/evaluate.py again"
        )


def redistributable(train: dict[str, Any] | None) -> bool:
    """Whether every shard set behind the model is recorded as one whose frames may be passed on."""
    shards = (train or {}).get("parents", {}).get("shards", [])
    return bool(shards) and all(shard.get("redistributable") is True for shard in shards)


if __name__ == "__main__":
    with one_sentence_errors():
        main()
