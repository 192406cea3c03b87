"""The last line of `status` says what the set is, whatever was lost of it, and the counts before it agree."""

import shutil
from pathlib import Path

import pytest
from made_videos import counting_frames, write_video

from cwm_hub.shards.manifest import Manifest
from dataprep.__main__ import main


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of two shards."""
    folder = tmp_path_factory.mktemp("status")
    for number in range(2):
        write_video(folder / f"in/{number}.mp4", counting_frames(26))
    command = ["folder", str(folder / "in"), "--out", str(folder / "out"), "--size", "16", "--workers", "0"]
    assert main([*command, "--videos-per-shard", "1"]) == 0
    return folder / "out"


TAR, MARKER = "data/train-00000-of-00002.tar", ".state/shards/train-00000-of-00002.json"


@pytest.mark.parametrize(
    ("file", "data", "written", "end"),
    [
        (None, None, 2, "finished: manifest {hash}"),
        (
            TAR,
            None,
            1,
            "damaged: 1 shard of 2 is missing or has another size ("
            + TAR
            + "); cwm-dataprep verify {out} --rep",
        ),
        (TAR, b"half", 1, "damaged: 1 shard of 2 is missing or has another size (" + TAR + ")"),
        (MARKER, None, 1, "finished: manifest {hash}, but 1 commit marker of its shards"),
        (MARKER, b"[]", 1, "finished: manifest {hash}, but 1 commit marker of its shards"),
        ("meta/manifest.json", None, 2, "not finished: cwm-dataprep finalize, or"),
        ("meta/manifest.json", b"{", 2, "damaged: {out}/meta/manifest.json: damaged json"),
        (
            "meta/index.parquet",
            None,
            2,
            "damaged: meta/index.parquet is missing; cwm-dataprep finalize {out} writes",
        ),
        ("meta/index.parquet", b"no", 2, "damaged: {out}/meta/index.parquet: damaged parquet"),
        (".state/progress.json", b"[]", 2, "finished: manifest {hash}"),
    ],
)
def test_the_last_line_is_what_the_set_is(
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str | None,
    data: bytes | None,
    written: int,
    end: str,
) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    if file is not None:
        (out / file).unlink()
    if file is not None and data is not None:
        (out / file).write_bytes(data)
    assert main(["status", str(out)]) == 0
    first, part, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{written} of 2 shards are written: {written} of 2 videos, {written} clip")
    assert ("is damaged" in part) == (file == ".state/progress.json")
    assert last.startswith(end.format(out=out, hash=Manifest.load(finished).hash[:12]))
