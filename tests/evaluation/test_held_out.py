"""Held-out windows: where they come from, what they are called, and the mean frame beside them."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from moving_squares import moving_square, write_clips

from cwm_hub.evaluation.held_out import HeldOut, make_protocol, mean_frame, read_held_out
from cwm_hub.evaluation.protocol import Protocol, ProtocolError, ScoringConfig
from cwm_hub.evaluation.scorecard import picture_hash
from cwm_hub.shards.index import INDEX, index_bytes, read_index
from cwm_hub.shards.manifest import Manifest


def windows_of(*data_sets: str) -> HeldOut:
    windows = [(name, f"film {row}", f"clip{row}", row) for row, name in enumerate(data_sets)]
    video = torch.zeros(len(windows), 1, 3, 2, 2, dtype=torch.uint8)
    return HeldOut(video, windows, [""] * len(windows), {}, {})


def test_windows_are_the_frames_that_they_name(tmp_path):
    roots = [write_clips(tmp_path / name) for name in ("here", "there")]
    config = ScoringConfig(windows=3, observed_frames=3, horizon=4)
    held_out = read_held_out(config, [str(root) for root in roots], image_size=32)
    assert held_out.video.shape == (6, 7, 3, 32, 32)
    assert [name for name, *_ in held_out.windows] == ["here"] * 3 + ["there"] * 3
    assert len(set(held_out.windows)) == 6
    rows = {row.key: row for row in read_index(roots[0])}
    for video, (_, source, key, start) in zip(held_out.video, held_out.windows, strict=True):
        assert (rows[key].split, rows[key].source) == ("validation", source)
        expected = moving_square(int(key[-1]))[start : start + 7]
        np.testing.assert_array_equal(video.permute(0, 2, 3, 1), expected)
    assert held_out.manifests == {root.name: Manifest.load(root).hash for root in roots}


def test_recordings_of_the_index_are_those_that_several_videos_share(tmp_path):
    root = write_clips(tmp_path / "arm")
    rows = read_index(root)
    held = [row.source for row in rows if row.split == "validation"]
    assert len(set(held)) >= 2
    names = {held[0]: "ep1", held[-1]: "ep1"} | {
        row.source: row.source for row in rows if row.split == "train"
    }
    changed = [dataclasses.replace(row, recording=names.get(row.source, "")) for row in rows]
    (root / INDEX).write_bytes(index_bytes(changed))
    config = ScoringConfig(observed_frames=3, horizon=4)
    held_out = read_held_out(config, [str(root)], image_size=32)
    assert held_out.recordings == {f"arm/{video}": "ep1" for video in (held[0], held[-1])}
    assert make_protocol(config, held_out).recordings == held_out.recordings
    assert read_held_out(config, [str(write_clips(tmp_path / "leg"))], image_size=32).recordings == {}


def test_the_protocol_names_what_was_read():
    picture = torch.full((3, 2, 2), 7, dtype=torch.uint8)
    video = torch.zeros(2, 9, 3, 2, 2, dtype=torch.uint8)
    windows = [("set", "film", "clip", 0), ("set", "film", "clip", 4)]
    held_out = HeldOut(video, windows, ["", ""], {"set": picture}, {"set": "hash"})
    config = ScoringConfig(observed_frames=4, horizon=5, protocol="official", latents="mode", seed=3)
    assert make_protocol(config, held_out) == Protocol(
        observed_frames=4,
        horizon=5,
        context="official",
        latents="mode",
        seed=3,
        image_size=2,
        data={"set": "hash"},
        mean_frames={"set": picture_hash(picture)},
        windows=tuple(windows),
    )


def test_mean_frame_is_the_average_training_frame(tmp_path):
    root = write_clips(tmp_path / "clips", clips=2)
    average = np.concatenate([moving_square(0), moving_square(1)]).mean(
        0
    )  # all 28 training frames, each once
    picture = mean_frame(str(root), frames=28, seed=0).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(picture, average.round().astype(np.uint8))


def test_figures_show_every_data_set():
    held_out = windows_of("a", "a", "a", "b", "b", "c")
    assert held_out.shown(4) == [0, 1, 3, 5]
    assert held_out.captions([3]) == ["b: clip3, from frame 3"]


def test_two_directories_of_one_name_are_refused():
    with pytest.raises(ProtocolError, match="told apart by their folder's name, got x, x"):
        read_held_out(ScoringConfig(), ["a/x", "b/x/"], image_size=32)


def test_settings_and_comparisons_need_no_torch():
    code = (
        "import json, sys; from cwm_hub.evaluation import ScoringConfig, compare_runs; "
        "print(json.dumps('torch' in sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout) is False
