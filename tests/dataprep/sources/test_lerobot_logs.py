"""Actions, states, rewards and ends of LeRobot sets: the row of the frame that they led to, cut and thinned with the frames."""

import itertools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from documents import ROOT, commands, pieces
from made_lerobot import KEY, episode_row, write_logs, write_pictures, write_v3
from made_videos import FIXTURES

from cwm_hub.agents.replay import Replay
from cwm_hub.shards.arrays import decode_arrays
from cwm_hub.shards.index import ClipRow, read_index
from cwm_hub.shards.manifest import Manifest
from dataprep.__main__ import main
from dataprep.curation.verify import verify
from dataprep.sources.lerobot_logs import keep_rows
from recipes.run.demonstrations import seed_replay

V3, V21 = FIXTURES / "lerobot/v3_two_cameras", FIXTURES / "lerobot/v21_two_cameras"
LENGTHS = [31, 47, 30, 52, 26, 40]


def shard(place: Path, out: Path, *more: str) -> int:
    fixed = ["--workers", "0", "--max-failures", "100%", "--validation-share", "0"]
    return main(["lerobot", str(place), "--out", str(out), *fixed, *more])


def logs_of(out: Path) -> dict[str, list[tuple[ClipRow, dict[str, np.ndarray]]]]:
    """(row, arrays) of the pieces of each source, in the order of time."""
    found: dict[str, list[tuple[ClipRow, dict[str, np.ndarray]]]] = {}
    for row in sorted(read_index(out), key=lambda row: row.start_frame):
        data = (out / row.shard).read_bytes()
        arrays = decode_arrays(data[row.arrays_offset : row.arrays_offset + row.arrays_size])
        found.setdefault(row.source_path, []).append((row, arrays))
    return found


def failures_of(out: Path) -> dict[str, tuple[str, str]]:
    lines = map(json.loads, (out / "meta/failures.jsonl").read_text().splitlines())
    return {line["source_path"]: (line["reason"], line["detail"]) for line in lines}


@pytest.mark.parametrize("place", [V3, V21])
def test_actions_are_the_rows_of_the_parquet_one_step_later(place: Path, tmp_path: Path) -> None:
    assert shard(place, tmp_path, "--state") == 0
    table = pa.concat_tables(map(pq.read_table, sorted(place.glob("data/*/*.parquet")))).sort_by("index")
    action, state = (
        np.array(table[name].to_pylist(), np.float32) for name in ("action", "observation.state")
    )
    starts = np.cumsum([0, *LENGTHS])
    logs = logs_of(tmp_path)
    assert len(logs) == 12
    for episode, (start, stop) in enumerate(itertools.pairwise(starts)):
        for camera in ("observation.images.front", "observation.images.wrist"):
            ((row, arrays),) = logs[f"episode_{episode:06d}/{camera}"]
            assert (row.camera, row.arrays) == (camera, "action state")
            assert np.array_equal(arrays["action"][0], np.zeros(4))
            assert np.array_equal(arrays["action"][1:], action[start : stop - 1])
            assert np.array_equal(arrays["state"], state[start:stop])
    facts = Manifest.load(tmp_path).arrays
    assert facts["action"].names == ("a0", "a1", "a2", "a3")
    led_here = np.concatenate([action[a : b - 1] for a, b in itertools.pairwise(starts)])
    assert facts["action"].mean == pytest.approx(led_here.mean(0), abs=2e-6)
    assert facts["state"].std == pytest.approx(state.std(0), abs=2e-5)
    assert verify(tmp_path, "full") == []


def test_by_hand() -> None:
    """Row t of LeRobot: action 10 + t taken there, reward 2^t for it, the state t; the last row ends the episode."""
    rows = {
        "action": np.arange(10, 16, dtype=np.float32)[:, None],
        "state": np.arange(6, dtype=np.float32)[:, None],
        "reward": 2.0 ** np.arange(6, dtype=np.float32),
        "is_terminal": np.arange(6) == 5,
    }

    def kept(*frames: int) -> list[list[float]]:
        return [values.ravel().tolist() for values in keep_rows(rows, frames).values()]

    every = kept(0, 1, 2, 3, 4, 5)
    assert every[0] == [0, 10, 11, 12, 13, 14]
    assert every[1] == [0, 1, 2, 3, 4, 5]
    assert every[2] == [0, 1, 2, 4, 8, 16 + 32]
    assert every[3] == [False] * 5 + [True]
    assert kept(0, 2, 4) == [[0, 11, 13], [0, 2, 4], [0, 1 + 2, 4 + 8 + 16 + 32], [False, False, True]]
    assert kept(1, 4) == [[0, 13], [1, 4], [0, 2 + 4 + 8 + 16 + 32], [False, True]]
    assert kept(0, 0, 1, 1) == [[0, 0, 10, 10], [0, 0, 1, 1], [0, 0, 0, 63], [False, False, False, True]]
    assert kept() == [[], [], [], []]


