"""The folder of a Hugging Face Space with the page of one model."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

import cwm_hub
from cwm_hub.hub.checkpoint import Checkpoint, CheckpointError
from cwm_hub.hub.files import local_path
from cwm_hub.hub.names import find_checkpoint
from cwm_hub.hub.pretrained import publishable
from cwm_hub.hub_client.cards import CARD
from cwm_hub.models.video_world_model import VideoWorldModel
from cwm_hub.shards.storage import commit_folder

SPACE: dict[str, Any] = {
    "sdk": "gradio",
    "sdk_version": "6.31.0",
    "python_version": "3.11",
    "app_file": "app.py",
}
"""For the Hub, at the head of README.md; the versions are those that the page was tried with."""

APP = '''"""Written by cwm-hub {version}."""

from pathlib import Path

from cwm_hub.hub.space.page import LARGEST_UPLOAD, make_page

MODEL = {model}
make_page(MODEL, revision={revision!r}, title={title!r}).launch(max_file_size=LARGEST_UPLOAD)
'''

TEXT = """A video world model to look at: what it predicts of a clip, where it looks in the context frame, and the clip's
dynamics in the context of another. The weights are {weights}; `cwm-hub publish --space` wrote this folder.
"""


def check_space(checkpoint: Checkpoint, place: Path) -> None:
    """Refuses what has no page, or no room for its folder.

    Raises:
        CheckpointError: another kind of model than a video world model, or something is at `place`.
    """
    if not issubclass(checkpoint.model_class, VideoWorldModel):
        raise CheckpointError(
            f"a page shows a VideoWorldModel, and this is of type {checkpoint.model_class.__name__}"
        )
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise CheckpointError(f"{place} is not empty: name a folder that is new")


def write_space(name: str, place: Path) -> Path:
    """Writes app.py, requirements.txt and README.md, whole or not at all.

    A model of the Hub is loaded from there, at the commit that it has now; an embedded one comes with the package; a
    directory is copied into `model/`.

    Args:
        name: as in `find_checkpoint`, of a video world model.
        place: a folder that does not exist yet, or is empty.

    Raises:
        CheckpointError: no such model, or as `check_space`.
    """
    checkpoint = find_checkpoint(name)
    check_space(checkpoint, place)
    directory = local_path(checkpoint.name)
    files: dict[str, Path] = {}
    header, model = SPACE | {"title": checkpoint.name.rpartition("/")[2]}, repr(checkpoint.name)
    weights = "in the package cwm-hub"
    if checkpoint.revision is not None:
        header["models"], weights = [checkpoint.name], f"of `{checkpoint.name}` at {checkpoint.revision}"
    elif directory.is_dir():
        header["title"], files = local_path(name).resolve().name, publishable(directory)
        model, weights = 'str(Path(__file__).with_name("model"))', "in `model/`"
    facts = {"model": model, "revision": checkpoint.revision, "title": header["title"]}
    front = yaml.safe_dump(header, allow_unicode=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as scratch:
        staging = Path(scratch) / "space"
        staging.mkdir()
        for file, source in files.items():
            (staging / "model" / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, staging / "model" / file)
        (staging / "app.py").write_text(APP.format(version=cwm_hub.__version__, **facts), encoding="utf-8")
        (staging / "requirements.txt").write_text(f"cwm-hub[demo]=={cwm_hub.__version__}\n")
        (staging / CARD).write_text(f"---\n{front}---\n\n{TEXT.format(weights=weights)}", encoding="utf-8")
        commit_folder(staging, place)
    return place
