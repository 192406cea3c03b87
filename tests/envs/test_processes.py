"""Environments in processes of their own: the same episodes, at the same time, whatever signals come, and no process left behind."""

import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest

from cwm_hub.agents.replay import Replay
from cwm_hub.agents.rollout import Collector, RandomPolicy
from cwm_hub.envs.processes import make_process_envs
from cwm_hub.envs.table import make_env

SETTINGS = {"name": "uneven:make", "image_size": 16}
UNEVEN = """
import os
import numpy as np
from cwm_hub.envs.pixel_env import Outcome


class Uneven:
    \"\"\"Episodes of 3 to 8 steps; the 66th step of a process is its last where the environment says so.\"\"\"

    action_size, frames_per_second, episode_frames, steps = 2, 10.0, None, 0

    def reset(self, seed):
        self.draws = np.random.default_rng(seed)
        self.left, self.level = int(self.draws.integers(3, 9)), 128.0
        return {"visual_seed": self.left, "what": self}

    def step(self, action):
        self.left, self.steps = self.left - 1, self.steps + 1
        if str(self.steps) == os.environ.get("UNEVEN_DIES"):
            os._exit(9)
        self.level = float(np.clip(self.level + 40 * action[0] + self.draws.normal(), 0, 255))
        info = {"success": float(self.level > 200), "what": self}
        return Outcome(self.level / 255, terminated=self.left == 0, info=info)

    def draw(self):
        return np.full((16, 16, 3), int(self.level), np.uint8)

    def close(self):
        pass


def make(task, *, image_size, quality):
    return Uneven()
"""


@pytest.fixture(autouse=True)
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "uneven.py").write_text(UNEVEN)
    monkeypatch.syspath_prepend(str(tmp_path))


def collect(envs: list, steps: int) -> tuple[Replay, list]:
    replay = Replay(capacity_steps=500, image_size=16, action_size=2, seed=0)
    collector = Collector(envs, replay, seed=7)
    records = [record for _ in range(steps) for record in collector.step(RandomPolicy(2))]
    return replay, records


def test_the_replay_has_the_rows_of_environments_in_this_process() -> None:
    """Three at once, whose episodes end at different steps: 40 rounds of steps, also through signals to the processes."""
    here, expected = collect([make_env(**SETTINGS) for _ in range(3)], 40)
    envs = make_process_envs(3, **SETTINGS)
    pids = [env._process.pid for env in envs]
    assert len({os.getpid(), *pids}) == 4
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    there, records = collect(envs, 40)
    assert all(one.visual_seed == one.episode_steps for one in records)  # as its reset said
    assert records == expected and len(records) > 12 and len({one.episode_steps for one in records}) > 3
    assert {one.success for one in records} == {0.0, 1.0} and all(one.terminated for one in records)
    ours, theirs = (replay.sample_transitions(200, n_step=1, frame_stack=1) for replay in (here, there))
    for name in ("image", "action", "reward", "discount", "next_image"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
    for env in envs:
        env.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_what_make_env_refuses_is_refused_and_no_process_stays() -> None:
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(ValueError, match="unknown environment 'dumy'; did you mean 'dummy'"):
        make_process_envs(2, name="dumy")
    assert {child.pid for child in psutil.Process().children()} <= before


def test_a_process_has_one_thread_unless_told_and_its_death_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UNEVEN_DIES", "5")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("LP_NUM_THREADS", "3")
    envs = make_process_envs(1, **SETTINGS)
    given = psutil.Process(envs[0]._process.pid).environ()
    assert (given["OMP_NUM_THREADS"], given["LP_NUM_THREADS"]) == ("1", "3")
    with pytest.raises(ValueError, match="the process of uneven:make ended by itself, with exit code 9"):
        collect(envs, 9)
    envs[0].close()
