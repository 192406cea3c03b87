"""The source that docs/your-own-data.md shows runs as it stands there, and as a line of the table."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_videos import counting_frames, read_clips, read_numbers
from PIL import Image

from cwm_hub.shards.index import read_index
from dataprep.__main__ import main
from dataprep.curation.verify import verify
from dataprep.sources.table import SOURCES

PAGE = Path(__file__).parents[3] / "docs" / "your-own-data.md"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The page's code in a file, beside two flip books and one that is too short."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    path = tmp_path / "flipbooks.py"
    path.write_text(code)
    for name, count in (("cat", 40), ("dog", 31), ("short", 9)):
        folder = tmp_path / "books" / name
        folder.mkdir(parents=True)
        for number, pixels in enumerate(counting_frames(count)):
            Image.fromarray(pixels).save(folder / f"{number:06d}.jpg", quality=95)
    return path


def test_the_page_is_forty_lines_of_code() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 40


def test_the_page_as_a_script(script: Path) -> None:
    """Two workers, so that the opener crosses to another process."""
    command = [
        sys.executable,
        script.name,
        "books",
        "--out",
        "out",
        "--workers",
        "2",
        "--videos-per-shard",
        "2",
    ]
    done = subprocess.run(command, cwd=script.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 too_short" in done.stderr
    clips = read_clips(script.parent / "out")
    assert {key: read_numbers(frames) for key, frames in clips.items()} == {
        "cat": list(range(40)),
        "dog": list(range(31)),
    }
    assert {row.fps for row in read_index(script.parent / "out")} == {10.0}
    assert verify(str(script.parent / "out"), "full") == []


def test_the_page_as_a_line_of_the_table(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(script.parent))
    monkeypatch.setitem(SOURCES, "flipbooks", ("flipbooks", "numbered pictures"))
    importlib.invalidate_caches()
    books, out = str(script.parent / "books"), str(script.parent / "out")
    more = "--workers 0 --rate 30 --stride 3 --min-frames 11".split()
    assert main(["flipbooks", books, "--out", out, *more]) == 0
    (cat,) = (frames for key, frames in read_clips(Path(out)).items() if key == "cat")
    assert np.array_equal(read_numbers(cat), range(0, 40, 3))
    assert main(["sources"]) == 0
    listed = [re.split(r"  +", line) for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in listed] == list(SOURCES)
    assert listed[-1] == ["flipbooks", "numbered pictures"]
