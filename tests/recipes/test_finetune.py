"""The fine-tuning recipe: its configurations, exact resume, refusals, and an agent that learns."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import ClassVar

import av
import numpy as np
import pytest
import torch

from cwm_hub.agents.dreamer import DreamerAgent
from cwm_hub.agents.drqv2 import DrQV2Agent
from cwm_hub.agents.presets import agent_preset
from cwm_hub.agents.rollout import evaluation_seeds
from cwm_hub.envs.table import EnvConfig, list_envs, make_env
from cwm_hub.hub.agents import find_agent
from cwm_hub.hub.pretrained import from_pretrained
from cwm_hub.hub.saving import save_pretrained
from cwm_hub.models.registry import create_model, model_config
from recipes import finetune
from recipes.demo import Loop, act
from recipes.run import trackers
from recipes.run.agent_setup import new_agent, new_settings, pretrained_settings
from recipes.run.command_line import parse_config
from recipes.run.finetune_settings import FinetuneConfig

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "recipes" / "configs" / "finetune"
TIMES = ("seconds", "_share", "_per_second")
SMALL = {
    "model": "contextwm-debug",
    "env.name": "dummy",
    "env.image_size": 32,
    "agent_steps": 140,
    "prefill_steps": 60,
    "warmup_updates": 2,
    "update_every_steps": 10,
    "replay_steps": 130,
    "evaluate_every_steps": 60,
    "evaluation_episodes": 2,
    "checkpoint_every_steps": 50,
    "log_every_updates": 3,
    "device": "cpu",
    "agent.batch_sequences": 4,
    "agent.sequence_steps": 8,
    "agent.held_updates": 1,
    "agent.world.heads.units": 16,
    "agent.behaviour.heads.units": 16,
    "agent.behaviour.imagined_steps": 3,
    "agent.intrinsic.queue_size": 64,
}


def arguments(run: Path, **changes: object) -> list[str]:
    settings = SMALL | {"run": run} | {name.replace("__", "."): value for name, value in changes.items()}
    return [f"--{name}={value}" for name, value in settings.items() if value is not None]


def main(arguments: list[str]) -> int:
    return finetune.main(parse_config(FinetuneConfig, arguments))


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_times(rows: list[dict]) -> list[dict]:
    return [{k: v for k, v in row.items() if not k.endswith(TIMES)} for row in rows]


def assert_same_run(one: Path, other: Path) -> None:
    for name in ("metrics", "episodes", "eval"):
        assert without_times(rows(one / f"{name}.jsonl")) == without_times(rows(other / f"{name}.jsonl"))
    ours, theirs = (from_pretrained(run / "agent").state_dict() for run in (one, other))
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    held, kept = (sorted((run / "replay").iterdir()) for run in (one, other))
    assert [path.name for path in held] == [path.name for path in kept]
    for path, again in zip(held, kept, strict=True):
        with np.load(path) as episode, np.load(again) as same:
            assert all(np.array_equal(episode[name], same[name]) for name in episode)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    assert main(arguments(run)) == 0
    return run


class Tracking:
    """In place of accelerate's Accelerator: what it is told."""

    told: ClassVar[list[tuple[int, dict]]] = []
    closed = 0

    def __init__(self, **_: object) -> None:
        pass

    def init_trackers(self, *_: object, **__: object) -> None:
        pass

    def log(self, row: dict, *, step: int) -> None:
        self.told.append((step, row))

    def end_training(self) -> None:
        Tracking.closed += 1


def test_trackers_get_the_metrics_and_every_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "Accelerator", Tracking)
    monkeypatch.setattr(trackers, "get_available_trackers", lambda: ["tensorboard"])
    assert main(arguments(tmp_path / "run", trackers="[tensorboard]", agent_steps=10)) == 0
    assert Tracking.closed == 1
    played = [(step, row) for step, row in Tracking.told if "mode_score" in row or "random_score" in row]
    assert [(step, sorted(row)[-2:]) for step, row in played] == [
        (0, ["random_success_rate", "updates"]),
        (2, ["sampled_success_rate", "updates"]),
        (3, ["sampled_success_rate", "updates"]),
    ]
    (last,) = [row for _, row in Tracking.told if "image_loss" in row]
    assert last["updates"] == 3
    assert None not in last.values()


