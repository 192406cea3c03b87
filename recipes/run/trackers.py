"""Trackers of accelerate (TensorBoard, wandb, trackio, ...) beside a run's own files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import ProjectConfiguration

from cwm_hub.config import nearest
from recipes.run.folder import RecipeError


def check_trackers(names: list[str]) -> None:
    """Refuse a tracker that accelerate would leave out with a warning."""
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
            raise RecipeError(
                f"there is no tracker {name!r}{nearest(name, LOGGER_TYPE_TO_CLASS)}; there are {known}"
            )
        if name not in get_available_trackers():
            raise RecipeError(
                f"the tracker {name} is not installed: pip install {name}, or leave it out of --trackers"
            )


def numbers_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What trackers take of a row; what is no number, as after skipped updates, they do not."""
    return {name: value for name, value in row.items() if value is not None}


class Trackers:
    """Those of a recipe that runs in one process without accelerate.

    Args:
        names: as accelerate has them, looked at by `check_trackers`; none is fine.
        run: the run folder; files of trackers go to its `logs/`.
        settings: the run's, in text.
    """

    def __init__(self, names: list[str], run: Path, settings: str):
        self._accelerator = None
        if names:
            folder = ProjectConfiguration(project_dir=str(run), logging_dir=str(run / "logs"))
            self._accelerator = Accelerator(cpu=True, log_with=names, project_config=folder)
            self._accelerator.init_trackers("cwm-hub", config={"config": settings})

    def log(self, row: Mapping[str, Any], *, step: int) -> None:
        """A row's numbers."""
        if self._accelerator is not None:
            self._accelerator.log(numbers_of(row), step=step)

    def close(self) -> None:
        """Let them write what they hold."""
        if self._accelerator is not None:
            self._accelerator.end_training()
