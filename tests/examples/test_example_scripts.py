"""The scripts of `examples/` run as their first lines say, and what they compute is what the library does."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from moving_squares import moving_square, write_clips

from cwm_hub import VideoWorldModel, create_model, from_pretrained, save_pretrained
from cwm_hub.agents.presets import agent_preset
from cwm_hub.models.action_world_model import ActionWorldModel
from cwm_hub.shards import ShardError, decoder, encode_clip

EXAMPLES = Path(__file__).parents[2] / "examples"
README = (EXAMPLES.parent / "README.md").read_text()
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py"))


def run(monkeypatch, capsys, script: str, *arguments: object) -> list[str]:
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    return capsys.readouterr().out.splitlines()


@pytest.fixture
def shards(tmp_path) -> Path:
    return write_clips(tmp_path / "squares")


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_is_short_and_linked_from_the_readme(script):
    assert f"(examples/{script})" in README
    assert len((EXAMPLES / script).read_text().splitlines()) <= 60


def test_frozen_features_are_a_gymnasium_observation(monkeypatch, capsys):
    lines = run(monkeypatch, capsys, "frozen_features.py", 2)
    assert len(lines) == 2 and all(line.startswith("episode ") for line in lines)
    module = runpy.run_path(str(EXAMPLES / "frozen_features.py"))
    model = create_model("plainwm-debug").eval()
    env = module["Features"](module["make_env"]("scenes", image_size=32), model)
    feature, _ = env.reset(seed=0)
    again, _ = env.reset(seed=0)  # the state of the episode before counts for nothing
    assert np.array_equal(feature, again) and env.observation_space.contains(feature)
    frame = torch.from_numpy(env.unwrapped.reset(seed=0)[0]).permute(2, 0, 1)[None]
    expected = model.feature(model.obs_step(model.initial(1), frame, sample=False))[0]
    np.testing.assert_array_equal(feature, expected.numpy())


def test_a_plan_is_imagined_to_be_better_than_what_it_was_chosen_from(monkeypatch, capsys):
    assert run(monkeypatch, capsys, "plan_with_cem.py", "--steps", 2)[-1].endswith("in at most 2 steps")
    plan = runpy.run_path(str(EXAMPLES / "plan_with_cem.py"))["plan"]
    torch.manual_seed(0)
    model = ActionWorldModel(agent_preset("plainwm-debug", action_size=2).world).eval()
    state = model.initial(1)

    def imagined(actions: torch.Tensor) -> torch.Tensor:
        future = model.imagine(state.repeat(len(actions)), actions, sample=False)
        return model.reward(future).sum(1)

    chosen = plan(model, state, horizon=3, generator=torch.Generator().manual_seed(1))
    assert chosen.shape == (3, 2) and chosen.abs().max() <= 1
    others = torch.rand(200, 3, 2, generator=torch.Generator().manual_seed(2)) * 2 - 1
    assert (imagined(others) < imagined(chosen[None])).float().mean() > 0.9


def test_a_loop_of_ones_own_learns_and_saves(monkeypatch, capsys, shards, tmp_path):
    options = ["--model", "plainwm-debug", "--updates", 40, "--batch-clips", 4, "--window-frames", 6]
    lines = run(monkeypatch, capsys, "own_training_loop.py", shards, *options, "--out", tmp_path / "model")
    losses = [float(line.split("image_loss")[1].split()[0]) for line in lines[:-1]]
    assert losses[-1] < 0.8 * losses[0]
    assert isinstance(from_pretrained(tmp_path / "model"), VideoWorldModel)


def test_the_exported_encoder_computes_what_the_model_does(monkeypatch, capsys, tmp_path):
    save_pretrained(create_model("contextwm-debug").eval(), tmp_path / "model")
    file = tmp_path / "encoder.pt2"
    (line,) = run(monkeypatch, capsys, "export_encoder.py", tmp_path / "model", file)
    assert float(line.split()[-1]) < 1e-5
    image = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    exported = torch.export.load(file).module()(image)
    torch.testing.assert_close(
        exported, from_pretrained(tmp_path / "model").encode(image), atol=1e-5, rtol=1e-5
    )


def test_without_onnxscript_it_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(SystemExit):
        run(monkeypatch, capsys, "export_encoder.py", "contextwm-tiny", "encoder.onnx")
    assert capsys.readouterr().err.endswith("error: a .onnx file needs: pip install onnx onnxscript\n")


def test_the_exported_encoder_runs_in_onnx(monkeypatch, capsys, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    save_pretrained(create_model("contextwm-debug").eval(), tmp_path / "model")
    run(monkeypatch, capsys, "export_encoder.py", tmp_path / "model", tmp_path / "encoder.onnx")
    image = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    (embed,) = runtime.InferenceSession(tmp_path / "encoder.onnx").run(None, {"image": image.numpy()})
    expected = from_pretrained(tmp_path / "model").encode(image)
    torch.testing.assert_close(torch.from_numpy(embed), expected, atol=1e-4, rtol=1e-4)


def test_a_plain_webdataset_pipeline_predicts(monkeypatch, capsys, shards):
    tar = next((shards / "data").glob("train-*.tar"))
    assert run(monkeypatch, capsys, "webdataset_pipeline.py", tar) == [
        "labels [0, 1, 0, 1]  clips [4, 8, 3, 32, 32]  future [4, 8, 3, 32, 32]"
    ]


def test_the_decode_handler_takes_clips_and_leaves_the_rest():
    frames = moving_square(1)
    raw, jpeg, h264 = (encode_clip(frames, codec, 10) for codec in ("raw", "jpeg", "h264"))
    assert np.array_equal(decoder(".u8", raw), frames)
    for suffix, data in ((".jpg", jpeg), (".mp4", h264)):
        decoded = decoder(suffix, data)
        assert decoded.shape == frames.shape and decoded.dtype == np.uint8
        assert np.abs(decoded.astype(int) - frames).mean() < 8
    assert decoder(".json", b"{}") is None and decoder(".txt", b"mp4") is None
    with pytest.raises(ShardError, match="damaged"):
        decoder(".mp4", b"no clip")
