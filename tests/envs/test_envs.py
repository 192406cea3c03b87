"""The environments by name, the dummy's known optimum, Meta-world's traps, and a machine without GL."""

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from cwm_hub.envs import gl_problem, list_envs, make_env
from recipes.render_clips import RenderConfig, clips
from recipes.run.folder import RecipeError

needs_gl = pytest.mark.skipif(gl_problem() is not None, reason=str(gl_problem()))
ROOT = Path(__file__).parents[2]


def play_best(seed: int) -> tuple[float, float, float]:
    env = make_env("dummy", image_size=16)
    env.reset(seed=seed)
    promised = env.unwrapped.simulator.best_return()
    total, success, ended = 0.0, 0.0, False
    while not ended:
        _, reward, _, ended, info = env.step(env.unwrapped.simulator.best_action())
        total += reward
        success = max(success, info["success"])
    return promised, total, success


@pytest.mark.parametrize("seed", range(5))
def test_dummy_optimum_is_what_the_closed_form_says(seed: int) -> None:
    promised, total, success = play_best(seed)
    assert total == pytest.approx(promised, abs=1e-4)  # actions are float32
    assert success == 1.0


def test_dummy_is_deterministic_and_beats_random_by_far_at_its_best() -> None:
    env = make_env("dummy", image_size=16)
    first, _ = env.reset(seed=4)
    again, _ = env.reset(seed=4)
    other, _ = env.reset(seed=5)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    rng = np.random.default_rng(0)
    scores = []
    for seed in range(20):
        env.reset(seed=seed)
        scores.append(sum(env.step(rng.uniform(-1, 1, 1))[1] for _ in range(20)))
    assert np.mean(scores) < 0.5 * np.mean([play_best(seed)[0] for seed in range(20)])


def test_dummy_frame_shows_the_bar_red_and_the_goal_green_where_they_are() -> None:
    env = make_env("dummy", image_size=64)
    frame, _ = env.reset(seed=0)
    dummy = env.unwrapped.simulator
    for channel, centre in ((0, dummy.bar), (1, dummy.goal)):
        assert dummy.pixels[frame[5, :, channel].argmax()] == pytest.approx(centre, abs=0.03)


def test_action_repeat_sums_rewards_and_episode_frames_cut() -> None:
    once, twice = make_env("dummy"), make_env("dummy", action_repeat=2, episode_frames=6)
    once.reset(seed=1), twice.reset(seed=1)
    action = np.array([0.3], np.float32)
    total = once.step(action)[1] + once.step(action)[1]
    assert twice.step(action)[1] == pytest.approx(total)
    ends = [twice.step(action)[3] for _ in range(2)]
    assert ends == [False, True]


@pytest.mark.parametrize("name", ["metaworld", "metaword:reach", "dummy:x", ""])
def test_unknown_environment_is_one_sentence_that_lists_the_known(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown environment .* metaworld:reach"):
        make_env(name)


def test_all_six_tasks_of_the_paper_are_listed() -> None:
    assert len([name for name in list_envs() if name.startswith("metaworld:")]) == 6


def test_envs_import_neither_torch_nor_a_simulator() -> None:
    code = "import sys, cwm_hub.envs.table; print([m for m in ('torch', 'mujoco', 'metaworld') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_machine_without_gl_gets_one_sentence_saying_what_to_install(tmp_path: Path) -> None:
    environment = os.environ | {"MUJOCO_GL": "osmesa", "PYOPENGL_PLATFORM": "nowhere"}
    code = "from cwm_hub.envs import gl_problem, make_env; print(gl_problem()); make_env('metaworld:reach')"
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "apt-get install" in result.stdout
    assert "RenderingError" in result.stderr
    clips = subprocess.run(
        [sys.executable, "recipes/render_clips.py", "--out", str(tmp_path)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert clips.returncode == 3
    assert clips.stderr.count("\n") == 1
    assert "apt-get install" in clips.stderr


def test_scenes_are_filmed_without_gl_and_only_what_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, "recipes/render_clips.py", "--env", "scenes", "--out", str(tmp_path)]
    command += ["--seeds", "[3, 4]", "--frames", "6", "--image_size", "16"]
    environment = os.environ | {"MUJOCO_GL": "osmesa", "PYOPENGL_PLATFORM": "nowhere"}
    told = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment
    ).stdout
    assert (
        told.startswith(f"2 of 2 videos\n2 videos in {tmp_path}, 2 of them new, ") and told.count("\n") == 2
    )
    first, second = (tmp_path / f"scenes_{seed}.mp4" for seed in (3, 4))
    with av.open(str(first)) as container:
        assert [frame.width for frame in container.decode(video=0)] == [16] * 6
    second.write_bytes(b"kept")
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=environment)
    assert second.read_bytes() == b"kept"


def test_clips_of_scenes_can_share_a_few_backgrounds() -> None:
    """The top rows show neither disc nor mark; five clips before two backgrounds, in turn."""
    drawn = clips(RenderConfig(out="", env="scenes", count=5, first_seed=7, backgrounds=2, frames=2))
    assert list(drawn) == [f"scenes_{seed}" for seed in range(7, 12)]
    tops = [draw()[0, :3].tobytes() for draw in drawn.values()]
    assert tops[0] == tops[2] == tops[4] != tops[1] == tops[3]
    alone = clips(RenderConfig(out="", env="scenes", count=1, first_seed=7, frames=2))["scenes_7"]()
    assert np.array_equal(alone, next(iter(drawn.values()))())
    with pytest.raises(RecipeError, match="not both"):
        clips(RenderConfig(out="", env="scenes", count=5, seeds=[1]))
    with pytest.raises(RecipeError, match="at least 1, got 0"):
        clips(RenderConfig(out="", env="scenes", backgrounds=0))


