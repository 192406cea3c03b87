"""Which held-out windows are predicted and how: the settings, and the protocol that travels with the scores. No torch."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cwm_hub.config import check_range

SCORECARD_VERSION = 2
WINDOWS = 16
"""Windows of a shard directory where nobody says how many."""
METRICS = ("psnr_db", "ssim")
"""What every scorecard has; `words.METRICS` knows the others."""


@dataclass(frozen=True, kw_only=True)
class ScoringConfig:
    """Which held-out windows are predicted, and how."""

    split: str = "validation"
    """Split whose windows are predicted; the mean frame always comes from `train`."""
    windows: int | None = None
    """Windows of every shard directory; none: 16, or all of a directory that has fewer."""
    observed_frames: int = 5
    """Frames the model sees."""
    horizon: int = 20
    """Frames it predicts open loop."""
    protocol: Literal["observed", "official"] = "observed"
    """`official` draws the context frame from the whole window, the frames to predict included, as the official
    code does."""
    context: Literal["last", "first"] = "last"
    """Observed frame that is the context, under the `observed` protocol."""
    latents: Literal["sampled", "mode"] = "sampled"
    """Draw latents or take the most probable ones."""
    samples: int = 1
    """Predictions per window: scores average over them, the best is reported apart."""
    seed: int = 0
    """Of windows, latents and official context frames."""
    mean_frame_frames: int = 512
    """Training frames, drawn uniformly, behind the mean frame of a shard directory."""

    def __post_init__(self) -> None:
        if self.windows is not None:
            check_range(self, "windows", at_least=2)
        check_range(self, "observed_frames", "horizon", "samples", "mean_frame_frames", at_least=1)
        check_range(self, "seed", at_least=0)


KINDS: dict[str, type] = {"protocol": Mapping, "windows": Sequence, "sources": Mapping, "together": Mapping}
"""Parts of a scorecard -> what they are."""


class ProtocolError(ValueError):
    """Two scorecards were measured in different ways, or a protocol does not fit the data it is applied to."""


@dataclass(frozen=True)
class Protocol:
    """How a scorecard was measured; scorecards compare only where every field is equal."""

    observed_frames: int = 5
    """Frames the model sees; the paper's figure uses 5."""
    horizon: int = 20
    """Frames predicted open loop, after the observed ones; may exceed the window the model was trained on."""
    context: Literal["last", "first", "official"] = "last"
    """Frame the context encoder sees: the last or first observed one; `official` draws one from the whole window
    for every window, as the official code does, and so lets the model look at frames that it is asked to predict."""
    latents: Literal["sampled", "mode"] = "sampled"
    """Latents drawn from the model's distribution, or its most probable class at each step."""
    samples: int = 1
    """Predictions per window. Scores average over them; the best of them is reported apart."""
    seed: int = 0
    """Seed of the windows, the latents and the official protocol's context frames."""
    image_size: int = 64
    """Height and width in pixels: PSNR and SSIM of different sizes do not compare."""
    data: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Data set name -> hash of its shard manifest."""
    split: str = "validation"
    """Split the windows come from."""
    mean_frames: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Data set name -> `picture_hash` of its mean frame, the baseline's constant picture."""
    windows: tuple[tuple[str, str, str, int], ...] = ()
    """(data set name, source video, clip key, first frame in the source video) of every window, in order."""
    recordings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """`DATA SET/SOURCE VIDEO` -> its recording, of the videos that have one by the index: cameras of an episode, parts of a
    talk. Intervals resample recordings, and a video without one as its own."""
    psnr_cap_db: float = 60.0
    """A PSNR above this counts as this: an exact copy of a still clip would otherwise be worth infinity."""
    resamples: int = 2000
    """Bootstrap resamples of the source videos, or recordings, behind every interval."""
    confidence: float = 0.95
    """Coverage of every interval."""

    def __post_init__(self) -> None:
        check_range(self, "observed_frames", "horizon", "samples", at_least=1)

    @property
    def window_frames(self) -> int:
        """Frames of one window: seen and predicted."""
        return self.observed_frames + self.horizon


def resampled(videos: Iterable[tuple[str, str]], recordings: Mapping[str, str]) -> list[tuple[str, str]]:
    """What intervals resample: of each (data set, source video) its recording, or itself where it is alone.

    >>> resampled([("arm", "front_1"), ("arm", "wrist_1")], {"arm/front_1": "ep1", "arm/wrist_1": "ep1"})
    [('arm', 'ep1'), ('arm', 'ep1')]
    """
    return [(name, recordings.get(f"{name}/{video}", video)) for name, video in videos]


def check_scorecard(
    card: Mapping[str, Any], *, where: str, parts: tuple[str, ...] = ("protocol", "windows")
) -> None:
    """Refuses what is no scorecard of this format.

    Args:
        card: what was read.
        where: the file, in the user's words.
        parts: what it must have.

    Raises:
        ValueError: it is damaged, or of another format.
    """
    version = card.get("format_version")
    if version not in (None, SCORECARD_VERSION):
        raise ValueError(
            f"{where} has format {version!r} and this code reads {SCORECARD_VERSION}: run recipes/evaluate.py again"
        )
    missing = [part for part in ("format_version", *parts) if part not in card]
    wrong = [
        f"{part} is of type {type(card[part]).__name__}"
        for part in parts
        if part in card and not isinstance(card[part], KINDS[part])
    ]
    if missing or wrong:
        what = f"it has no {', '.join(missing)}" if missing else f"{', '.join(wrong)}"
        raise ValueError(f"{where} is not a scorecard, or damaged: {what}")


def check_same_protocol(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    """Refuses scorecards of these two protocols, which do not compare where any field differs.

    Raises:
        ProtocolError: the two were measured in different ways; names the differing fields.
    """
    # scorecards of before recordings had none
    a, b = ({"recordings": {}, **protocol} for protocol in (a, b))
    differing = [field for field in sorted({*a, *b}) if a.get(field) != b.get(field)]
    if differing:
        raise ProtocolError(
            f"the two scorecards were measured differently and do not compare: {', '.join(differing)}"
        )
