"""Models by name: loaded in one line, pushed to the Hugging Face Hub."""

import os
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch
from torch import nn

from cwm_hub.evaluation.words import PICTURES
from cwm_hub.hub.checkpoint import (
    CONFIG,
    SCORECARD,
    SUFFIXES,
    TRAIN,
    WEIGHTS,
    CheckpointError,
)
from cwm_hub.hub.files import local_path
from cwm_hub.hub.model_card import FILM
from cwm_hub.hub.names import find_checkpoint
from cwm_hub.hub.saving import card_of, save_pretrained
from cwm_hub.hub_client.cards import CARD, our_block
from cwm_hub.hub_client.commit import Published, Target, check_files, publish_files
from cwm_hub.hub_client.names import hub_name


def from_pretrained(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    token: str | bool | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    expect: type[nn.Module] | None = None,
) -> Any:
    """Loads a published model, of whatever class its config names, in eval mode.

    Args:
        name_or_path: a checkpoint directory or a run folder, an embedded name such as "contextwm-tiny", or a Hub repository:
            "owner/name", "owner/name@revision", "hf://owner/name", or the address of its page.
        revision: branch, tag or commit on the Hub.
        cache_dir: the Hub's cache instead of the default one.
        local_files_only: take the Hub's cache as it is and ask no server.
        force_download: fetch every file anew although the cache has it.
        token: access token of the Hub instead of the logged-in one; False for none.
        device: where the model is put.
        dtype: of its weights and of its arithmetic, such as `torch.bfloat16`; float32 by default. Pixels stay uint8.
        expect: refuse a checkpoint of any other class, before its weights are downloaded.

    Raises:
        CheckpointError: not found, not reachable, incomplete, corrupt, of another class or of a newer format; or no
            such device here.
    """
    check_placement(device, dtype)
    checkpoint = find_checkpoint(
        name_or_path,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        force_download=force_download,
        token=token,
    )
    if expect is not None and not issubclass(checkpoint.model_class, expect):
        raise CheckpointError(
            f"{checkpoint} holds a {checkpoint.model_class.__name__}, expected a {expect.__name__}"
        )
    return checkpoint.load(device=device, dtype=dtype)


def check_placement(device: str | torch.device, dtype: torch.dtype | None) -> None:
    """Refuses, before anything is downloaded, a device that is not here and a type that weights cannot have.

    Raises:
        CheckpointError: says which.
    """
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise CheckpointError(f"dtype is a floating-point torch.dtype such as torch.bfloat16, got {dtype!r}")
    try:
        torch.zeros((), device=device).item()  # meta has no numbers, cuda may not be there
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise CheckpointError(
            f"there is no device {str(device)!r} here: {str(error).splitlines()[0]}"
        ) from error


def push_to_hub(
    model_or_directory: nn.Module | str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool = True,
    revision: str | None = None,
    tag: str | None = None,
    pull_request: bool = False,
    replace_card: bool = False,
    message: str = "Upload checkpoint",
    token: str | bool | None = None,
) -> str:
    """Uploads a checkpoint directory, as it is, or a model to a Hub repository, and returns its address.

    One commit replaces everything that an earlier upload left there, so that no scorecard or picture of other weights
    stays; files that are not a checkpoint's stay, and so does what people wrote into README.md. The repository is made
    when there is none; one that exists keeps its visibility. A self-hosted Hub without Xet storage needs
    `HF_HUB_DISABLE_XET=1` in the environment before Python starts.

    Args:
        model_or_directory: what `save_pretrained` wrote, or a model, whose card then knows no training facts.
        repo_id: "owner/name", also as "hf://owner/name" or the address of its page.
        private: visibility of a new repository.
        revision: branch to commit to, made when there is none; the default branch by default.
        tag: a name to give the new commit; one that is in use is refused before anything is uploaded.
        pull_request: propose the commit instead, which needs no right to write.
        replace_card: let nothing stay of the README.md that is there.
        message: of the commit.
        token: access token instead of the logged-in one.

    Raises:
        CheckpointError: not a checkpoint, a file that may not be published, no right to write, or no connection.
    """
    name = hub_name(repo_id)
    if name is None:
        raise CheckpointError(f"a Hub repository is named owner/name, got {repo_id!r}")
    name = name.at(revision)
    target = Target(
        name.repo_id,
        private=private,
        revision=name.revision,
        tag=tag,
        pull_request=pull_request,
        replace_card=replace_card,
    )
    with tempfile.TemporaryDirectory() as scratch:
        if isinstance(model_or_directory, nn.Module):
            directory = save_pretrained(model_or_directory, Path(scratch) / "model", name=name.repo_id)
        else:
            directory = local_path(model_or_directory)
        return push_directory(directory, target, message=message, token=token).url


def push_directory(
    directory: Path, target: Target, *, message: str = "Upload checkpoint", token: str | bool | None = None
) -> Published:
    """`push_to_hub` of a checkpoint directory, which says what came of it; errors are the same."""
    files = publishable(directory)
    with tempfile.TemporaryDirectory() as scratch:
        if CARD not in files:  # or the card that is there would go on telling of the weights before
            files[CARD] = Path(scratch) / CARD
            files[CARD].write_text(card_of(directory, name=target.repo_id), encoding="utf-8")
        return publish_files(target, files, stale=is_stale, message=message, token=token)


def publishable(directory: Path) -> dict[str, Path]:
    """The files of a checkpoint directory by name, after a look at each; hidden ones stay at home.

    Raises:
        CheckpointError: no checkpoint, a damaged one, or a file that a checkpoint does not hold.
    """
    if not directory.is_dir():
        raise CheckpointError(f"no such directory: {directory}")
    if not (directory / CONFIG).is_file():
        raise CheckpointError(
            f"{directory} has no {CONFIG}: it is not a cwm_hub checkpoint (of a run, cwm-hub publish makes one)"
        )
    find_checkpoint(directory).load()
    files = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory)
        if any(part.startswith(".") for part in name.parts) or (path.is_dir() and not path.is_symlink()):
            continue
        if path.suffix not in SUFFIXES:
            raise CheckpointError(
                f"{path} may not be published: a checkpoint holds only {' '.join(SUFFIXES)}"
            )
        files[name.as_posix()] = path
    check_files(files)
    return files


def is_stale(path: str, card: str) -> bool:
    """Whether a file of a repository is an earlier upload's: one of our names, or a picture that its card shows."""
    shown = our_block(card)
    ours = (CONFIG, WEIGHTS, TRAIN, SCORECARD, *FILM, *PICTURES)
    return path in ours or f"]({quote(path)})" in shown or f'src="{quote(path)}"' in shown
