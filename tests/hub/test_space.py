"""The page to look at a model: the clips that it takes, the Space's folder, and the page itself."""

import argparse
import runpy
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import av
import gradio_client
import numpy as np
import pytest
import yaml
from hub_process import checkpoint, run_python
from made_videos import counting_frames, read_numbers, write_video
from PIL import Image

import cwm_hub
from cwm_hub.cli import main
from cwm_hub.hub import app_command
from cwm_hub.hub.saving import save_pretrained
from cwm_hub.hub.space.clips import read_clip, sample_clips
from cwm_hub.hub.space.folder import SPACE
from cwm_hub.models.registry import create_model
from dataprep.decode.frames import DecodeSettings, open_video

ROOT = Path(__file__).parents[2]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def test_a_clip_is_what_data_preparation_makes_of_it(tmp_path: Path) -> None:
    turned = tmp_path / "turned.mp4"  # a phone held upright
    with (
        av.open(str(sample_clips()["balance_multi_cam1_later"])) as source,
        av.open(str(turned), "w") as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_matrix([value << 16 for value in (0, 1, 0, -1, 0, 0)] + [0, 0, 1 << 30])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    for path in (*sample_clips().values(), turned):
        with open_video(path, DecodeSettings(size=32)) as video:
            prepared = np.stack(list(video))[:34].astype(int)
        levels = np.abs(read_clip(path, size=32, frames=34)[0].movedim(1, -1).numpy() - prepared).max()
        assert levels <= (1 if path == turned else 0), path  # it is turned before it is scaled there
    assert len(sample_clips()) == 4


def test_too_few_frames_and_what_is_no_video_or_names_other_files_are_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "counted.mp4", counting_frames(12))
    assert read_numbers(read_clip(path, size=32, frames=3)[0].movedim(1, -1).numpy()) == [0, 1, 2]
    with pytest.raises(ValueError, match=r"^counted.mp4 has 12 frames, and 13 are needed"):
        read_clip(path, size=32, frames=13)
    for text in ("ffconcat version 1.0\nfile counted.mp4\n", "no video"):
        (tmp_path / "other.mp4").write_text(text)
        with pytest.raises(ValueError, match=r"^other.mp4 cannot be read as mp4"):
            read_clip(tmp_path / "other.mp4", size=32, frames=2)


