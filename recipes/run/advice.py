"""What a pre-training run tells people beyond its numbers: the data that it uses, how long it takes, what looks wrong.

Nothing here changes a run. The thresholds are meant for the eye: each is said once, and says what it saw.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cwm_hub.clips.clip_index import Usage
from cwm_hub.command_line import how_many
from recipes.run.folder import read_rows

EARLIEST_UPDATES = 200
"""Updates before which neither a small KL nor a loss that stands still means anything."""
COLLAPSED_KL = 0.05
"""Nats a frame below which the latents say nothing of it that the past had not told."""
STANDSTILL = 0.95
"""Share of the first row's image loss above which nothing was learned."""
LARGE_PARAMETERS = 10_000_000
"""Parameters of a model that one does not train on a CPU: the paper's have 24 and 26 million."""


def data_lines(usages: Sequence[Usage], window_frames: int) -> Iterator[str]:
    """Of each set a line on what is used and what each rule left out, and a warning where that is more than half."""
    for used in usages:
        left_out = [
            f"{how_many(count, 'clip')} {why}"
            for count, why in (
                (used.filtered, "outside `where`"),
                (used.short, f"shorter than {how_many(window_frames, 'frame')}"),
                (used.covered, "without a window of its own (within others, or with cuts too close)"),
                (used.unchosen, "of videos that `subset` did not choose"),
            )
            if count
        ]
        yield (
            f"{used.root} ({used.split}): {used.clips:,} of {how_many(used.all_clips, 'clip')}, {used.sources:,} of "
            f"{how_many(used.all_sources, 'video')}, {_hours(used.seconds)}"
            + (f"; left out: {', '.join(left_out)}" if left_out else "")
        )
        if 2 * (used.short + used.filtered) > used.all_clips:
            why = (
                f"; half of them have {used.median_frames} frames or more, and a window has {window_frames} (--window_frames)"
                if used.short > used.filtered
                else " by its `where`"
            )
            yield f"warning: more than half of the clips of {used.root} are left out{why}"


def row_warnings(row: Mapping[str, Any], first: Mapping[str, Any] | None) -> dict[str, str]:
    """What looks wrong in a row of metrics.jsonl, by a name for it.

    Args:
        row: the newest one.
        first: the run's first one; None where the run did not begin with new weights.
    """
    found: dict[str, str] = {}
    if row["updates"] < EARLIEST_UPDATES:
        return found
    kl, image = row.get("kl"), row.get("image_loss")
    if kl is not None and kl < COLLAPSED_KL:
        found["kl"] = (
            f"the KL is {kl:.3f} nats a frame after {row['updates']:,} updates: the latents say almost nothing of the frames. "
            "It may rise later; where it does not, weigh it less: --overrides.kl_scale 0.1"
        )
    began = first.get("image_loss") if first else None
    if first and image is not None and began is not None and image > STANDSTILL * began:
        found["loss"] = (
            f"the image loss is {image:.1f} after {row['updates']:,} updates and was {began:.1f} after {first['updates']:,}: "
            "nothing is learned; try another --learning_rate, and look at the clips (cwm-dataprep preview)"
        )
    return found


class Advice:
    """Says once what looks wrong in the rows of a run; the main process's rows, none elsewhere."""

    def __init__(self, run: Path, *, fresh: bool):
        earlier = read_rows(run / "metrics.jsonl") if fresh else []
        self._fresh, self._first = fresh, earlier[0] if earlier else None
        self._said: set[str] = set()

    def look_at(self, row: dict[str, Any] | None) -> None:
        """Take in the newest row."""
        if row is None:
            return
        if self._fresh and self._first is None:
            self._first = row
        for name, sentence in row_warnings(row, self._first).items():
            if name not in self._said:
                print(f"\nwarning: {sentence}", flush=True)
            self._said.add(name)


def first_update(seconds: float, updates: int) -> str:
    """Said after the first update: what all that are left would take."""
    return f"first update after {seconds:.1f} s: about {duration(seconds * updates)} for {how_many(updates, 'update')} at that rate"


def large_on_cpu(model: str) -> str:
    """Said where a model of the paper's size is trained on a CPU."""
    return (
        f"hint: {model} takes days on a CPU; contextwm-small is made to be trained on one in about an hour: "
        "--config recipes/configs/pretrain/small.yaml"
    )


def duration(seconds: float) -> str:
    """`0:03:20`; from two days on `13 days`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours / 24:,.0f} days" if hours >= 48 else f"{hours}:{minutes:02d}:{rest:02d}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f} hours" if seconds >= 360 else f"{seconds:.0f} seconds"
