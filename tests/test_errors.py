"""Bad input to any command is one sentence and a non-zero exit; and what needs no torch starts without it."""

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from synthetic_shards import write_shards

from cwm_hub import cli
from cwm_hub.agents.dreamer import DreamerAgent, DreamerConfig
from cwm_hub.config import override
from cwm_hub.hub.pretrained import from_pretrained
from cwm_hub.hub.saving import save_pretrained
from cwm_hub.models.action_world_model import ActionWorldModel, ActionWorldModelConfig
from cwm_hub.models.registry import DEBUG_FRAME, DEBUG_RSSM, create_model

ROOT = Path(__file__).parents[1]

CASES = {
    # missing directory
    "dataprep folder TMP/absent --out TMP/out": "there is no directory TMP/absent",
    "dataprep ssv2 --videos TMP/absent --labels TMP/empty --out TMP/out": "there is no directory TMP/absent",
    "dataprep verify TMP/absent": "TMP/absent",
    "pretrain --model plainwm-debug --cpu true --data '[{root: TMP/absent}]' --run TMP/run": "TMP/absent",
    "pretrain --model plainwm-debug --cpu true --data '[{root: TMP/shards}]' --init TMP/absent": "no such directory: TMP/absent",
    "evaluate --checkpoint TMP/absent --data TMP/empty --out TMP/out": "no such directory: TMP/absent",
    "finetune --env.name dummy --init TMP/absent --run TMP/run": "no such directory: TMP/absent",
    "publish --run TMP/absent --to TMP/out": "TMP/absent: no such run folder",
    "cwm-hub bench TMP/absent": "TMP/absent is not a finished shard directory: it has no meta/manifest.json",
    "cwm-hub bnch TMP/absent": "there is no command bnch; did you mean 'bench'?",
    "cwm-hub bench TMP/absent --wokers 2": "there is no option --wokers; did you mean '--workers'?",
    # empty directory
    "dataprep folder TMP/empty --out TMP/out": "no video",
    "dataprep verify TMP/empty": "has no meta/manifest.json",
    "pretrain --model plainwm-debug --cpu true --data '[{root: TMP/empty}]' --run TMP/run": "has no meta/manifest.json",
    "evaluate --checkpoint TMP/empty --data TMP/empty --out TMP/out": "has no config.json: it is not a cwm_hub checkpoint",
    "finetune --env.name dummy --init TMP/empty --run TMP/run": "has no config.json",
    "publish --run TMP/empty --to TMP/out": "the run has no model/ or agent/ yet",
    # no labels
    "dataprep ssv2 --videos TMP/empty --out TMP/out": "--labels",
    "dataprep ssv2 --videos TMP/empty --labels TMP/empty --out TMP/out": "holds no train.json",
    # wrong config key
    "dataprep folder TMP/empty --out TMP/out --codek raw": "--codek",
    "pretrain --data '[{root: x}]' --learning_rat 1": "did you mean 'learning_rate'",
    "pretrain --config TMP/typo.yaml": "did you mean 'learning_rate'",
    "pretrain --model plainwm-debug --cpu true --data '[{root: x}]' --overrides '{rssm.detr: 3}'": "unknown key 'detr' in RSSMConfig; did you mean 'deter'?",
    "pretrain --model plainwm-debgu --cpu true --data '[{root: x}]'": "did you mean 'plainwm-debug'?",
    # values out of range, and what does not go together
    "pretrain --data '[{root: x}]' --keep_checkpoints 0": "keep_checkpoints is at least 1, got 0",
    "pretrain --data '[{root: x}]' --window_frames 1": "window_frames is at least 2, got 1",
    "pretrain --data '[{root: x}]' --workers -1": "workers is at least 0, got -1",
    "pretrain --data '[{root: x}]' --learning_rate 0": "learning_rate is above 0, got 0.0",
    "pretrain --model plainwm-debug --cpu true --data '[{root: x}]' --mixed_precision fp16": "fp16 needs a GPU",
    "pretrain --model dreamerv2-tiny --cpu true --data '[{root: TMP/shards}]'": "holds no actions beside its clips",
    "evaluate --checkpont x": "did you mean 'checkpoint'",
    "finetune --agent_step 3": "did you mean 'agent_steps'",
    "finetune --env.name dummy --env.image_size 32 --model contextwm-debug --agent.batch_sequence 3 --run TMP/run": "did you mean 'batch_sequences'",
    # checkpoint of another class
    "pretrain --model plainwm-debug --cpu true --data '[{root: TMP/shards}]' --init TMP/action": "TMP/action",
    "evaluate --checkpoint TMP/action --data '[TMP/shards]' --split train --out TMP/out": "holds no actions beside its clips",
    "evaluate --checkpoint TMP/agent --data TMP/shards --out TMP/out": "DreamerAgent",
    "finetune --env.name dummy --init TMP/agent --run TMP/run": "DreamerAgent",
    # corrupt safetensors
    "pretrain --model plainwm-debug --cpu true --data '[{root: TMP/shards}]' --init TMP/corrupt": "is not a whole safetensors file",
    "evaluate --checkpoint TMP/corrupt --data TMP/empty --out TMP/out": "is not a whole safetensors file",
    "finetune --env.name dummy --init TMP/corrupt --run TMP/run": "is not a whole safetensors file",
    "publish --run TMP/corrupt_run --to TMP/out": "is not a whole safetensors file",
    # newer format
    "pretrain --model plainwm-debug --cpu true --data '[{root: TMP/shards}]' --init TMP/newer": "format_version 99",
    "evaluate --checkpoint TMP/newer --data TMP/empty --out TMP/out": "format_version 99",
    "finetune --env.name dummy --init TMP/newer --run TMP/run": "format_version 99",
    "publish --run TMP/newer_run --to TMP/out": "is newer than 1",
}
"""Command line to a part of what it says; TMP is the folder of the fixture."""