def test_the_folder_of_a_space(server, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model, space = (
        save_pretrained(create_model("plainwm-debug"), tmp_path / "it's: a model"),
        tmp_path / "space",
    )
    assert main(["space", str(model), str(space)]) == 0
    header = yaml.safe_load((space / "README.md").read_text().split("---")[1])
    assert header == SPACE | {"title": "it's: a model"}
    assert (space / "requirements.txt").read_text() == f"cwm-hub[demo]=={cwm_hub.__version__}\n"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert f"gradio>={SPACE['sdk_version'].rpartition('.')[0]},<7" in extras["demo"]
    files = (
        {path.name: path.read_bytes() for path in folder.iterdir()} for folder in (model, space / "model")
    )
    assert next(files) == next(files)

    code = "import sys; from cwm_hub import push_to_hub; from cwm_hub.cli import main; push_to_hub(sys.argv[1], 'someone/wm'); main(['space', 'someone/wm', sys.argv[2]])"
    run_python(server, tmp_path, "-c", code, checkpoint(tmp_path / "pushed", 0.5), tmp_path / "of-hub")
    commit = server.repos["model", "someone/wm"].branches["main"]
    app = (tmp_path / "of-hub" / "app.py").read_text()
    assert f"MODEL = 'someone/wm'\nmake_page(MODEL, revision='{commit}', title='wm')" in app

    fixture = ROOT / "tests" / "fixtures" / "checkpoint_v1" / "action_world_model"
    for source, sentence in {
        model: f"{space} is not empty: name a folder that is new",
        fixture: f"{fixture} holds a ActionWorldModel, expected a VideoWorldModel",
    }.items():
        capsys.readouterr()
        assert main(["space", str(source), str(space if source == model else tmp_path / "new")]) == 1
        assert capsys.readouterr().err == f"error: {sentence}\n"


def test_without_gradio_one_sentence_says_what_to_install(monkeypatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "cwm_hub.hub.space.page", raising=False)
    assert main(["app"]) == 1
    assert capsys.readouterr().err == "error: gradio is not installed: pip install 'cwm-hub[demo]'\n"


def test_where_nobody_can_listen_is_one_sentence(capsys: pytest.CaptureFixture) -> None:
    """Before gradio is looked for."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = str(taken.getsockname()[1])
        for options in (
            ["--port", busy],
            ["--port", "99999"],
            ["--port", "-1"],
            ["--host", "192.0.2.1"],
        ):
            assert main(["app", *options]) == 1
            said = capsys.readouterr().err
            assert said.startswith("error: cannot listen at ") and said.count("\n") == 1, said


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a running page of contextwm-tiny."""
    parser = argparse.ArgumentParser()
    app_command.add_arguments(parser)
    lines = app_command.run(parser.parse_args([]))
    yield next(lines).removeprefix("contextwm-tiny is at ").split()[0]
    lines.close()


@pytest.mark.slow
def test_the_page_answers_and_refuses(address: str, tmp_path: Path) -> None:
    page = gradio_client.Client(address, verbose=False, download_files=tmp_path / "got")
    write_video(tmp_path / "counted.mp4", counting_frames(12))
    (tmp_path / "<b>.mp4").write_text("no video")

    def predict(sample: str | None, upload: str | None, other: str | None, open_loop: int) -> tuple:
        sent = upload and gradio_client.handle_file(str(tmp_path / upload))
        return page.predict(sample, sent, other, None, open_loop, api_name="/predict")

    film, *pictures = predict("hand_box_3", None, "outdoor_2", 29)
    with av.open(film["video"] if isinstance(film, dict) else film) as container:
        assert sum(1 for _ in container.decode(video=0)) == 5 + 29 + 4  # half a second more at 8 a second
    assert all(np.asarray(Image.open(path)).std() > 10 for path in pictures)
    assert predict(None, "counted.mp4", None, 7)[2] is None
    for upload, sentence in {
        "counted.mp4": "counted.mp4 has 12 frames, and 13 are needed",
        "<b>.mp4": "cannot be read as mp4, mov, mkv, webm or avi",
        None: "choose a sample clip or upload a video",
    }.items():
        with pytest.raises(Exception, match=sentence):
            predict(None, upload, None, 8)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on PATH to draw the page")
def test_the_page_is_drawn(address: str, tmp_path: Path) -> None:
    options = ["--headless", "--no-sandbox", "--window-size=1280,1800", "--virtual-time-budget=30000"]
    subprocess.run([BROWSER, *options, f"--screenshot={tmp_path / 'page.png'}", address], check=True)
    drawn = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).reshape(-1, 3)
    assert len(np.unique(drawn, axis=0)) > 1000


@pytest.mark.slow
def test_the_folder_of_a_space_runs(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture) -> None:
    import gradio  # seconds

    model = save_pretrained(create_model("plainwm-debug"), tmp_path / "mine")
    assert main(["space", str(model), str(tmp_path / "space")]) == 0
    monkeypatch.setattr(
        sys, "ps1", ">>> ", raising=False
    )  # at a prompt gradio does not wait for the page's end
    runpy.run_path(str(tmp_path / "space" / "app.py"))
    address = capsys.readouterr().out.partition("local URL:")[2].split()[0]
    page = gradio_client.Client(address, verbose=False, download_files=tmp_path / "got")
    answer = page.predict("hand_cup_3", None, "outdoor_2", None, 3, api_name="/predict")
    assert answer[1:] == (None, None)  # a plain model has no context
    gradio.close_all(verbose=False)
