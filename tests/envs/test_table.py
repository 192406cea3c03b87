"""Names of environments, other people's environments by one hook, and gymnasium's own checker on all of ours."""

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from cwm_hub.envs import gl_problem, list_envs, make_env, register_env, scenes, table

needs_gl = pytest.mark.skipif(gl_problem() is not None, reason=str(gl_problem()))
LISTED = [name for name in list_envs() if not name.startswith("carla:")]  # which needs a server


class Slider(gymnasium.Env):
    """Another person's environment: a column of light to be moved, actions in [0, 4], seen in 40 x 20 pixels."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(0, 19, (), np.float32)
    action_space = gymnasium.spaces.Box(0.0, 4.0, (1,), np.float32)

    def __init__(self, render_mode: str | None = None):
        self.render_mode, self.place, self.taken = render_mode, 0, []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(20))
        return np.float32(self.place), {}

    def step(self, action):
        self.taken.append(float(action[0]))
        return np.float32(self.place), 2.0, len(self.taken) == 3, False, {"note": "hello"}

    def render(self):
        frame = np.zeros((40, 20, 3), np.uint8)
        frame[:, self.place] = 200
        return frame


def slider(task: str, *, image_size: int, quality: str, mode: str = "rgb_array") -> gymnasium.Env:
    return Slider(render_mode=mode)


@pytest.fixture(autouse=True)
def forget_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_registered", {})


@needs_gl
@pytest.mark.parametrize("name", LISTED)
def test_gymnasium_finds_nothing_wrong(name: str) -> None:
    env = make_env(name, image_size=16, render_quality="flat", episode_frames=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings(
            "ignore", message=".*(not using the default|render_modes|different from the unwrapped).*"
        )
        check_env(env, skip_render_check=True)
    env.close()


@needs_gl
@pytest.mark.parametrize("name", [*LISTED, "gym:InvertedPendulum-v5"])
def test_an_episode_follows_from_its_seed_alone(name: str) -> None:
    env = make_env(name, image_size=16, render_quality="flat")
    action = np.full(env.action_space.shape, 0.5, np.float32)

    def play(seed: int) -> list[Any]:
        frame, _ = env.reset(seed=seed)
        return [frame, *(env.step(action)[:2] for _ in range(3))]

    first, other, again = play(3), play(4), play(3)
    assert all(np.array_equal(a, b) for a, b in zip(first[0], again[0], strict=True))
    for (frame, reward), (same, equal) in zip(first[1:], again[1:], strict=True):
        assert np.array_equal(frame, same) and reward == equal
    assert not all(np.array_equal(a[0], b[0]) for a, b in zip(first[1:], other[1:], strict=True))
    env.close()


def test_a_registered_environment_is_seen_square_and_moved_within_its_own_bounds() -> None:
    register_env("mine", slider)
    env = make_env("mine:anything", image_size=10, action_repeat=2)
    frame, _ = env.reset(seed=1)
    inner = env.unwrapped.simulator._env
    # 40 x 20 pixels become 10 x 10 by area: the column of level 200 fills half of one of ten columns.
    assert frame.shape == (10, 10, 3)
    assert frame[:, inner.place // 2].tolist() == [[100, 100, 100]] * 10
    assert frame.sum() == 100 * 10 * 3
    # -1 is their 0, 1 their 4, and what lies beyond is cut; two frames a step, of reward 2 each; the third ends it.
    _, reward, terminated, truncated, info = env.step(np.array([-1.0], np.float32))
    assert (reward, terminated, truncated, info["note"]) == (4.0, False, False, "hello")
    _, reward, terminated, truncated, _ = env.step(np.array([7.0], np.float32))
    assert (reward, terminated, truncated) == (2.0, True, False)
    assert inner.taken == [0.0, 0.0, 4.0]
    assert "mine" in list_envs()


def test_a_maker_is_named_by_its_place_where_a_recipe_cannot_register(tmp_path: Path) -> None:
    (tmp_path / "my_lab.py").write_text(
        "from test_table import Slider\n"
        "def corridor(task, *, image_size, quality, mode='rgb_array'): return Slider(render_mode=mode)\n"
    )
    code = (
        "from cwm_hub.envs import make_env; env = make_env('my_lab:corridor', image_size=8);"
        "print(env.reset(seed=0)[0].shape, env.action_space)"
    )
    paths = [str(tmp_path), str(Path(__file__).parent), *sys.path]
    told = subprocess.check_output(
        [sys.executable, "-c", f"import sys; sys.path[:] = {paths!r}; {code}"], text=True
    )
    assert told.strip() == "(8, 8, 3) Box(-1.0, 1.0, (1,), float32)"


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: make_env("metawrld:reach"),
            "unknown environment 'metawrld:reach'; did you mean 'metaworld:reach'",
        ),
        (lambda: make_env("no_such_module:make"), "unknown environment"),
        (lambda: make_env("json:no_such_function"), "json has no 'no_such_function'"),
        (lambda: make_env("mine", options={"image_size": 3}), "mine takes no option image_size"),
        (lambda: make_env("gym:Reacher-v5", options={"task": "x"}), "takes no option task"),
        (lambda: make_env("mine", options={"mod": "human"}), "mine takes no option mod; did you mean 'mode'"),
        (lambda: make_env("mine", options={"mode": None}), "nothing draws"),
        (lambda: make_env("gym:Reacher-v4711"), "gym:Reacher-v4711: .*Reacher"),
        (lambda: make_env("gym:CartPole-v1"), "act by bounded vectors"),
        (lambda: make_env("dummy", action_repeat=3, episode_frames=20), "not a multiple of action_repeat=3"),
        (lambda: register_env("mine", slider), "there is a suite 'mine' already"),
        (lambda: register_env("a:b", slider), "no colon"),
    ],
)
def test_what_cannot_be_made_is_one_sentence(call: Any, sentence: str) -> None:
    register_env("mine", slider)
    with pytest.raises(ValueError, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_time_limit_counts_frames_and_not_steps() -> None:
    env = make_env("scenes", image_size=8, action_repeat=5)
    env.reset(seed=0)
    ends = [env.step(np.zeros(1, np.float32))[3] for _ in range(5)]
    assert ends == [False, False, False, False, True]  # 25 frames


def test_scenes_change_their_background_and_nothing_else_with_the_optimum_in_closed_form() -> None:
    env = make_env("scenes", image_size=32)
    simulator = env.unwrapped.simulator
    env.reset(seed=0)
    first = simulator.background
    env.reset(seed=1)
    assert np.abs(first - simulator.background).mean() > 0.1
    promised, total, ended = simulator.best_return(), 0.0, False
    while not ended:
        frame, reward, _, ended, info = env.step(simulator.best_action())
        total += reward
    assert total == pytest.approx(promised, abs=1e-4)  # actions are float32
    assert info["success"] == 1.0
    # The disc is the only white thing within its row's reach, the mark black: they stand one above the other.
    disc, mark = frame[21].min(-1).argmax(), frame[10].max(-1).argmin()
    assert abs(int(disc) - int(mark)) <= 1
    # Neither has a rim, which would cancel it in a blurred picture; the background lies between 0.25 and 0.75.
    assert frame[21].min() >= 63 and frame[10].max() <= 192


def test_in_clips_of_scenes_the_discs_place_does_not_follow_from_the_marks() -> None:
    clips = np.stack([scenes.scripted_clip(seed=seed, frames=40) for seed in range(40)])
    across = np.arange(32)
    white, black = clips[:, ::8, 21].min(-1) > 220, clips[:, ::8, 10].max(-1) < 35
    disc, mark = ((what * across).sum(-1) / what.sum(-1) for what in (white, black))
    assert (
        abs(np.corrcoef(disc.ravel(), mark.ravel())[0, 1]) < 0.3
    )  # 0.76 where the disc is steered under the mark
    assert disc.min() < 5 and disc.max() > 26  # and it comes to both ends of the track


def test_clips_of_scenes_follow_from_their_seed_and_move_before_a_still_background() -> None:
    clip, again, other = (scenes.scripted_clip(seed=seed, frames=30) for seed in (5, 5, 6))
    assert clip.shape == (30, 32, 32, 3) and np.array_equal(clip, again)
    assert np.abs(clip[0].astype(int) - other[0]).mean() > 25
    env = make_env("scenes", image_size=32)
    assert np.array_equal(env.reset(seed=5)[0], clip[0])
    assert (clip[1:, :2] == clip[0, :2]).all()  # above the mark nothing moves
    white = clip[:, 21].min(-1)
    assert (white[1:] != white[:-1]).any(-1).sum() > 20  # and the disc hardly ever stands still


@pytest.mark.parametrize("name", ["image_size", "action_repeat", "episode_frames"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_size_or_length_below_one_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} is at least 1, got {value}"):
        make_env("scenes", **{name: value})
