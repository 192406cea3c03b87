"""The page to look at a model: the clips that it takes, the Space's folder, and the page itself."""

import argparse
import base64
import contextlib
import json
import os
import runpy
import select
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import gradio_client
import numpy as np
import pytest
import yaml
from hub_process import run_python
from made_videos import counting_frames, read_numbers, write_video
from PIL import Image

import cwm_hub
from cwm_hub.cli import main
from cwm_hub.hub import app_command
from cwm_hub.hub.saving import save_pretrained
from cwm_hub.hub.space.clips import read_clip, sample_clips
from cwm_hub.hub.space.folder import SPACE, write_space
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


def test_a_publish_writes_the_folder_of_a_space(
    server, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    save_pretrained(create_model("plainwm-debug"), tmp_path / "run" / "model", card=False)
    model, space = tmp_path / "it's: a model", tmp_path / "space"
    assert main(["publish", str(tmp_path / "run"), str(model), "--space", str(space), "--dry-run"]) == 0
    assert not space.exists() and capsys.readouterr().out.endswith(f"and the page of it to {space}\n")
    command = ["publish", str(tmp_path / "run"), str(model), "--space", str(space)]
    assert main([*command, "--name", "as the card has it"]) == 0
    published, page = capsys.readouterr().out.split(f"{space}: python {space}/app.py tries the page")
    assert published.startswith(f"published to {model}; load it with") and page.count("\n") == 1
    header = yaml.safe_load((space / "README.md").read_text().split("---")[1])
    assert header == SPACE | {"title": "it's: a model"}
    assert (space / "requirements.txt").read_text() == f"cwm-hub[demo]=={cwm_hub.__version__}\n"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert f"gradio>={SPACE['sdk_version'].rpartition('.')[0]},<7" in extras["demo"]
    files = (
        {path.name: path.read_bytes() for path in folder.iterdir()} for folder in (model, space / "model")
    )
    assert next(files) == next(files)

    code = """
import sys
from cwm_hub.cli import main
sys.stderr = sys.stdout
begin = ["publish", sys.argv[1], "hf://someone/wm", "--name", "mine"]
for more in (
    ["--revision", "v2", "--tag", "v1", "--space", sys.argv[2]], ["--revision", "v1"], ["--tag", "v2"], ["--pr"],
    [], ["--pr"], ["--tag", "v3"],
):
    main([*begin, *more])
"""
    told = run_python(server, tmp_path, "-c", code, tmp_path / "run", tmp_path / "of-hub")
    branch, tag = (line for line in told if line.startswith("error: "))
    proposed, _, *unchanged = [line for line in told if "load it with" in line][1:]
    assert "'v1' is a tag of someone/wm, and" in branch and "'v2' is a branch of someone/wm: a tag" in tag
    where = f"{server.url}/someone/wm/discussions/1"
    assert proposed == f'proposed at {where}; load it with cwm_hub.from_pretrained("someone/wm@refs/pr/1")'
    already = f"nothing to commit: {server.url}/someone/wm holds just that already; load it with cwm_hub.from_pretrained"
    assert unchanged == [f'{already}("mine")', f'{already}("someone/wm@v3")']
    repo = server.repos["model", "someone/wm"]
    assert repo.pull_requests.keys() == {"refs/pr/1"} and repo.tags["v3"] == repo.branches["main"]
    commit = repo.branches["v2"]
    app = (tmp_path / "of-hub" / "app.py").read_text()
    assert f"MODEL = 'someone/wm'\nmake_page(MODEL, revision='{commit}', title='wm')" in app


def test_a_space_that_cannot_be_is_refused_before_anything_is_published(tmp_path: Path, capsys) -> None:
    other, run = ROOT / "tests" / "fixtures" / "checkpoint_v1" / "action_world_model", tmp_path / "run"
    save_pretrained(create_model("plainwm-debug"), run / "model", card=False)
    shutil.copytree(other, tmp_path / "other" / "model")
    place, free = tmp_path / "published", tmp_path / "free"
    for words, sentence in {
        (run, place, "--space", run): f"{run} is not empty: name a folder that is new",
        (
            tmp_path / "other",
            place,
            "--space",
            free,
        ): "a page shows a VideoWorldModel, and this is of type ActionWorldModel",
        (
            run,
            "hf://a/b",
            "--space",
            free,
            "--pr",
        ): "--space shows what was published, and --pr only proposes it",
    }.items():
        assert main(["publish", *map(str, words)]) == 1
        said = capsys.readouterr().err
        assert said.startswith(f"error: {sentence}") and said.count("\n") == 1, said
        assert not place.exists() and not free.exists()


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
def test_the_page_is_drawn_with_a_prediction(address: str, tmp_path: Path) -> None:
    shown = "[...document.querySelectorAll('img, video')].filter(one => one.currentSrc.startsWith('http'))"
    place = (
        "one => [one.videoWidth || one.naturalWidth, ...Object.values(one.getBoundingClientRect().toJSON())]"
    )
    with _browser(tmp_path / "profile") as ask:
        ask("Page.navigate", url=address)
        for _ in range(300):
            found = ask("Runtime.evaluate", expression=f"{shown}.map({place})", returnByValue=True)
            places = found["result"].get("value", [])
            if len(places) == 3 and all(width for width, *_ in places):
                break
            time.sleep(0.2)
        time.sleep(0.5)  # gradio's progress fades out
        (tmp_path / "page.png").write_bytes(base64.b64decode(ask("Page.captureScreenshot")["data"]))
    page = np.asarray(Image.open(tmp_path / "page.png").convert("L")).astype(float)
    film, *pictures = (
        page[round(y) : round(y + height), round(x) : round(x + width)]
        for _, x, y, width, height, *_ in places
    )
    assert len(pictures) == 2 and all(picture.std() > 30 for picture in pictures)
    middle = film.shape[1] // 2
    truth, prediction = film[60:220, middle - 200 : middle - 40], film[60:220, middle + 40 : middle + 200]
    assert truth.std() > 30 and 0.8 < np.corrcoef(truth.ravel(), prediction.ravel())[0, 1] < 0.9999


@contextlib.contextmanager
def _browser(profile: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    """A function that calls a method of the DevTools protocol for a page of 1200 x 1500 pixels."""
    options = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    )
    options += " --disable-component-update --disable-sync --remote-debugging-pipe --window-size=1200,1500"
    commands, to_browser = os.pipe()
    from_browser, answers = os.pipe()
    shell = f'exec "$@" 3<&{commands} 4>&{answers}'
    command = ["bash", "-c", shell, "bash", str(BROWSER), *options.split(), f"--user-data-dir={profile}"]
    process = subprocess.Popen(command, pass_fds=(commands, answers), stderr=subprocess.DEVNULL)
    os.close(commands)
    os.close(answers)
    session, said = {}, _messages(from_browser)

    def ask(method: str, **parameters: Any) -> dict[str, Any]:
        message = {"id": 1, "method": method, "params": parameters} | session
        os.write(to_browser, json.dumps(message).encode() + b"\0")
        return next(answer for answer in said if answer.get("id") == 1)["result"]

    pages = [one for one in ask("Target.getTargets")["targetInfos"] if one["type"] == "page"]
    session["sessionId"] = ask("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)[
        "sessionId"
    ]
    try:
        yield ask
    finally:
        process.terminate()
        process.wait()
        os.close(to_browser)
        os.close(from_browser)


def _messages(descriptor: int) -> Iterator[dict[str, Any]]:
    rest = b""
    while select.select([descriptor], [], [], 60)[0] and (piece := os.read(descriptor, 1 << 16)):
        *whole, rest = (rest + piece).split(b"\0")
        yield from map(json.loads, whole)


@pytest.mark.slow
def test_the_folder_of_a_space_runs(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture) -> None:
    import gradio  # seconds

    model = save_pretrained(create_model("plainwm-debug"), tmp_path / "mine")
    write_space(str(model), tmp_path / "space")
    monkeypatch.setattr(
        sys, "ps1", ">>> ", raising=False
    )  # at a prompt gradio does not wait for the page's end
    runpy.run_path(str(tmp_path / "space" / "app.py"))
    address = capsys.readouterr().out.partition("local URL:")[2].split()[0]
    page = gradio_client.Client(address, verbose=False, download_files=tmp_path / "got")
    answer = page.predict("hand_cup_3", None, "outdoor_2", None, 3, api_name="/predict")
    assert answer[1:] == (None, None)  # a plain model has no context
    gradio.close_all(verbose=False)
