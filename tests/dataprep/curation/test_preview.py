"""The sheet shows the right frames in the right places; the page's clips decode to the frames of the set."""

import base64
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_stats import still, write_set

from cwm_hub.shards.codecs import ShardError, decode_clip
from cwm_hub.shards.index import read_index
from cwm_hub.shards.storage import Root
from dataprep.__main__ import main
from dataprep.curation.preview import CELL, caption, choose, contact_sheet, preview_jpeg, spread


@pytest.fixture
def root(tmp_path: Path) -> Path:
    ramp = np.concatenate([still(1, level) for level in range(0, 240, 2)])  # 120 frames, three clips
    return write_set(tmp_path / "set", [(ramp, 7), (still(30, 250), 1), (still(30, 90), -1)])


def test_one_clip_for_each_source(root: Path) -> None:
    rows = choose(read_index(root), count=10)
    assert sorted(row.source for row in rows) == ["v0", "v1", "v2"]
    assert choose(read_index(root), count=10, seed=0) == rows
    assert len({choose(read_index(root), count=1, seed=seed)[0].key for seed in range(30)}) > 3


def test_a_caption_tells_cuts_and_standing_frames(root: Path) -> None:
    row = replace(read_index(root)[0], cuts=(7, 12), frozen=0.4, black=0.0)
    assert caption(row).endswith("cut at 7, 12, 40% frozen")


def test_choice_by_label_split_and_shard(root: Path) -> None:
    rows = read_index(root)
    assert [row.source for row in choose(rows, count=9, label="7")] == ["v0"]
    assert [row.source for row in choose(rows, count=9, label="ass 1")] == ["v1"]
    assert len(choose(rows, count=9, shard=0, split="train")) == 3
    with pytest.raises(ShardError, match="no clip of split test"):
        choose(rows, count=9, split="test")


def test_the_sheet_shows_frames_from_first_to_last(root: Path) -> None:
    rows = [row for row in read_index(root) if row.source == "v0" and row.start_frame == 40]
    pixels = np.asarray(contact_sheet(Root.parse(root), rows)).astype(int)
    shown = [pixels[CELL // 2 + 26, 8 + CELL // 2 + place * (CELL + 4), 0] for place in range(8)]
    expected = 80 + 2 * np.linspace(0, 39, 8).round()
    assert shown == expected.tolist()
    assert len(spread(still(3, 0))) == 3


def test_the_page_holds_playable_clips(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "page.html"
    assert main(["preview", str(root), "--out", str(out), "--label", "1"]) == 0
    page = out.read_text()
    (data,) = re.findall(r"data:video/mp4;base64,([A-Za-z0-9+/=]+)", page)
    frames = decode_clip(base64.b64decode(data), "h264")
    assert frames.shape == (30, 16, 16, 3)
    assert abs(int(frames.mean()) - 250) < 4
    (row,) = (row for row in read_index(root) if row.label == 1)
    assert "class 1" in page and f"<small>{row.source_path}<br>" in page


def test_labels_cannot_inject_markup(tmp_path: Path) -> None:
    import dataclasses

    from cwm_hub.shards.index import INDEX, index_bytes

    root = write_set(tmp_path / "set", [(still(30, 90), 1)])
    markup = dict.fromkeys(("label_text", "source_path"), "<script>alert(1)</script>")
    rows = [dataclasses.replace(row, **markup) for row in read_index(root)]
    Root.parse(root).write(INDEX, index_bytes(rows))
    out = tmp_path / "page.html"
    assert main(["preview", str(root), "--out", str(out)]) == 0
    assert "<script>" not in out.read_text()


def test_pictures_are_written_in_the_form_of_the_suffix(root: Path, tmp_path: Path) -> None:
    for name, form in (("a.png", "PNG"), ("a.jpg", "JPEG")):
        assert main(["preview", str(root), "-o", str(tmp_path / name), "--clips", "2"]) == 0
        with Image.open(tmp_path / name) as picture:
            assert picture.format == form
    assert preview_jpeg(Root.parse(root)).startswith(b"\xff\xd8")


def test_bad_input_is_one_sentence(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        [str(root), "-o", "sheet.gif"],
        [str(root), "-o", "sheet.png", "--clips", "0"],
        [str(root), "-o", "sheet.png", "--label", "99"],
        [str(tmp_path / "none"), "-o", "sheet.png"],
    ):
        assert main(["preview", *arguments]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
