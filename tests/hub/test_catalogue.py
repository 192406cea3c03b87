"""Finding and comparing models from the command line: `cwm-hub list`, `info`, `compare`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hub_process import checkpoint, load, push, run_python
from hub_server import File, Repo
from huggingface_hub import ModelCard

from cwm_hub import cli
from cwm_hub.config import to_dict
from cwm_hub.evaluation.protocol import Protocol
from cwm_hub.hub.catalogue import cached_entries
from cwm_hub.hub.saving import save_pretrained
from cwm_hub.hub_client.errors import HubError
from cwm_hub.models.registry import create_model

WINDOWS = tuple(("clips", film, film, 0) for film in ("a", "b", "c"))


def scorecard(psnr: tuple[float, float, float], **protocol: object) -> dict:
    """A scorecard with these PSNRs of three windows, in the little of its form that comparing reads."""
    score = {"psnr_db": {"mean": sum(psnr) / 3, "low": min(psnr), "high": max(psnr)}}
    score["ssim"] = {"mean": 0.5, "low": 0.4, "high": 0.6}
    part = {"windows": 3, "videos": 3, "model": score}
    rows = [
        {"source": data, "video": film, "key": key, "start": start, "psnr_db": value, "ssim": 0.5}
        for (data, film, key, start), value in zip(WINDOWS, psnr, strict=True)
    ]
    settings = to_dict(Protocol(horizon=7, data={"clips": "5e1f"}, windows=WINDOWS)) | protocol
    return {
        "format_version": 2,
        "protocol": settings,
        "together": part,
        "sources": {"clips": part},
        "windows": rows,
    }


def save(folder: Path, preset: str, *, card: dict | None = None, **train: object) -> Path:
    return save_pretrained(create_model(preset), folder, train=train, scorecard=card, licence="cc-by-4.0")


def said(capsys: pytest.CaptureFixture[str], *words: object) -> list[str]:
    assert cli.main([str(word) for word in words]) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_the_packages_models_are_listed_without_a_hub(capsys):
    assert "contextwm-tiny video_world_model 5.8 MB package" in said(capsys, "list")


def test_a_damaged_cache_is_one_sentence(tmp_path):
    repository = tmp_path / "models--a--b"
    (repository / "snapshots" / ("c" * 40)).mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "blobs").mkdir()
    (repository / "refs" / "main").write_bytes(b"\xff")
    with pytest.raises(HubError, match=r"^the Hub's client failed for the cache: 'utf-8' codec"):
        list(cached_entries(tmp_path))
    assert not list(cached_entries(tmp_path / "absent"))


@pytest.mark.slow
def test_what_the_cache_has_and_what_an_owner_has_published(server, client, tmp_path):
    client(push(checkpoint(tmp_path / "wm", 1.0), "someone/wm"), load("someone/wm"))
    server.repos["model", "someone/other"] = Repo(private=False)
    server.repos["model", "someone/other"].commit(
        "main", {"README.md": File(b"---\ntags: [x]\n---\n", lfs=False)}
    )
    commit = server.repos["model", "someone/wm"].branches["main"]
    program = ["-m", "cwm_hub.cli", "list"]
    here = [" ".join(line.split()) for line in run_python(server, tmp_path, *program)]
    assert f"someone/wm@{commit[:12]} video_world_model 0.1 MB cache" in here
    (there,) = run_python(server, tmp_path, *program, "someone")
    assert there.split() == ["someone/wm", "video-to-video", "Hub,", "private"]
    assert run_python(server, tmp_path, *program, "someone", token=None) == [
        "someone has published no model of this library that you may see"
    ]


def test_info_tells_sizes_parents_licence_and_scores(tmp_path, capsys):
    parents = {
        "shards": [{"root": "hf://datasets/a/clips", "manifest_hash": "5e" * 32, "commit": "c" * 40}],
        "init": {"name": "a/b", "revision": "d" * 40, "weights_sha256": "ab" * 32},
    }
    place = save(tmp_path / "wm", "plainwm-debug", card=scorecard((20, 22, 24)), parents=parents, updates=7)
    card = json.loads((place / "scorecard.json").read_text())
    for name in ("copy_last_frame", "mean_frame"):
        for part in (card["together"], card["sources"]["clips"]):
            part[f"model_minus_{name}"] = part["model"]
    (place / "scorecard.json").write_text(json.dumps(card))
    lines = said(capsys, "info", place)
    parameters = sum(parameter.numel() for parameter in create_model("plainwm-debug").parameters())
    for line in (
        "type video_world_model",
        f"parameters {parameters:,}",
        "licence cc-by-4.0",
        "shards 1 hf://datasets/a/clips@cccccccccccc, manifest 5e5e5e5e5e5e",
        "initial weights a/b@dddddddddddd, sha256 abababababab",
        "updates 7",
        "rssm.deter 16",
        "frame.context none",
    ):
        assert line in lines, line
    assert any(line.startswith("clips: PSNR 22.00 dB [20.00, 24.00]") for line in lines)


def test_compare_shows_what_differs_and_the_scores_window_by_window(tmp_path, capsys):
    """B is 1, 2 and 3 dB ahead on the three windows: 2 dB on average, and never behind."""
    a = save(tmp_path / "a", "plainwm-debug", card=scorecard((20, 22, 24)), updates=7, seed=1)
    b = save(tmp_path / "b", "contextwm-debug", card=scorecard((21, 24, 27)), updates=7, seed=2)
    lines = said(capsys, "compare", a, b)
    assert lines[:2] == [f"A {a}", f"B {b}"]
    assert "frame.context none -" in lines and "frame.context.heads - 2" in lines
    assert "seed 1 2" in lines and "training: 1 of 2 differ" in lines
    assert not any(line.startswith(("rssm.", "updates")) for line in lines)
    assert lines[-1].startswith(
        f"{b} is 2.00 dB ahead of {a} ({b} minus {a}: 95 % interval +1.00 to +3.00 dB"
    )
    assert f"{a} (B) minus {a} (A)" in said(capsys, "compare", a, a)[-1]


def test_compare_keeps_its_columns_apart_in_eighty_characters(tmp_path, capsys):
    """26 characters would touch the next column, a seed does not: one is below the other, the other beside it."""
    commits = ("c" * 26, "d" * 24)
    a, b = (
        save(tmp_path / commit[0], "plainwm-debug", seed=seed, git_commit=commit)
        for seed, commit in enumerate(commits)
    )
    assert cli.main(["compare", str(a), str(b)]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("  commit")
    assert lines[at + 1 : at + 3] == [f"    A {commits[0]}", f"    B {commits[1]}"]
    assert f"{'  seed':<30}{0:<26}{1}" in lines
    assert all(len(line) <= 80 for line in lines[2:-1])


def probed(mean: float, *, train_windows: int = 20, **further: object) -> dict:
    """A scorecard with a probe of `clips`."""
    counts = {"train_windows": train_windows, "train_videos": 8, "windows": 3, "videos": 3}
    found = {"mean": mean, "low": mean - 0.1, "high": mean + 0.1} | counts
    return scorecard((20, 22, 24)) | {"probe_r2_state": {"clips": found}} | further


def test_probes_and_planning_stand_under_their_own_names(tmp_path, capsys):
    planning = {"clips": {"mean": 0.25, "low": 0.0, "high": 0.5, "plans": 3, "windows": 3, "videos": 3}}
    a = save(tmp_path / "a", "plainwm-debug", card=probed(0.5, planning_error=planning))
    b = save(tmp_path / "b", "plainwm-debug", card=probed(0.75))
    lines = said(capsys, "compare", a, b)
    at = lines.index("clips, R2 of a linear probe for the state")
    assert lines[at + 1 : at + 3] == ["A 0.500 [0.400, 0.600]", "B 0.750 [0.650, 0.850]"]
    at = lines.index("clips, open-loop planning error")
    assert lines[at + 1 : at + 3] == ["A 0.250 [0.000, 0.500]", "B -"]
    assert "are not told apart" in lines[-1]
    c = save(tmp_path / "c", "plainwm-debug", card=probed(0.75, train_windows=40))
    assert "measured on other counts: these do not compare" in said(capsys, "compare", a, c)
    assert "measured on other counts: these do not compare" not in lines

    sentences = (
        "clips: R2 0.500 [0.400, 0.600] of a linear probe for the state, fitted on 20 windows of 8 training videos, "
        "scored on 3 of 3 others",
        "clips: planning error 0.250 [0.000, 0.500] among 3 plans for each of 3 windows of 3 videos; 0 is best and 0.5 is chance",
    )
    assert set(sentences) <= set(said(capsys, "info", a))
    card = ModelCard.load(a / "README.md")
    assert all(f"- {sentence}.\n" in card.text for sentence in sentences)
    results = {one.metric_type: (one.metric_name, one.metric_value) for one in card.data.eval_results}
    assert results["probe_r2_state"] == ("R2 of a linear probe for the state", 0.5)
    assert results["planning_error"] == ("open-loop planning error", 0.25)


def test_a_damaged_scorecard_is_one_sentence(tmp_path, capsys):
    a, b = (save(tmp_path / name, "plainwm-debug", card=scorecard((20, 22, 24))) for name in "ab")
    card = json.loads((b / "scorecard.json").read_text())
    for damaged in ({"together": 3, "sources": {"clips": {}}}, {"windows": [{}]}, {"fvd": {"model": "x"}}):
        (b / "scorecard.json").write_text(json.dumps(card | damaged))
        assert cli.main(["compare", str(a), str(b)]) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and (
            "together is of type int" in said or "the form that the recipes write" in said
        )


def test_a_damaged_scorecard_of_a_run_is_named_where_it_lies(tmp_path, capsys):
    save(tmp_path / "run" / "model", "plainwm-debug")
    damaged = tmp_path / "run" / "evaluation" / "scorecard.json"
    damaged.parent.mkdir()
    for text in ("{}", "{"):
        damaged.write_text(text)
        assert cli.main(["info", str(tmp_path / "run")]) == 1
        assert str(damaged) in capsys.readouterr().err


def test_scores_of_other_protocols_are_not_compared(tmp_path, capsys):
    a = save(tmp_path / "a", "plainwm-debug", card=scorecard((20, 22, 24)))
    b = save(tmp_path / "b", "plainwm-debug", card=scorecard((21, 24, 27), seed=3))
    assert said(capsys, "compare", a, b)[-1] == (
        "scores: the two scorecards were measured differently and do not compare: seed"
    )
    bare = save(tmp_path / "bare", "plainwm-debug")
    assert said(capsys, "compare", a, bare)[-1] == f"scores: {bare} has no scorecard"
    assert cli.main(["info", str(tmp_path / "absent")]) == 1
    assert "no such directory" in capsys.readouterr().err


def test_every_commands_help_is_light():
    code = (
        "import contextlib, io, sys\nfrom cwm_hub.cli import COMMANDS, main\n"
        "for command in COMMANDS:\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "        main([command, '--help'])\n"
        "print(sorted({'torch', 'numpy', 'huggingface_hub'} & sys.modules.keys()))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"
