"""What every report is made of: pictures inside the page, the machine, templates, and a few words. No torch."""

import base64
import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import yaml
from matplotlib.figure import Figure

from cwm_hub.command_line import how_many
from cwm_hub.figures.sheet import png
from cwm_hub.provenance import provenance

MIME = {".png": "image/png", ".mp4": "video/mp4"}


def render(template: str, **parts: Any) -> str:
    """The HTML of a template of this folder; a part that it needs and does not get is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(parts)


def machine_section() -> dict[str, str]:
    """Commit, versions and machine of this report; every checkpoint names its own."""
    facts = provenance()
    return {
        "report written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "commit": facts["git_commit"],
        "versions": ", ".join(f"{name} {version}" for name, version in facts["versions"].items()),
        "machine": f"{facts['machine']['platform']}, {how_many(facts['machine']['cpus'], 'CPU core')}",
    }


def image_of(figure: Figure, *, kind: str = "", caption: str = "") -> dict[str, str]:
    """A figure as a picture inside the page."""
    return picture(png(figure), ".png", kind=kind, caption=caption)


def image_file(path: Path, caption: str, *, kind: str = "") -> dict[str, str]:
    """A picture or video file inside the page."""
    return picture(path.read_bytes(), path.suffix, kind=kind, caption=caption)


def picture(data: bytes, suffix: str, *, kind: str, caption: str) -> dict[str, str]:
    """The bytes of a file inside the page."""
    uri = f"data:{MIME[suffix]};base64,{base64.b64encode(data).decode()}"
    return {"data": uri, "kind": kind, "caption": caption, "alt": caption}


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON file, or None where there is none."""
    return json.loads(path.read_text()) if path.is_file() else None


def read_config(path: Path) -> dict[str, Any]:
    """A run's config.yaml, empty where there is none."""
    return yaml.safe_load(path.read_text()) if path.is_file() else {}


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean."""
    numbers = list(values)
    return sum(numbers) / len(numbers)


def duration(seconds: float) -> str:
    """`7.3 s`, `3 min 05 s` or `2 h 10 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds) // 60
    return (
        f"{minutes} min {round(seconds) % 60:02d} s"
        if minutes < 60
        else f"{minutes // 60} h {minutes % 60:02d} min"
    )
