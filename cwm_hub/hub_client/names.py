"""What people write for a Hub repository: `owner/name`, `owner/name@revision`, `hf://owner/name`, a Hub page's address."""

import re
from dataclasses import dataclass, replace

from cwm_hub.hub_client.errors import HubError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PREFIXES = ("hf://", "https://", "http://")
PAGE = re.compile(r"(?:/(?:tree|blob|resolve|raw|commit)/(?P<revision>[^/]+)(?:/.*)?)?/?")
"""What may follow the repository in the address of a page of it."""

REF = re.compile(r"[A-Za-z0-9_](?:[\w.+/-]*[\w+-])?", re.ASCII)
NO_REF = re.compile(r"\.\.|//|/\.|\./|\.lock(?:/|$)")
"""What a name of a tag or branch is made of, and what must not be in it: less than git allows, the same everywhere."""


@dataclass(frozen=True)
class HubName:
    """A repository, and the revision of it that was asked for."""

    repo_id: str
    """owner/name."""
    revision: str | None = None
    """Branch, tag or commit."""

    def at(self, revision: str | None) -> "HubName":
        """The same with `revision` from elsewhere.

        Raises:
            HubError: the name says another one.
        """
        if revision is None or self.revision in (None, revision):
            return replace(self, revision=revision or self.revision)
        raise HubError(f"{self.repo_id}@{self.revision} and revision {revision!r} contradict each other")


def hub_name(text: str, *, kind: str = "model") -> HubName | None:
    """The repository that `text` names, or None where it does not have the form of one.

    Args:
        text: owner/name, with @revision or not; hf://owner/name; the address of a page on the Hub in use.
        kind: "model", or "dataset", whose addresses say `datasets/` first and whose hf:// names may.

    Raises:
        HubError: it says `hf://` or is an address, and does not name such a repository.
    """
    prefix = next((prefix for prefix in PREFIXES if text.startswith(prefix)), "")
    bare, found = text.removeprefix(prefix), None
    if prefix in ("https://", "http://"):
        bare = _on_this_hub(text)
    if prefix:
        bare, given = _without_kind(bare)
        plain = given == "" and (kind == "model" or prefix == "hf://")
        if given != kind and not plain:
            raise HubError(f"{text} names a {given or 'model'} repository, expected a {kind}'s")
    if prefix in ("https://", "http://"):
        repo_id = "/".join(bare.split("/")[:2])
        page = PAGE.fullmatch(bare.removeprefix(repo_id))
        found = HubName(repo_id, page["revision"]) if page else None
    else:
        repo_id, _, revision = bare.partition("@")
        found = HubName(repo_id, revision or None) if not bare.endswith("@") else None
    if found is not None and HUB_ID.fullmatch(found.repo_id):
        return found
    if prefix:
        wanted = (
            "hf://owner/name, hf://owner/name@revision" if kind == "model" else "hf://datasets/owner/name"
        )
        raise HubError(f"{text} names no repository: expected {wanted} or the address of its page")
    return None


def check_ref(name: str | None, *, what: str) -> None:
    """Refuses what git takes for no name of a tag or branch, before anything is uploaded for it.

    Args:
        name: of the tag or branch; None where none is asked for.
        what: "tag" or "branch", for the sentence.

    Raises:
        HubError: it is no such name.
    """
    if name is None or (re.fullmatch(REF, name) and not re.search(NO_REF, name)):
        return
    raise HubError(
        f"{name!r} cannot be the name of a {what}: letters, digits and . _ - / + are fine, not at its ends and no two dots "
        "or slashes in a row"
    )


def _on_this_hub(address: str) -> str:
    """The path of an address on the Hub in use."""
    from huggingface_hub import constants

    ends = {constants.ENDPOINT.rstrip("/") + "/", "https://huggingface.co/", "https://hf.co/"}
    end = next((end for end in sorted(ends) if address.startswith(end)), None)
    if end is None:
        raise HubError(f"{address} is no page of the Hub in use, {constants.ENDPOINT}")
    return address.removeprefix(end).partition("?")[0].partition("#")[0]


def _without_kind(path: str) -> tuple[str, str]:
    """`(owner/name..., kind)` of a path that may say its kind first."""
    for folder in ("models", "datasets", "spaces"):
        if path.startswith(folder + "/"):
            return path.removeprefix(folder + "/"), folder[:-1]
    return path, ""
