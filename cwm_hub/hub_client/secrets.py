"""What must not be published: passwords and tokens, and the paths by which a machine tells whose it is."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

USER_INFO = re.compile(r"(?<=://)[^/?#\s'\"]+@")  # up to the last @: a password may hold one
HOME = re.compile(r"(?:/home|/Users)/[^/\s'\",:;\]})]+|[A-Za-z]:\\Users\\[^\\\s'\",:;\]})]+")
SIGNED = re.compile(
    r"(?P<key>[?&](?:X-Amz-[\w-]+|AWSAccessKeyId|Signature|sig|access_token|token|api_key|key)=)[^&\s'\"]+",
    re.IGNORECASE,
)

TOKENS = {
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{30,}"),
    "a GitHub token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,})"),
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "an API key": re.compile(r"\b(?:sk-[\w-]{20,}|AIza[\w-]{35}|xox[abprs]-[\w-]{10,})"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a signed address": re.compile(r"X-Amz-Signature=[0-9a-fA-F]{16,}"),
    "a password in a URL": re.compile(r"://[^/\s@'\"]+:[^/\s@'\"]+@"),
}
"""What looks like a secret, in words."""

TEXT_SUFFIXES = (".json", ".jsonl", ".md", ".txt", ".yaml")


def without_secrets(content: Any) -> Any:
    """The same JSON content without users and passwords of URLs, signatures of addresses, and home directories."""
    if isinstance(content, Mapping):
        return {without_secrets(key): without_secrets(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_secrets(item) for item in content]
    if not isinstance(content, str):
        return content
    text = SIGNED.sub(r"\g<key>...", USER_INFO.sub("", content))
    home = str(Path.home())
    if len(home) > 1:
        text = re.sub(rf"{re.escape(home)}(?=[/\s'\",:;\]}})]|$)", "~", text)
    return HOME.sub("~", text)


def secret_in(path: Path) -> str | None:
    """What the text of a file holds that looks like a secret, in words; the logged-in token counts wherever it stands.

    Args:
        path: any file; only those of `TEXT_SUFFIXES`, and the head of a safetensors file, are text.
    """
    if path.suffix == ".safetensors":
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            text = file.read(min(size, 1 << 24)).decode("utf-8", "replace")
    elif path.suffix in TEXT_SUFFIXES:
        text = path.read_text(encoding="utf-8", errors="replace")
    else:
        return None
    from huggingface_hub import get_token

    mine = get_token()
    if mine and len(mine) >= 8 and mine in text:
        return "the access token in use"
    return next((words for words, pattern in TOKENS.items() if pattern.search(text)), None)
