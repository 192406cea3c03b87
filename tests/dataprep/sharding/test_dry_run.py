"""The probe of a dry run."""

import pytest
from openers import open_numbered, raw_config

from dataprep.sharding.dry_run import PROBE_VIDEOS, estimate
from dataprep.sharding.plan import Listing, SourceVideo, make_plan


@pytest.mark.parametrize(("few_files", "failed"), [(True, {0, 20}), (False, {10})])
def test_videos_of_few_files_are_probed_where_they_share_them(few_files: bool, failed: set[int]) -> None:
    """Of two files with 20 parts each one cannot be read: all of the probe is of one of them, or a half of each."""
    paths = [":30"] * PROBE_VIDEOS + ["broken:30"] * PROBE_VIDEOS
    sources = tuple(SourceVideo(f"v{i:03d}", path, f"{i}") for i, path in enumerate(paths))
    plan = make_plan(Listing(sources, share_files=True), raw_config(videos_per_shard=PROBE_VIDEOS))
    guess = estimate(plan, open_numbered, timeout_seconds=60, few_files=few_files)
    assert guess.probed == PROBE_VIDEOS and guess.failed in failed
