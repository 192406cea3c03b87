"""`cwm-hub eval`: published numbers come out again, and numbers that were changed do not."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from make_checkpoint_fixture import small_models
from moving_squares import write_clips
from synthetic_shards import write_data_set

from cwm_hub import cli
from cwm_hub.agents.drqv2 import DrQV2Agent, DrQV2Config
from cwm_hub.agents.presets import agent_preset
from cwm_hub.agents.rollout import evaluate, evaluation_seeds
from cwm_hub.envs.table import make_env
from cwm_hub.evaluation.held_out import make_protocol, read_held_out
from cwm_hub.evaluation.linear_probe import probe_scores, read_probe_data
from cwm_hub.evaluation.planning import planning_error
from cwm_hub.evaluation.predict import score
from cwm_hub.evaluation.protocol import ScoringConfig
from cwm_hub.hub.pretrained import from_pretrained
from cwm_hub.hub.saving import save_pretrained
from cwm_hub.models.registry import create_model
from cwm_hub.shards.manifest import Manifest


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A model with a scorecard on two sets, one of which lies elsewhere by now, under another name."""
    folder = tmp_path_factory.mktemp("published")
    roots = [folder / "squares", folder / "more"]
    for number, root in enumerate(roots):
        write_clips(root, clips=4 + number)
    torch.manual_seed(0)
    model = create_model("contextwm-debug").eval()
    settings = ScoringConfig(windows=3, observed_frames=2, horizon=4, seed=5, samples=2, context="first")
    held_out = read_held_out(settings, [str(root) for root in roots], image_size=32)
    card, *_ = score(model, held_out, make_protocol(settings, held_out))
    shards = [{"root": str(root), "manifest_hash": Manifest.load(root).hash} for root in roots]
    save_pretrained(model, folder / "model", train={"parents": {"shards": shards}}, scorecard=card)
    roots[1].rename(folder / "moved")
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: object) -> list[str]:
    assert cli.main(["eval", *map(str, words)]) == 0, capsys.readouterr().err
    return capsys.readouterr().out.splitlines()


def test_a_scorecard_comes_out_again_to_the_last_digit(published, capsys):
    """The directories in another order, one of another name: they are known by their hash."""
    lines = run(capsys, published / "model", "--data", published / "moved", published / "squares")
    *parts, context, own = [line.split(",")[0] for line in lines[1:-1]]
    assert parts == [*("squares", "squares"), *("more", "more"), *("all data sets", "all data sets")]
    assert context.startswith("PSNR that another video's context costs")
    assert own.startswith("Fréchet distance in its own encoder")
    assert all(line.split()[-1] == "+0.0000" for line in lines[1:-1])
    assert lines[-1].startswith("largest difference of a window: +0 dB")


def write_switches(root: Path) -> Path:
    """Frames are dark or bright as the action that led to them says; the state is the brightness.

    The first training clip is of a held-out clip's video: no probe is fitted on it.
    """
    random = np.random.default_rng(0)
    splits: dict[str, list] = {"train": [], "validation": []}
    for number in range(9):
        switch = random.choice(np.float32([-1, 1]), 12)
        frames = np.broadcast_to((128 + 70 * switch)[:, None, None, None], (12, 32, 32, 3)).astype(np.uint8)
        key, split = f"s{number}", "train" if number < 6 else "validation"
        logged = {"action": np.stack([switch, switch], 1), "state": switch[:, None]}
        video = "s8" if number == 0 else key
        splits[split].append((frames, {"key": key, "source": video, "arrays": logged}))
    return write_data_set(root, splits, name=root.name)


def test_probes_planning_and_what_the_context_is_worth_come_out_again(tmp_path, capsys):
    """Of a model with actions, on two sets; a planning error that is published of a model without is refused."""
    roots = [str(write_switches(tmp_path / "switches")), str(write_switches(tmp_path / "others"))]
    torch.manual_seed(0)
    model = create_model("action-contextwm-debug", overrides={"action_size": 2}).eval()
    settings = ScoringConfig(windows=3, observed_frames=2, horizon=4)
    held_out = read_held_out(settings, roots, image_size=32, with_actions=True)
    protocol = make_protocol(settings, held_out)
    card, *_ = score(model, held_out, protocol)
    probed = {
        name: read_probe_data(settings, root, train_windows=7, with_actions=True)
        for name, root in zip(held_out.manifests, roots, strict=True)
    }
    card |= probe_scores(model, probed, protocol)
    card["planning_error"] = planning_error(model, held_out, protocol)
    place = save_pretrained(model, tmp_path / "model", scorecard=card)
    lines = run(capsys, place, "--data", *roots)
    names = [line.rsplit(maxsplit=3)[0].strip() for line in lines[1:-1]]
    assert names[6:] == [
        "PSNR that another video's context costs dB",
        "Fréchet distance in its own encoder",
        *(f"{name}, R2 of a linear probe for the state" for name in ("switches", "others")),
        *(f"{name}, open-loop planning error" for name in ("switches", "others")),
    ]
    assert all(line.split()[-1] in ("+0.0000", "-0.0000") for line in lines[1:-1]), lines
    card["probe_r2_state"]["others"]["mean"] += 0.25
    save_pretrained(model, place, scorecard=card)
    assert run(capsys, place, "--data", *roots)[-4].split()[-1] == "-0.2500"
    save_pretrained(create_model("contextwm-debug"), tmp_path / "video", scorecard=card)
    assert cli.main(["eval", str(tmp_path / "video"), "--data", *roots]) == 1
    said = capsys.readouterr().err
    assert (
        "others, open-loop planning error, switches, open-loop planning error: published, and not measured"
        in said
    )


