"""Headless frames of any MuJoCo model, and whether this machine can draw them at all.

One renderer for every MuJoCo domain, on `mujoco.Renderer`: gymnasium's off-screen viewer does not make its GL
context current, so that two tasks in one process draw garbage (Gymnasium issue 736).
"""

import contextlib
import functools
import importlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import UInt8

if TYPE_CHECKING:
    import mujoco

QualityName = Literal["exact", "close", "fast", "flat", "auto"]

INSTALL_GL = "apt-get install libegl1 libgl1-mesa-dri"
BACKENDS = ("egl", "osmesa")
"""Values of MUJOCO_GL that need no display, the one to prefer first."""
SOFTWARE_RASTERISERS = ("llvmpipe", "softpipe", "swrast", "SWR")
PROBE_SECONDS = 60
PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><light pos='0 0 2'/><geom size='1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 16, 16)
renderer.update_scene(data)
assert renderer.render().max() > 0, "a black frame"
from OpenGL import GL
print("DEVICE", GL.glGetString(GL.GL_RENDERER).decode())
renderer.close()
"""


@dataclass(frozen=True)
class RenderQuality:
    """What a frame costs and how near it is to MuJoCo's own default.

    Meta-world reach, `corner`, 64x64, software GL, against the default: see QUALITIES.
    """

    supersample: int = 1
    """Side of the pixel block that is drawn and averaged into one pixel."""
    multisamples: int | None = None
    """Hardware samples per pixel; None keeps the model's own."""
    shadow_size: int | None = None
    """Side of the shadow map in texels; None keeps the model's own (4096)."""
    shadows_and_reflections: bool = True
    """Each shadow light and each reflecting plane draws the whole scene once more."""


QUALITIES: dict[str, RenderQuality] = {
    "exact": RenderQuality(),
    "close": RenderQuality(shadow_size=512),
    "fast": RenderQuality(supersample=2, multisamples=0, shadow_size=512),
    "flat": RenderQuality(supersample=2, multisamples=0, shadows_and_reflections=False),
}


@dataclass(frozen=True)
class GLBackend:
    """A way of drawing without a display that was seen to work."""

    name: str
    """Value of MUJOCO_GL: egl or osmesa (or what the user has set)."""
    device: str
    """The GL renderer string, such as `llvmpipe (LLVM 15.0.6, 256 bits)`."""

    @property
    def is_software(self) -> bool:
        """Whether the CPU draws."""
        return any(name in self.device for name in SOFTWARE_RASTERISERS)


class RenderingError(ValueError):
    """No headless GL here; the message is one sentence saying what to install."""


class FrameRenderer:
    """Draws one camera of one model, square, uint8 RGB.

    The model's `vis` settings are changed to the quality asked for. Close it before the process ends, or EGL
    prints an exception at tear-down.
    """

    def __init__(
        self,
        model: "mujoco.MjModel",
        data: "mujoco.MjData",
        *,
        camera: "str | int | mujoco.MjvCamera",
        image_size: int = 64,
        quality: QualityName = "auto",
        flip_vertical: bool = False,
        fog: bool = False,
    ):
        use_headless_gl()
        load_triton_first()
        import mujoco

        self._data, self._camera, self._flip = data, camera, flip_vertical
        settings = QUALITIES[resolve_quality(quality)]
        self._block = settings.supersample
        side = image_size * settings.supersample
        model.vis.global_.offwidth = model.vis.global_.offheight = side
        if settings.multisamples is not None:
            model.vis.quality.offsamples = settings.multisamples
        if settings.shadow_size is not None:
            model.vis.quality.shadowsize = settings.shadow_size
        self._renderer = mujoco.Renderer(model, side, side)
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_FOG] = fog
        if not settings.shadows_and_reflections:
            self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
            self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False

    def __call__(self) -> UInt8[np.ndarray, "H W 3"]:
        """The frame of the data's present state; call `mujoco.mj_forward` first if it was edited."""
        self._renderer.update_scene(self._data, camera=self._camera)
        frame = self._renderer.render()
        if self._flip:
            frame = frame[::-1]
        return np.ascontiguousarray(_average_blocks(frame, self._block))

    def upload_textures(self) -> None:
        """Sends the model's textures to the GL context again, after they were edited."""
        import mujoco

        self._renderer._gl_context.make_current()
        for texture in range(self._renderer.model.ntex):
            mujoco.mjr_uploadTexture(self._renderer.model, self._renderer._mjr_context, texture)

    def close(self) -> None:
        """Frees the GL context."""
        self._renderer.close()