def test_rows_are_thinned_and_cut_with_the_frames(tmp_path: Path) -> None:
    """Episode of 80 frames at 10 a second, stored at 5 in pieces of 25: frame t shows 2 t, reached by the action taken at 2 t - 1."""
    write_v3(tmp_path / "set", [episode_row(0, 80, 0.0)], frames=80)
    columns = {
        "action": [[float(n)] for n in range(80)],
        "next.reward": [1.0] * 80,
        "next.done": [False] * 79 + [True],
    }
    write_logs(tmp_path / "set", [80], columns)
    assert shard(tmp_path / "set", tmp_path / "out", "--fps", "5", "--max-clip-frames", "25") == 0
    (pieces,) = logs_of(tmp_path / "out").values()
    assert [(row.start_frame, row.num_frames) for row, _ in pieces] == [(n, 25) for n in range(16)]
    for row, arrays in pieces:
        number = np.arange(row.start_frame, row.start_frame + 25)
        assert arrays["action"][:, 0].tolist() == np.maximum(2 * number - 1, 0).tolist()
        rewards = np.where(
            number == 0, 0, np.where(number == 39, 4, 2)
        )  # the last frame shows 78: of 77 to 80
        assert arrays["reward"].tolist() == rewards.tolist()
        assert arrays["is_terminal"].tolist() == (number == 39).tolist()


def test_ends_by_a_limit_are_none(tmp_path: Path) -> None:
    write_v3(tmp_path / "set", [episode_row(0, 30, 0.0), episode_row(1, 30, 3.0)], frames=60)
    ends = [n in (29, 59) for n in range(60)]
    write_logs(
        tmp_path / "set", [30, 30], {"next.done": ends, "next.truncated": [n == 29 for n in range(60)]}
    )
    assert shard(tmp_path / "set", tmp_path / "out") == 0
    last = {name: arrays["is_terminal"][-1] for name, ((_, arrays),) in logs_of(tmp_path / "out").items()}
    assert last == {f"episode_000000/{KEY}": False, f"episode_000001/{KEY}": True}


def test_pictures_bring_theirs_from_the_same_file(tmp_path: Path) -> None:
    write_pictures(tmp_path / "set", "v3.0", [30, 26])
    path = tmp_path / "set/data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.append_column("action", pa.array([[float(n), 0.0] for n in range(56)])), path)
    info = json.loads((tmp_path / "set/meta/info.json").read_text())
    info["features"]["action"] = {"dtype": "float32", "shape": [2], "names": {"motors": ["x", "y"]}}
    (tmp_path / "set/meta/info.json").write_text(json.dumps(info))
    assert shard(tmp_path / "set", tmp_path / "out") == 0
    ((_, arrays),) = logs_of(tmp_path / "out")[f"episode_000001/{KEY}"]
    assert arrays["action"][:, 0].tolist() == [0, *range(30, 55)]
    assert Manifest.load(tmp_path / "out").arrays["action"].names == ("x", "y")


def test_rows_that_cannot_be_are_a_line_with_its_reason(tmp_path: Path) -> None:
    lengths = [30, 30, 30, 30, 30]
    rows = [episode_row(n, 30, 3.0 * n) for n in range(5)]
    rows[3] |= {"data/file_index": 7}
    rows[4] |= {"data/file_index": None}
    write_v3(tmp_path / "set", rows, frames=150)
    write_logs(tmp_path / "set", lengths, {"action": [[float(n), float(n)] for n in range(150)]})
    path = tmp_path / "set/data/chunk-000/file-000.parquet"
    table = pq.read_table(path).to_pylist()
    table[35]["action"][1] = float("nan")
    pq.write_table(pa.Table.from_pylist([row for n, row in enumerate(table) if n != 70]), path)
    assert shard(tmp_path / "set", tmp_path / "out") == 0
    assert list(logs_of(tmp_path / "out")) == [f"episode_000000/{KEY}"]
    assert failures_of(tmp_path / "out") == {
        f"episode_000001/{KEY}": (
            "bad_rows",
            "action has numbers that are not finite, expected 2 columns of numbers",
        ),
        f"episode_000002/{KEY}": (
            "wrong_length",
            "29 rows of file-000.parquet by their frame_index, 30 by its length",
        ),
        f"episode_000003/{KEY}": (
            "missing_file",
            "there is no data/chunk-000/file-007.parquet with its actions",
        ),
        f"episode_000004/{KEY}": ("missing_file", "its row names no file with its actions"),
    }
    assert shard(tmp_path / "set", tmp_path / "frames", "--frames-only") == 0
    assert len(read_index(tmp_path / "frames")) == 5
    assert Manifest.load(tmp_path / "frames").arrays == {}