def test_a_tracker_that_is_not_there_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(trackers.RecipeError, match="did you mean 'wandb'"):
        main(arguments(tmp_path / "run", trackers="[wandbb]"))
    assert not (tmp_path / "run").exists()


def test_run_folder_tells_the_whole_story(whole_run: Path) -> None:
    metrics, episodes, evaluation = (rows(whole_run / f"{n}.jsonl") for n in ("metrics", "episodes", "eval"))
    assert len(episodes) == 10
    assert len(list((whole_run / "replay").iterdir())) == 6  # of 21 rows each, in 130
    played = [("random", 0)] + [(name, at) for at in (60, 120, 180, 200) for name in ("mode", "sampled")]
    assert [(row["policy"], row["agent_steps"]) for row in evaluation] == [
        one for one in played for _ in range(2)
    ]
    assert {row["seed"] for row in evaluation} == set(evaluation_seeds(2))
    assert metrics[-1]["updates"] == 15  # 2 at step 60, then one every 10 steps to 200: 16, logged by threes
    assert all(row["image_loss"] > 0 for row in metrics)
    train = json.loads((whole_run / "agent" / "train.json").read_text())
    assert train["updates"] == 16
    assert train["evaluation"]["episodes"] == 2
    agent = from_pretrained(whole_run / "agent", expect=DreamerAgent)
    assert (agent.config.batch_sequences, agent.config.sequence_steps) == (4, 8)
    assert agent.config.world.heads.units == agent.config.behaviour.heads.units == 16
    assert agent.config.behaviour.imagined_steps == 3
    assert agent.config.intrinsic is not None and agent.config.intrinsic.queue_size == 64
    films = sorted((whole_run / "films").iterdir())
    assert [path.name for path in films] == [f"step-{at:09d}.mp4" for at in (0, 60, 120, 180, 200)]
    assert (whole_run / "agent" / "replay.mp4").read_bytes() == films[-1].read_bytes()
    with av.open(str(films[0])) as container:
        frames = sum(1 for _ in container.decode(video=0))
    env = make_env("dummy", image_size=32)
    assert frames == 21 + int(env.metadata["render_fps"] / 2)  # the longest of two episodes of 20 steps


@pytest.mark.parametrize(("name", "steps"), [("my_lab:lamp", 12), ("gym:Reacher-v5", 50)])
def test_an_environment_that_is_not_ours_runs_through_the_recipe(
    name: str, steps: int, tmp_path: Path
) -> None:
    short = {
        "env__name": name,
        "agent_steps": 2 * steps,
        "prefill_steps": steps,
        "evaluate_every_steps": 2 * steps,
        "evaluation_episodes": 1,
    }
    quick = {"env__render_quality": "flat", "update_every_steps": steps, "log_every_updates": 1}
    other = {"evaluation_options__look": 2} if name == "my_lab:lamp" else {}
    assert main(arguments(tmp_path / "run", **short, **quick, **other)) == 0
    trained, evaluated = (rows(tmp_path / "run" / f"{file}.jsonl") for file in ("episodes", "eval"))
    assert {row["episode_steps"] for row in trained} == {steps}
    looks = [{row.get("visual_seed", "none") for row in played} for played in (trained, evaluated)]
    assert looks == ([{1}, {2}] if other else [{"none"}, {"none"}])
    found = find_agent(tmp_path / "run").environment(image_size=32)  # what evaluate_agent and watch play
    assert (found.name, found.options) == (name, {"look": 2} if other else {})
    policies = [row["policy"] for row in evaluated]
    assert policies == ["random"] + ["mode", "sampled"] * 2
    agent = from_pretrained(tmp_path / "run" / "agent", expect=DreamerAgent)
    assert agent.config.world.action_size == make_env(name, image_size=32).action_space.shape[0]


