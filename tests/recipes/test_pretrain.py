"""The pre-training recipe as users launch it: resume, signals, two processes, and what it refuses."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState, GradientState
from moving_squares import write_clips
from safetensors.torch import load_file
from synthetic_shards import write_shards

from cwm_hub import create_model, from_pretrained
from cwm_hub.envs.table import EnvConfig
from cwm_hub.shards.storage import commit_folder
from recipes import finetune
from recipes.pretrain import main, open_loader, print_progress, records_updates
from recipes.run.command_line import parse_config
from recipes.run.finetune_settings import FinetuneConfig
from recipes.run.folder import (
    RecipeError,
    keep_newest,
    note_unreadable,
    read_rows,
    saved_steps,
    truncate_rows,
)
from recipes.run.meter import Meter
from recipes.run.pretrain_settings import PretrainConfig
from recipes.run.world import check_world

ROOT = Path(__file__).parents[2]
RECIPE = str(ROOT / "recipes" / "pretrain.py")
SMALL = ["--model", "contextwm-debug", "--window_frames", "8", "--batch_clips", "4", "--log_every", "2"]
SMALL += ["--checkpoint_every", "3", "--workers", "0"]
ENVIRONMENT = {**os.environ, "PET_STANDALONE": "1"}
"""Lets torchrun look for a free port: its own, 29500, may be taken by another run on this machine."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data") / "shards", [30, 40, 20, 25, 33, 28], size=32)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """Shards with a validation split."""
    return write_clips(tmp_path_factory.mktemp("data") / "squares")


def command(run, shards, *options, launcher=()):
    data = json.dumps([{"root": str(shards)}])
    return [*(launcher or [sys.executable]), RECIPE, "--data", data, "--run", str(run), *SMALL, *options]


def launch(run, shards, *options, launcher=(), timeout=300, **environment):
    return subprocess.run(
        command(run, shards, *options, launcher=launcher),
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, **environment},
        cwd=ROOT,
        timeout=timeout,
        check=False,
    )


def train_here(shards, run, *options):
    """The recipe called in this process, which saves importing torch each time; it may raise, or return the exit code."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    try:
        return main(parse_config(PretrainConfig, command(run, shards, *options)[2:]))
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@pytest.fixture
def train(shards):
    return partial(train_here, shards)


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run):
    return {row["updates"]: row["loss"] for row in rows(run)}


def same_weights(left, right):
    a, b = load_file(left / "model" / "model.safetensors"), load_file(right / "model" / "model.safetensors")
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def kill_at(updates, arguments, run, **environment):
    """Start a run, and kill -9 all its processes once that many updates are in a checkpoint."""
    process = psutil.Popen(
        arguments,
        env={**ENVIRONMENT, **environment},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and max(saved_steps(run / "checkpoints"), default=0) < updates:
        time.sleep(0.005)
    everyone = [
        *process.children(recursive=True),
        process,
    ]  # torchrun gives its workers sessions of their own
    for one in everyone:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended with its parent
            one.kill()
    psutil.wait_procs(everyone[:-1])
    assert process.wait() == -signal.SIGKILL, "the run ended before it was killed"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, shards):
    """A run of eight updates that nothing disturbed."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    assert train_here(shards, run, "--updates", "8") == 0
    return run


def test_a_run_folder_tells_everything(finished, shards):
    assert sorted(path.name for path in finished.iterdir()) == [
        ".lock",
        "checkpoints",
        "config.yaml",
        "metrics.jsonl",
        "model",
    ]
    train = json.loads((finished / "model" / "train.json").read_text())
    assert train["updates"] == 8
    assert train["parents"]["shards"][0]["manifest_hash"]
    assert torch.__version__.startswith(train["versions"]["torch"])
    assert parse_config(PretrainConfig, ["--config", str(finished / "config.yaml")]).batch_clips == 4
    assert [row["updates"] for row in rows(finished)] == [2, 4, 6, 8]
    assert rows(finished)[-1]["loss"] < rows(finished)[0]["loss"]
    assert saved_steps(finished / "checkpoints") == [6, 8]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("large", [10**9, 10])
