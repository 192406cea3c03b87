"""Data sets in the forms that the Hub serves: a folder of videos, parquet with bytes inside, WebDataset tars."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_videos import counting_frames, read_clips, read_numbers, write_video

from cwm_hub.shards.index import read_index
from dataprep.__main__ import main


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("videos")
    return [write_video(root / f"v{n}.mp4", counting_frames(26 + n)) for n in range(4)]


def check(root: Path, expected: dict[str, int]) -> None:
    """Every video of `expected` (source_path -> frames) is there, frame for frame."""
    rows = read_index(root)
    assert {row.source_path: row.num_frames for row in rows} == expected
    clips = read_clips(root)
    for row in rows:
        assert read_numbers(clips[row.key]) == list(range(row.num_frames))


def test_a_folder_of_videos_with_metadata(videos: list[Path], tmp_path: Path) -> None:
    for number, video in enumerate(videos):
        folder = tmp_path / "set" / ("train" if number < 3 else "test")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / video.name).write_bytes(video.read_bytes())
        with (folder / "metadata.csv").open("a") as file:
            file.write(
                f"file_name,what\n{video.name},kind {number}\n"
                if number in (0, 3)
                else f"{video.name},kind {number}\n"
            )
    out = tmp_path / "out"
    arguments = [str(tmp_path / "set"), "--label-column", "what", "--out", str(out), "--workers", "1"]
    assert main(["hub-dataset", *arguments]) == 0
    check(out, {"train/v0.mp4": 26, "train/v1.mp4": 27, "train/v2.mp4": 28, "test/v3.mp4": 29})
    assert {row.label_text for row in read_index(out)} == {f"kind {n}" for n in range(4)}
    assert sorted(row.label for row in read_index(out)) == [0, 1, 2, 3]
    assert not list((out / ".state" / "videos").glob("train"))  # nothing was copied


def test_parquet_with_bytes_inside_is_streamed_into_the_cache_once(
    videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    data = {
        "clip": [{"bytes": video.read_bytes(), "path": None} for video in videos] + [None],
        "label": [0, 1, 1, 0, 0],
    }
    features = datasets.Features(
        {"clip": datasets.Video(decode=False), "label": datasets.ClassLabel(names=["push", "pull"])}
    )
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_dict(data, features=features).to_parquet(tmp_path / "set" / "train-00000.parquet")
    out = tmp_path / "out"
    arguments = [
        "hub-dataset",
        str(tmp_path / "set"),
        "--out",
        str(out),
        "--workers",
        "1",
        "--max-failures",
        "1",
    ]
    arguments += ["--column", "clip"]
    assert main(arguments) == 0
    check(out, {f"train/{n:08d}": 26 + n for n in range(4)})
    assert sorted(row.label_text for row in read_index(out)) == ["pull", "pull", "push", "push"]
    assert json.loads((out / "meta" / "failures.jsonl").read_text())["detail"] == "row 4 has no video"
    monkeypatch.setattr(datasets, "load_dataset", None)  # a rerun reads the cache's list
    assert main(arguments) == 0


def test_webdataset_tars(videos: list[Path], tmp_path: Path) -> None:
    import tarfile

    (tmp_path / "set").mkdir()
    with tarfile.open(tmp_path / "set" / "train-0.tar", "w") as tar:
        for number, video in enumerate(videos):
            (tmp_path / f"{number}.json").write_text(
                json.dumps({"caption": f"clip {number}", "class": number})
            )
            tar.add(video, f"a{number}.mp4")
            tar.add(tmp_path / f"{number}.json", f"a{number}.json")
    out = tmp_path / "out"
    arguments = ["--text-column", "json.caption", "--label-column", "json.class", "--limit", "3"]
    assert main(["hub-dataset", str(tmp_path / "set"), *arguments, "--out", str(out), "--workers", "1"]) == 0
    check(out, {f"train/a{n}": 26 + n for n in range(3)})
    assert sorted((row.label, row.label_text) for row in read_index(out)) == [
        (n, f"clip {n}") for n in range(3)
    ]


def test_a_folder_of_video2dataset_is_read_by_its_tars(
    videos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import io
    import tarfile

    import pyarrow as pa
    import pyarrow.parquet as pq

    for shard in range(2):
        members = [(f"0000{shard}9.json", b'{"status": "failed_to_download"}')]  # first, and without a video
        for number in (2 * shard, 2 * shard + 1):
            name = f"0000{shard}{number}"
            members += [(f"{name}.mp4", videos[number].read_bytes()), (f"{name}.txt", b"what %d" % number)]
        with tarfile.open(tmp_path / f"0000{shard}.tar", "w") as tar:
            for name, data in members:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        pq.write_table(pa.table({"key": ["a"], "caption": ["b"]}), tmp_path / f"0000{shard}.parquet")
        (tmp_path / f"0000{shard}_stats.json").write_text("{}")
    out = tmp_path / "out"
    arguments = ["hub-dataset", str(tmp_path), "--out", str(out), "--workers", "1", "--max-failures", "2"]
    assert main(arguments) == 0
    assert "video2dataset: its .tar files are read" in capsys.readouterr().err
    check(out, {f"train/0000{n // 2}{n}": 26 + n for n in range(4)})
    assert {row.label_text for row in read_index(out)} == {f"what {n}" for n in range(4)}
    failures = [json.loads(line) for line in (out / "meta/failures.jsonl").read_text().splitlines()]
    assert [(f["source_path"], f["reason"]) for f in failures] == [
        ("train/000009", "missing_file"),
        ("train/000019", "missing_file"),
    ]


def test_the_same_bytes_in_two_splits_are_kept_out_of_training(videos: list[Path], tmp_path: Path) -> None:
    for name, number in (("train/a.mp4", 0), ("train/b.mp4", 1), ("test/c.mp4", 1)):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(videos[number].read_bytes())
    out = tmp_path / "out"
    assert main(["hub-dataset", str(tmp_path / "set"), "--out", str(out), "--workers", "1"]) == 0
    check(out, {"train/a.mp4": 26, "test/c.mp4": 27})
    failure = json.loads((out / "meta/failures.jsonl").read_text())
    assert failure["source_path"] == "train/b.mp4"
    assert (failure["reason"], failure["detail"]) == (
        "duplicate",
        "the same bytes as test/c.mp4, of another split",
    )


def test_a_label_column_that_holds_no_classes(
    videos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "set/train").mkdir(parents=True)
    rows = "file_name,label\n"
    for number, video in enumerate(videos[:2]):
        (tmp_path / "set/train" / video.name).write_bytes(video.read_bytes())
        rows += f"{video.name},{number + 0.5}\n"
    (tmp_path / "set/train/metadata.csv").write_text(rows)
    command = ["hub-dataset", str(tmp_path / "set"), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert main([*command, "--label-column", "label"]) == 1
    assert "column label: 0.5 is no class" in capsys.readouterr().err
    assert main(command) == 0
    assert "every label is -1, because column label holds no classes" in capsys.readouterr().err
    assert {row.label for row in read_index(tmp_path / "out")} == {-1}


def test_our_own_shards_are_such_a_data_set(videos: list[Path], tmp_path: Path) -> None:
    for video in videos:
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / video.name).write_bytes(video.read_bytes())
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["folder", str(tmp_path / "in"), "--out", str(first), "--workers", "1"]) == 0
    assert main(["push", str(first), "me/first", "--dry-run"]) == 0
    assert main(["hub-dataset", str(first), "--out", str(second), "--workers", "1", "--size", "32"]) == 0
    rows = read_index(second)
    assert sorted(row.num_frames for row in rows) == [26, 27, 28, 29]
    assert {row.width for row in rows} == {32}


def test_a_remote_file_is_fetched_by_the_worker(videos: list[Path]) -> None:
    import fsspec

    from dataprep.decode.video_file import VideoError
    from dataprep.sharding.plan import ShardConfig, SourceVideo
    from dataprep.sources.hub_dataset import open_row

    fsspec.filesystem("memory").pipe_file("/there/a.mp4", videos[0].read_bytes())
    config = ShardConfig(name="x")
    with open_row(SourceVideo("a", "memory://there/a.mp4", "a.mp4"), config) as reader:
        assert read_numbers(np.stack(list(reader))) == list(range(26))
        assert reader.output_fps == 12
    with pytest.raises(VideoError, match="missing_file"):
        open_row(SourceVideo("b", "memory://there/b.mp4", "b.mp4"), config)


def test_bad_input_is_one_sentence(
    videos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.csv").write_text("a,b\n1,2\n")
    out = ["--out", str(tmp_path / "out")]
    for arguments, sentence in (
        ([str(tmp_path / "none" / "at" / "all")], "cannot open the data set"),
        ([str(tmp_path / "set")], "no video column among a, b: name one with --column"),
        ([str(tmp_path / "set"), "--column", "c"], "no column 'c', but a, b"),
        ([str(tmp_path / "set"), "--splits", "test"], "no split 'test', but train"),
        ([str(tmp_path / "set"), "--out", "memory://x"], "give --cache"),
    ):
        assert main(["hub-dataset", *out, *arguments]) == 1
        error = capsys.readouterr().err
        assert sentence in error
        assert error.strip().count("\n") == 0


def test_a_dry_run_fetches_a_few_rows_and_keeps_none(
    videos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import datasets

    rows = [{"video": {"bytes": videos[n % 4].read_bytes(), "path": f"{n}.mp4"}} for n in range(22)]
    features = datasets.Features({"video": datasets.Video()})
    (tmp_path / "set/data").mkdir(parents=True)
    datasets.Dataset.from_list(rows, features=features).to_parquet(
        tmp_path / "set/data/train-00000-of-00001.parquet"
    )
    before = sorted(tmp_path.rglob("*.parquet"))
    for out in (str(tmp_path / "out"), "memory://nowhere"):
        assert main(["hub-dataset", str(tmp_path / "set"), "--out", out, "--dry-run"]) == 0
        told = capsys.readouterr().err
        assert "train: rows after the first 20 were not fetched" in told and "about 550 frames" in told
    assert not (tmp_path / "out").exists() and sorted(tmp_path.rglob("*.parquet")) == before
