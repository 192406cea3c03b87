"""What is said of a set when its run has ended: whether it can be used, what it lacks, how to go on; and the exit code."""

import argparse
import math
import shlex
import sys
from dataclasses import dataclass
from fractions import Fraction

from cwm_hub.command_line import how_many
from cwm_hub.shards.manifest import FAILURES
from cwm_hub.shards.storage import Root
from dataprep.command_line import EXIT_DONE, EXIT_FAILURES, option
from dataprep.sharding.ledger import Outcome
from dataprep.sharding.plan import SKIPS, WINDOW_FRAMES, count_reasons
from dataprep.sharding.progress import clock

ONE_RATE = 1.05
"""Rates that are closer than this are one: 29.97 and 30."""


def _share_or_count(text: str) -> str:
    try:
        valid = Fraction(text[:-1]) >= 0 if text.endswith("%") else int(text) >= 0
    except (ValueError, ZeroDivisionError):
        valid = False
    if not valid:
        raise argparse.ArgumentTypeError(f"expected a count or a percentage such as 1%, got {text!r}")
    return text


@dataclass(frozen=True)
class Tolerance:
    """What tells exit code 0 from 2.

    Folders that people keep have a damaged file or two; more than one in ten comes of something else (half a copy, an
    unmounted disk, a codec that is not read), which a script that goes on should not miss. One file says nothing of a cause:
    of eight videos one may be damaged too.
    """

    max_failures: str = option("10%", metavar="N", parse=_share_or_count)
    """A count, or a percentage of the videos, rounded up: of eight or of ten videos 10% is one. More failures end in exit
    code 2, though the set can be used without them."""

    def allowed(self, videos: int) -> int:
        """How many of so many videos may fail."""
        text = self.max_failures
        return math.ceil(videos * Fraction(text[:-1]) / 100) if text.endswith("%") else int(text)


def report(
    outcome: Outcome, root: Root, tolerance: Tolerance, *, seconds: float | None = None, already: bool = False
) -> int:
    """Tell on standard error what the finished set holds; returns the exit code.

    Args:
        outcome: of the run.
        root: where the set lies.
        tolerance: how many failures are none to end a script for.
        seconds: that the run took.
        already: nothing was left to write.
    """
    for split, records in outcome.manifest.splits.items():
        say(
            f"{split}: {how_many(sum(r.samples for r in records), 'clip')}, {how_many(sum(r.frames for r in records), 'frame')}, "
            f"{sum(r.bytes for r in records) / 1e6:.1f} MB in {how_many(len(records), 'shard')}"
        )
    place = shlex.quote(str(root))
    if "train" in outcome.manifest.splits and "validation" not in outcome.manifest.splits:
        say(
            f"no validation split: evaluate has nothing to score; cwm-dataprep split {place} --out NEW makes one, of two "
            "recordings or more"
        )
    slowest, fastest = outcome.rates
    if fastest > slowest * ONE_RATE:
        say(
            f"frame rates differ, {slowest:g} to {fastest:g} a second: a window of {WINDOW_FRAMES} frames lasts "
            f"{WINDOW_FRAMES / slowest:.2g} s of one video and {WINDOW_FRAMES / fastest:.2g} s of another; "
            f"--fps {slowest:g} gives all one rate"
        )
    if already:
        say(
            "nothing was left to do: every shard is there with its size; what flipped bits would do to them, "
            f"cwm-dataprep verify {place} --level full finds out"
        )
    allowed = tolerance.allowed(outcome.videos + outcome.failures + outcome.skips)
    limit = f"the {allowed:,} that --max-failures {tolerance.max_failures} allows"
    is_tolerable = outcome.failures <= allowed
    within = f"{'within' if is_tolerable else 'more than'} {limit}"
    say(f"{root} can be used: {_words(outcome, root, within)}{_took(seconds)}")
    return EXIT_DONE if is_tolerable else EXIT_FAILURES


def _words(outcome: Outcome, root: Root, within: str) -> str:
    failed = {reason: n for reason, n in outcome.reasons.items() if reason not in SKIPS}
    skipped = {reason: n for reason, n in outcome.reasons.items() if reason in SKIPS}
    total = outcome.videos + outcome.failures + outcome.skips
    words = f"{outcome.videos} of {how_many(total, 'video')}, manifest {outcome.manifest.hash[:12]}"
    if skipped:
        words += f"; {outcome.skips} passed over ({count_reasons(skipped)})"
    if failed:
        words += f"; {outcome.failures} failed ({count_reasons(failed)}), {within}"
    if failed or skipped:
        words += f": named in {root}/{FAILURES}"
    if failed:
        words += "; mend them and give the command again with --retry-failures"
    return words


def _took(seconds: float | None) -> str:
    return "" if seconds is None else f"; {clock(seconds)}"


def say(sentence: str) -> None:
    """A line on standard error."""
    print(sentence, file=sys.stderr, flush=True)