def test_a_run_says_what_it_uses_and_how_long_it_takes(train, shards, tmp_path, capsys, monkeypatch, large):
    monkeypatch.setattr("recipes.pretrain.LARGE_PARAMETERS", large)
    monkeypatch.setattr("recipes.run.meter.LOG_SECONDS", 0.0)  # a line of progress whenever there may be one
    assert train(tmp_path / "run", "--updates", "2", "--log_every", "2", "--window_frames", "34") == 0
    told = capsys.readouterr().out
    assert (
        f"{shards} (train): 1 of 6 clips, 1 of 6 videos, 4 seconds; left out: 5 clips shorter than 34" in told
    )
    assert f"warning: more than half of the clips of {shards} are left out" in told
    assert re.search(r"first update after [\d.]+ s: about 0:\d\d:\d\d for 2 updates at that rate\n", told)
    assert re.search(
        r"\n +1 / 2  loss +-  image .* [\d.]+ updates/s  data wait +\d+ %  left 0:\d\d:\d\d\n", told
    )
    assert ("contextwm-debug takes days on a CPU; contextwm-small" in told) is (large == 10)


@pytest.mark.slow
def test_under_a_quiet_launcher_the_last_line_is_the_recipes_own(shards, tmp_path):
    launcher = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--quiet",
        "--cpu",
        "--num_processes",
        "1",
    ]
    result = launch(tmp_path / "run", tmp_path / "absent", launcher=launcher)
    assert result.returncode == 1
    assert (
        result.stderr.rstrip()
        .splitlines()[-1]
        .startswith(f"error: {tmp_path / 'absent'} is not a finished shard")
    )
    assert "Traceback" not in result.stderr


def test_finished_run_is_left_alone(train, finished, capsys):
    """Also by a command with other settings, which nothing was trained with."""
    before = contents(finished)
    assert train(finished, "--updates", "8", "--learning_rate", "1", "--seed", "5") == 0
    assert capsys.readouterr().out == f"finished: {finished / 'model'}\n"
    assert contents(finished) == before


def test_other_settings_on_resume_are_recorded(train, finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "config.yaml").write_text("model: [broken")  # what counts is what the checkpoint was trained with
    assert train(run, "--updates", "9", "--learning_rate", "1e-3", "--overrides", "{kl_scale: 1.0}") == 0
    assert train(run, "--updates", "10", "--learning_rate", "1e-3", "--overrides", "{}") == 0
    changes = json.loads((run / "model" / "train.json").read_text())["changes"]
    assert changes == [
        {"updates": 8, "overrides": [{}, {"kl_scale": 1.0}], "learning_rate": [3e-4, 1e-3]},
        {"updates": 9, "overrides": [{"kl_scale": 1.0}, {}]},
    ]


