"""The Hugging Face client as the library and data preparation use it: its errors in one sentence, card templates."""

from pathlib import Path

TEMPLATES = (Path(__file__).parent / "_cards", Path(__file__).parents[1] / "cards")
"""Where templates lie: inside an installed wheel, or in the repository of an editable install."""


def template(name: str) -> Path:
    """Path of a card template, e.g. "model_card.md".

    Raises:
        FileNotFoundError: the installation is broken.
    """
    for folder in TEMPLATES:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"card template {name} is in neither of {', '.join(map(str, TEMPLATES))}")
