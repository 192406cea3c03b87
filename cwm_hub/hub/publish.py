"""A run's result, with all that tells how good it is, to a directory or to the Hub: what `publish` does, step by step."""

import contextlib
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cwm_hub.evaluation.protocol import check_scorecard
from cwm_hub.hub.checkpoint import SCORECARD, TRAIN, Checkpoint, CheckpointError
from cwm_hub.hub.description import SCORED
from cwm_hub.hub.files import form_of, read_json
from cwm_hub.hub.names import RUN_RESULTS, find_checkpoint, measured_weights, run_folders
from cwm_hub.hub.pretrained import publishable, push_directory
from cwm_hub.hub.saving import checked_target, save_pretrained
from cwm_hub.hub.space.folder import check_space, write_space
from cwm_hub.hub_client.cards import CARD
from cwm_hub.hub_client.commit import NOTHING_NEW, Target, hub_api
from cwm_hub.hub_client.errors import HubError, hub_errors
from cwm_hub.hub_client.names import PREFIXES, HubName, check_ref, hub_name

UNMEASURED = "without an evaluation: the card has no score; recipes/evaluate.py --out RUN/evaluation measures a video world model"
"""Said where neither a scorecard nor an agent's evaluation is in the run folder."""

SPACE_WRITTEN = "{place}: python {place}/app.py tries the page, hf upload OWNER/NAME {place} --repo-type space publishes it"
"""Said of a Space's folder."""

Pictures = Literal["auto", "all", "none"]


@dataclass(frozen=True)
class PublishSettings:
    """How a run is published."""

    name: str | None = None
    """How the card says to load the model; the place itself by default."""
    revision: str | None = None
    """Branch on the Hub, made when there is none."""
    tag: str | None = None
    """Tag for the new commit on the Hub; one that is in use is refused."""
    pull_request: bool = False
    """Propose the commit on the Hub in place of making it."""
    public: bool = False
    """Make a new Hub repository visible to all."""
    licence: str | None = None
    """Of the weights, as the Hub names licences; by default mit, and other where videos behind them may not be passed on."""
    replace_card: bool = False
    """Write README.md anew, with nothing of what people wrote into the one that is there."""
    space: Path | None = None
    """A new folder for a Hugging Face Space with the page of what was published."""
    pictures: Pictures = "auto"
    """mp4 and png files; auto sends frames to the Hub only where every licence of the videos is recorded as allowing it."""


@dataclass(frozen=True)
class Publication:
    """What was published, or would be."""

    place: str
    """Directory, or address on the Hub."""
    name: str
    """What `from_pretrained` takes."""
    files: dict[str, int]
    """Bytes of each file by its name."""
    card: str
    """README.md."""
    dry_run: bool
    """Whether it was left undone."""
    measured: bool
    """Whether a scorecard or an agent's evaluation went along."""
    space: Path | None
    """Folder of the Space with its page."""
    changed: bool = True
    """Whether the repository lacked any of it."""

    def lines(self) -> list[str]:
        """What a command says of it."""
        unmeasured = [] if self.measured else [UNMEASURED]
        if not self.dry_run:
            verb = "proposed at" if "@refs/pr/" in self.name else "published to"
            what = f"{verb} {self.place}" if self.changed else NOTHING_NEW.format(place=self.place)
            done = f'{what}; load it with cwm_hub.from_pretrained("{self.name}")'
            return [
                done,
                *unmeasured,
                *([] if self.space is None else [SPACE_WRITTEN.format(place=self.space)]),
            ]
        total = sum(self.files.values())
        return [
            *(f"{size:>12,}  {file}" for file, size in self.files.items()),
            f"{total:>12,}  bytes would go to {self.place}, with this card:\n",
            self.card,
            *unmeasured,
            *([] if self.space is None else [f"and the page of it to {self.space}"]),
        ]


def publish(
    run: Path, to: str, settings: PublishSettings | None = None, *, dry_run: bool = False
) -> Publication:
    """Publishes `model/` or `agent/` of a run folder with its train.json, scorecard, pictures and card.

    Args:
        run: folder of a recipe; scorecard, films and pictures are taken from it, or else from its `evaluation/`.
        to: a directory, or a Hub repository as `hub_target` tells them apart.
        settings: the defaults where there are none.
        dry_run: write and upload nothing, which needs no token.

    Raises:
        HubError: no result in the folder, a scorecard of other weights, or whatever keeps it from being published.
    """
    settings = settings or PublishSettings()
    target = hub_target(to)
    _check_options(settings, to, on_hub=target is not None)
    branch = target.at(settings.revision).revision if target else None
    place = target.repo_id + (f"@{branch}" if branch else "") if target else to
    name, published, changed = settings.name or place, place, True
    with _staged(run, name, settings, on_hub=target is not None) as staged:
        files = {file: path.stat().st_size for file, path in publishable(staged).items()}
        card = (staged / CARD).read_text(encoding="utf-8")
        measured = (staged / SCORECARD).is_file() or "evaluation" in (_read_json(run, TRAIN) or {})
        if settings.space is not None:
            check_space(find_checkpoint(staged), settings.space)
        if dry_run:
            place = f"hf://{place}" if target else str(checked_target(to))
        elif target is None:
            place = str(_save(run, Path(to), name, settings, on_hub=False))
        else:
            pushed = push_directory(
                staged,
                Target(
                    target.repo_id,
                    private=not settings.public,
                    revision=branch,
                    tag=settings.tag,
                    pull_request=settings.pull_request,
                    replace_card=settings.replace_card,
                ),
            )
            place, changed = pushed.url, pushed.changed
            number = place.partition("/discussions/")[2]
            version = f"refs/pr/{number}" if number else settings.tag
            name = f"{target.repo_id}@{version}" if version else name
    if settings.space is not None and not dry_run:
        write_space(published, settings.space)
    return Publication(place, name, files, card, dry_run, measured, settings.space, changed)


