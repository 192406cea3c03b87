"""DMC Remastered: factors one by one, within their ranges, as functions of the visual seed; which looks an episode has."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cwm_hub.envs import gl_problem, make_env
from cwm_hub.envs.visual_factors import CAMERAS, FACTORS

pytestmark = pytest.mark.skipif(gl_problem() is not None, reason=str(gl_problem()))


def made(task: str = "walker_run", **options):
    return make_env(f"dmcr:{task}", image_size=24, render_quality="flat", options=options)


@pytest.mark.parametrize("factor", FACTORS)
def test_a_factor_alone_changes_the_picture_and_its_own_part_of_the_model(factor: str) -> None:
    # The two materials of the walker are `self` alone: its target is not in the picture.
    task = "cheetah_run" if factor == "light" else "walker_run"
    env = made(task, vary=[factor])
    simulator = env.unwrapped.simulator
    model = simulator._model
    own, _ = env.reset(seed=0)
    simulator.set_look(0)
    own = env.render()
    before = {
        name: getattr(model, name).copy() for name in ("mat_rgba", "mat_reflectance", "cam_pos", "tex_data")
    }
    simulator.set_look(5)
    changed = {name for name, value in before.items() if not np.array_equal(value, getattr(model, name))}
    expected = {
        "bg": {"tex_data"},
        "floor": {"tex_data"},
        "body": {"mat_rgba"},
        "target": {"mat_rgba"},
        "reflectance": {"mat_reflectance"},
        "camera": {"cam_pos"},
        "light": set(),
    }
    assert changed == expected[factor]
    moved = np.abs(env.render().astype(int) - own).mean()
    assert moved > 0 or factor in ("target", "reflectance")  # `flat` draws no reflections
    simulator.set_look(0)
    assert np.array_equal(env.render(), own)
    env.close()


def test_the_camera_stays_within_its_ranges_and_really_moves_the_picture() -> None:
    env = made(vary=["camera"])
    simulator = env.unwrapped.simulator
    env.reset(seed=0)
    pictures, places = [], []
    for look in range(1, 30):
        simulator.set_look(look)
        pictures.append(env.render())
        places.append(simulator._model.cam_pos[0].copy())
    low, high = np.array(CAMERAS["walker"]).T
    assert (np.array(places) >= low).all() and (np.array(places) <= high).all()
    assert np.ptp(places, axis=0) == pytest.approx(high - low, rel=0.35)
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)
    # A body before the camera in every one: mj_setConst without the extent put back cuts it away.
    assert all((picture[..., 0] > 120).mean() > 0.01 for picture in pictures)
    env.close()


def test_one_factor_left_out_changes_no_other() -> None:
    whole, less = made(), made(vary=[name for name in FACTORS if name != "bg"])
    for env in (whole, less):
        env.unwrapped.simulator.set_look(11)
    assert np.array_equal(*(env.unwrapped.simulator._model.mat_rgba for env in (whole, less)))
    assert np.array_equal(*(env.unwrapped.simulator._model.cam_pos for env in (whole, less)))
    whole.close(), less.close()


@pytest.mark.parametrize(
    ("options", "seeds"),
    [
        ({}, lambda found: len(found) == 12 and max(found) > 1000),
        ({"looks": 3}, lambda found: found == {1, 2, 3}),
        ({"looks": 0}, lambda found: found == {0}),
        ({"visual_seed": 8}, lambda found: found == {8}),
    ],
    ids=["paper", "generalisation", "sim2real", "classic"],
)
def test_protocols_choose_the_looks(options, seeds) -> None:
    env = made("hopper_stand", vary=["body"], **options)
    assert seeds({env.reset(seed=seed)[1]["visual_seed"] for seed in range(12)})
    env.close()


def test_the_hopper_keeps_its_camera_as_the_paper_has_it() -> None:
    env = made("hopper_stand")
    simulator = env.unwrapped.simulator
    before = simulator._model.cam_pos[0].copy()
    env.reset(seed=3)
    assert np.array_equal(simulator._model.cam_pos[0], before)
    env.close()


def test_pictures_of_the_users_own_folder_are_taken_in_the_order_of_their_names(tmp_path: Path) -> None:
    for folder, level in (("bg", 250), ("floor", 3)):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.full((5, 7, 3), level, np.uint8)).save(tmp_path / folder / "a.png")
    env = made(vary=["bg"], assets_dir=str(tmp_path))
    env.reset(seed=0)
    assert env.render()[0].min() > 150  # the upper edge shows the sky
    env.close()
    with pytest.raises(ValueError, match="holds no picture"):
        made(assets_dir=str(tmp_path / "floor"))


@pytest.mark.parametrize(
    ("task", "options", "sentence"),
    [
        ("acrobot_swingup", {}, "dmcr has tasks of cheetah, hopper, walker"),
        ("walker_fly", {}, "unknown task 'walker_fly'"),
        ("walker_run", {"vary": ["lights"]}, "did you mean 'light'"),
    ],
)
def test_what_cannot_be_made_is_one_sentence(task: str, options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        made(task, **options)
