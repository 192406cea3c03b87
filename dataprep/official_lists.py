"""What the lists hold that the data sets' owners and the paper's code ship, to stand beside what was found here."""

from typing import NamedTuple


class OfficialList(NamedTuple):
    """Counts of one list."""

    videos: int
    frames: int = 0
    """0 where nobody tells."""
    windows: int = 0
    """Videos of at least 25 frames, one training window; 0 where nobody tells."""


OFFICIAL_LISTS = {
    "ssv2": {
        "train": OfficialList(168_913, 7_620_427, 162_074),
        "validation": OfficialList(24_777, 1_211_038, 23_993),
        "test": OfficialList(27_157),
    },
    "human36m": {
        "train": OfficialList(600, 312_188, 600),  # S1 5 6 7 8
        "validation": OfficialList(239, 109_867, 239),  # S9 11
    },
    "youtube-driving": {"train": OfficialList(88, 1_720_325, 88)},  # all that the paper trains on
}
"""By data set and split."""


def official_counts(name: str) -> dict[str, int]:
    """Videos of each split."""
    return {split: counts.videos for split, counts in OFFICIAL_LISTS[name].items()}