def hub_target(to: str) -> HubName | None:
    """The repository that `to` names, or None where it names a directory.

    A repository is `hf://owner/name`, the address of its page, or `owner/name` where the Hub has it and nothing of the
    kind is on the disk: a misspelt folder must not become a repository.

    Raises:
        HubError: it begins as an address does, and is none of the Hub.
    """
    found = hub_name(to)
    if found is None and re.match(r"\w{2,}:/", to):
        raise HubError(f"a publish goes to a directory or to hf://owner/name, got {to}")
    if found is None or to.startswith(PREFIXES):
        return found
    if Path(to).exists() or Path(to).parent.is_dir():
        return None
    with contextlib.suppress(HubError), hub_errors(found.repo_id):
        return found if hub_api().repo_exists(found.repo_id) else None
    return None


def redistributable(train: dict[str, Any] | None) -> bool:
    """Whether every shard set behind the model is recorded as one whose frames may be passed on."""
    shards = (train or {}).get("parents", {}).get("shards", [])
    return bool(shards) and all(shard.get("redistributable") is True for shard in shards)


def _check_options(settings: PublishSettings, to: str, *, on_hub: bool) -> None:
    check_ref(settings.tag, what="tag")
    check_ref(settings.revision, what="branch")
    asked = settings.revision or settings.tag or settings.pull_request or settings.public
    if not on_hub and asked:
        raise CheckpointError(
            f"--revision, --tag, --pr and --public are for the Hub, and {to} is a directory (a repository is hf://owner/name)"
        )
    if settings.space is not None and settings.pull_request:
        raise CheckpointError(
            "--space shows what was published, and --pr only proposes it: leave out one of them"
        )


@contextlib.contextmanager
def _staged(run: Path, name: str, settings: PublishSettings, *, on_hub: bool) -> Iterator[Path]:
    """The checkpoint directory to be published, in a folder of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        yield _save(run, Path(scratch) / "model", name, settings, on_hub=on_hub)


def _save(run: Path, place: Path, name: str, settings: PublishSettings, *, on_hub: bool) -> Path:
    result = next((run / folder for folder in RUN_RESULTS if (run / folder).is_dir()), None)
    if result is None:
        missing = "no such run folder" if not run.is_dir() else "the run has no model/ or agent/ yet"
        raise CheckpointError(f"{run}: {missing}")
    found = find_checkpoint(result)
    train, scorecard = _read_json(run, TRAIN), _read_json(run, SCORECARD)
    with form_of("eval.jsonl"):
        train = _with_intervals(run, train)
    if scorecard is not None:
        _check_scorecard(scorecard, found, where=str(_place(run, SCORECARD)))
    with form_of(TRAIN):
        allowed = not on_hub or redistributable(train)
    shown = settings.pictures == "all" or (settings.pictures == "auto" and allowed)
    return save_pretrained(
        found.load(),
        place,
        train=train,
        scorecard=scorecard,
        assets=_pictures(run) if shown else {},
        name=name,
        licence=settings.licence,
        replace_card=settings.replace_card,
    )


def _read_json(run: Path, file: str) -> dict[str, Any] | None:
    """A JSON file of the run folder or of one of its folders, the first that has it, or None."""
    path = _place(run, file)
    return None if path is None else read_json(path, where=str(path))


def _place(run: Path, file: str) -> Path | None:
    found = next((folder / file for folder in run_folders(run) if (folder / file).is_file()), None)
    return None if found is None else _inside(run, found)


def _inside(run: Path, path: Path) -> Path:
    """The path, where it does not lead out of the run folder."""
    if not path.resolve().is_relative_to(run.resolve()):
        raise CheckpointError(f"{path} is a link out of the run folder: put the file there")
    return path


def _with_intervals(run: Path, train: dict[str, Any] | None) -> dict[str, Any] | None:
    """`train.json` with intervals over episodes beside the means of an agent's last evaluation, where eval.jsonl has them."""
    path, evaluation = run / "eval.jsonl", (train or {}).get("evaluation")
    if train is None or not isinstance(evaluation, dict) or not path.is_file():
        return train
    import numpy as np

    from cwm_hub.evaluation.intervals import (
        bootstrap_interval,  # scipy, which loading and publishing a model do without
    )

    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    played = [row for row in rows if row.get("policy", "mode") == "mode"]
    last = [row for row in played if row["agent_steps"] == played[-1]["agent_steps"]]
    if len(last) < 2:
        return train
    columns = np.array([[row["score"], row["success"]] for row in last], np.float64)
    low, high = bootstrap_interval(columns)
    bounds = {
        f"{name}_{end}": round(float(values[i]), 4)
        for i, name in enumerate(("score", "success_rate"))
        for end, values in (("low", low), ("high", high))
    }
    return train | {"evaluation": evaluation | bounds}


def _pictures(run: Path) -> dict[str, Path]:
    """The mp4 and png files of the run folder and its evaluation, by name."""
    found: dict[str, Path] = {}
    for folder in run_folders(run):
        for path in (*sorted(folder.glob("*.mp4")), *sorted(folder.glob("*.png"))):
            found.setdefault(path.name, _inside(run, path))
    return found


def _check_scorecard(scorecard: dict[str, Any], model: Checkpoint, *, where: str) -> None:
    """Refuses what is no scorecard, and numbers that were measured on other weights than those to be published."""
    check_scorecard(scorecard, where=where, parts=SCORED)
    measured = measured_weights(scorecard)
    if measured is not None and measured != model.identity()["weights_sha256"]:
        raise CheckpointError(
            f"the scorecard was measured on other weights than {model}: run recipes/evaluate.py again"
        )
