"""From logged clips to an agent: pre-training with actions, what they are worth, and the start of fine-tuning."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from moving_squares import write_clips
from synthetic_shards import write_data_set

from cwm_hub import create_model, from_pretrained, save_pretrained
from cwm_hub.models.action_world_model import ActionWorldModel
from recipes import evaluate, finetune, pretrain
from recipes.run.command_line import parse_config
from recipes.run.finetune_settings import FinetuneConfig
from recipes.run.folder import RecipeError, read_rows
from recipes.run.pretrain_settings import PretrainConfig

SMALL = ["--model", "action-contextwm-debug", "--window_frames", "8", "--batch_clips", "8", "--workers", "0"]
UPDATES = "80"
SMALL += ["--cpu", "true", "--log_every", "5"]


def write_switches(root: Path, *, rewards: bool = True) -> Path:
    """Frames are dark or bright as the action that led to them said, which nothing else tells; the reward is the action."""
    random = np.random.default_rng(0)
    splits: dict[str, list] = {"train": [], "validation": []}
    for split, count in (("train", 12), ("validation", 4)):
        for number in range(count):
            switch = random.choice(np.float32([-1, 1]), 30)
            switch[0] = 0
            frames = np.broadcast_to((128 + 70 * switch)[:, None, None, None], (30, 32, 32, 3)).astype(
                np.uint8
            )
            arrays = {"action": np.stack([switch, np.zeros_like(switch)], 1)}
            if rewards:
                arrays |= {"reward": switch, "is_terminal": np.arange(30) == 29}
            key = f"{split}{number}"
            splits[split].append((frames, {"key": key, "source": key, "arrays": arrays}))
    return write_data_set(root, splits, name="switches")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_switches(tmp_path_factory.mktemp("data") / "switches")


def train(run: Path, data: Path, *options: str) -> int:
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    arguments = ["--data", json.dumps([{"root": str(data)}]), "--run", str(run), *SMALL, *options]
    return pretrain.main(parse_config(PretrainConfig, arguments))


def run_finetune(run: Path, checkpoint: Path, **changes: object) -> int:
    settings = {
        "init": checkpoint, "run": run, "env.name": "dummy", "env.image_size": 32, "agent_steps": 20,
        "prefill_steps": 40, "warmup_updates": 2, "update_every_steps": 10, "replay_steps": 200,
        "evaluate_every_steps": 20, "evaluation_episodes": 1, "device": "cpu", "agent.batch_sequences": 4,
        "agent.sequence_steps": 8, "agent.behaviour.heads.units": 16, "agent.behaviour.imagined_steps": 3,
        "agent.intrinsic.queue_size": 64,
    } | changes  # fmt: skip
    return finetune.main(
        parse_config(FinetuneConfig, [f"--{name}={value}" for name, value in settings.items()])
    )


@pytest.mark.slow
def test_actions_are_worth_what_they_say(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = ["--evaluate_every", UPDATES, "--evaluation.windows", "8", "--evaluation.observed_frames", "3"]
    scores += ["--evaluation.horizon", "5"]
    run = tmp_path / "run"
    assert train(run, shards, "--updates", UPDATES, "--learning_rate", "3e-3", *scores) == 0
    assert "action [2], reward [], is_terminal []" in capsys.readouterr().out
    metrics = read_rows(run / "metrics.jsonl")
    assert metrics[-1]["representative_reward_loss"] < metrics[0]["representative_reward_loss"] / 2
    (score,) = read_rows(run / "scores.jsonl")
    assert score["minus_shuffled_actions_db"] > 3

    model = from_pretrained(run / "model")
    assert isinstance(model, ActionWorldModel) and model.config.action_size == 2
    out = tmp_path / "evaluation"
    arguments = [
        "--checkpoint",
        str(run / "model"),
        "--data",
        str(shards),
        "--out",
        str(out),
        "--device",
        "cpu",
    ]
    arguments += ["--windows", "8", "--observed_frames", "3", "--horizon", "5", "--planning", "true"]
    assert evaluate.main(parse_config(evaluate.EvaluateConfig, arguments)) == 0
    said = capsys.readouterr().out
    assert "dB above the same model under the actions of another window" in said
    card = json.loads((out / "scorecard.json").read_text())
    planning = card["planning_error"]["switches"]
    assert f"planning error {planning['mean']:.3f} [" in said and planning["plans"] == 8
    assert (
        planning["mean"] < 0.45
    )  # half of the others end on the same switch and cannot be told apart: 0.25 if it knows
    card = card["together"]
    worth = card["model"]["psnr_db"]["mean"] - card["shuffled_actions"]["psnr_db"]["mean"]
    assert card["model_minus_shuffled_actions"]["psnr_db"]["mean"] == pytest.approx(worth)
    assert worth == pytest.approx(score["minus_shuffled_actions_db"], abs=1e-3)
    assert (out / "prediction.png").exists()


def test_a_video_model_goes_on_with_actions_and_then_as_an_agent(tmp_path: Path) -> None:
    """No reward is logged: its heads stay as they were made, and come along."""
    data = write_switches(tmp_path / "switches", rewards=False)
    torch.manual_seed(1)
    video = create_model("contextwm-debug")
    save_pretrained(video, tmp_path / "video")
    assert train(tmp_path / "run", data, "--updates", "2", "--init", str(tmp_path / "video")) == 0
    model = from_pretrained(tmp_path / "run/model")
    made = json.loads((tmp_path / "run/model/train.json").read_text())
    assert made["parents"]["init"]["model_type"] == "video_world_model"
    assert made["logged"] == "action"
    assert "| learned from beside the frames | action |" in (tmp_path / "run/model/README.md").read_text()
    assert "reward_loss" not in "".join(read_rows(tmp_path / "run/metrics.jsonl")[-1])

    def moved(part: torch.nn.Module, before: torch.nn.Module) -> float:
        pairs = zip(part.parameters(), before.parameters(), strict=True)
        return max(float((a - b).detach().abs().max()) for a, b in pairs)

    assert (
        0 < moved(model.video_rssm, video.rssm) < 1e-3
    )  # two updates of Adam from where the video model was
    assert 0 < moved(model.frame_model, video.frame_model) < 1e-3
    torch.manual_seed(0)
    fresh = create_model("action-contextwm-debug", overrides={"action_size": 2})
    for name in ("behavioural_head", "representative_head"):
        ours, made = getattr(model, name).state_dict(), getattr(fresh, name).state_dict()
        assert all(torch.equal(ours[key], made[key]) for key in made)

    config = parse_config(FinetuneConfig, [f"--init={tmp_path / 'run/model'}", "--env.image_size=32"])
    from recipes.run.agent_setup import new_agent

    agent, parent = new_agent(config, 2, torch.device("cpu"))
    assert parent is not None and parent["model_type"] == "action_world_model"
    assert agent.config.world.video_kl_scale == 0 and agent.config.held_updates == 100
    for name, tensor in model.state_dict().items():
        assert torch.equal(agent.world_model.state_dict()[name], tensor), name
    assert agent.config.intrinsic is not None


def test_fine_tuning_starts_from_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    from dataclasses import asdict

    from cwm_hub.envs import make_env
    from cwm_hub.envs.table import EnvConfig

    env = make_env(**asdict(EnvConfig(name="dummy", image_size=32)))
    size = env.action_space.shape[0]
    model = create_model("action-contextwm-debug", overrides={"action_size": size})
    save_pretrained(model, tmp_path / "model")
    assert run_finetune(tmp_path / "run", tmp_path / "model", **{"agent.world.continue_head": "true"}) == 0
    agent = from_pretrained(tmp_path / "run/agent")
    assert agent.config.world.continue_head and agent.config.world.heads.units == 16
    with pytest.raises(RecipeError, match=f"takes actions of {size + 1} numbers and dummy of {size}"):
        wider = create_model("action-contextwm-debug", overrides={"action_size": size + 1})
        save_pretrained(wider, tmp_path / "wider")
        run_finetune(tmp_path / "other", tmp_path / "wider")


def test_a_resumed_run_is_the_whole_run(shards: Path, tmp_path: Path) -> None:
    assert train(tmp_path / "whole", shards, "--updates", "4") == 0
    assert train(tmp_path / "parts", shards, "--updates", "2", "--checkpoint_every", "2") == 0
    assert train(tmp_path / "parts", shards, "--updates", "4") == 0
    whole, parts = (from_pretrained(tmp_path / name / "model").state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_dreamerv2_learns_from_logs_too(shards: Path, tmp_path: Path) -> None:
    options = ["--model", "dreamerv2-mini", "--updates", "1", "--batch_clips", "2"]
    assert train(tmp_path / "run", shards, *options) == 0
    assert from_pretrained(tmp_path / "run/model").video_rssm is None


def test_data_without_actions_or_with_others_is_one_sentence(shards: Path, tmp_path: Path) -> None:
    plain = write_clips(tmp_path / "squares")
    with pytest.raises(ValueError, match="holds no actions beside its clips"):
        train(tmp_path / "run", plain, "--updates", "1")
    save_pretrained(create_model("action-contextwm-debug"), tmp_path / "four")
    arguments = ["--checkpoint", str(tmp_path / "four"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    arguments += ["--windows", "4", "--observed_frames", "3", "--horizon", "5"]
    with pytest.raises(
        RecipeError, match="the model takes actions of size 4 and the data has actions of size 2"
    ):
        evaluate.main(parse_config(evaluate.EvaluateConfig, [*arguments, "--data", str(shards)]))
    with pytest.raises(ValueError, match="holds no actions beside its clips"):
        evaluate.main(parse_config(evaluate.EvaluateConfig, [*arguments, "--data", str(plain)]))
