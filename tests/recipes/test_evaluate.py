"""The evaluation recipe end to end, with the debug presets on generated clips of a moving square."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from moving_squares import write_clips
from stand_in_networks import write_alexnet, write_i3d
from synthetic_shards import write_data_set

from cwm_hub import create_model, save_pretrained
from cwm_hub.agents.dreamer import DreamerAgent, DreamerConfig
from cwm_hub.evaluation import held_out
from cwm_hub.evaluation.protocol import ProtocolError, ScoringConfig
from cwm_hub.models.registry import model_config
from cwm_hub.shards.manifest import Manifest
from recipes import evaluate
from recipes.run.command_line import parse_config
from recipes.run.demo_report import missing_composition
from recipes.run.folder import one_sentence_errors
from recipes.run.scoring import Evaluation

FILES = {"scorecard.json", "prediction.png", "prediction.mp4", "horizon.png"}
ROOT = Path(__file__).parents[2]
SHORT = ["--windows", "4", "--observed_frames", "3", "--horizon", "6", "--device", "cpu"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Two shard directories and two checkpoints."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_clips(folder / "squares")
    write_clips(folder / "more")
    for name in ("contextwm-debug", "plainwm-debug"):
        torch.manual_seed(0)
        save_pretrained(create_model(name).eval(), folder / name / "model")
    return folder


def main(arguments: list[str]) -> int:
    return evaluate.main(parse_config(evaluate.EvaluateConfig, arguments))


def run(place: Path, name: str, *extra: str, out: str = "out", data: str = "squares") -> Path:
    folder = place / name / out
    arguments = [
        "--checkpoint",
        str(place / name / "model"),
        "--data",
        str(place / data),
        "--out",
        str(folder),
    ]
    assert main([*arguments, *SHORT, *extra]) == 0
    return folder


def test_evaluation_writes_scorecard_and_figures(place, capsys):
    out = run(place, "contextwm-debug")
    assert FILES | {"attention.png", "composition.png", "embedding.png"} <= {
        path.name for path in out.iterdir()
    }
    card = json.loads((out / "scorecard.json").read_text())
    assert card["name"] == "contextwm-debug"
    protocol = card["protocol"]
    assert (protocol["observed_frames"], protocol["horizon"], protocol["context"]) == (3, 6, "last")
    assert protocol["data"] == {"squares": Manifest.load(place / "squares").hash}
    assert (
        len(protocol["windows"]) == 4 and len(card["together"]["model"]["psnr_db"]["per_step"]["mean"]) == 6
    )
    assert card["frechet_encoder_distance"]["frames"] == 24
    said = capsys.readouterr().out
    assert f"PSNR {card['together']['model']['psnr_db']['mean']:.2f} dB" in said and "copy-last-frame" in said
    gap = card["context_gap_psnr_db"]
    assert gap["own"]["mean"] == pytest.approx(card["together"]["model"]["psnr_db"]["mean"])
    assert f"{gap['foreign']['mean']:.2f} dB with another video's" in said


def test_one_held_out_video_has_no_interval_and_no_composition(place, capsys):
    write_clips(place / "lonely", clips=1)
    out = run(place, "contextwm-debug", out="lonely", data="lonely")
    card = json.loads((out / "scorecard.json").read_text())
    score = card["together"]["model"]["psnr_db"]
    assert card["together"]["videos"] == 1 and card["together"]["windows"] == 4
    assert set(score) == {"mean", "per_step"} and set(score["per_step"]) == {"mean"}
    assert not (out / "composition.png").exists() and (out / "attention.png").exists()
    said = capsys.readouterr().out
    assert "no composition.png: it needs windows of two source videos\n" in said
    assert "(no interval, as all windows are of one video)\n" in said and " [" not in said
    assert "\nlonely: contextwm-debug PSNR " in said
    line, distance = evaluate.conclusions({"lonely": card}, None)
    assert line.startswith("lonely: PSNR ")  # a run and a set of one name
    assert distance.startswith(
        f"Fréchet distance of {card['frechet_encoder_distance']['frames']} open-loop frames from"
    )
    report_on = place / "report"
    (report_on / "model").mkdir(parents=True)
    shutil.copy(place / "contextwm-debug/model/config.json", report_on / "model/config.json")
    shutil.copytree(out, report_on / "evaluation")
    assert missing_composition(report_on).startswith("There is no picture of its dynamics in another video's")


def test_the_composition_pairs_different_videos(place, monkeypatch):
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    compose = evaluate.composition_of

    def watched(model, video, feature, context, other):
        seen.append((context, other))
        return compose(model, video, feature, context, other)

    monkeypatch.setattr(evaluate, "composition_of", watched)
    write_clips(place / "two", clips=2)
    windows = ["--windows", "6", "--figure_windows", "1"]
    out = run(place, "contextwm-debug", *windows, out="two-videos", data="two")
    ((own, other),) = seen
    assert own.shape == other.shape and not torch.equal(own, other)
    assert (out / "composition.png").is_file()


def test_it_says_how_far_it_is(place, capsys):
    run(place, "plainwm-debug", "--windows", "17", "--samples", "2", "--figures", "false", out="far")
    said = [line for line in capsys.readouterr().out.splitlines() if line.endswith("predictions")]
    assert said == ["34 of 34 predictions"]


def test_same_seed_gives_the_same_scorecard(place):
    cards = [
        json.loads(
            (run(place, "plainwm-debug", "--figures", "false", out=out) / "scorecard.json").read_text()
        )
        for out in ("first", "second")
    ]
    assert cards[0]["together"] == cards[1]["together"]
    assert cards[0]["protocol"] == cards[1]["protocol"]


def test_two_data_sets_apart_together_and_compared(place, capsys):
    data = f"[{place / 'squares'}, {place / 'more'}]"
    arguments = ["--data", data, *SHORT]
    for name, extra in (
        ("plainwm-debug", []),
        ("contextwm-debug", ["--compare", str(place / "plainwm-debug/two")]),
    ):
        checkpoint, out = str(place / name / "model"), str(place / name / "two")
        main(["--checkpoint", checkpoint, "--out", out, *arguments, *extra])
    out = place / "contextwm-debug/two"
    card = json.loads((out / "scorecard.json").read_text())
    assert set(card["sources"]) == {"squares", "more"} and card["together"]["windows"] == 8
    assert {"horizon_squares.png", "horizon_more.png"} <= {path.name for path in out.iterdir()}
    designs = json.loads((out / "comparison.json").read_text())["together"]["designs"]
    difference = designs["contextwm-debug"]["psnr_db"]["minus_first"]["mean"]
    other = json.loads((place / "plainwm-debug/two/scorecard.json").read_text())
    expected = card["together"]["model"]["psnr_db"]["mean"] - other["together"]["model"]["psnr_db"]["mean"]
    assert difference == pytest.approx(expected)
    assert "contextwm-debug minus plainwm-debug" in capsys.readouterr().out
    assert not (place / "plainwm-debug/two/attention.png").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"--data": "nowhere"}, "nowhere"),
        ({"--checkpoint": "nowhere/model"}, "nowhere/model"),
        ({"--windows": "4000"}, "4000 validation windows were asked for"),
        ({"--compare": "nowhere"}, "nowhere has no scorecard.json"),
        ({"--split": "test"}, "has no split 'test'; it has: train, validation"),
        ({"--data": "[{squares}, {squares}]"}, "told apart by their folder's name"),
        ({"--observed_frames": "0"}, "observed_frames is at least 1, got 0"),
        ({"--windows": "1"}, "windows is at least 2, got 1"),
        ({"--seed": "-1"}, "seed is at least 0, got -1"),
        ({"--figure_windows": "0"}, "figure_windows is at least 1, got 0"),
        ({"--data": "[]"}, "at least one shard directory"),
        ({"--probe": "true"}, "squares holds neither state nor action beside its clips"),
        ({"--planning": "true"}, "takes no actions, so that it has no planning error"),
        ({"--probe_windows": "0"}, "probe_windows is at least 1, got 0"),
        ({"--device": "nonsense"}, "there is no device 'nonsense' here"),
        ({"--device": "meta"}, "there is no device 'meta' here"),
    ],
)
def test_what_a_user_can_cause_is_one_sentence(place, changes, sentence, capsys):
    squares = place / "squares"
    arguments = {
        "--checkpoint": str(place / "plainwm-debug/model"),
        "--data": str(squares),
        "--out": str(place / "bad"),
        "--windows": "4",
        "--horizon": "6",
    }
    arguments |= {key: value.format(squares=squares) for key, value in changes.items()}
    with pytest.raises(SystemExit) as stopped, one_sentence_errors():
        main([word for pair in arguments.items() for word in pair])
    said = capsys.readouterr().err or f"{stopped.value}\n"  # the settings' own mistakes are printed at once
    assert said.startswith("error: ") and sentence in said and said.count("\n") == 1


def test_frames_of_another_size_are_to_be_sharded_again(place):
    frames, clip = np.zeros((12, 16, 16, 3), np.uint8), {"key": "a", "source": "a"}
    splits = {split: [(frames, clip | {"key": split, "source": split})] for split in ("train", "validation")}
    write_data_set(place / "coarse", splits, name="coarse")
    with pytest.raises(ValueError, match=r"16 px frames and the model takes 32 px: .* again with --size 32$"):
        run(place, "plainwm-debug", data="coarse")


def test_another_protocol_is_refused_before_the_work(place, monkeypatch):
    arguments = ["--checkpoint", str(place / "plainwm-debug/model"), "--data", str(place / "squares"), *SHORT]
    main([*arguments, "--out", str(place / "first"), "--figures", "false"])
    monkeypatch.setattr(evaluate, "score", lambda *_, **__: pytest.fail("the work began"))
    with pytest.raises(ProtocolError, match=r"do not compare: latents$"):
        main(
            [
                *arguments,
                "--out",
                str(place / "second"),
                "--latents",
                "mode",
                "--compare",
                str(place / "first"),
            ]
        )


def test_scorecards_of_one_run_have_one_protocol(place, tmp_path):
    def evaluation(**changes):
        config = ScoringConfig(horizon=6, windows=4, **changes)
        return Evaluation(config, [str(place / "squares")], run=tmp_path, image_size=32)

    model = create_model("plainwm-debug")
    evaluation().write(model, 1)
    evaluation().write(model, 2)
    with pytest.raises(ProtocolError, match=r"do not compare: mean_frames, seed, windows$"):
        evaluation(seed=1)


def test_an_agent_is_refused(place, tmp_path):
    config = DreamerConfig(world=model_config("dreamerv2-mini"), intrinsic=None)
    save_pretrained(DreamerAgent(config), tmp_path / "agent", card=False)
    with pytest.raises(ValueError, match="is a DreamerAgent, and only a world model predicts video"):
        main(["--checkpoint", str(tmp_path / "agent"), "--data", str(place / "squares"), "--out", "x"])


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--lpips", "LPIPS needs torchvision's AlexNet weights"),
        ("--fvd", "FVD needs StyleGAN-V's I3D network"),
    ],
)
def test_a_metric_without_its_network_stops_before_the_work(place, monkeypatch, tmp_path, flag, sentence):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(held_out, "read_held_out", lambda *_, **__: pytest.fail("the work began"))
    with pytest.raises(ValueError, match=sentence):
        run(place, "plainwm-debug", flag, "true", "--horizon", "7", out="unavailable")
    assert not (place / "plainwm-debug/unavailable").exists()


def test_fvd_of_windows_too_short_stops_before_the_work(place, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="at least 10 frames, observed and predicted together, got 9"):
        run(place, "plainwm-debug", "--fvd", "true", out="short")


def test_lpips_and_fvd_are_in_the_scorecard(place, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    write_alexnet(tmp_path)
    network = write_i3d(tmp_path).read_bytes()
    extra = ["--horizon", "7", "--lpips", "true", "--fvd", "true", "--figures", "false"]
    card = json.loads((run(place, "plainwm-debug", *extra, out="distances") / "scorecard.json").read_text())
    distance = card["together"]["model"]["lpips"]
    assert len(distance["per_step"]["low"]) == 7 and 0 < distance["low"] <= distance["mean"]
    assert card["together"]["copy_last_frame"]["lpips"]["mean"] > 0
    fvd = card["fvd"]
    assert fvd["model"] > 0 and fvd["network_sha256"] == hashlib.sha256(network).hexdigest()
    assert (fvd["clips"], fvd["observed_frames"], fvd["predicted_frames"]) == (4, 3, 7)
    said = capsys.readouterr().out
    assert f"FVD of 4 windows, 3 true frames followed by 7 predicted ones: {fvd['model']:.1f}; lower" in said
    assert f"LPIPS {distance['mean']:.3f} [" in said


def test_a_probe_is_in_the_scorecard_and_in_words(place, capsys):
    random, splits = np.random.default_rng(0), {"train": [], "validation": []}
    for number in range(12):
        frames = np.broadcast_to(random.integers(0, 256, (12, 1, 1, 1)), (12, 32, 32, 3)).astype(np.uint8)
        state = np.stack([frames[:, 0, 0, 0], np.full(12, 7)], 1).astype(np.float32)
        clip = {"key": f"s{number}", "source": f"s{number}", "arrays": {"state": state}}
        splits["train" if number < 8 else "validation"].append((frames, clip))
    root = write_data_set(place / "bright", splits, name="bright")
    extra = ["--probe", "true", "--probe_windows", "20", "--figures", "false"]
    out = run(place, "plainwm-debug", *extra, out="probed", data=root.name)
    found = json.loads((out / "scorecard.json").read_text())["probe_r2_state"]["bright"]
    assert found["low"] < found["mean"] < found["high"] <= 1
    assert [column["name"] for column in found["columns"]] == ["state_0"] and found["constant"] == ["state_1"]
    assert (
        f"bright: R2 {found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}] of a linear probe for the state, fitted "
        "on 20 windows of 8 training videos, scored on 4 of 4 others"
    ) in capsys.readouterr().out


def test_help_and_typos_answer_without_torch(capsys):
    code = (
        "import runpy, sys; sys.argv = ['evaluate.py', '--help']\n"
        f"try: runpy.run_path({str(ROOT / 'recipes/evaluate.py')!r}, run_name='__main__')\n"
        "finally: assert 'torch' not in sys.modules"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "--observed_frames" in answer.stdout and answer.returncode == 0
    with pytest.raises(SystemExit) as stopped:
        main(["--chekpoint", "x"])
    assert stopped.value.code == 1
    assert capsys.readouterr().err.startswith("error: ")
