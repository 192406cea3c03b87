"""`cwm-hub convert`: what the official ContextWM code saved, as a checkpoint in a directory or on the Hub."""

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from _typeshed import DataclassInstance

IN_FILES = frozenset(
    "action_size backbone concat_embed context continue_head deter depth dual_reward encoder hidden image_size "
    "intrinsic kind layers mixing norm projection_size queue_size units video_rssm".split()
)
"""Settings by their last name that the official tensors tell, by being there and by their shapes."""
IDLE = ("pretrained", "scale", "projection", "steps_ahead", "temperature", "target_decay")
"""Settings of parts that no official model has: timm encoders and objectives without pixels."""

EXAMPLES = (
    "cwm-hub convert OFFICIAL_DIR --to converted",
    "cwm-hub convert OFFICIAL_DIR --to hf://owner/contextwm-ssv2 --suffix _s1150001 --dry-run",
)


def add_arguments(parser: "argparse.ArgumentParser") -> None:
    """Add this sub-command's options."""
    parser.add_argument(
        "official",
        type=Path,
        metavar="OFFICIAL_DIR",
        help="folder with encoder_, rssm_ and decoder_variables.pt, or with variables.pt",
    )
    parser.add_argument("--to", required=True, help="a directory, or hf://owner/name on the Hub")
    parser.add_argument("--suffix", help="of the files, such as _s1150001, where there are several models")
    parser.add_argument(
        "--stoch", type=int, default=32, metavar="S", help="categorical latents (default: 32)"
    )
    parser.add_argument("--classes", type=int, default=32, metavar="K", help="of each latent (default: 32)")
    parser.add_argument(
        "--source", metavar="TEXT", help="where the files come from and who trained them, for the card"
    )
    parser.add_argument("--license", default="other", help="of the weights (default: other)")
    parser.add_argument("--public", action="store_true", help="make a new Hub repository visible to all")
    parser.add_argument("--tag", help="tag for the new commit on the Hub; one in use is refused")
    parser.add_argument("--dry-run", action="store_true", help="show files and card, upload nothing")


def run(args: Any) -> Iterator[str]:
    """Lines that say what was found and where it went.

    Raises:
        ConvertError, HubError: the files are no model that we have, or the place cannot take it.
    """
    from cwm_hub.hub.official_weights import load_official, official_files
    from cwm_hub.hub.publish import PublishSettings, publish
    from cwm_hub.hub.saving import save_pretrained
    from cwm_hub.models.video_world_model import VideoWorldModel

    files = official_files(args.official, suffix=args.suffix)
    model = load_official(args.official, stoch=args.stoch, classes=args.classes, suffix=args.suffix)
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    train = {
        "recipe": "cwm-hub convert",
        "converted_from": {
            "files": hashes,
            "code": "thuml/ContextWM",
            "source": args.source,
            "not_in_files": not_in_files(model.config),
        },
    }
    settings = PublishSettings(licence=args.license, public=args.public, tag=args.tag)
    with tempfile.TemporaryDirectory() as scratch:
        folder = "model" if isinstance(model, VideoWorldModel) else "agent"
        save_pretrained(model, Path(scratch) / folder, train=train, card=False)
        yield f"{', '.join(hashes)}: a {type(model).__name__} of the official code"
        yield from publish(Path(scratch), args.to, settings, dry_run=args.dry_run).lines()


def not_in_files(config: "DataclassInstance") -> dict[str, str]:
    """Dotted name -> value of every setting of a converted model that its files do not tell.

    Of `stoch` and `classes` they tell the product alone. All others are this library's defaults, most of them the paper's,
    whatever the official run had: the official code keeps them in its own configuration.
    """
    from cwm_hub.config import to_dict
    from cwm_hub.hub.description import flattened

    settings = flattened(to_dict(config)).items()
    return {name: value for name, value in settings if name.rpartition(".")[2] not in (*IN_FILES, *IDLE)}
