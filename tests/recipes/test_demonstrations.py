"""The replay begins with logged episodes: whole ones, their pieces joined; what does not fit the task is one sentence."""

from pathlib import Path

import numpy as np
import pytest
from synthetic_shards import numbered_frames, write_data_set
from test_finetune import arguments, main

from cwm_hub.agents.replay import Replay
from recipes.run.demonstrations import seed_replay
from recipes.run.folder import RecipeError, read_rows


class Learner:
    """What seeding asks of an agent."""

    episode_rows = 8
    learns_termination = True


def write_episode(
    root: Path, *, pieces: tuple[tuple[int, int], ...] = ((0, 12), (8, 20)), **changes: object
) -> Path:
    """One episode of 20 frames: action t / 100, reward t; it ends by itself."""
    rows = np.arange(20, dtype=np.float32)
    arrays = {"action": rows[:, None] / 100, "reward": rows, "is_terminal": rows == 19} | changes
    arrays = {name: values for name, values in arrays.items() if values is not None}
    clips = [
        (
            numbered_frames(3, start, stop),
            {
                "key": f"a_{start}", "source": "a", "source_frames": 20, "start_frame": start, "camera": "front",
                "arrays": {name: values[start:stop] for name, values in arrays.items()},
            },
        )
        for start, stop in pieces
    ]  # fmt: skip
    return write_data_set(root, {"train": clips}, name="demonstrations")


def seed(root: Path, *, agent: object = Learner, action_size: int = 1, image_size: int = 8) -> Replay:
    replay = Replay(capacity_steps=100, image_size=8, action_size=1, seed=0)
    assert seed_replay(replay, agent, str(root), action_size=action_size, image_size=image_size) == (1, 19)
    return replay


def test_pieces_are_one_episode(tmp_path: Path) -> None:
    replay = seed(write_episode(tmp_path))
    assert (replay.episodes, replay.steps) == (1, 19)
    batch = replay.sample_sequences(2, 20)
    assert batch.image[0, :, 1, 0, 0].tolist() == list(range(20))
    assert batch.reward[0].tolist() == list(range(20))
    assert batch.action[0, :, 0] == pytest.approx(np.arange(20) / 100)
    assert batch.is_terminal[0].tolist() == [False] * 19 + [True]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"reward": None}, "holds no reward beside its clips"),
        ({"action": np.zeros((20, 2), np.float32)}, "actions of 2 numbers and the environment takes 1"),
        (
            {"action": np.full((20, 1), 1.5, np.float32)},
            r"a has an action of 1.5, and those of an environment lie in",
        ),
        ({"is_terminal": np.arange(20) == 4}, "goes on after its end"),
        ({"pieces": ((0, 8), (12, 20))}, "frames 8 to 11 of a are missing"),
        ({"pieces": ((0, 12),)}, "frames 12 to 19 of a are missing"),
    ],
)
def test_what_is_no_experience_of_the_task_is_one_sentence(
    changes: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=sentence):
        seed(write_episode(tmp_path, **changes))  # type: ignore[arg-type]


def test_agents_and_sizes_that_do_not_fit_are_one_sentence(tmp_path: Path) -> None:
    root = write_episode(tmp_path)

    class TimeLimits(Learner):
        learns_termination = False

    class LongSequences(Learner):
        episode_rows = 50

    for wrong, sentence in (
        ({"agent": TimeLimits}, r"a ends by itself \(is_terminal\)"),
        ({"agent": LongSequences}, "has 20 frames and the agent learns from 50 at once"),
        ({"image_size": 32}, "frames of 8 pixels and env.image_size is 32"),
    ):
        with pytest.raises(RecipeError, match=sentence):
            seed(root, **wrong)


def test_a_run_learns_from_them_and_resumes(tmp_path: Path) -> None:
    rows = np.zeros(30, np.float32)
    frames = np.zeros((30, 32, 32, 3), np.uint8)
    clip = {"key": "a", "source": "a", "arrays": {"action": np.zeros((30, 1), np.float32), "reward": rows}}
    demonstrations = write_data_set(tmp_path / "set", {"train": [(frames, clip)]}, name="set")
    options = {
        "demonstrations": demonstrations,
        "agent_steps": 20,
        "replay_steps": 400,
        "checkpoint_every_steps": 10,
    }
    assert main(arguments(tmp_path / "run", **options)) == 0
    assert len(list((tmp_path / "run/replay").glob("episode-*.npz"))) == 1 + len(
        read_rows(tmp_path / "run/episodes.jsonl")
    )
    assert main(arguments(tmp_path / "run", **options | {"agent_steps": 40})) == 0
