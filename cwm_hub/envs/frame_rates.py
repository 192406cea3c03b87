"""How many frames a second this machine draws, at each render quality, of what training draws."""

import copy
import time
from collections.abc import Iterator

from cwm_hub.envs.metaworld import CAMERA, Metaworld
from cwm_hub.envs.rendering import QUALITIES, FrameRenderer

TASK = "reach"


def frame_rates(*, image_size: int = 64, seconds: float = 0.2) -> Iterator[tuple[str, float]]:
    """`(render quality, frames a second)`: Meta-world's reach, by the clock, in one process, without physics.

    Args:
        image_size: side of the frame in pixels.
        seconds: for each quality, after one frame that is not counted; a frame that takes longer is waited for.

    Raises:
        RenderingError: there is no headless GL here.
    """
    simulator = Metaworld(TASK, image_size=image_size, quality="exact")
    simulator.close()  # compiling the scene is most of the time: its model is drawn at every quality
    import mujoco  # after the simulator, which chooses the GL first

    for quality in QUALITIES:
        model = copy.copy(simulator.env.model)
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        draw = FrameRenderer(model, data, camera=CAMERA, image_size=image_size, quality=quality)  # type: ignore[arg-type]
        draw()
        began, frames, passed = time.perf_counter(), 0, 0.0
        while passed < seconds:
            draw()
            frames, passed = frames + 1, time.perf_counter() - began
        draw.close()
        yield quality, frames / passed