def test_a_set_with_fewer_windows_than_another_gave_all(tmp_path, capsys):
    roots = [str(write_clips(tmp_path / "squares")), str(write_switches(tmp_path / "switches"))]
    model = create_model("plainwm-debug").eval()
    settings = ScoringConfig(observed_frames=2, horizon=8)  # 16, and 9 of three short clips
    held_out = read_held_out(settings, roots, image_size=32)
    assert [len([w for w in held_out.windows if w[0] == name]) for name in held_out.manifests] == [16, 9]
    card, *_ = score(model, held_out, make_protocol(settings, held_out))
    save_pretrained(model, tmp_path / "model", scorecard=card)
    assert all(
        line.split()[-1] == "+0.0000" for line in run(capsys, tmp_path / "model", "--data", *roots)[1:-1]
    )


def test_a_scorecard_or_a_record_of_another_form_is_one_sentence(published, tmp_path, capsys):
    card = json.loads((published / "model" / "scorecard.json").read_text())
    place = save_pretrained(from_pretrained(published / "model"), tmp_path / "model")
    for damaged in (
        card | {"windows": card["windows"][:2]},
        card | {"together": {}, "sources": {"squares": 3}},
        card | {"protocol": {}},
        card | {"probe_r2_state": {"squares": {"mean": "high"}}},
    ):
        (place / "scorecard.json").write_text(json.dumps(damaged))
        assert cli.main(["eval", str(place)]) == 1
        assert "scorecard.json does not have the form that the recipes write" in capsys.readouterr().err
    agent = save_pretrained(small_models()["dreamer_agent"], tmp_path / "agent")
    for train, sentence in (
        (
            {"evaluation": 3, "config": {"env": {}}},
            "train.json does not have the form that the recipes write",
        ),
        ({"config": 3}, "records no evaluation in an environment"),
        (
            {"evaluation": {"score": 1, "episodes": "two"}, "config": {"env": {"name": "dummy"}}},
            "does not have the form",
        ),
        (
            {"evaluation": {"score": 1, "episodes": 1}, "config": {"env": {"name": "dummy", "sight": 3}}},
            "unknown key 'sight'",
        ),
        (
            {
                "evaluation": {"score": 1, "episodes": 1},
                "config": {"env": {"name": "dummy"}, "evaluation_options": {"sight": 3}},
            },
            "environment dummy takes no option sight",
        ),
        (
            {
                "evaluation": {"score": 1, "episodes": 1},
                "config": {"env": {"name": "dummy"}, "evaluation_options": 3},
            },
            "evaluation_options expects a mapping, got 3",
        ),
    ):
        (agent / "train.json").write_text(json.dumps(train))
        assert cli.main(["eval", str(agent)]) == 1
        assert sentence in capsys.readouterr().err


def test_a_changed_number_shows(published, capsys, tmp_path):
    """Half a dB was added to one window of three of `squares`, and to no mean."""
    card = json.loads((published / "model" / "scorecard.json").read_text())
    card["windows"][1]["psnr_db"] += 0.5
    save_pretrained(from_pretrained(published / "model"), tmp_path / "model", scorecard=card)
    lines = run(capsys, tmp_path / "model", "--data", published / "moved", published / "squares")
    row = card["windows"][1]
    assert (
        lines[-1]
        == f"largest difference of a window: -0.5 dB ({row['key']}, from frame {row['start']}, PSNR)"
    )


def test_what_cannot_be_reproduced_is_one_sentence(published, capsys, tmp_path):
    assert cli.main(["eval", str(published / "model")]) == 1
    said = capsys.readouterr().err
    assert "where training had them there is not" in said and "more (manifest" in said and "--data" in said
    assert cli.main(["eval", str(published / "model"), "--data", str(published / "squares")]) == 1
    assert "none of the directories given is more (manifest" in capsys.readouterr().err
    save_pretrained(create_model("plainwm-debug"), tmp_path / "bare")
    assert cli.main(["eval", str(tmp_path / "bare")]) == 1
    assert "has no scorecard.json: there is nothing to reproduce" in capsys.readouterr().err


