"""The seven factors of DMC Remastered (arXiv 2010.07040), each an edit of a compiled MuJoCo model in place.

| factor | what is drawn, U uniform |
|---|---|
| bg | a picture on all six faces of the sky |
| floor | a picture on the ground, three times to a plane's unit |
| body | colour of body and feet U(0, 1) a channel, opacity U(0.75, 1) |
| target | the same of the target's material |
| reflectance | of the ground U(0, 0.5) |
| camera | its place, and the hopper's angles: `CAMERAS`, `HOPPER_EULER` |
| light | headlight: ambient U(.1, .8) +- .05 a channel, diffuse U(.4, .9) +- .1, specular U(.05, .3) +- .02; the cheetah's lamp too |
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import mujoco

    from cwm_hub.envs.textures import MadeTextures, PictureTextures

FACTORS = ("bg", "floor", "body", "target", "reflectance", "camera", "light")
"""In the order of their random streams."""
Range = tuple[float, float]
CAMERAS: dict[str, tuple[Range, Range, Range]] = {
    "cheetah": ((-0.25, 0.25), (-3.2, -2.8), (-0.25, 0.25)),
    "hopper": ((-0.15, 0.15), (-3.0, -2.6), (0.6, 1.0)),
    "walker": ((-0.3, 0.3), (-2.05, -1.95), (0.6, 0.8)),
}
"""Domain -> ranges of the camera's x, y and z in metres, relative to the body."""
HOPPER_EULER: tuple[Range, Range, Range] = ((85.0, 95.0), (-5.0, 5.0), (-5.0, 5.0))
"""Degrees about x, y and z."""
CHEETAH_LAMP: tuple[Range, Range, Range] = ((-2.0, 2.0), (-2.0, 2.0), (1.0, 5.0))
"""Metres."""
HEADLIGHT: dict[str, tuple[Range, float]] = {
    "ambient": ((0.1, 0.8), 0.05),
    "diffuse": ((0.4, 0.9), 0.1),
    "specular": ((0.05, 0.3), 0.02),
}
"""Part of the headlight -> range of its grey, and how far a channel may lie from it."""
FLOOR_REPEAT = 3.0
ARRAYS = (
    "tex_data",
    "mat_rgba",
    "mat_reflectance",
    "mat_texrepeat",
    "cam_pos",
    "cam_quat",
    "light_pos",
)
"""Fields of a model that factors edit."""


class OwnLook:
    """What a freshly compiled model looks like, kept to go back to."""

    def __init__(self, model: "mujoco.MjModel"):
        self._arrays = {name: getattr(model, name).copy() for name in ARRAYS}
        self._headlight = {part: getattr(model.vis.headlight, part).copy() for part in HEADLIGHT}

    def restore(self, model: "mujoco.MjModel") -> None:
        """Undoes every factor but what the GL context holds of textures."""
        for name, value in self._arrays.items():
            getattr(model, name)[:] = value
        for part, value in self._headlight.items():
            getattr(model.vis.headlight, part)[:] = value
        _follow_edits(model)


def vary_look(
    model: "mujoco.MjModel",
    domain: str,
    visual_seed: int,
    *,
    vary: Sequence[str],
    textures: "MadeTextures | PictureTextures",
) -> None:
    """Edits the factors of `vary`; each has a stream of its own, so that leaving one out changes no other."""
    for factor in vary:
        draw = np.random.default_rng((visual_seed, FACTORS.index(factor)))
        EDITS[factor](model, domain, draw, textures)
    _follow_edits(model)


def _sky(model: Any, domain: str, draw: np.random.Generator, textures: Any) -> None:
    side, texels = _texels(model, "skybox")
    texels[:] = np.tile(textures.sky(draw), (len(texels) // side, 1, 1))


def _floor(model: Any, domain: str, draw: np.random.Generator, textures: Any) -> None:
    _, texels = _texels(model, "grid")
    texels[:] = textures.floor(draw)
    model.mat_texrepeat[_material(model, "grid")] = FLOOR_REPEAT


def _body(model: Any, domain: str, draw: np.random.Generator, textures: Any) -> None:
    for name in ("self", "effector"):
        model.mat_rgba[_material(model, name)] = _colour(draw)


def _target(model: Any, domain: str, draw: np.random.Generator, textures: Any) -> None:
    model.mat_rgba[_material(model, "target")] = _colour(draw)


def _reflectance(model: Any, domain: str, draw: np.random.Generator, textures: Any) -> None:
    model.mat_reflectance[_material(model, "grid")] = draw.uniform(0, 0.5)


def _camera(model: Any, domain: str, draw: np.random.Generator, textures: Any) -> None:
    import mujoco

    model.cam_pos[0] = [draw.uniform(*bounds) for bounds in CAMERAS[domain]]
    if domain == "hopper":
        angles = np.radians([draw.uniform(*bounds) for bounds in HOPPER_EULER])
        mujoco.mju_euler2Quat(model.cam_quat[0], angles, "xyz")


def _light(model: Any, domain: str, draw: np.random.Generator, textures: Any) -> None:
    for part, (grey, spread) in HEADLIGHT.items():
        getattr(model.vis.headlight, part)[:] = draw.uniform(*grey) + draw.uniform(-spread, spread, 3)
    if domain == "cheetah":
        model.light_pos[0] = [draw.uniform(*bounds) for bounds in CHEETAH_LAMP]


EDITS: dict[str, Callable[[Any, str, np.random.Generator, Any], None]] = {
    "bg": _sky,
    "floor": _floor,
    "body": _body,
    "target": _target,
    "reflectance": _reflectance,
    "camera": _camera,
    "light": _light,
}


def _colour(draw: np.random.Generator) -> list[float]:
    return [*draw.uniform(0, 1, 3), draw.uniform(0.75, 1)]


def _material(model: Any, name: str) -> int:
    import mujoco

    return mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_MATERIAL, name)


def _texels(model: Any, name: str) -> tuple[int, Any]:
    """Width of a texture, and a view of its texels [H, W, 3]."""
    import mujoco

    texture = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_TEXTURE, name)
    start, width, height = model.tex_adr[texture], model.tex_width[texture], model.tex_height[texture]
    channels = model.tex_nchannel[texture]
    data = model.tex_data[start : start + width * height * channels]
    return int(width), data.reshape(height, width, channels)


def _follow_edits(model: "mujoco.MjModel") -> None:
    """Lets what follows from places in the model follow: a tracking camera stays where it was compiled otherwise.

    MuJoCo also takes the model's extent anew, from a pose that is not the suite's: the near plane would then cut the
    body away, so that extent and centre are put back.
    """
    import mujoco

    extent, centre = model.stat.extent, model.stat.center.copy()
    mujoco.mj_setConst(model, mujoco.MjData(model))
    model.stat.extent, model.stat.center[:] = extent, centre