def test_a_column_that_info_json_promises_and_the_file_lacks(tmp_path: Path) -> None:
    write_v3(tmp_path / "set", [episode_row(0, 30, 0.0)], frames=30)
    write_logs(tmp_path / "set", [30], {"action": [[0.0]] * 30, "next.reward": [0.0] * 30})
    path = tmp_path / "set/data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["next.reward"]), path)
    assert shard(tmp_path / "set", tmp_path / "out") == 1
    assert failures_of(tmp_path / "out")[f"episode_000000/{KEY}"] == (
        "bad_rows",
        "file-000.parquet has no column next.reward",
    )


def test_what_is_asked_for_and_not_there_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_v3(tmp_path / "set", [episode_row(0, 30, 0.0)], frames=30)
    for more, sentence in (
        (["--state"], "--state asks for observation.state"),
        (["--state", "--frames-only"], "either"),
    ):
        assert shard(tmp_path / "set", tmp_path / "out", *more) == 1
        told = capsys.readouterr().err
        assert sentence in told and told.count("\n") == 1


def test_a_file_of_another_rate_is_told(tmp_path: Path) -> None:
    shutil.copytree(V21, tmp_path / "set")
    info = tmp_path / "set/meta/info.json"
    info.write_text(info.read_text().replace('"fps": 10,', '"fps": 30,', 1))
    assert json.loads(info.read_text())["fps"] == 30
    assert shard(tmp_path / "set", tmp_path / "out") == 1
    told = set(failures_of(tmp_path / "out").values())
    assert told == {("wrong_rate", "the file has 10 frames a second, info.json says 30")}


def test_cameras_are_a_column(tmp_path: Path) -> None:
    assert shard(V3, tmp_path / "all", "--frames-only") == 0
    where = ["--where", "camera~wrist", "--where", "num_frames>30"]
    assert main(["filter", str(tmp_path / "all"), *where, "--out", str(tmp_path / "wrist")]) == 0
    assert {row.camera for row in read_index(tmp_path / "wrist")} == {"observation.images.wrist"}
    assert sorted(row.num_frames for row in read_index(tmp_path / "wrist")) == [31, 40, 47, 52]


def test_plain_webdataset_and_datasets_see_them(tmp_path: Path) -> None:
    import datasets
    import webdataset as wds

    assert shard(V3, tmp_path / "out") == 0
    expected = {row.key: arrays["action"] for ((row, arrays),) in logs_of(tmp_path / "out").values()}
    tars = sorted(map(str, (tmp_path / "out/data").glob("*.tar")))
    plain = wds.WebDataset(tars, shardshuffle=False, empty_check=False).decode()
    found = {sample["__key__"]: sample["npz"]["action"] for sample in plain}
    streamed = datasets.load_dataset(str(tmp_path / "out"), split="train", streaming=True)
    streamed = streamed.cast_column("mp4", datasets.Video(decode=False))
    seen = {clip["__key__"]: np.array(clip["npz"]["action"]) for clip in streamed}
    for actions in (found, seen):
        assert actions.keys() == expected.keys()
        assert all(np.array_equal(actions[key], rows) for key, rows in expected.items())


def test_the_page_makes_an_agents_experience_of_a_robot_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commands of `cwm-dataprep`, as they stand there, on a set with rewards; what is left is what `finetune` is given."""
    place = tmp_path / "owner/name"
    shutil.copytree(V3, place)
    rows = sum(LENGTHS)
    columns = {"action": [[0.5] * 4] * rows, "next.reward": [1.0] * rows}
    write_logs(place, LENGTHS, columns)
    monkeypatch.chdir(tmp_path)
    page = [words for piece in pieces(ROOT / "docs/robot-data.md") for words in commands(piece)]
    for words in page:
        if words[0] == "cwm-dataprep" and len(words) > 2:
            small = ["--workers", "0", "--size", "16"] if words[1] == "lerobot" else []
            assert main([*words[1:], *small]) == 0
    (given,) = [words[words.index("--demonstrations") + 1] for words in page if "--demonstrations" in words]
    replay = Replay(capacity_steps=400, image_size=16, action_size=4, seed=0)
    agent = SimpleNamespace(episode_rows=8, learns_termination=True)
    assert seed_replay(replay, agent, given, action_size=4, image_size=16)[0] == 5  # and one is held out