def test_shards_made_again_are_known_by_their_folders_name_and_it_is_said(published, capsys, tmp_path):
    """By another version of a library, which the manifest names: its hash is another, and the clips are the same."""
    place = tmp_path / "squares"
    shutil.copytree(published / "squares", place)
    before = Manifest.load(place)
    dataclasses.replace(before, versions={"av": "0"}).save(place)
    hashes = f"(manifest {Manifest.load(place).hash[:12]}, published of {before.hash[:12]})"
    said, _, *lines = run(capsys, published / "model", "--data", place, published / "moved")
    assert said == f"squares: shards made again {hashes}, with the same mean frame"
    assert all(line.split()[-1] == "+0.0000" for line in lines[:-1])
    card = json.loads((published / "model" / "scorecard.json").read_text())
    card["protocol"]["mean_frames"]["squares"] = "another"
    save_pretrained(from_pretrained(published / "model"), tmp_path / "model", scorecard=card)
    assert run(capsys, tmp_path / "model", "--data", place, published / "moved")[0].endswith(
        "), with another mean frame: the pictures are not quite the same"
    )
    card["protocol"]["windows"][0][3] += 1
    save_pretrained(from_pretrained(published / "model"), tmp_path / "model", scorecard=card)
    assert cli.main(["eval", str(tmp_path / "model"), "--data", str(place), str(published / "moved")]) == 1
    assert "do not compare: windows" in capsys.readouterr().err
    place.rename(tmp_path / "other")
    other = (str(tmp_path / "other"), str(published / "moved"))
    assert cli.main(["eval", str(published / "model"), "--data", *other]) == 1
    assert "none of the directories given is squares (manifest" in capsys.readouterr().err


def test_an_agents_episodes_are_played_again(tmp_path, capsys):
    torch.manual_seed(0)
    agent = DrQV2Agent(agent_preset("drqv2-tiny", action_size=1))
    env = {"name": "dummy", "image_size": 32, "action_repeat": 1, "episode_frames": 6}
    made = make_env(**env)
    records = evaluate(made, agent, seeds=evaluation_seeds(2))
    mean = sum(record.score for record in records) / 2
    success = sum(record.success for record in records) / 2
    evaluation = {"episodes": 2, "score": mean + 0.25, "success_rate": success}
    train = {"task": "dummy", "evaluation": evaluation, "config": {"env": env}}
    save_pretrained(agent, tmp_path / "agent", train=train, card=False)
    lines = run(capsys, tmp_path / "agent")
    assert lines[1].startswith("dummy, score") and lines[1].split()[-1] == "-0.2500"
    assert (
        lines[2].startswith("dummy, success rate") and lines[2].split()[-1] == "+0.0000" and len(lines) == 3
    )


@pytest.mark.parametrize(
    ("config", "words", "sentence"),
    [
        ("text", (), "records no evaluation in an environment"),
        ({"env": {"name": "dummy"}}, (), "the agent sees 32 pixels a side and dummy draws 64"),
        (
            {"env": {"name": "gym:Reacher-v5", "image_size": 32}},
            ("--env", "scenes"),
            "the agent's actions have 2 numbers and scenes takes 1: it cannot act there",
        ),
    ],
)
def test_an_agent_that_cannot_play_there_is_one_sentence(config, words, sentence, tmp_path, capsys):
    train = {"evaluation": {"episodes": 1, "score": 1.0}, "config": config}
    save_pretrained(small_models()["dreamer_agent"], tmp_path / "agent", train=train, card=False)
    assert cli.main(["eval", str(tmp_path / "agent"), *words]) == 1
    told = capsys.readouterr().err
    assert sentence in told and told.count("\n") == 1


@pytest.mark.parametrize("name", ["antigravity:fly", "gym:antigravity:Fly-v0"])
def test_a_task_that_is_code_of_the_checkpoint_does_not_run(name, tmp_path, capsys):
    """`antigravity` would open a browser: it is not even imported."""
    train = {
        "evaluation": {"episodes": 1, "score": 1.0},
        "config": {"env": {"name": name}},
    }
    save_pretrained(small_models()["dreamer_agent"], tmp_path / "agent", train=train, card=False)
    assert cli.main(["eval", str(tmp_path / "agent")]) == 1
    assert f"code of its own: --env {name} says to run it" in capsys.readouterr().err


def test_a_score_of_another_task_is_not_said_to_be_of_this_one(tmp_path, capsys):
    train = {
        "evaluation": {"episodes": 1, "score": 1.0},
        "config": {"env": {"name": "dummy", "image_size": 32}},
    }
    sizes = DrQV2Config(action_size=1, image_size=32, channels=4, feature_units=4, hidden_units=8)
    save_pretrained(DrQV2Agent(sizes), tmp_path / "agent", train=train, card=False)
    assert cli.main(["eval", str(tmp_path / "agent"), "--env", "scenes"]) == 0
    assert "scenes (published of dummy), score " in capsys.readouterr().out
