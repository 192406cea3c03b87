"""Models by name: loaded in one line, pushed to the Hugging Face Hub."""

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from torch import nn

import cwm_hub
from cwm_hub.hub.checkpoint import SUFFIXES, CheckpointError, save_pretrained
from cwm_hub.hub.names import HUB_ID, _hub_errors, find_checkpoint


def from_pretrained(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    device: str | torch.device = "cpu",
    expect: type[nn.Module] | None = None,
) -> Any:
    """Loads a published model, of whatever class its config names, in eval mode.

    Args:
        name_or_path: a checkpoint directory, an embedded name such as "contextwm-tiny", or a Hub id "owner/name".
        revision: branch, tag or commit on the Hub.
        cache_dir: the Hub's cache instead of the default one.
        local_files_only: take the Hub's cache as it is and ask no server.
        token: access token of the Hub instead of the logged-in one; False for none.
        device: where the model is put.
        expect: refuse a checkpoint of any other class, before its weights are downloaded.

    Raises:
        CheckpointError: not found, not reachable, incomplete, corrupt, of another class or of a newer format.
    """
    checkpoint = find_checkpoint(
        name_or_path, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only, token=token
    )
    if expect is not None and not issubclass(checkpoint.model_class, expect):
        raise CheckpointError(
            f"{checkpoint} holds a {checkpoint.model_class.__name__}, expected a {expect.__name__}"
        )
    return checkpoint.load(device=device)


def push_to_hub(
    model_or_directory: nn.Module | str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool = True,
    revision: str | None = None,
    tag: str | None = None,
    message: str = "Upload checkpoint",
    token: str | bool | None = None,
) -> str:
    """Uploads a checkpoint directory, as it is, or a model to a Hub repository, and returns its address.

    The repository is made when there is none; one that exists keeps its visibility. A self-hosted Hub without Xet
    storage needs `HF_HUB_DISABLE_XET=1` in the environment before Python starts.

    Args:
        model_or_directory: what `save_pretrained` wrote, or a model, whose card then knows no training facts.
        repo_id: "owner/name".
        private: visibility of a new repository.
        revision: branch to commit to, made when there is none; the default branch by default.
        tag: a name to give the new commit.
        message: of the commit.
        token: access token instead of the logged-in one.

    Raises:
        CheckpointError: not a checkpoint, a file that may not be published, no right to write, or no connection.
    """
    if not HUB_ID.fullmatch(repo_id):
        raise CheckpointError(f"a Hub repository is named owner/name, got {repo_id!r}")
    if isinstance(model_or_directory, nn.Module):
        with tempfile.TemporaryDirectory() as scratch:
            saved = save_pretrained(model_or_directory, Path(scratch) / "model", name=repo_id)
            return push_to_hub(
                saved, repo_id, private=private, revision=revision, tag=tag, message=message, token=token
            )
    directory = Path(model_or_directory).expanduser()
    _check_publishable(directory)
    api = HfApi(token=token, library_name="cwm-hub", library_version=cwm_hub.__version__)
    with _hub_errors(repo_id, revision, unreached="was not pushed: the Hub or its storage was not reached"):
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id,
            folder_path=directory,
            revision=revision,
            commit_message=message,
            ignore_patterns=[".*", "*/.*"],
        )
        if tag is not None:
            api.create_tag(repo_id, tag=tag, revision=revision)
    return f"{api.endpoint}/{repo_id}" + (f"/tree/{revision}" if revision else "")


def _check_publishable(directory: Path) -> None:
    if not directory.is_dir():
        raise CheckpointError(f"no such directory: {directory}")
    find_checkpoint(directory).load()
    for path in sorted(directory.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(directory).parts)
        if path.is_file() and not hidden and path.suffix not in SUFFIXES:
            raise CheckpointError(
                f"{path} may not be published: a checkpoint holds only {' '.join(SUFFIXES)}"
            )
