"""`cwm-dataprep preview`: look at a shard directory, as a contact sheet (PNG, JPEG) or a page of looping clips (HTML).

One clip for each chosen source video, so that a long film does not fill the page. The suffix of `--out` decides the
form; both are one self-contained file.
"""

import argparse
import base64
import html
import io
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cwm_hub.command_line import how_many
from cwm_hub.config import check_range
from cwm_hub.shards.codecs import Frames, ShardError, encode_clip
from cwm_hub.shards.index import ClipRow, read_index
from cwm_hub.shards.manifest import Manifest
from cwm_hub.shards.storage import Root
from dataprep.command_line import EXIT_DONE, add_options, option, positional, read_options
from dataprep.curation.stats import group_by_source, read_clips

FRAMES_SHOWN = 8
"""Frames of a clip on a contact sheet, evenly spaced from first to last."""
CELL = 128
"""Pixels of a side of a frame on a contact sheet: twice the paper's frame."""
GAP, CAPTION = 4, 18
INK, PAPER = (36, 41, 47), (255, 255, 255)


@dataclass(frozen=True)
class PreviewOptions:
    """Options of this sub-command."""

    root: str = positional("ROOT")
    """Shard directory or fsspec URL."""
    out: str = option(metavar="FILE", short="-o")
    """Ends in .png, .jpg or .html."""
    clips: int = 24
    """Source videos shown."""
    split: str | None = None
    """Only this split."""
    shard: int | None = option(None, metavar="K")
    """Only the split's K-th shard, counted from 0."""
    label: str | None = option(None, metavar="X")
    """Only this class: its index, or a part of its text."""
    seed: int = 0
    """Of the choice."""

    def __post_init__(self) -> None:
        if Path(self.out).suffix.lower() not in (".png", ".jpg", ".jpeg", ".html"):
            raise ValueError(f"--out must end in .png, .jpg or .html, got {Path(self.out).name}")
        check_range(self, "clips", at_least=1)


