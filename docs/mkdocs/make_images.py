r"""The pictures of the documentation, from what the commands of docs/quickstart.md leave.

    python docs/mkdocs/make_images.py sheet=sheet.png early=runs/first/evaluation/prediction.png \
        prediction=runs/first-tiny/evaluation/prediction.mp4 horizon=runs/first-tiny/evaluation/horizon.png \
        attention=runs/first-tiny/evaluation/attention.png \
        agent=runs/first-agent/agent/films/step-000000000.mp4,runs/first-agent/agent/films/step-000007400.mp4

NAME=FILE for each picture, which is written to docs/images: a film as a gif, several films above each other, another picture
as a png of few colours.
"""

import sys
from itertools import zip_longest
from pathlib import Path

import av
from PIL import Image

IMAGES = Path(__file__).parents[1] / "images"
WIDTH = 603
"""Of a film, screen pixels."""
SHEET_WIDTH = 800
COLOURS = 128


def main(arguments: list[str]) -> None:
    """Write a picture for every NAME=FILE."""
    IMAGES.mkdir(exist_ok=True)
    for argument in arguments:
        name, _, files = argument.partition("=")
        paths = [Path(file) for file in files.split(",")]
        if paths[0].suffix == ".mp4":
            write_gif(IMAGES / f"{name}.gif", paths)
        else:
            picture = Image.open(paths[0]).convert("RGB")
            picture.thumbnail((SHEET_WIDTH, 4 * SHEET_WIDTH))
            picture.quantize(COLOURS).save(IMAGES / f"{name}.png", optimize=True)


def write_gif(path: Path, films: list[Path]) -> None:
    """One film above another, for as long as the longest, the others standing still at their end."""
    columns, rate = [], 1.0
    for film in films:
        with av.open(str(film)) as container:
            rate = float(container.streams.video[0].average_rate or 1)
            columns.append([frame.to_image() for frame in container.decode(video=0)])
    width, heights = WIDTH, [frames[0].height * WIDTH // frames[0].width for frames in columns]
    pictures = []
    for moment in zip_longest(*columns):
        canvas, top = Image.new("RGB", (width, sum(heights) + 4 * (len(films) - 1)), "white"), 0
        for frames, frame, height in zip(columns, moment, heights, strict=True):
            canvas.paste((frame or frames[-1]).resize((width, height), Image.Resampling.BOX), (0, top))
            top += height + 4
        pictures.append(canvas)
    palette = pictures[0].quantize(COLOURS)
    frames = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=round(1000 / rate), loop=0)


if __name__ == "__main__":
    main(sys.argv[1:])
