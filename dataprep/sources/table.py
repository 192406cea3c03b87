"""The table of sources, and `cwm-dataprep sources`, which prints it.

A source is one file of this room that lists source videos and opens them, and one line here: docs/your-own-data.md.
"""

import argparse

from dataprep.command_line import EXIT_DONE

SOURCES = {
    "ssv2": ("dataprep.sources.ssv2", "Something-Something-v2: webm files and their label files"),
    "human36m": ("dataprep.sources.human36m", "Human3.6M: four-camera mp4 files or extracted frames"),
    "youtube-driving": (
        "dataprep.sources.youtube_driving",
        "ACO YouTube driving: frames, their zip, or mp4 files",
    ),
    "folder": ("dataprep.sources.folder", "any tree of video files, labels and splits optional"),
    "hub-dataset": ("dataprep.sources.hub_dataset", "a Hugging Face data set with videos"),
    "lerobot": (
        "dataprep.sources.lerobot",
        "a LeRobot data set (v2.0, v2.1, v3.0): an episode of a camera is a video",
    ),
}
"""Sub-command to (module with `add_arguments(parser)` and `run(args) -> exit code`, one line of help)."""

EXAMPLES = (
    "cwm-dataprep sources",
    "cwm-dataprep sources | grep frames",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def run(args: argparse.Namespace) -> int:
    """Print a line for each source; exit code 0."""
    width = max(map(len, SOURCES))
    for name, (_, summary) in SOURCES.items():
        print(f"{name:<{width}}  {summary}")
    return EXIT_DONE