def test_another_beginning_on_resume_is_refused(train, finished):
    with pytest.raises(RecipeError, match="cannot resume another model: init was None and is 'elsewhere'"):
        train(finished, "--updates", "9", "--init", "elsewhere")


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.bin", "custom_checkpoint_0.pkl", "random_states_0.pkl"]
)
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_checkpoint_is_one_sentence(name, damage, train, finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    place = run / "checkpoints" / "step-00000008"
    content = (place / name).read_bytes()
    (place / name).unlink()
    if damage == "cut":
        (place / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(RecipeError, match=f"{place} is damaged .*; delete it to go on from the one before"):
        train(run, "--updates", "9")
    shutil.rmtree(place)
    assert train(run, "--updates", "7") == 0


@pytest.mark.parametrize("generator", ["random_state", "numpy_random_seed", "torch_manual_seed"])
def test_a_generator_state_that_is_no_state_is_damage(generator, train, finished, tmp_path):
    """A file that is read whole and whose states cannot be set: going on would draw otherwise without a word."""
    run = shutil.copytree(finished, tmp_path / "run")
    place = run / "checkpoints" / "step-00000008"
    states = torch.load(place / "random_states_0.pkl", weights_only=False)
    states[generator] = states[generator][:1]
    torch.save(states, place / "random_states_0.pkl")
    with pytest.raises(RecipeError, match=f"{place} is damaged"):
        train(run, "--updates", "9")


@pytest.mark.slow
def test_kill_and_resume_equals_the_undisturbed_run(finished, shards, tmp_path):
    """kill -9 somewhere in the middle; a checkpoint every update, so that the kill may hit one being written."""
    run = tmp_path / "killed"
    options = ("--updates", "8", "--checkpoint_every", "1")
    kill_at(3, command(run, shards, *options), run)
    result = launch(run, shards, *options)
    assert result.returncode == 0, result.stderr
    assert same_weights(run, finished)
    assert losses(run) == losses(finished)


def test_everything_that_draws_is_resumed(train, shards, held_out, tmp_path):
    """A mixture with a subset and a filter, an EMA target, a warm-up, an augmentation, accumulation, workers."""
    model = (
        "{objective.kind: self-prediction, frame.context.token_dropout_warmup_updates: 4, "
        "frame.context.augmentation: shift, frame.context.frame: random}"
    )
    data = [
        {"root": str(shards), "weight": 2, "subset": 4, "where": {"num_frames": [20, 100]}},
        {"root": str(held_out), "weight": 1},
    ]
    options = ("--data", json.dumps(data), "--sampling", "frame", "--overrides", model, "--accumulation", "2")
    options = (*options, "--workers", "1", "--log_every", "2")
    assert train(tmp_path / "whole", *options, "--updates", "5") == 0
    for updates in ("3", "5"):
        assert train(tmp_path / "halves", *options, "--updates", updates) == 0
    assert same_weights(tmp_path / "whole", tmp_path / "halves")
    assert losses(tmp_path / "whole")[5] == losses(tmp_path / "halves")[5]


def test_scorecards_during_training_change_nothing(train, finished, held_out, tmp_path, capsys):
    run = tmp_path / "scored"
    options = ("--evaluate_data", f"[{held_out}]", "--evaluate_every", "4")
    options += ("--evaluation.windows", "4", "--evaluation.observed_frames", "3", "--evaluation.horizon", "6")
    for updates in ("4", "8"):
        assert train(run, "--updates", updates, *options) == 0
    told = capsys.readouterr().out
    assert same_weights(run, finished) and losses(run) == losses(finished)
    scores = [json.loads(line) for line in (run / "scores.jsonl").read_text().splitlines()]
    assert [row["updates"] for row in scores] == [4, 8]
    card = json.loads((run / "evaluations" / "step-00000008" / "scorecard.json").read_text())
    assert scores[-1]["psnr_db"] == card["together"]["model"]["psnr_db"]["mean"]
    gap = card["context_gap_psnr_db"]["difference"]["mean"]
    assert scores[-1]["own_minus_foreign_context_db"] == gap and f"with another video's, {gap:+.2f}" in told
    assert (run / "evaluations" / "step-00000004" / "prediction.png").stat().st_size > 0
    assert "8 updates: PSNR" in told


def test_a_subset_is_recorded(train, shards, tmp_path):
    data = json.dumps([{"root": str(shards), "subset": 3, "subset_seed": 1}])
    assert train(tmp_path, "--data", data, "--updates", "1") == 0
    (diet,) = json.loads((tmp_path / "diets.json").read_text())
    assert len(diet) == 3 and diet == sorted(diet)


@pytest.mark.slow
def test_sigterm_saves_first(shards, tmp_path):
    """To the whole process group, as Ctrl-C comes, with loader workers in between."""
    process = until_a_row(tmp_path / "stopped", shards)
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert "the same command resumes" in output
    (step,) = saved_steps(tmp_path / "stopped" / "checkpoints")
    assert step > 0


@pytest.mark.slow
def test_sigterm_to_torchrun_saves_first(shards, tmp_path):
    process = until_a_row(
        tmp_path / "stopped", shards, "--cpu", "true", launcher=LAUNCHERS["torchrun"], ACCELERATE_USE_CPU="1"
    )
    process.terminate()
    output, _ = process.communicate(timeout=120)
    assert "the same command resumes" in output
    (step,) = saved_steps(tmp_path / "stopped" / "checkpoints")
    assert step > 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the signal at a parent's end is Linux's")
def test_sigterm_to_accelerate_saves_first(shards, tmp_path):
    """Its launcher of one process dies of the signal and passes nothing on."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]
    process = until_a_row(tmp_path / "stopped", shards, "--workers", "0", launcher=launcher)
    trainers = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    _, orphans = psutil.wait_procs(trainers, timeout=120)
    for orphan in orphans:
        orphan.kill()
    output, _ = process.communicate(timeout=30)
    assert trainers and not orphans and "the same command resumes" in output
    assert saved_steps(tmp_path / "stopped" / "checkpoints")


def until_a_row(run, shards, *options, launcher=(), **environment):
    """A run without an end and with loader workers, once it has logged."""
    options = ("--updates", "100000", "--checkpoint_every", "100000", "--workers", "2", *options)
    process = subprocess.Popen(
        command(run, shards, *options, launcher=launcher),
        env={**ENVIRONMENT, **environment},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    while not (run / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.01)
    return process


LAUNCHERS = {
    "accelerate": [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"],
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["accelerate", "torchrun"])
def test_two_cpu_processes(name, shards, held_out, tmp_path):
    """Both documented launch lines: two ranks, equal weights, disjoint clips; with one, kill -9 and resume change nothing."""
    environment = {"ACCELERATE_USE_CPU": "1"} if name == "torchrun" else {}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = ("--cpu", "true", "--processes", "2", "--audit", "true")
    if name == "accelerate":
        options += ("--evaluate_data", f"[{held_out}]", "--evaluate_every", "3", "--evaluation.windows", "4")
        options += ("--evaluation.observed_frames", "3", "--evaluation.horizon", "6")
    else:
        options += ("--overrides", "{objective.kind: self-prediction, frame.context.mixing: concat}")
    result = launch(whole, shards, *options, "--updates", "6", launcher=LAUNCHERS[name], **environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == f"finished: {whole / 'model'}" and "Warning" not in result.stderr
    assert json.loads((whole / "model" / "train.json").read_text())["processes"] == 2
    audits = [json.loads((whole / f"audit-{rank}.json").read_text()) for rank in (0, 1)]
    assert audits[0]["weights_sha256"] == audits[1]["weights_sha256"]
    # Batches of two: of the first epoch's six sources rank 0 has samples 0, 1, 4 and 5, rank 1 has 2 and 3.
    assert len(set(audits[0]["clips"][:4] + audits[1]["clips"][:2])) == 6
    assert [len(audit["clips"]) for audit in audits] == [12, 12]
    if name == "accelerate":
        assert (whole / "evaluations" / "step-00000006" / "scorecard.json").exists()
        return
    options += ("--updates", "6", "--checkpoint_every", "1")
    kill_at(3, command(parts, shards, *options, launcher=LAUNCHERS[name]), parts, **environment)
    assert not (parts / "model").exists()
    result = launch(parts, shards, *options, launcher=LAUNCHERS[name], **environment)
    assert result.returncode == 0, result.stderr
    assert same_weights(whole, parts)
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-5)


def test_a_world_that_was_not_promised_is_refused(train, shards, tmp_path):
    """`accelerate launch --cpu --num_processes 2` starts one process without a word."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    result = launch(tmp_path / "run", shards, "--updates", "2", launcher=launcher)
    assert result.returncode != 0
    assert "error: several processes were promised and there are 1" in result.stderr
    with pytest.raises(RecipeError, match="2 processes were promised and there are 1"):
        train(tmp_path / "run", "--updates", "2", "--processes", "2")


@pytest.mark.parametrize(
    ("processes", "promised", "environment", "refused"),
    [
        (1, None, {}, None),
        (2, None, {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}, None),
        (1, 1, {"MASTER_ADDR": "127.0.0.1"}, None),  # set by the user's shell, who says that one is right
        (1, None, {"WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}, None),
        (
            1,
            None,
            {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"},
            "2 processes",
        ),  # --multi_gpu without a GPU
        (1, None, {"MASTER_ADDR": "127.0.0.1"}, "several processes"),  # --cpu --num_processes 2
        (2, 4, {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}, "4 processes"),
    ],
)
def test_the_size_of_the_world_is_the_promised_one(processes, promised, environment, refused, monkeypatch):
    for name in ("WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(RecipeError, match=f"{refused} were promised") if refused else contextlib.nullcontext()
    ):
        check_world(processes, promised=promised)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--accumulation", "3"], "batch_clips 4 is not a multiple"),
        (["--window_frames", "1000"], "frames"),
        (["--init", "no-such-model"], "no directory"),
    ],
)
def test_what_does_not_fit_is_one_sentence(options, sentence, train, tmp_path):
    """Words that nothing is called by are in test_errors."""
    with pytest.raises(ValueError, match=sentence) as error:
        train(tmp_path / "run", "--updates", "2", *options)
    assert "\n" not in str(error.value)


def test_other_data_on_resume_is_refused(train, finished, tmp_path):
    other = write_shards(tmp_path / "other", [30, 40, 21], size=32)
    with pytest.raises(ValueError, match="cannot resume on another data stream"):
        train_here(other, finished, "--updates", "9")
    with pytest.raises(ValueError, match="seed was 0 and is 5"):
        train(finished, "--updates", "9", "--seed", "5")


def test_non_finite_updates_are_skipped_and_then_stop_the_run(train, tmp_path):
    """A learning rate that blows the weights up at the first update: every later gradient is not finite."""
    run = tmp_path / "run"
    said = "updates in a row had a non-finite gradient; last good checkpoint: none was written yet"
    with pytest.raises(RecipeError, match=said):
        train(run, "--updates", "50", "--learning_rate", "1e38", "--max_bad_updates", "6")
    assert rows(run)[-1]["skipped_updates"] >= 6


def test_another_model_or_fewer_updates_on_resume_are_refused(train, finished):
    said = "cannot resume another model: overrides was {} and is {'kl_scale': 0.5}"
    with pytest.raises(RecipeError, match=said):
        train(finished, "--updates", "9", "--overrides", "{kl_scale: 0.5}")
    with pytest.raises(RecipeError, match="has 8 updates already, more than --updates 7"):
        train(finished, "--updates", "7")


def test_another_world_is_named(train, finished, tmp_path, capsys):
    run = shutil.copytree(finished, tmp_path / "run")
    assert train(run, "--updates", "10", "--batch_clips", "2") == 0
    said = "data re-striped from 1 x 4 clips to 1 x 2 clips: batch 8 of the old world is 16"
    assert said in capsys.readouterr().out


@pytest.fixture
def meter():
    state = SimpleNamespace(updates=0, interval={}, seconds=0.0, skipped=0)
    return Meter(state, torch.device("cpu"), times=["data_wait"])


def measure(meter, updates):
    """The row of an interval of (skipped, loss)."""
    for bad, loss in updates:
        meter.add({name: torch.tensor(loss) for name in ("loss", "image_loss", "kl")}, share=1.0)
        meter.count(torch.tensor(bad))
        meter._state.updates += 1
    return meter.row()


def test_scalars_of_a_skipped_update_are_left_out_of_the_means(meter):
    row = measure(meter, [(0.0, 10.0), (1.0, 1000.0), (1.0, torch.nan), (0.0, 20.0)])
    assert row["loss"] == 15.0 and row["skipped_updates"] == 2


def test_an_interval_of_skipped_updates_has_no_means(meter, capsys):
    """Not 0.0, which would be the best loss of the run, and not NaN, which is no json."""
    row = measure(meter, [(1.0, torch.nan), (1.0, 3.0)])
    assert (row["loss"], row["skipped_updates"]) == (None, 2)
    json.dumps(row, allow_nan=False)
    print_progress(row | {"broken_clips": 0}, 10)
    assert "loss        -  image        -  kl      -" in capsys.readouterr().out
    assert measure(meter, [(0.0, 5.0)])["loss"] == 5.0


def test_a_meter_knows_when_a_line_is_due_and_how_fast_this_session_is(monkeypatch):
    """Ten seconds after a row or a line; what a session before a resume did is in the means and not in the rate."""
    now = [0.0]
    monkeypatch.setattr("recipes.run.meter.time", SimpleNamespace(perf_counter=lambda: now[0]))
    interval = {"first": 4, "skipped": 0.0, "sums": dict.fromkeys(("loss", "image_loss", "kl"), 12.0)}
    state = SimpleNamespace(updates=7, interval=interval, seconds=100.0, skipped=0)
    meter = Meter(state, torch.device("cpu"), times=["data_wait"])

    def asked(at):
        now[0] = at
        return meter.is_silent()

    assert [asked(at) for at in (9.0, 10.0, 19.0, 20.0)] == [False, True, False, True]
    now[0] = 25.0
    row = measure(meter, [(0.0, 8.0)])
    assert (row["loss"], row["updates_per_second"], row["seconds"]) == (5.0, 1 / 25, 125.0)
    assert [asked(at) for at in (34.0, 35.0)] == [False, True]


@pytest.mark.parametrize("learning_rate", ["1e38", "1e12"])
def test_too_many_bad_updates_name_the_last_good_checkpoint(learning_rate, train, finished, tmp_path):
    """The update that ruins the weights has a finite gradient itself, and its checkpoint is no good one."""
    run = shutil.copytree(finished, tmp_path / "run")
    options = ("--updates", "50", "--learning_rate", learning_rate, "--max_bad_updates", "4")
    with pytest.raises(RecipeError, match=f"last good checkpoint: {run / 'checkpoints' / 'step-00000008'}"):
        train(run, *options, "--checkpoint_every", "1")
    assert saved_steps(run / "checkpoints")[-1] == (8 if learning_rate == "1e38" else 9)


def test_weights_that_are_not_finite_are_not_kept(train, tmp_path):
    with pytest.raises(RecipeError, match="not finite after 2 updates; last good checkpoint: none"):
        train(tmp_path / "run", "--updates", "2", "--learning_rate", "1e38", "--checkpoint_every", "1")
    assert not saved_steps(tmp_path / "run" / "checkpoints") and not (tmp_path / "run" / "model").exists()


def test_accumulation_and_half_precision_train(train, tmp_path):
    options = ("--updates", "4", "--accumulation", "2", "--mixed_precision", "bf16")
    assert train(tmp_path / "run", *options) == 0
    assert rows(tmp_path / "run")[-1]["skipped_updates"] == 0


def test_micro_batches_are_counted_anew_on_resume(train, finished, tmp_path):
    """Accelerate's own counter must not shift where an update of two micro-batches begins."""
    resumed = {}
    for count in (8, 9):
        run = shutil.copytree(finished, tmp_path / str(count))
        place = run / "checkpoints" / "step-00000008" / "random_states_0.pkl"
        torch.save(torch.load(place, weights_only=False) | {"step": count}, place)
        assert train(run, "--updates", "10", "--accumulation", "2") == 0
        resumed[count] = run
    assert same_weights(resumed[8], resumed[9])


@pytest.mark.slow
def test_a_compiled_run_has_the_losses_of_an_eager_one(train, shards, tmp_path):
    """On one seed, draws included, also across a resume; minutes of the C++ compiler."""
    eager, compiled = tmp_path / "eager", tmp_path / "compiled"
    options = ("--window_frames", "2", "--batch_clips", "2", "--log_every", "1")
    assert train(eager, *options, "--updates", "3") == 0
    for updates in ("2", "3"):
        result = launch(compiled, shards, *options, "--updates", updates, "--compile", "true", timeout=900)
        assert result.returncode == 0, result.stderr
    assert losses(compiled) == pytest.approx(losses(eager), rel=1e-5)
    weights = [from_pretrained(run / "model").state_dict() for run in (eager, compiled)]
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-4)


def test_init_continues_from_a_checkpoint(train, finished, tmp_path):
    assert train(tmp_path / "run", "--updates", "2", "--init", str(finished / "model")) == 0
    recorded = json.loads((tmp_path / "run" / "model" / "train.json").read_text())
    assert recorded["parents"]["init"]["weights_sha256"]
    assert rows(tmp_path / "run")[0]["loss"] < rows(finished)[0]["loss"]


def test_every_config_file_parses():
    found = sorted((ROOT / "recipes" / "configs" / "pretrain").glob("*.yaml"))
    assert {"ssv2.yaml", "assembled.yaml", "demo.yaml", "embedded.yaml"} <= {path.name for path in found}
    for path in found:
        config = parse_config(PretrainConfig, ["--data", "[{root: x}]", "--config", str(path)])
        assert config.updates > 0


def test_paper_scale_settings_are_the_methods():
    path = ROOT / "recipes" / "configs" / "pretrain" / "ssv2.yaml"
    config = parse_config(PretrainConfig, ["--config", str(path)])
    values = (config.model, config.updates, config.batch_clips, config.window_frames)
    assert values == ("contextwm", 1_200_000, 16, 25)
    assert (config.learning_rate, config.adam_epsilon, config.weight_decay) == (3e-4, 1e-5, 1e-6)
    assert config.clip_norm == 100


@pytest.mark.parametrize(
    ("options", "differs", "records"),
    [
        ((), {}, True),
        (("--cuda_graphs", "false"), {}, False),
        (("--accumulation", "2"), {}, False),
        ((), {"num_processes": 2}, False),
        ((), {"device": torch.device("cpu")}, False),
        ((), {"scaler": "float16's"}, False),
    ],
)
def test_an_update_is_recorded_where_nothing_in_it_waits(options, differs, records):
    gpu = {"num_processes": 1, "device": torch.device("cuda"), "scaler": None}
    config = parse_config(PretrainConfig, ["--data", "[{root: x}]", "--run", "x", *options])
    assert records_updates(config, SimpleNamespace(**gpu | differs)) is records


def test_a_core_has_no_more_than_one_loader_process(monkeypatch):
    """More are slower, and torch says so in a paragraph, twice."""
    monkeypatch.setattr("recipes.pretrain.usable_cores", lambda: 2)
    monkeypatch.setattr("recipes.pretrain.ClipLoader", lambda sources, **settings: settings["workers"])
    alone = SimpleNamespace(num_processes=1, process_index=0, device=torch.device("cpu"))
    opened = [
        open_loader(PretrainConfig([], workers=workers), alone, image_size=16, with_actions=False)
        for workers in (0, 1, 8)
    ]
    assert opened == [0, 1, 2]


def test_the_fused_adam_skips_where_it_is_told_so():
    """What the recipe's skipping of non-finite updates rests on."""
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([weight], lr=0.1, fused=True)
    for found_inf, expected in ((0.0, 0.9), (1.0, 0.9), (0.0, 0.8)):
        weight.grad = torch.full((3,), 1.0 if not found_inf else torch.nan)
        optimizer.found_inf = torch.tensor(found_inf)
        optimizer.step()
        torch.testing.assert_close(weight.data, torch.full((3,), expected))


def test_unreadable_clips_are_named_once(train, tmp_path):
    """By every process, and across resumes."""
    damaged = write_shards(tmp_path / "damaged", [9] * 12, codec="jpeg", shards=1, size=32)
    tar = damaged / "data/train-00000-of-00001.tar"
    data = tar.read_bytes()
    place = data.index(b"s003_0000.jpg") + 512
    tar.write_bytes(data[:place] + bytes(64) + data[place + 64 :])
    run, options = (
        tmp_path / "run",
        ("--data", json.dumps([{"root": str(damaged)}]), "--checkpoint_every", "2"),
    )
    assert train(run, *options, "--updates", "4") == 0
    (clip,) = [json.loads(line) for line in (run / "unreadable.jsonl").read_text().splitlines()]
    assert clip["name"] == "clip s003_0000" and "damaged JPEG" in clip["reason"] and clip["updates"] <= 4
    assert train(run, *options, "--updates", "8") == 0
    note_unreadable(
        run / "unreadable.jsonl", [("clip s003_0000", "again"), ("other", "x"), ("other", "x")], updates=8
    )
    assert [row["name"] for row in read_rows(run / "unreadable.jsonl")] == ["clip s003_0000", "other"]
    assert [row["broken_clips"] for row in rows(run)][1:] == [1, 1, 1]
    with pytest.raises(ValueError, match="more than 0 allowed; the last: clip s003_0000"):
        train(tmp_path / "strict", *options, "--updates", "4", "--max_broken", "0")


def test_the_model_is_told_its_updates(train, tmp_path):
    """What moves with the updates and not with gradients, such as the target of self-prediction."""
    overrides = "{objective.kind: self-prediction, objective.target_decay: 0.5}"
    assert train(tmp_path, "--updates", "2", "--model", "plainwm-debug", "--overrides", overrides) == 0
    torch.manual_seed(0)
    fresh = create_model("plainwm-debug", overrides=yaml.safe_load(overrides)).objective.target
    trained = from_pretrained(tmp_path / "model").objective.target
    pairs = zip(fresh.parameters(), trained.parameters(), strict=True)
    assert not all(torch.equal(before, after) for before, after in pairs)


# The run folder.


def test_two_processes_do_not_train_in_one_folder(train, tmp_path):
    """Nor is the lock a forked worker's: one that outlives its trainer does not keep the folder locked."""
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, sys, time; from pathlib import Path; from recipes.run.folder import lock_run\n"
            "lock = lock_run(Path(sys.argv[1]))\n"
            "if os.fork(): print(flush=True); sys.stdin.read()\n"
            "else: time.sleep(30)",
            str(tmp_path),
        ],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    holder.stdout.readline()
    with pytest.raises(RecipeError, match=f"another process is training in {tmp_path}"):
        train(tmp_path, "--updates", "1")
    with pytest.raises(RecipeError, match=f"another process is training in {tmp_path}"):
        finetune.main(FinetuneConfig(run=str(tmp_path), env=EnvConfig(name="dummy")))
    holder.stdin.close()
    holder.wait()
    assert train(tmp_path, "--updates", "1") == 0
    os.killpg(holder.pid, signal.SIGKILL)


def test_rows_beyond_the_checkpoint_are_dropped_with_a_line_cut_short(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"updates": 1}\n{"updates": 2}\n{"updates": 3}\n{"upd')
    truncate_rows(path, counter="updates", last=2)
    assert path.read_text() == '{"updates": 1}\n{"updates": 2}\n'


def test_only_whole_checkpoints_count(tmp_path):
    for updates in (1, 2, 3):
        half = tmp_path / f"step-{updates:08d}.tmp"
        half.mkdir()
        (half / "weights").write_text(str(updates))
        if updates < 3:
            commit_folder(half, half.with_suffix(""))
    assert saved_steps(tmp_path) == [1, 2]
    keep_newest(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]
