"""A publish is one commit: what belongs to it is added, what an earlier one left and this one lacks goes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import cwm_hub
from cwm_hub.hub_client.cards import CARD, merged
from cwm_hub.hub_client.errors import HubError, hub_errors
from cwm_hub.hub_client.names import check_ref
from cwm_hub.hub_client.secrets import secret_in

if TYPE_CHECKING:
    from huggingface_hub import HfApi

NOTHING_NEW = "nothing to commit: {place} holds just that already"
"""Said of a publish that changed no file."""


@dataclass(frozen=True)
class Target:
    """Where a publish goes."""

    repo_id: str
    """owner/name."""
    kind: str = "model"
    """model or dataset."""
    private: bool = True
    """Visibility of a repository that is made for it; one that exists keeps its own."""
    revision: str | None = None
    """Branch, made when there is none; None for the default one."""
    tag: str | None = None
    """Name for the new commit."""
    move_tag: bool = False
    """Let an existing tag of that name follow; without it such a tag is refused."""
    pull_request: bool = False
    """Propose the commit in place of making it."""
    replace_card: bool = False
    """Write README.md anew, with nothing of what people wrote into it."""

    def __post_init__(self) -> None:
        check_ref(self.tag, what="tag")
        check_ref(self.revision, what="branch")


@dataclass(frozen=True)
class Published:
    """Where a publish went."""

    url: str
    """Page of the repository, of its branch, or of the pull request."""
    commit: str
    """Hash of the commit that holds it, of the pull request's where it is one."""
    changed: bool
    """Whether there was anything to commit or to propose; without it the repository is as it was but for a new tag."""


def hub_api(token: str | bool | None = None) -> "HfApi":
    """The client, under this library's name.

    Args:
        token: access token instead of the logged-in one; False for none.
    """
    from huggingface_hub import HfApi

    return HfApi(token=token, library_name="cwm-hub", library_version=cwm_hub.__version__)


def publish_files(
    target: Target,
    files: Mapping[str, Path],
    *,
    stale: Callable[[str, str], bool],
    message: str,
    token: str | bool | None = None,
    passing: Mapping[str, Callable[[], bytes]] | None = None,
) -> Published:
    """Makes the repository hold these files, in one commit; run again after a kill, it uploads only what is missing.

    Args:
        target: where.
        files: local file of each path in the repository; README.md is merged with the one there.
        stale: whether a path that is there and not in `files` was an earlier publish's, given the card that is there.
        message: of the commit.
        token: as in `hub_api`.
        passing: by path in the repository, what gives the content of further files, which pass through memory one at a time.

    Raises:
        HubError: a link out of the directory or a secret among the files, a tag that is in use, a branch named as a tag, no right to write,
            or no connection.
    """
    from huggingface_hub import CommitOperationAdd

    check_files(files)
    if target.pull_request and (target.tag or target.revision):
        raise HubError("a pull request has neither a tag nor a branch of its own: leave out tag and revision")
    api, repo_id, kind, passing = hub_api(token), target.repo_id, target.kind, passing or {}
    unreached = "was not pushed: the Hub or its storage was not reached"
    with hub_errors(repo_id, target.revision, unreached=unreached), TemporaryDirectory() as scratch:
        if not target.pull_request:
            api.create_repo(repo_id, repo_type=kind, private=target.private, exist_ok=True)
        refs = api.list_repo_refs(repo_id, repo_type=kind)
        tags = {tag.name: tag.target_commit for tag in refs.tags}
        if target.revision in tags:
            raise HubError(f"{target.revision!r} is a tag of {repo_id}, and a publish goes to a branch")
        if target.tag in {branch.name for branch in refs.branches}:
            raise HubError(f"{target.tag!r} is a branch of {repo_id}: a tag needs a name of its own")
        if target.tag in tags and not target.move_tag:
            raise HubError(_tag_in_use(target, tags[target.tag]))
        if target.revision is not None:
            api.create_branch(repo_id, repo_type=kind, branch=target.revision, exist_ok=True)
        head = api.repo_info(repo_id, repo_type=kind, revision=target.revision).sha
        present = api.list_repo_files(repo_id, repo_type=kind, revision=head)
        card = _card_there(api, target, head, Path(scratch)) if CARD in present else None
        upload = dict(files)
        if CARD in files and card is not None and not target.replace_card:
            upload[CARD] = Path(scratch) / "merged.md"
            upload[CARD].write_text(
                merged(card, files[CARD].read_text(encoding="utf-8"), kind=kind), encoding="utf-8"
            )
        gone = [path for path in present if path not in {*files, *passing} and stale(path, card or "")]
        operations = _operations(upload, gone)
        for path, content in passing.items():
            operations.append(CommitOperationAdd(path_in_repo=path, path_or_fileobj=content()))
            api.preupload_lfs_files(
                repo_id,
                operations[-1:],
                repo_type=kind,
                revision=target.revision,
                create_pr=target.pull_request,
            )
        commit = api.create_commit(
            repo_id,
            operations,
            commit_message=message,
            repo_type=kind,
            revision=target.revision,
            parent_commit=None if target.pull_request else head,
            create_pr=target.pull_request,
        )
        if target.tag is not None and tags.get(target.tag) != commit.oid:
            if target.tag in tags:
                api.delete_tag(repo_id, repo_type=kind, tag=target.tag)
            api.create_tag(repo_id, repo_type=kind, tag=target.tag, revision=commit.oid)
    page = f"{api.endpoint}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
    branch = f"/tree/{target.revision}" if target.revision else ""
    return Published(commit.pr_url or page + branch, commit.oid, changed=commit.oid != head)


def check_files(files: Mapping[str, Path]) -> None:
    """Refuses what must not leave the machine.

    Raises:
        HubError: a symbolic link that leads out of the published directory, or a text that holds a secret.
    """
    for name, path in files.items():
        root = path.parents[name.count("/")]
        if not path.resolve().is_relative_to(root.resolve()):
            raise HubError(
                f"{path} is a link to {path.resolve()}, out of the published directory: put the file there"
            )
        secret = secret_in(path)
        if secret is not None:
            raise HubError(f"{path} holds what looks like {secret}: take it out before publishing")


def _tag_in_use(target: Target, commit: str) -> str:
    repo_type = "" if target.kind == "model" else f" --repo-type {target.kind}"
    return (
        f"{target.repo_id} has a tag {target.tag!r} already, of commit {commit[:12]}, and nothing was uploaded: give "
        f"another name, or take it off first with `hf repos tag delete {target.repo_id} {target.tag}{repo_type}`"
    )


def _card_there(api: "HfApi", target: Target, head: str | None, folder: Path) -> str:
    path = api.hf_hub_download(
        target.repo_id, CARD, repo_type=target.kind, revision=head, local_dir=folder / "there"
    )
    return Path(path).read_text(encoding="utf-8", errors="replace")


def _operations(files: Mapping[str, Path], gone: list[str]) -> list[Any]:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    return [
        *(CommitOperationDelete(path_in_repo=path, is_folder=False) for path in gone),
        *(
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=path)
            for name, path in sorted(files.items())
        ),
    ]