EXAMPLES = (
    "cwm-dataprep preview shards/mine --out sheet.png",
    "cwm-dataprep preview shards/mine --out page.html --split validation --clips 12",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this sub-command's options."""
    add_options(parser, PreviewOptions)


def run(args: argparse.Namespace) -> int:
    """Write the picture or page; exit code 0."""
    options = read_options(PreviewOptions, args)
    out, root = Path(options.out), Root.parse(options.root)
    rows = choose(
        read_index(root),
        count=options.clips,
        seed=options.seed,
        split=options.split,
        shard=options.shard,
        label=options.label,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix.lower() == ".html":
        out.write_text(clip_page(root, rows), encoding="utf-8")
    else:
        contact_sheet(root, rows).save(out)
    print(f"{out}: {how_many(len(rows), 'clip')}")
    return EXIT_DONE


def choose(
    rows: Sequence[ClipRow],
    *,
    count: int,
    seed: int = 0,
    split: str | None = None,
    shard: int | None = None,
    label: str | None = None,
) -> list[ClipRow]:
    """One random clip of each of `count` random source videos, in the order of their keys.

    Raises:
        ShardError: No clip fits.
    """
    fitting = [
        row
        for row in rows
        if (split is None or row.split == split)
        and (shard is None or int(row.shard.rpartition("/")[2].split("-")[1]) == shard)
        and (label is None or label == str(row.label) or (not label.isdigit() and label in row.label_text))
    ]
    if not fitting:
        raise ShardError(
            f"no clip of split {split or 'any'}, shard {'any' if shard is None else shard}, label {label or 'any'}"
        )
    draw = random.Random(seed)
    videos = group_by_source(fitting)
    sources = draw.sample(sorted(videos), min(count, len(videos)))
    return sorted((draw.choice(videos[source]) for source in sources), key=lambda row: row.key)


def contact_sheet(root: Root, rows: Sequence[ClipRow]) -> Image.Image:
    """A strip of frames for each clip under its caption; two strips side by side where there are many."""
    columns = 1 if len(rows) <= 8 else 2
    strip_width, strip_height = FRAMES_SHOWN * (CELL + GAP), CELL + CAPTION + 2 * GAP
    lines = -(-len(rows) // columns)
    sheet = Image.new(
        "RGB", (columns * (strip_width + 4 * GAP) + 2 * GAP, lines * strip_height + 2 * GAP), PAPER
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for number, (row, frames) in enumerate(zip(rows, read_clips(root, rows), strict=True)):
        left = 2 * GAP + (number // lines) * (strip_width + 4 * GAP)
        top = GAP + (number % lines) * strip_height
        draw.text((left, top), _fit(draw, caption(row), font, strip_width - GAP), INK, font)
        for place, frame in enumerate(spread(frames)):
            sheet.paste(_cell(frame), (left + place * (CELL + GAP), top + CAPTION))
    return sheet


def spread(frames: Frames) -> Frames:
    """`FRAMES_SHOWN` frames from first to last, fewer only where the clip has fewer."""
    count = min(FRAMES_SHOWN, len(frames))
    return frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]


def caption(row: ClipRow) -> str:
    """What a reader wants to know of a clip, in one line."""
    text = row.label_text or (f"class {row.label}" if row.label >= 0 else "")
    return "  ".join(filter(None, (row.key, text, _facts(row))))


def _facts(row: ClipRow) -> str:
    facts = [how_many(row.num_frames, "frame"), f"{row.fps:g} fps"]
    facts += [] if math.isnan(row.moving) else [f"{row.moving:.1%} moving"]
    facts += [f"cut at {', '.join(map(str, row.cuts))}"] if row.cuts else []
    facts += [f"{share:.0%} {name}" for name in ("frozen", "black") if (share := getattr(row, name)) > 0]
    return ", ".join(facts)


def clip_page(root: Root, rows: Sequence[ClipRow]) -> str:
    """A page of looping videos, each inside it as a data URI."""
    manifest = Manifest.load(root)
    figures = "\n".join(
        _figure(row, frames) for row, frames in zip(rows, read_clips(root, rows), strict=True)
    )
    title = html.escape(
        f"{manifest.name}: {len(rows)} of {how_many(sum(r.samples for r in manifest.shards), 'clip')}"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 13px/1.4 system-ui, sans-serif; color: #24292f; margin: 24px; }}
h1 {{ font-size: 18px; }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(168px, 45%), 1fr)); gap: 16px; }}
figure {{ margin: 0; }}
video {{ width: 100%; aspect-ratio: 1; image-rendering: pixelated; background: #eaeef2; }}
figcaption {{ overflow-wrap: anywhere; }}
small {{ color: #6e7781; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p><small>{manifest.image_size}x{manifest.image_size} {manifest.codec}, manifest {manifest.hash[:12]},
licence: {html.escape(manifest.licence)}</small></p>
<main>
{figures}
</main>
</body>
</html>
"""


def _figure(row: ClipRow, frames: Frames) -> str:
    data = base64.b64encode(encode_clip(frames, "h264", row.fps if row.fps > 0 else 10.0)).decode()
    text = html.escape(row.label_text or (f"class {row.label}" if row.label >= 0 else ""))
    small = f"{html.escape(row.source_path)}<br>{_facts(row)}, luma {row.luma:.0f}"
    return (
        f'<figure><video autoplay loop muted playsinline src="data:video/mp4;base64,{data}"></video>'
        f"<figcaption>{html.escape(row.key)}<br>{text}{'<br>' if text else ''}<small>{small}</small></figcaption></figure>"
    )


def preview_jpeg(root: Root, *, clips: int = 16, seed: int = 0) -> bytes:
    """The contact sheet that goes into a data set card, as JPEG bytes."""
    return _bytes(contact_sheet(root, choose(read_index(root), count=clips, seed=seed)), "JPEG", quality=88)


def preview_png(root: str | Path | Root, rows: Sequence[ClipRow]) -> bytes:
    """The contact sheet of chosen clips that goes into a report, as PNG bytes."""
    return _bytes(contact_sheet(Root.parse(root), rows), "PNG")


def _bytes(sheet: Image.Image, form: str, **options: Any) -> bytes:
    target = io.BytesIO()
    sheet.save(target, form, **options)
    return target.getvalue()


def _cell(frame: Frames) -> Image.Image:
    """A frame at sheet size: its pixels as squares where it is enlarged, averaged where it must shrink."""
    image = Image.fromarray(frame)
    how = Image.Resampling.NEAREST if max(frame.shape[:2]) <= CELL else Image.Resampling.BOX
    return image.resize((CELL, CELL), how)


def _fit(
    draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> str:
    """The text, cut with an ellipsis where it is wider than `width` pixels."""
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(text + "...", font) > width:
        text = text[:-1]
    return text + "..."