@pytest.fixture(scope="module")
def tmp(tmp_path_factory) -> Path:
    """Everything that can be wrong, once."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty").mkdir()
    (folder / "typo.yaml").write_text("data: [{root: x}]\nlerning_rate: 3\n")
    config = override(
        ActionWorldModelConfig(action_size=2), {"frame": DEBUG_FRAME, "rssm": DEBUG_RSSM, "video_rssm": None}
    )
    save_pretrained(ActionWorldModel(config), folder / "action", card=False)
    agent = DreamerAgent(DreamerConfig(world=config, intrinsic=None))
    save_pretrained(agent, folder / "agent", card=False)
    write_shards(folder / "shards", [30, 30], size=32)
    for place in ("corrupt", "corrupt_run/model", "newer", "newer_run/model"):
        directory = save_pretrained(create_model("plainwm-debug"), folder / place, card=False)
        if "corrupt" in place:
            (directory / "model.safetensors").write_bytes(b"\0" * 64)
        else:
            header = json.loads((directory / "config.json").read_text())
            (directory / "config.json").write_text(json.dumps(header | {"format_version": 99}))
    return folder


def run_here(
    words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """`(exit code, stderr)` of a command run as `__main__` in this process, which saves importing torch each time."""
    program, *arguments = words
    monkeypatch.chdir(folder)  # a default --run is made there
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    with pytest.raises(SystemExit) as exit_:
        if program == "dataprep":
            runpy.run_module("dataprep", run_name="__main__")
        elif program == "cwm-hub":
            sys.exit(cli.main())
        else:
            runpy.run_path(str(ROOT / "recipes" / f"{program}.py"), run_name="__main__")
    code = exit_.value.code
    said = capsys.readouterr().err
    return (1, f"{said}{code}\n") if isinstance(code, str) else (int(code or 0), said)


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_sentence(case, tmp, monkeypatch, capsys):
    words = shlex.split(case.replace("TMP", str(tmp)))
    code, said = run_here(words, tmp, monkeypatch, capsys)
    assert code == 1, said
    assert CASES[case].replace("TMP", str(tmp)) in said
    assert said.count("\n") == 1 and len(said) < 400, said
    assert re.match(r"(error|publish): \S", said), said
    assert not (tmp / "out").exists() and not (tmp / "run" / "model").exists()


@pytest.mark.parametrize("place", ["absent", "empty", "corrupt", "newer", "action"])
def test_the_same_in_one_line_of_python(place, tmp):
    expected = create_model("plainwm-debug").__class__
    with pytest.raises(ValueError) as error:
        from_pretrained(tmp / place, expect=expected)
    assert str(tmp / place) in str(error.value)
    assert len(traceback.format_exception_only(error.value)) == 1 and "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["-m dataprep folder absent --out out", "recipes/publish.py --run absent --to out"]
)
def test_the_process_exits_with_the_code(command):
    result = subprocess.run(
        [sys.executable, *command.split()], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1 and "absent" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "code",
    [
        "import cwm_hub",
        "import sys; sys.argv[1:] = ['--help']; from dataprep.__main__ import main; main()",
        "import sys; sys.argv[1:] = ['--help']; from cwm_hub.cli import main; main()",
        *(
            f"import sys; sys.argv[1:] = ['{command}', '--help']; from cwm_hub.cli import main; main()"
            for command in cli.COMMANDS
        ),
    ],
)
def test_what_needs_no_torch_starts_within_a_second_without_it(code):
    """Seconds of processor time, the best of three: other processes on the machine do not count."""
    report = "import atexit, sys, time; atexit.register(lambda: print(time.process_time(), 'torch' in sys.modules, file=sys.stderr))"
    command = [sys.executable, "-c", f"{report}\n{code}"]
    runs = [
        subprocess.run(command, capture_output=True, text=True, check=True).stderr.split() for _ in range(3)
    ]
    assert {torch for _, torch in runs} == {"False"}
    assert min(float(seconds) for seconds, _ in runs) < 1.0


def test_the_installed_command_answers_within_a_second():
    """Of processor time, as above."""
    before = os.times()
    subprocess.run(
        [Path(sys.executable).with_name("cwm-dataprep"), "--help"], check=True, capture_output=True
    )
    after = os.times()
    assert sum(after[2:4]) - sum(before[2:4]) < 1.0  # of child processes, in user and in system mode
