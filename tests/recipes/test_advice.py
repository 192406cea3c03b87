"""What a pre-training run says of itself: the data that it uses, how long it takes, what looks wrong."""

import dataclasses

import pytest
from synthetic_shards import write_shards

from cwm_hub import create_model
from cwm_hub.clips.clip_index import ClipSource, Usage
from cwm_hub.clips.loader import ClipLoader
from recipes.run.advice import (
    LARGE_PARAMETERS,
    Advice,
    data_lines,
    duration,
    first_update,
    large_on_cpu,
    row_warnings,
)
from recipes.run.folder import RecipeError
from recipes.run.trackers import check_trackers


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Videos of 30, 20, 10 and 5 frames at 10 a second, and one of 40 in pieces 0-30, 20-40 and 25-40."""
    pieces = {4: [(0, 30), (20, 40), (25, 40)]}
    return write_shards(tmp_path_factory.mktemp("data") / "set", [30, 20, 10, 5, 40], pieces=pieces)


def usage(root, *, window_frames, **options) -> Usage:
    loader = ClipLoader(
        [ClipSource(str(root), **options)], batch_clips=1, window_frames=window_frames, seed=0
    )
    return loader.usage()[0]


def test_every_clip_is_used_or_left_out_by_a_rule(root):
    used = usage(root, window_frames=12)
    # Of the pieces the third begins at frame 25 and lies within the second.
    assert (used.all_clips, used.all_sources, used.clips, used.sources) == (7, 5, 4, 3)
    assert (used.filtered, used.short, used.covered, used.unchosen) == (0, 2, 1, 0)
    assert used.seconds == pytest.approx((30 + 20 + 30 + 20) / 10)
    assert used.median_frames == 20
    chosen = usage(root, window_frames=12, where={"num_frames": (15.0, 29.0)}, subset=1)
    assert (chosen.filtered, chosen.short, chosen.clips + chosen.unchosen + chosen.covered) == (4, 0, 3)


def test_the_lines_name_the_rules_and_warn_below_half(root):
    (line,) = data_lines([usage(root, window_frames=12)], 12)
    assert line == (
        f"{root} (train): 4 of 7 clips, 3 of 5 videos, 10 seconds; left out: 2 clips shorter than 12 frames, "
        "1 clip without a window of its own (within others, or with cuts too close)"
    )
    line, warning = data_lines([usage(root, window_frames=28)], 28)
    assert line.startswith(
        f"{root} (train): 2 of 7 clips, 2 of 5 videos, 6 seconds; left out: 5 clips shorter"
    )
    assert warning == (
        f"warning: more than half of the clips of {root} are left out; half of them have 20 frames or more, and a "
        "window has 28 (--window_frames)"
    )
    _, warning = data_lines([usage(root, window_frames=12, where={"num_frames": (15.0, 29.0)})], 12)
    assert warning == f"warning: more than half of the clips of {root} are left out by its `where`"
    long = dataclasses.replace(usage(root, window_frames=5), seconds=7200.0)
    assert next(data_lines([long], 5)).endswith(
        "2.00 hours; left out: 1 clip without a window of its own (within others, or with cuts too close)"
    )


def row(updates, **values):
    return {"updates": updates, "kl": 2.0, "image_loss": 100.0, **values}


def test_a_collapsed_kl_and_a_loss_that_stands_still_are_seen():
    first = row(50, image_loss=104.0)
    assert row_warnings(row(220), None) == {}
    assert list(row_warnings(row(220, kl=0.01), None)) == ["kl"]
    assert "the KL is 0.010 nats a frame after 220 updates" in row_warnings(row(220, kl=0.01), None)["kl"]
    assert row_warnings(row(199, kl=0.01), first) == {}  # too early to say
    assert list(row_warnings(row(220), first)) == ["loss"]  # 100 of 104
    assert row_warnings(row(220), row(50, image_loss=106.0)) == {}  # 94 %
    assert row_warnings(row(220, kl=None, image_loss=None), first) == {}  # every update was skipped


def test_each_warning_is_said_once_and_a_start_from_a_checkpoint_is_no_standstill(tmp_path, capsys):
    advice = Advice(tmp_path, fresh=True)
    for updates in (50, 250, 300):
        advice.look_at(row(updates, kl=0.01))
    told = capsys.readouterr().out
    assert told.count("warning: the KL") == 1 and told.count("nothing is learned") == 1
    resumed = Advice(tmp_path, fresh=False)
    for updates in (50, 250):
        resumed.look_at(row(updates))
    resumed.look_at(None)  # another process than the main one
    assert capsys.readouterr().out == ""


def test_the_projected_time():
    assert first_update(1.5, 6000) == "first update after 1.5 s: about 2:30:00 for 6,000 updates at that rate"
    assert first_update(1.5, 1) == "first update after 1.5 s: about 0:00:02 for 1 update at that rate"
    assert duration(200) == "0:03:20"
    assert duration(47 * 3600) == "47:00:00"
    assert duration(48 * 3600 + 1) == "2 days"


def test_the_small_model_is_small_and_the_papers_is_large():
    parameters = {
        name: sum(p.numel() for p in create_model(name).parameters())
        for name in ("contextwm-small", "plainwm")
    }
    assert parameters["contextwm-small"] == 1_764_651  # as the registry and the configuration say
    assert parameters["plainwm"] > LARGE_PARAMETERS > parameters["contextwm-small"]
    assert create_model("contextwm-small").image_size == 64
    assert "plainwm takes days on a CPU; contextwm-small" in large_on_cpu("plainwm")


def test_a_tracker_that_is_not_there_is_refused_before_the_work():
    with pytest.raises(RecipeError, match="there is no tracker 'wandbb'; did you mean 'wandb'"):
        check_trackers(["wandbb"])
    with pytest.raises(RecipeError, match=r"the tracker clearml is not installed: pip install clearml"):
        check_trackers(["clearml"])
    check_trackers([])
