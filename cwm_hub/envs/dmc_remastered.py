"""DMC Remastered (arXiv 2010.07040): the Control suite with a new look in every episode, `dmcr:walker_run`.

Written anew on dm_control's own models; seven factors with the ranges of the original. One compiled model is edited in
place at each reset. Deviations: textures are made here, from waves and noise, in place of photographs that may not be
passed on (`assets_dir` takes the user's copy of the originals); every factor has a random stream of its own, where
the original's are drawn from two that begin alike; the sky has 256 texels a side, not 800.

Which looks an episode may have follows from the options: `looks=None` any of a million (the paper, for training and
evaluation alike), `looks=n` one of n fixed ones (training of *generalisation*, evaluated with None), `looks=0` the
suite's own look (evaluation of *sim2real*), and `visual_seed=k` always the look k (*classic*).
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from cwm_hub.config import nearest
from cwm_hub.envs.dm_control import load_task
from cwm_hub.envs.pixel_env import Outcome
from cwm_hub.envs.rendering import FrameRenderer, QualityName
from cwm_hub.envs.textures import MadeTextures, PictureTextures
from cwm_hub.envs.visual_factors import CAMERAS, FACTORS, OwnLook, vary_look

LOOKS = 1_000_000
TEXELS = 256
"""Side of a face of the sky and of the floor's texture."""
LOOK_STREAM = 7
"""Apart from the stream of an episode's start, which has the same seed."""
NOT_VARIED = {"hopper": ("camera",)}
"""What the paper leaves alone."""


def make(
    task: str,
    *,
    image_size: int,
    quality: QualityName,
    vary: Sequence[str] | None = None,
    looks: int | None = None,
    visual_seed: int | None = None,
    assets_dir: str | None = None,
) -> "DmcRemastered":
    """One of cheetah_run, hopper_stand and walker_run, or another task of these three domains.

    Args:
        task: `domain_task`.
        image_size: side of a frame in pixels.
        quality: of rendering.
        vary: factors that change, of `FACTORS`; None: all (hopper: all but the camera, as the paper has it).
        looks: how many looks there are, see the module; None for any.
        visual_seed: the one look to take; 0 is the suite's own.
        assets_dir: folder with `bg/` and `floor/` of pictures to take in place of made textures, in the order of names.

    Raises:
        ValueError: another domain, an unknown factor, or a folder without pictures.
    """
    return DmcRemastered(
        task,
        image_size=image_size,
        quality=quality,
        vary=vary,
        looks=looks,
        visual_seed=visual_seed,
        textures=MadeTextures(TEXELS) if assets_dir is None else PictureTextures(assets_dir, TEXELS),
    )


class DmcRemastered:
    """A Control suite task whose look is drawn at each reset; `info["visual_seed"]` says which."""

    def __init__(
        self,
        task: str,
        *,
        image_size: int,
        quality: QualityName,
        vary: Sequence[str] | None,
        looks: int | None,
        visual_seed: int | None,
        textures: MadeTextures | PictureTextures,
    ):
        self.domain = re.split("[_-]", task)[0]
        if self.domain not in CAMERAS:
            raise ValueError(
                f"dmcr has tasks of {', '.join(CAMERAS)}, got {task!r}{nearest(self.domain, CAMERAS)}"
            )
        unknown = [name for name in vary or () if name not in FACTORS]
        if unknown:
            raise ValueError(
                f"unknown factor {unknown[0]!r} of {', '.join(FACTORS)}{nearest(unknown[0], FACTORS)}"
            )
        left = NOT_VARIED.get(self.domain, ())
        self._vary = tuple(vary) if vary is not None else tuple(f for f in FACTORS if f not in left)
        self._looks, self._fixed, self._textures = looks, visual_seed, textures
        self.env = load_task(task)
        self.env.physics.reload_from_xml_string(*_small_sky(self.domain))
        self._model = self.env.physics.model.ptr
        self._own_look = OwnLook(self._model)
        self._renderer = FrameRenderer(
            self._model, self.env.physics.data.ptr, camera=0, image_size=image_size, quality=quality
        )
        self._seeds = np.random.default_rng()
        self.action_size = int(self.env.action_spec().shape[0])
        self.frames_per_second = 1 / float(self.env.control_timestep())
        self.episode_frames = round(self.env._step_limit)

    def reset(self, seed: int | None) -> dict[str, Any]:
        """Draws the look and the start of an episode."""
        if seed is not None:
            self._seeds = np.random.default_rng((seed, LOOK_STREAM))
            self.env.task._random = np.random.RandomState(seed)
        visual_seed = self._fixed if self._fixed is not None else self._draw_seed()
        self.set_look(visual_seed)
        self.env.reset()
        return {"visual_seed": visual_seed}

    def step(self, action: Float[np.ndarray, "A"]) -> Outcome:
        """One control step; the three domains never terminate."""
        now = self.env.step(action.astype(np.float64))
        return Outcome(float(now.reward), truncated=now.last())

    def draw(self) -> UInt8[np.ndarray, "H W 3"]:
        """The frame of the present state."""
        return self._renderer()

    def close(self) -> None:
        """Frees the GL context."""
        self._renderer.close()

    def set_look(self, visual_seed: int) -> None:
        """Gives the model the look of this number; 0 is the suite's own."""
        self._own_look.restore(self._model)
        if visual_seed:
            vary_look(self._model, self.domain, visual_seed, vary=self._vary, textures=self._textures)
        self._renderer.upload_textures()
        self.env.physics.forward()  # cameras and lamps that track a body

    def _draw_seed(self) -> int:
        if self._looks == 0:
            return 0
        return int(self._seeds.integers(1, (self._looks or LOOKS) + 1))


def _small_sky(domain: str) -> tuple[str, dict[str, bytes]]:
    """The suite's model of a domain with textures of `TEXELS`: its sky of 800 texels a side takes 200 ms to change."""
    from importlib import import_module

    xml, assets = import_module(f"dm_control.suite.{domain}").get_model_and_assets()
    changed = dict(assets)
    for name in ("./common/skybox.xml", "./common/materials.xml"):
        text = changed[name].decode()
        changed[name] = re.sub(r'(width|height)="\d+"', rf'\1="{TEXELS}"', text).encode()
    return xml, changed
