"""`cwm-hub doctor`: every line against what it speaks of, looked up another way or taken away."""

import os
import subprocess
import sys
import threading
import tomllib
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cwm_hub import EXTRAS, doctor
from cwm_hub.cli import main
from cwm_hub.envs import frame_rates, gl_problem, rendering
from cwm_hub.shards import codecs
from cwm_hub.shards.codecs import ShardError

needs_gl = pytest.mark.skipif(gl_problem() is not None, reason=str(gl_problem()))


def test_the_lines_tell_this_machine(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_probe", lambda name: {"egl": "llvmpipe (LLVM 15.0.6)"}.get(name))
    rendering.gl_backend.cache_clear()
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    assert main(["doctor", "--no-speed"]) == 0
    rendering.gl_backend.cache_clear()
    told = capsys.readouterr().out
    assert f"cores      {len(os.sched_getaffinity(0))} of {os.cpu_count()} for this process\n" in told
    for name in ("torch", "av", "mujoco", "gymnasium"):
        assert f"{name} {version(name)}" in told
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    assert f"memory     {total:.1f} GiB, " in told
    assert ("GPU        none" in told) == (not torch.cuda.is_available())
    assert doctor.may_have_gpu() or not torch.cuda.is_available()
    assert "writes H.264 by x264 and reads h264, hevc, vp9" in told
    assert "rendering  egl draws on llvmpipe (LLVM 15.0.6)\nrendering  osmesa does not draw\n" in told
    assert ("though there is a GPU" in told) == torch.cuda.is_available()
    assert "frames a second" not in told


def test_a_missing_extra_is_advised_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "EXTRAS", {"one": ("json", "csv"), "two": ("json", "no_such_module")})
    assert list(doctor.extras()) == [
        "extras     one",
        "           -> pip install 'cwm-hub[two]' brings no_such_module",
    ]


def test_every_extra_is_known() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS) == set(project["optional-dependencies"]) - {"all", "dev", "docs"}


def test_without_gl_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "nowhere")
    rendering.gl_backend.cache_clear()
    lines = list(doctor.rendering(has_gpu=False, speed=True))
    rendering.gl_backend.cache_clear()
    assert lines[0] == "rendering  nowhere does not draw (MUJOCO_GL is set: nothing else is tried)"
    assert "MUJOCO_GL=nowhere does not draw" in lines[1] and rendering.INSTALL_GL in lines[1]
    assert len(lines) == 2


def test_a_gpu_that_does_not_draw_is_pointed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    for device, advised in (("llvmpipe (LLVM 15.0.6, 256 bits)", True), ("NVIDIA H100/PCIe/SSE2", False)):
        monkeypatch.setattr(rendering, "_probe", lambda name, device=device: device)
        rendering.gl_backend.cache_clear()
        told = "\n".join(doctor.rendering(has_gpu=True, speed=False))
        rendering.gl_backend.cache_clear()
        assert ("the CPU draws, though there is a GPU" in told) == advised


def test_a_pyav_without_x264_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_encoder(*_: object) -> bytes:
        raise ShardError("no libx264")

    monkeypatch.setattr(codecs, "encode_clip", no_encoder)
    assert "does not write H.264 (no libx264): pip install" in doctor.video()


@needs_gl
def test_a_rate_is_frames_by_seconds_for_every_quality(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that gains an eighth of a second at every look, half a second holds four frames."""
    now = iter(range(1000))
    monkeypatch.setattr(frame_rates.time, "perf_counter", lambda: next(now) / 8)
    drawn = []
    real = frame_rates.FrameRenderer.__call__

    def noting(self: frame_rates.FrameRenderer) -> object:
        drawn.append((self._block, self._renderer.model.vis.quality.shadowsize))
        return real(self)

    monkeypatch.setattr(frame_rates.FrameRenderer, "__call__", noting)
    rates = list(frame_rates.frame_rates(image_size=16, seconds=0.5))
    assert rates == [(quality, 8.0) for quality in rendering.QUALITIES]
    assert drawn == [(1, 4096)] * 5 + [(1, 512)] * 5 + [(2, 512)] * 5 + [(2, 4096)] * 5


def test_without_a_drivers_files_torch_is_not_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(doctor, "Path", lambda place: tmp_path)
    assert doctor.may_have_gpu()
    (tmp_path / "nvidia0").unlink()
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    assert not doctor.may_have_gpu()
    monkeypatch.setattr(doctor.sys, "platform", "darwin")
    assert doctor.may_have_gpu()


def test_lines_are_told_while_gl_is_still_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probes end only when the line before theirs has been told, and run at once."""
    told, together = threading.Event(), threading.Barrier(2)

    def probe(name: str) -> None:
        together.wait(timeout=20)
        assert told.wait(timeout=20)

    monkeypatch.setattr(rendering, "_probe", probe)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    rendering.gl_backend.cache_clear()
    lines = []
    for line in doctor.run(SimpleNamespace(no_speed=True)):
        if line.startswith("GPU"):
            told.set()
        if line.startswith("rendering"):
            monkeypatch.setattr(rendering, "_probe", lambda name: None)
        lines.append(line)
    rendering.gl_backend.cache_clear()
    assert "rendering  egl does not draw" in lines


def test_help_loads_no_torch() -> None:
    code = (
        "import sys, contextlib\nfrom cwm_hub.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['doctor', '--help'])\n"
        "assert 'torch' not in sys.modules"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "--no-speed" in told