@needs_gl
def test_unknown_metaworld_task_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'drawer-open'"):
        make_env("metaworld:drawer-opn")


@needs_gl
def test_metaworld_goals_follow_the_reset_seed_and_nothing_else() -> None:
    env = make_env("metaworld:reach", image_size=32, render_quality="flat")
    try:
        first, _ = env.reset(seed=3)
        goal = env.unwrapped.simulator.env._target_pos.copy()
        np.random.seed(0)
        for _ in range(3):
            env.step(env.action_space.sample())
        env.reset(seed=4)
        assert not np.allclose(env.unwrapped.simulator.env._target_pos, goal)
        again, _ = env.reset(seed=3)
        assert np.array_equal(first, again)
        assert np.array_equal(env.unwrapped.simulator.env._target_pos, goal)
        env.reset()
        assert not np.allclose(env.unwrapped.simulator.env._target_pos, goal)
    finally:
        env.close()


@needs_gl
def test_first_frame_shows_the_episode_it_begins() -> None:
    """Without `mj_forward` after reset the drawer is drawn where the episode before left it."""
    import mujoco

    env = make_env("metaworld:drawer-open", image_size=32, render_quality="flat")
    try:
        simulator = env.unwrapped.simulator.env
        moved = []
        for seed in range(3):
            env.reset(seed=seed)
            drawn = simulator.data.xpos.copy()
            mujoco.mj_forward(simulator.model, simulator.data)
            assert np.allclose(drawn, simulator.data.xpos, atol=1e-9)
            simulator.seed(seed)
            simulator.reset()
            moved.append(np.abs(simulator.data.xpos - drawn).max())
        assert max(moved) > 0.01  # the trap is still there in the bare simulator
    finally:
        env.close()


@needs_gl
def test_corner_camera_is_upright() -> None:
    """The robot's base is at the bottom left, and the plain grey wall at the top right."""
    env = make_env("metaworld:reach", image_size=64, render_quality="flat")
    try:
        frame, _ = env.reset(seed=0)
        assert frame.shape == (64, 64, 3)
        assert frame.dtype == np.uint8
        red = (frame[..., 0].astype(int) - frame[..., 1]) > 60
        assert red[:, :32].sum() > 2 * red[:, 32:].sum()
        assert frame[:8, 48:].std() < 5 < frame[-8:, :16].std()
    finally:
        env.close()


@needs_gl
def test_torch_optimisers_live_beside_software_gl() -> None:
    """Mesa's LLVM and triton's clash where triton comes second: torch imports it with the first optimiser."""
    code = (
        "from cwm_hub.envs import make_env; env = make_env('metaworld:reach', render_quality='flat', image_size=16);"
        "env.reset(seed=0); import torch; torch.optim.Adam([torch.zeros(1, requires_grad=True)]); env.close()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_gl
def test_two_environments_draw_side_by_side() -> None:
    """gymnasium's viewer draws garbage here: it does not make its own context current."""
    first = make_env("metaworld:reach", image_size=32, render_quality="flat")
    alone, _ = first.reset(seed=0)
    second = make_env("metaworld:door-lock", image_size=32, render_quality="flat")
    try:
        second.reset(seed=0)
        assert np.array_equal(first.unwrapped.render(), alone)
    finally:
        first.close(), second.close()


@needs_gl
def test_qualities_approach_the_exact_frame_in_their_order() -> None:
    frames = {}
    for quality in ("exact", "close", "fast", "flat"):
        env = make_env("metaworld:reach", render_quality=quality)
        frames[quality], _ = env.reset(seed=0)
        env.close()
    error = {q: np.square(f.astype(float) - frames["exact"]).mean() for q, f in frames.items()}
    assert 0 < error["close"] < error["fast"] < error["flat"]
    assert 10 * np.log10(255**2 / error["close"]) > 38
    assert 10 * np.log10(255**2 / error["flat"]) > 26


@needs_gl
@pytest.mark.slow
@pytest.mark.parametrize("task", [name for name in list_envs() if name.startswith("metaworld:")])
def test_scripted_expert_solves_every_task_of_the_paper(task: str) -> None:
    env = make_env(task, image_size=16, render_quality="flat")
    try:
        env.reset(seed=0)
        solved = False
        for _ in range(200):
            solved = env.step(env.unwrapped.simulator.scripted_action())[4]["success"] == 1.0
            if solved:
                break
        assert solved
    finally:
        env.close()


@needs_gl
def test_rendered_clip_is_the_same_again_and_moves() -> None:
    from cwm_hub.envs.metaworld import scripted_clip

    options = {"frames": 6, "image_size": 32, "quality": "flat"}
    clip = scripted_clip("door-lock", seed=1, **options)
    assert clip.shape == (6, 32, 32, 3)
    assert np.array_equal(clip, scripted_clip("door-lock", seed=1, **options))
    assert not np.array_equal(clip, scripted_clip("door-lock", seed=2, **options))
    assert np.abs(clip[-1].astype(int) - clip[0]).mean() > 1