def gl_problem() -> str | None:
    """None where MuJoCo can draw without a display, else one sentence saying what to install."""
    try:
        gl_backend()
    except RenderingError as error:
        return str(error)
    return None


@functools.cache
def gl_backend() -> GLBackend:
    """The first of EGL and OSMesa that draws a frame, tried in a subprocess since failing GL may kill it.

    A MUJOCO_GL set by the user is the only one tried.

    Raises:
        RenderingError: none draws.
    """
    chosen = os.environ.get("MUJOCO_GL")
    for name in _candidates():
        device = _probe(name)
        if device is not None:
            return GLBackend(name, device)
    tried = f"MUJOCO_GL={chosen} does not draw" if chosen else "neither EGL nor OSMesa draws"
    raise RenderingError(
        f"MuJoCo cannot render here ({tried}): install headless OpenGL, on Debian or Ubuntu with `{INSTALL_GL}`."
    )


def gl_devices() -> dict[str, str | None]:
    """What each backend draws on, None where it draws nothing; a MUJOCO_GL set by the user is the only one tried."""
    names = _candidates()
    with ThreadPoolExecutor() as at_once:
        return dict(zip(names, at_once.map(_probe, names), strict=True))


def use_headless_gl() -> None:
    """Points MuJoCo at a backend that works; to be called before the process first imports mujoco."""
    backend = gl_backend()
    if "MUJOCO_GL" not in os.environ and "mujoco" in sys.modules:
        raise RenderingError(
            f"mujoco was imported before a headless backend was chosen: set MUJOCO_GL={backend.name} in the "
            "environment, or make the environment before anything imports mujoco or metaworld."
        )
    os.environ.setdefault("MUJOCO_GL", backend.name)


def resolve_quality(quality: QualityName) -> QualityName:
    """`auto` is exact on a GPU and close (44 dB to exact, 1.8 times as fast) where the CPU draws."""
    if quality != "auto":
        return quality
    return "close" if gl_backend().is_software else "exact"


def load_triton_first() -> None:
    """Imports triton, where torch brought it, before Mesa's software GL loads its own LLVM.

    The other way round the first torch optimiser of the process, which imports triton, dies of a segmentation
    fault: both libraries export LLVM's symbols (seen with triton 3.9 and Mesa's libLLVM 15).
    """
    with contextlib.suppress(ImportError):
        importlib.import_module("triton")


def _candidates() -> tuple[str, ...]:
    chosen = os.environ.get("MUJOCO_GL")
    return (chosen,) if chosen else BACKENDS


@functools.cache
def _probe(backend: str) -> str | None:
    """The GL device's name, or None where the backend does not draw a frame."""
    try:
        result = subprocess.run(
            [sys.executable, "-c", PROBE],
            env=os.environ | {"MUJOCO_GL": backend},
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return None
    devices = [line for line in result.stdout.splitlines() if line.startswith("DEVICE ")]
    return devices[0].removeprefix("DEVICE ") if result.returncode == 0 and devices else None


def _average_blocks(frame: UInt8[np.ndarray, "Hs Ws 3"], block: int) -> UInt8[np.ndarray, "H W 3"]:
    """Mean of each block x block square, rounded to the nearest."""
    if block == 1:
        return frame
    height, width = frame.shape[0] // block, frame.shape[1] // block
    total = frame.reshape(height, block, width, block, 3).sum((1, 3), dtype=np.uint16)
    return ((total + block * block // 2) // (block * block)).astype(np.uint8)
