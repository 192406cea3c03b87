"""The paper's problem in miniature: simple dynamics before a background that is another one in every episode.

A disc is steered sideways under a mark. What must be controlled is one number; what fills the picture, a random scene
of waves, boxes and colours, is drawn anew at each reset and has nothing to do with the task: context, in the paper's
word. It is small enough that an agent learns it within minutes on a CPU.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from cwm_hub.envs.pixel_env import Outcome

EPISODE_FRAMES = 25
SPEED = 0.25
"""Way of the disc in a frame at full action; the track is [-1, 1]."""
BEST_REWARD = 10.0
GOAL_RADIUS = 0.1
TRACK = 0.8
"""Half of the track's length, as a share of half the picture."""
SIZE = 0.26
"""Radius of disc and mark, as a share of half the picture."""
HEIGHTS = {"disc": 0.35, "mark": -0.35}
"""Row of each, from -1 (top) to 1."""
WAVES = 2
BOXES = 2
STAY_FRAMES = 8
"""Frames of a scripted clip between one place to steer to and the next."""


def make(task: str, *, image_size: int, quality: str) -> "Scenes":
    """The one task of this suite; it is drawn without GL, so that `quality` says nothing."""
    if task:
        raise ValueError(f"scenes has no tasks, got {task!r}")
    return Scenes(image_size=image_size)


def scripted_clip(
    *,
    seed: int,
    scene: int | None = None,
    frames: int = EPISODE_FRAMES,
    image_size: int = 32,
    action_noise: float = 0.3,
) -> UInt8[np.ndarray, "T H W 3"]:
    """Someone steers the disc to places of their own, a new one every `STAY_FRAMES`, with noise on the actions.

    The places have nothing to do with the mark. Were it steered under the mark, as the task wants it, one number would
    describe a clip, and a model of such clips need not tell disc from mark.

    Args:
        seed: of everything that moves, and of the background where no `scene` is given.
        scene: seed whose background is behind it, so that clips can share one.
    """
    simulator = Scenes(image_size=image_size)
    draw = np.random.default_rng(seed)
    if scene is not None:
        simulator.reset(scene)
        background = simulator.background
    simulator.reset(seed)
    if scene is not None:
        simulator.background = background
    clip = [simulator.draw()]
    for at in range(frames - 1):
        if at % STAY_FRAMES == 0:
            place = draw.uniform(-1, 1)
        action = (place - simulator.disc) / SPEED + action_noise * draw.standard_normal(1)
        simulator.step(np.clip(action, -1, 1))
        clip.append(simulator.draw())
    return np.stack(clip)


class Scenes:
    """One action moves the disc by up to 0.25 a frame on [-1, 1]; no physics, no GL.

    Reward of a frame: 10 * (1 - |disc - mark|), from -10 to 10. `info["success"]` is 1.0 within 0.1 of the mark.
    Disc, mark and background follow from the seed.
    """

    action_size = 1
    frames_per_second = 10.0
    episode_frames = EPISODE_FRAMES

    def __init__(self, *, image_size: int):
        axis = (np.arange(image_size) + 0.5) / image_size * 2 - 1
        self._y, self._x = np.meshgrid(axis, axis, indexing="ij")
        self._edge = 2 / image_size
        self._random = np.random.default_rng()
        self.disc = self.mark = 0.0
        self.background = np.zeros((image_size, image_size, 3))

    def reset(self, seed: int | None) -> dict[str, Any]:
        """Draws disc, mark and background."""
        if seed is not None:
            self._random = np.random.default_rng(seed)
        self.disc, self.mark = map(float, self._random.uniform(-1, 1, 2))
        self.background = self._scene()
        return {"success": self._success()}

    def step(self, action: Float[np.ndarray, "A"]) -> Outcome:
        """Moves the disc."""
        self.disc = float(np.clip(self.disc + SPEED * action[0], -1, 1))
        reward = BEST_REWARD * (1 - abs(self.disc - self.mark))
        return Outcome(reward, info={"success": self._success()})

    def draw(self) -> UInt8[np.ndarray, "H W 3"]:
        """A white disc below a black mark, on the background.

        Neither has a rim of the other colour: in a blurred picture it would cancel its disc, and a decoder, which
        begins with blurred pictures, would gain nothing from knowing where they are (2 nats a frame with rims, 25
        without, of the 30 that the exact place is worth at 32 pixels).
        """
        frame = self.background.copy()
        for name, place, level in (("disc", self.disc, 1.0), ("mark", self.mark, 0.0)):
            distance = np.hypot(self._x - TRACK * place, self._y - HEIGHTS[name])
            cover = np.clip((SIZE - distance) / self._edge + 0.5, 0, 1)[..., None]
            frame = cover * level + (1 - cover) * frame
        return (255 * frame).round().astype(np.uint8)

    def close(self) -> None:
        """Nothing is held."""

    def best_action(self) -> Float[np.ndarray, "A"]:
        """The optimal action here: straight under the mark, at full speed."""
        return np.clip([(self.mark - self.disc) / SPEED], -1, 1).astype(np.float32)

    def best_return(self, frames: int = EPISODE_FRAMES) -> float:
        """The highest return to be had from here in so many frames, in closed form."""
        distance = np.maximum(0, abs(self.mark - self.disc) - SPEED * np.arange(1, frames + 1))
        return float(BEST_REWARD * (1 - distance).sum())

    def _success(self) -> float:
        return float(abs(self.disc - self.mark) < GOAL_RADIUS)

    def _scene(self) -> Float[np.ndarray, "H W 3"]:
        """Waves of random length, direction and colour, and boxes of one colour on them; between 0.25 and 0.75."""
        draw = self._random
        scene = np.broadcast_to(draw.uniform(0.3, 0.7, 3), self.background.shape).copy()
        for _ in range(WAVES):
            angle, length, phase = draw.uniform(0, np.pi), draw.uniform(0.3, 2.0), draw.uniform(0, 2 * np.pi)
            along = self._x * np.cos(angle) + self._y * np.sin(angle)
            scene += 0.2 * np.sin(2 * np.pi * along / length + phase)[..., None] * draw.uniform(-1, 1, 3)
        for _ in range(BOXES):
            centre, half, colour = (
                draw.uniform(-1, 1, 2),
                draw.uniform(0.1, 0.4, 2),
                draw.uniform(0.25, 0.75, 3),
            )
            inside = (abs(self._x - centre[0]) < half[0]) & (abs(self._y - centre[1]) < half[1])
            scene[inside] = colour
        return scene.clip(0.25, 0.75)