def test_a_finished_run_is_left_alone(whole_run: Path, capsys: pytest.CaptureFixture) -> None:
    before = (whole_run / "metrics.jsonl").read_bytes()
    assert main(arguments(whole_run)) == 0
    assert "finished already" in capsys.readouterr().out
    assert (whole_run / "metrics.jsonl").read_bytes() == before


def test_n_then_m_steps_equal_n_plus_m(whole_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(arguments(run, agent_steps=60)) == 0
    assert main(arguments(run)) == 0
    assert_same_run(whole_run, run)


def test_episodes_collected_at_once_are_counted_in_all_environments_and_resume_exactly(
    tmp_path: Path,
) -> None:
    """Three environments: 3 steps a turn, so that the 200th is overstepped by one, and as many updates as with one."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    settings = {"collect_envs": 3, "evaluation_episodes": 1, "evaluate_sampled": False}
    assert main(arguments(whole, **settings)) == 0
    assert [row["agent_steps"] for row in rows(whole / "episodes.jsonl")] == [60] * 3 + [120] * 3 + [180] * 3
    evaluated = dict.fromkeys(row["agent_steps"] for row in rows(whole / "eval.jsonl"))
    assert list(evaluated) == [0, 60, 120, 180, 201]
    train = json.loads((whole / "agent" / "train.json").read_text())
    assert (train["agent_steps"], train["updates"], train["given_up_steps"]) == (201, 16, 0)
    assert main(arguments(parts, **settings, agent_steps=60)) == 0
    assert main(arguments(parts, **settings, collect_processes=True)) == 0  # where they are changes nothing
    assert_same_run(whole, parts)


def test_drqv2_is_one_key_apart_and_resumes_exactly_too(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    changes = {"model": "drqv2-tiny", "agent.hidden_units": 16, "agent.batch_transitions": 8}
    assert main(arguments(whole, **changes)) == 0
    told = capsys.readouterr().out
    assert "as DrQ-v2 has none: batch_sequences, sequence_steps, held_updates, world" in told
    assert main(arguments(parts, **changes, agent_steps=60)) == 0
    assert main(arguments(parts, **changes)) == 0
    assert_same_run(whole, parts)
    agent = from_pretrained(whole / "agent", expect=DrQV2Agent)
    assert (agent.config.hidden_units, agent.config.batch_transitions, agent.config.action_size) == (16, 8, 1)
    assert {"critic_loss", "actor_loss", "critic_value"} <= rows(whole / "metrics.jsonl")[-1].keys()


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_equals_undisturbed(whole_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "recipes/finetune.py", *arguments(run)], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    while process.poll() is None:
        if (run / "episodes.jsonl").exists() and len((run / "episodes.jsonl").read_text().splitlines()) >= 8:
            process.kill()
        time.sleep(0.01)
    assert process.wait() == -signal.SIGKILL
    saved = [path.name for path in (run / "checkpoints").iterdir()]
    assert "step-00000150" in saved  # in an episode's middle
    assert main(arguments(run)) == 0
    assert_same_run(whole_run, run)


def test_resume_with_other_settings_names_them(tmp_path: Path) -> None:
    run = tmp_path / "run"
    main(arguments(run, agent_steps=1))
    with pytest.raises(ValueError, match="other values of seed, update_every_steps"):
        main(arguments(run, seed=3, update_every_steps=5))


def test_pretrained_checkpoint_is_named_as_the_parent_by_hash(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_pretrained(create_model("contextwm-debug"), tmp_path / "video")
    run = tmp_path / "run"
    assert (
        main(arguments(run, model=None, init=tmp_path / "video", agent_steps=1, evaluation_episodes=1)) == 0
    )
    parent = json.loads((run / "agent" / "train.json").read_text())["parents"]["init"]
    assert parent["model_type"] == "video_world_model"
    assert len(parent["weights_sha256"]) == 64


@pytest.mark.parametrize("load", [["video_rssm"], ["encoder", "decoder"], []])
def test_only_the_parts_that_are_named_come_from_the_pretrained_model(
    tmp_path: Path, load: list[str]
) -> None:
    video = create_model("contextwm-debug", overrides={"rssm.deter": 8})
    save_pretrained(video, tmp_path / "video")
    env = EnvConfig("dummy", image_size=32)
    config = FinetuneConfig(
        init=str(tmp_path / "video"), load=load, env=env, agent={"intrinsic.queue_size": 64}
    )
    agent, _ = new_agent(config, 1, torch.device("cpu"))
    theirs = {f"frame_model.{name}": tensor for name, tensor in video.frame_model.state_dict().items()}
    theirs |= {f"video_rssm.{name}": tensor for name, tensor in video.rssm.state_dict().items()}
    ours = agent.world_model.state_dict()
    for part in ("encoder", "decoder", "video_rssm"):
        names = [n for n in theirs if part in n or (part == "encoder" and "context_encoder" in n)]
        same = [torch.equal(ours[name], theirs[name]) for name in names]
        assert all(same) if part in load else not all(same), part
    with pytest.raises(ValueError, match="load says which parts of init"):
        replace(config, init=None, model="contextwm-debug")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": None}, "either init .* or model"),
        ({"init": "runs/nowhere/model", "model": None}, "runs/nowhere/model"),
        ({"env__name": "metaworl:reach"}, "unknown environment|headless OpenGL"),
        ({"env__image_size": 64}, "set --env.image_size 32"),
        ({"agent__batch_sequence": 3}, "did you mean 'batch_sequences'"),
        ({"model": "contextwm-debgu"}, "did you mean 'contextwm-debug'"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path: Path, changes: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as error:
        main(arguments(tmp_path / "run", **changes))
    assert "\n" not in str(error.value)


def test_an_agent_is_not_a_start(whole_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="starts from a VideoWorldModel"):
        main(arguments(tmp_path / "run", model=None, init=whole_run / "agent"))


def test_without_gl_a_task_that_needs_it_takes_the_fallback_or_stops() -> None:
    code = (
        "from recipes.run.command_line import parse_config\n"
        "from recipes.run.finetune_settings import FinetuneConfig, with_fallback\n"
        "import sys\n"
        "print(with_fallback(parse_config(FinetuneConfig, sys.argv[1:])).env.name)"
    )
    outcomes = {}
    for fallback in ("dummy", "null"):
        options = ["--config", str(CONFIGS / "metaworld.yaml"), "--fallback_env", fallback]
        outcomes[fallback] = subprocess.run(
            [sys.executable, "-c", code, *options],
            env=os.environ | {"MUJOCO_GL": "osmesa", "PYOPENGL_PLATFORM": "nowhere"},
            capture_output=True,
            text=True,
        )
    assert outcomes["dummy"].stdout.splitlines()[-1] == "dummy"
    assert "apt-get install" in outcomes["dummy"].stdout
    assert outcomes["null"].returncode != 0
    assert "apt-get install" in outcomes["null"].stderr


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_builds_its_agent_config(path: Path) -> None:
    config = parse_config(FinetuneConfig, ["--config", str(path)])
    assert config.env.name in list_envs()
    preset = config.model or ("contextwm-tiny" if config.env.image_size == 32 else "contextwm")
    agent = new_settings(replace(config, model=preset), 1 if config.env.name == "dummy" else 4)
    assert agent.world.frame.image_size == config.env.image_size
    assert config.prefill_steps < config.last_step <= config.replay_steps
    episode_frames = config.env.episode_frames or {"dummy": 20, "scenes": 25}.get(config.env.name, 500)
    assert episode_frames // config.env.action_repeat >= agent.sequence_steps


def test_paper_configuration_says_what_the_paper_says() -> None:
    config = parse_config(FinetuneConfig, ["--config", str(CONFIGS / "metaworld.yaml")])
    assert (config.agent_steps, config.prefill_steps, config.warmup_updates) == (250_000, 5000, 100)
    assert (config.update_every_steps, config.evaluate_every_steps, config.evaluation_episodes) == (
        5,
        10_000,
        10,
    )
    assert (config.env.image_size, config.env.action_repeat, config.env.episode_frames) == (64, 1, None)
    assert config.env.render_quality == "exact"
    agent = pretrained_settings(config, create_model("contextwm"), 4)
    assert (agent.batch_sequences, agent.sequence_steps, agent.favour_ends) == (50, 50, True)
    assert agent.world.video_rssm == model_config("contextwm").rssm
    assert agent.world.dual_reward and not agent.world.concat_embed
    assert (agent.world.free_nats, agent.world.video_kl_scale, agent.world.kl_scale) == (0.0, 0.0, 1.0)
    assert agent.world.frame.context.augmentation == "erasing"
    assert (agent.intrinsic.beta, agent.intrinsic.k, agent.intrinsic.queue_size) == (1.0, 16, 4096)
    assert (agent.world_lr, agent.behaviour_lr, agent.adam_eps, agent.weight_decay) == (
        3e-4,
        8e-5,
        1e-5,
        1e-6,
    )
    assert (agent.behaviour.imagined_steps, agent.behaviour.discount, agent.behaviour.lambda_) == (
        15,
        0.99,
        0.95,
    )
    assert (agent.behaviour.entropy_scale, agent.behaviour.slow_critic_updates) == (1e-4, 100)
    assert (agent.held_updates, agent.clip_norm) == (100, 100.0)
    config = parse_config(FinetuneConfig, ["--config", str(CONFIGS / "metaworld-dreamerv2.yaml")])
    scratch = new_settings(config, 4)
    assert scratch.world.frame.backbone == "cnn"
    assert scratch.world.video_rssm is None and scratch.intrinsic is None and not scratch.world.dual_reward


@pytest.mark.parametrize(
    ("name", "budget", "repeat"), [("dmcr", (500_000, 10_000, 10), 2), ("driving", (150_000, 5000, 5), 1)]
)
def test_the_papers_other_domains_differ_from_meta_world_as_it_says(
    name: str, budget: tuple[int, ...], repeat: int
) -> None:
    config = parse_config(FinetuneConfig, ["--config", str(CONFIGS / f"{name}.yaml")])
    assert (config.agent_steps, config.evaluate_every_steps, config.evaluation_episodes) == budget
    assert (config.prefill_steps, config.warmup_updates, config.update_every_steps) == (1000, 100, 5)
    assert (config.env.image_size, config.env.action_repeat, config.env.episode_frames) == (64, repeat, None)
    assert config.context_augmentation == "none" and config.agent["held_updates"] == 0
    agent = new_settings(replace(config, model="contextwm"), 2)
    assert (agent.batch_sequences, agent.sequence_steps, agent.favour_ends) == (16, 50, False)
    assert (agent.world.free_nats, agent.world.concat_embed, agent.intrinsic.beta) == (1.0, True, 0.1)
    assert agent.world.continue_head == (name == "driving")  # which ends episodes by itself


@pytest.mark.parametrize("option", ["--help", "--sede=1"])
def test_help_and_a_typo_answer_without_torch(option: str) -> None:
    code = (
        "import sys, contextlib, runpy\n"
        f"sys.argv = ['recipes/finetune.py', {option!r}]\n"
        "with contextlib.suppress(SystemExit): runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)


def learned(run: Path, task: str) -> tuple[float, float]:
    """Of the last evaluation: the share of the way from random to the best possible return, and the success."""
    env = make_env(task, image_size=16)
    seeds = evaluation_seeds(20)
    best = 0.0
    for seed in seeds:
        env.reset(seed=seed)
        best += env.unwrapped.simulator.best_return() / len(seeds)
    evaluation = rows(run / "eval.jsonl")
    last = [row for row in evaluation if row["policy"] == "mode"][-20:]
    assert {row["seed"] for row in last} == set(seeds)
    random = mean(row["score"] for row in evaluation if row["policy"] == "random")
    share = (mean(row["score"] for row in last) - random) / (best - random)
    return share, mean(row["success"] for row in last)


@pytest.mark.slow
@pytest.mark.parametrize("seed", os.environ.get("CWM_SCENES_SEEDS", "0").split(","))
def test_the_demos_agent_solves_scenes(seed: str, tmp_path: Path) -> None:
    """The demo's own stages, on as many seeds as the variable names, the agent after 600 of its 800 updates."""
    shorter = {"pre-train": [], "fine-tune": ["--agent_steps", "1600", "--evaluate_every_steps", "1600"]}
    loop = Loop(tmp_path)
    for stage in act(tmp_path, updates=None):
        options = shorter.get(stage.name.split()[0])
        seeded = [] if options is None else ["--seed", seed, *options]
        assert loop.run(replace(stage, command=[*stage.command, *seeded])) == 0
    share, success = learned(tmp_path / "finetune", "scenes")
    assert share > 0.6 and success >= 0.8, (share, success)


@pytest.mark.slow
def test_drqv2_learns_the_dummy_task_from_pixels(tmp_path: Path) -> None:
    """By the same file, and almost as far as can be (96 %, success 1.0, when measured)."""
    run = tmp_path / "run"
    settings = {"image_size": 16, "learning_rate": 1e-3, "discount": 0.9, "slow_share": 0.02}
    options = [f"--agent.{name}={value}" for name, value in settings.items()]
    command = ["--config", str(CONFIGS / "dummy.yaml"), "--run", str(run), "--device", "cpu"]
    assert main([*command, "--model=drqv2-tiny", *options]) == 0
    share, success = learned(run, "dummy")
    assert share > 0.8 and success > 0.8, (share, success)


@pytest.mark.parametrize("model", ["dreamerv2", "dreamerv2-cnn", "plainwm"])
def test_the_paper_configuration_serves_every_baseline_and_says_what_it_leaves_out(
    model: str, capsys: pytest.CaptureFixture
) -> None:
    """One key apart: the same budget, batch and replay, and of the agent's settings those that the baseline has."""
    config = parse_config(FinetuneConfig, ["--config", str(CONFIGS / "metaworld.yaml"), f"--model={model}"])
    agent = new_settings(config, 4)
    assert (agent.batch_sequences, agent.sequence_steps, agent.favour_ends) == (50, 50, True)
    assert agent.held_updates == 0
    told = capsys.readouterr().out
    assert "left out of the agent's settings, as nothing is pre-trained: held_updates" in told
    assert "context_augmentation erasing is left out" in told
    scratch = model.startswith("dreamerv2")
    assert (agent.intrinsic is None) == scratch
    assert ("as the bonus needs a video RSSM: intrinsic.beta" in told) == scratch
    with pytest.raises(ValueError, match="did you mean 'batch_sequences'"):
        new_settings(replace(config, agent={"batch_sequence": 3}), 4)
    for elsewhere, here in (
        ("dual_reward", "world.dual_reward"),
        ("gamma", "behaviour.discount"),
        ("lr", "world_lr"),
    ):
        with pytest.raises(ValueError, match=f"did you mean '{here}'"):
            new_settings(replace(config, agent={elsewhere: 1}), 4)


def test_every_agent_has_a_tiny_form_that_sees_the_same_frames() -> None:
    """One YAML key apart on a CPU too."""
    names = ["contextwm", "plainwm", "dreamerv2", "dreamerv2-cnn", "drqv2"]
    for name in names:
        agent = agent_preset(f"{name}-tiny", action_size=2)
        assert (agent.image_size if name == "drqv2" else agent.world.frame.image_size) == 32
