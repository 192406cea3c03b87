"""A checkpoint is written whole or not at all, and never in the place of something else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from cwm_hub.hub.checkpoint import CheckpointError
from cwm_hub.hub.pretrained import from_pretrained, push_to_hub
from cwm_hub.hub.saving import save_pretrained
from cwm_hub.shards import storage


def test_saving_again_replaces_the_whole_checkpoint(model, saved):
    save_pretrained(model, saved, card=False)
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_failed_save_leaves_the_old_checkpoint_and_no_litter(model, saved, tmp_path):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    with pytest.raises(CheckpointError, match=r"asset prediction\.mp4: no such file"):
        save_pretrained(model, saved, assets={"prediction.mp4": tmp_path / "absent.mp4"})
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_save_interrupted_between_the_renames_puts_the_old_one_back(model, saved, monkeypatch):
    """Where the file system cannot exchange two folders."""
    rename = Path.rename
    monkeypatch.setattr(storage, "exchanged", lambda a, b: False)

    def interrupted(self, target):
        if ".new-" in self.name:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_pretrained(model, saved)
    monkeypatch.undo()
    assert from_pretrained(saved) is not None
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_what_killed_saves_left_goes_with_the_next_one(model, saved):
    saved = saved.rename(saved.with_name("wm[1]"))  # which is a pattern too
    left = [saved.with_name(f".{saved.name}.{kind}-0123") for kind in ("old", "new", "new-of-another")]
    for folder in left:
        shutil.copytree(saved, folder)
    os.utime(left[1], (0, 0))
    save_pretrained(model, saved)
    assert sorted(saved.parent.iterdir()) == sorted([saved, left[2]])  # which may be at work


def test_readers_find_a_checkpoint_at_every_moment_of_a_save(model, saved, monkeypatch):
    assert not storage.exchanged(saved, saved.with_name("another")), "that one is not there"
    if not storage.exchanged(saved, saved):
        pytest.skip("this file system cannot exchange two folders")
    rename, there = Path.rename, []

    def watched(self, target):
        moved = rename(self, target)
        there.append((saved / "config.json").is_file())
        return moved

    monkeypatch.setattr(Path, "rename", watched)
    save_pretrained(model, saved)
    assert there == [True]


DISK_FULL = """
import resource, signal, sys
from cwm_hub import create_model, save_pretrained
from cwm_hub.hub import CheckpointError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    save_pretrained(create_model("contextwm-debug"), sys.argv[1])
except CheckpointError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_disk_that_takes_no_more_is_one_sentence_and_the_old_one_stays(saved):
    """A limit on file sizes fails in the middle of the weights, as a full disk does."""
    before = (saved / "model.safetensors").read_bytes()
    command = [sys.executable, "-c", DISK_FULL, saved]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said.startswith(f"cannot write {saved}: ") and said.count("\n") == 1
    assert (saved / "model.safetensors").read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_link_to_a_checkpoint_stays_a_link(model, saved):
    link = saved.parent / "latest"
    link.symlink_to(saved)
    save_pretrained(model, link, card=False)
    assert link.is_symlink() and not (saved / "README.md").exists()
    assert sorted(path.name for path in saved.parent.iterdir()) == sorted([saved.name, "latest"])


def test_somebody_elses_directory_is_never_replaced(model, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match=r"not a checkpoint's \(thesis\.tex\); save somewhere else"):
        save_pretrained(model, tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_checkpoint_inside_a_clone_keeps_its_git_folder(model, saved):
    (saved / ".git").mkdir()
    with pytest.raises(CheckpointError, match=r"\(\.git\)"):
        save_pretrained(model, saved)


def test_a_file_in_the_way_is_refused(model, tmp_path):
    (tmp_path / "model").write_text("")
    with pytest.raises(CheckpointError, match="is a file; a checkpoint is a directory"):
        save_pretrained(model, tmp_path / "model")


def test_pickles_are_not_published(model, saved, tmp_path):
    (tmp_path / "optimizer.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"optimizer\.pt may not be published"):
        save_pretrained(model, tmp_path / "model", assets={"optimizer.pt": tmp_path / "optimizer.pt"})
    (saved / "optimizer.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"optimizer\.pt may not be published"):
        push_to_hub(saved, "someone/model")


@pytest.mark.parametrize("name", ["../film.png", "in/film.png", "config.json", "README.md"])
def test_an_asset_is_a_further_file_of_the_checkpoint(name, model, tmp_path):
    (tmp_path / "picture.png").write_bytes(b"picture")
    with pytest.raises(CheckpointError, match="is no name for a further file"):
        save_pretrained(model, tmp_path / "place", assets={name: tmp_path / "picture.png"})
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_only_the_house_models_can_be_saved(tmp_path):
    with pytest.raises(CheckpointError, match="a Linear has no model_type"):
        save_pretrained(nn.Linear(1, 1), tmp_path / "model")
