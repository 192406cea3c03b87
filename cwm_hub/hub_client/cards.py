"""Card templates, text that is inert in them, and a card that keeps what people wrote into it.

A card is front matter, a heading, and our block between `BEGIN` and `END`. A later publish writes our keys of the front
matter and the block anew; everything else is the owner's and stays.
"""

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cwm_hub.hub_client.errors import HubError

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = (ROOT / "_cards", ROOT.parent / "cards")
"""Where templates lie: inside an installed wheel, or in the repository of an editable install."""

CARD = "README.md"
BEGIN = "<!-- cwm-hub: from here to the closing mark each publish writes anew; what stands outside stays as it is -->"
END = "<!-- /cwm-hub -->"
UNMARKED = "an independent implementation of *Pre-training"
"""Words of the cards that this library wrote before there were marks: those are ours as a whole."""

OUR_KEYS = {
    "model": (
        "library_name",
        "license",
        "license_name",
        "pipeline_tag",
        "base_model",
        "datasets",
        "model-index",
    ),
    "dataset": (
        "license",
        "license_name",
        "task_categories",
        "size_categories",
        "pretty_name",
        "configs",
        "extra_gated_prompt",
    ),
}
"""Keys of the front matter that a publish sets or takes away; of `tags` ours are added to those that are there."""

FRONT_MATTER = re.compile(r"\A\s*---\n(.*?\n)---\n", re.DOTALL)


def template(name: str) -> Path:
    """Path of a card template, e.g. "model_card.md".

    Raises:
        FileNotFoundError: the installation is broken.
    """
    for folder in TEMPLATES:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"card template {name} is in neither of {', '.join(map(str, TEMPLATES))}")


def inert(value: Any) -> Any:
    """The value with every text in it such that Markdown shows it as it is: in one line, no markup, no html.

    Args:
        value: JSON content; numbers, flags and None stay, mappings and lists are gone through.
    """
    if isinstance(value, Mapping):
        return {inert(key): inert(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [inert(item) for item in value]
    if not isinstance(value, str):
        return value
    text = " ".join(value.split())
    text = re.sub(r"([\\`*\[\]|~$])", r"\\\1", html.escape(text, quote=False))
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # inside a word it is no markup
    text = re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", text)  # a list
    return re.sub(r"^([#+=-])", r"\\\1", text)  # a heading, a list, a heading's underline


def code(value: Any) -> str:
    """The value as a code span, also in a cell of a table."""
    text = " ".join(str(value).split()).replace("`", "'").replace("|", r"\|")
    return f"`{text}`" if text else ""


def merged(old: str | None, new: str, *, kind: str) -> str:
    """The new card with what its owner wrote into the old one.

    Args:
        old: README.md as it is now; None where there is none.
        new: the generated card, with marks; what its owner wrote into this one counts too.
        kind: "model" or "dataset".

    Raises:
        HubError: people wrote different things into both.
    """
    if old is None or (BEGIN not in old and UNMARKED in old):
        return new
    ours, block = _split(new)
    theirs, text = _split(old)
    kept = {
        key: ours.get(key, value) for key, value in theirs.items() if key in ours or key not in OUR_KEYS[kind]
    }
    header = kept | {key: value for key, value in ours.items() if key not in kept}
    if "tags" in theirs:
        tags = theirs["tags"] if isinstance(theirs["tags"], list) else [theirs["tags"]]
        header["tags"] = list(dict.fromkeys([*ours.get("tags", []), *tags]))
    if BEGIN not in block:
        whole = block  # the owner's altogether
    elif _is_plain(block):
        whole = _with_block(text, block[block.index(BEGIN) :].rstrip("\n"))
    elif _is_plain(text) or _around(text) == _around(block):
        whole = block
    else:
        raise HubError(
            f"{CARD} was written into both here and in the repository: bring them together, or replace the card there"
        )
    return old if (header, whole) == (theirs, text) else f"---\n{_dump(header)}---\n{whole}"


def front_matter(card: str) -> dict[str, Any]:
    """The keys at a card's head; none where there is no head, or one that cannot be read."""
    return _split(card)[0]


def our_block(card: str) -> str:
    """What a publish wrote of a card: the block, or all of it where it has no marks and is ours, or nothing."""
    start, stop = card.find(BEGIN), card.find(END)
    if 0 <= start < stop:
        return card[start:stop]
    return card if UNMARKED in card else ""


def _around(text: str) -> tuple[str, str]:
    """What stands before and after the block."""
    start, stop = text.find(BEGIN), text.find(END)
    if not 0 <= start < stop:
        return text.strip(), ""
    return text[:start].strip(), text[stop + len(END) :].strip()


def _is_plain(text: str) -> bool:
    """Whether a heading is all that stands around the block."""
    before, after = _around(text)
    return BEGIN in text and not after and re.fullmatch(r"# [^\n]*", before) is not None


def _with_block(text: str, block: str) -> str:
    start, stop = text.find(BEGIN), text.find(END)
    if 0 <= start < stop:
        return text[:start] + block + text[stop + len(END) :]
    return text.rstrip("\n") + f"\n\n{block}\n"


def _split(card: str) -> tuple[dict[str, Any], str]:
    """Front matter and text; a front matter that cannot be read is text."""
    import yaml

    found = FRONT_MATTER.match(card.replace("\r\n", "\n"))
    if found is None:
        return {}, card
    try:
        header = yaml.safe_load(found[1])
    except yaml.YAMLError:
        return {}, card
    return (header, card.replace("\r\n", "\n")[found.end() :]) if isinstance(header, dict) else ({}, card)


def _dump(header: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(header), sort_keys=False, allow_unicode=True, width=1_000_000)
