"""Many runs on one page: what is grouped, compared, left out and said, on numbers that can be worked out by hand."""

import base64
import csv
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from test_report import words

from cwm_hub.config import merged, override
from cwm_hub.figures.films import write_mp4
from recipes import report
from recipes.report import ReportConfig
from recipes.run import runs_report
from recipes.run.command_line import parse_config
from recipes.run.finetune_settings import FinetuneConfig


def write_run(
    folder: Path, success: dict[int, float], *, task: str = "metaworld:reach", seed: int = 0, **settings: Any
) -> Path:
    """A run of 300 steps whose evaluations had these success rates (of four episodes), and a hundred times that return;
    of samples of the policy, the other way round."""
    folder.mkdir(parents=True)
    config = {"model": "contextwm", "init": None, "agent_steps": 200, "prefill_steps": 100, "seed": seed}
    config |= {"env": {"name": task}, "agent": {"held_updates": 1}, "name": None} | settings
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = []
    for at, rate in {0: 0.25, **success}.items():
        for policy in ("mode", "sampled") if at else ("random",):
            for episode in range(4):
                solved = float((episode < 4 * rate) != (policy == "sampled"))
                where = {"agent_steps": at, "env_frames": 2 * at, "updates": at // 10}
                rows.append(where | {"policy": policy, "score": 100 * solved, "success": solved})
        picture = Image.new("RGB", (16, 16), (at % 256,) * 3)
        write_mp4(folder / f"films/step-{at:09d}.mp4", [picture] * 2, frames_per_second=5.0)
    (folder / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics = {"agent_steps": at, "env_frames": 2 * at, "updates": at // 10, "seconds": 1800.0}
    (folder / "metrics.jsonl").write_text(json.dumps(metrics) + "\n")
    if at == 300:
        (folder / "agent").mkdir()
        (folder / "agent" / "train.json").write_text(
            json.dumps({"agent_steps": 300, "updates": 30, "seconds": 3600.0})
        )
    return folder


def page(out: Path, *options: object) -> str:
    assert report.main(parse_config(ReportConfig, ["--out", str(out), *map(str, options)])) == 0
    return out.read_text()


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two agents with two seeds, finished but for one; the layout says nothing."""
    root = tmp_path / "runs"
    write_run(root / "x" / "deep" / "one", {100: 0.0, 200: 0.5, 300: 1.0}, seed=0)
    write_run(root / "x" / "two", {100: 0.0, 200: 0.25}, seed=1)
    for seed in (0, 1):
        write_run(
            root / f"drq-{seed}",
            {100: 0.5, 200: 0.75, 300: 0.75},
            seed=seed,
            model="drqv2",
            name="model-free",
        )
    return root


def test_runs_are_grouped_by_what_they_recorded_and_compared_as_far_as_all_have_come(
    runs: Path, tmp_path: Path
) -> None:
    text = words(page(tmp_path / "report.html", "--runs", runs))
    assert "model-free and contextwm on metaworld:reach: 4 runs, 3 finished, with seeds 0 and 1." in text
    assert "metaworld:reach is compared at 400 environment frames" in text
    assert "contextwm 2 0.38 [0.25, 0.50] 37.5 [25.0, 50.0] 0.62 [0.50, 0.75] 62.5 [50.0, 75.0]" in text
    assert "model-free 2 0.75 [0.75, 0.75] 75.0 [75.0, 75.0]" in text
    assert "random policy 0.25 25.0" in text
    assert "contextwm 0.00 [0.00, 0.00] model-free" not in text
    assert "model-free 1.00 [1.00, 1.00] contextwm 0.00 [0.00, 0.00]" in text  # who beats whom
    assert "DreamerV2, as APV released it (Meta-world v2, 8 seeds, 245k) 0.70" in text
    assert "metaworld:reach contextwm 1 of 2 400 to 600 50 1.50 0.01" in text
    assert "differ" not in text and "Not compared" not in text


def test_runs_from_before_a_setting_was_there_are_like_those_with_its_default(
    runs: Path, tmp_path: Path
) -> None:
    config = runs / "x" / "two" / "config.yaml"
    now = asdict(FinetuneConfig(model="contextwm", replay_on_disk=True))
    config.write_text(
        yaml.safe_dump(asdict(override(FinetuneConfig(), merged(now, yaml.safe_load(config.read_text())))))
    )
    assert "differ" not in words(page(tmp_path / "report.html", "--runs", runs))


def test_the_numbers_are_beside_the_page(runs: Path, tmp_path: Path) -> None:
    page(tmp_path / "report.html", "--runs", runs)
    evaluations = table(tmp_path / "report_evaluations.csv")
    ours = [row for row in evaluations if row["agent"] == "contextwm" and row["policy"] == "mode"]
    assert [(row["seed"], row["env_frames"], row["success"], row["episodes"]) for row in ours] == [
        ("0", "200", "0.0", "4"),
        ("0", "400", "0.5", "4"),
        ("0", "600", "1.0", "4"),
        ("1", "200", "0.0", "4"),
        ("1", "400", "0.25", "4"),
    ]
    results = table(tmp_path / "report_results.csv")
    told = [
        tuple(row[name] for name in ("agent", "policy", "quantity", "iqm", "low", "high")) for row in results
    ]
    assert told == [
        ("model-free", "mode", "success", "0.75", "0.75", "0.75"),
        ("model-free", "mode", "score", "75.0", "75.0", "75.0"),
        ("model-free", "sampled", "success", "0.25", "0.25", "0.25"),
        ("model-free", "sampled", "score", "25.0", "25.0", "25.0"),
        ("contextwm", "mode", "success", "0.375", "0.25", "0.5"),
        ("contextwm", "mode", "score", "37.5", "25.0", "50.0"),
        ("contextwm", "sampled", "success", "0.625", "0.5", "0.75"),
        ("contextwm", "sampled", "score", "62.5", "50.0", "75.0"),
    ]
    assert {(row["runs"], row["env_frames"]) for row in results} == {("2", "400")}


def test_another_point_leaves_out_the_runs_that_have_not_come_there(runs: Path, tmp_path: Path) -> None:
    text = words(page(tmp_path / "report.html", "--runs", runs, "--at_frames", 600))
    assert (
        "Not compared, since there is no evaluation that far yet: contextwm on metaworld:reach, seed 1."
        in text
    )
    assert "contextwm 1 1.00 100.0 0.00 0.0" in text  # one run: no interval
    with pytest.raises(
        ValueError,
        match="there is no evaluation of an agent at 700 environment frames or later yet in 4 runs",
    ):
        page(tmp_path / "report.html", "--runs", runs, "--at_frames", 700)


def test_the_last_film_of_each_agent_is_inside_and_beyond_the_limit_linked(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    html = page(tmp_path / "report.html", "--runs", runs)
    films = [base64.b64decode(data) for data in re.findall(r"data:video/mp4;base64,([^\"]*)", html)]
    places = [runs / "drq-0", runs / "x" / "deep" / "one"]
    assert films == [(place / "films" / "step-000000300.mp4").read_bytes() for place in places]
    assert "contextwm, seed 0, after 30 updates: the policy's mode, return 100.0 and success 100 %" in words(
        html
    )
    monkeypatch.setattr(runs_report, "FILM_BYTES", 0)
    html = page(tmp_path / "pages" / "report.html", "--runs", runs)
    links = re.findall(r'<video src="([^"]*)"', html)
    assert [(tmp_path / "pages" / link).resolve() for link in links] == [
        (place / "films" / "step-000000300.mp4").resolve() for place in places
    ]


def test_what_is_not_alike_is_said(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    write_run(root / "a", {100: 0.0}, seed=0)
    write_run(root / "b", {100: 0.0}, seed=1, agent={"held_updates": 2}, prefill_steps=90)
    write_run(root / "c", {100: 0.0}, seed=1, model="drqv2", agent={})
    write_run(root / "d", {}, seed=2)
    text = words(page(tmp_path / "report.html", "--runs", root))
    assert "The runs on metaworld:reach differ in more than the agent: prefill_steps." in text
    told = "The runs of contextwm on metaworld:reach are not the same agent: agent.held_updates, prefill_steps differ."
    assert told in text
    assert "there is no evaluation that far yet: contextwm on metaworld:reach, seed 2." in text


def test_tasks_that_not_every_agent_has_are_left_out_of_what_is_put_together(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    write_run(root / "a", {100: 0.5})
    write_run(root / "b", {100: 1.0}, model="drqv2")
    write_run(root / "c", {100: 1.0}, task="dmc:walker_run")
    text = words(page(tmp_path / "report.html", "--runs", root))
    assert "Put together over metaworld:reach. Not every agent has a run on dmc:walker_run." in text
    write_run(tmp_path / "alone", {100: 1.0}, task="scenes", model="plainwm")
    text = words(page(tmp_path / "report.html", "--runs", root, tmp_path / "alone"))
    assert "No task was run by every agent: there is nothing to put together." in text


def test_a_task_without_success_shows_returns_alone(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {100: 0.5}, task="dmc:walker_run")
    rows = [json.loads(line) | {"success": 0.0} for line in (run / "eval.jsonl").read_text().splitlines()]
    (run / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = words(page(tmp_path / "report.html", "--runs", run))
    assert "runs return return, samples contextwm 1 50.0 50.0 random policy 25.0" in text
    assert "All tasks" not in text  # one agent is compared with nobody


def test_agents_may_be_named_by_the_command(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", {100: 0.5}, init="runs/ssv2/model", model=None)
    other = write_run(tmp_path / "b", {100: 1.0}, init="runs/ssv2/model", model=None)
    with pytest.raises(
        ValueError, match=r"are both ssv2 \(pre-trained\) on metaworld:reach with seed 0: leave one out"
    ):
        page(tmp_path / "report.html", "--runs", one, other)
    text = words(page(tmp_path / "report.html", "--agents.with-bonus", one, "--agents.without", other))
    assert "with-bonus and without on metaworld:reach: 2 runs, 0 finished, with seed 0." in text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--runs", "nowhere"), "nowhere holds no fine-tuning run"),
        ((), "give --run .* or --runs"),
        (("--runs", "a", "--run", "b"), "give --run .* or --runs"),
    ],
)
def test_nothing_to_show_is_one_sentence(tmp_path: Path, options: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        page(tmp_path / "report.html", *options)


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("eval.jsonl", "{broken\n", "line 1 is no row"),
        ("eval.jsonl", "{}\n", "it has no 'policy'"),
        ("config.yaml", "env: {name: x}\nprefill_steps: 1\n", "it has no 'agent_steps'"),
        ("config.yaml", "env: [\n", "while parsing"),
    ],
)
def test_a_damaged_run_is_named_and_the_others_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture, file: str, text: str, why: str
) -> None:
    damaged = write_run(tmp_path / "a", {100: 0.5})
    (damaged / file).write_text(text)
    with pytest.raises(ValueError, match=rf"no run is whole: {damaged}: what .* cannot be read \(.*{why}"):
        page(tmp_path / "report.html", "--runs", damaged)
    write_run(tmp_path / "b", {100: 0.5}, seed=1)
    told = words(page(tmp_path / "report.html", "--runs", tmp_path))
    assert "1 run, 0 finished, with seed 1." in told
    assert re.search(rf"Left out: {damaged}: what the run left there cannot be read \([^)]*{why}", told)
    assert capsys.readouterr().err.startswith(f"left out: {damaged}: what the run left there")


def test_a_finished_run_that_lost_its_last_evaluation_is_no_run_without_one(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {100: 0.5, 300: 0.5})
    rows = (run / "eval.jsonl").read_text().splitlines(keepends=True)
    (run / "eval.jsonl").write_text("".join(rows[:-8]) + rows[-1][:20])  # as of a copy that was cut short
    with pytest.raises(ValueError, match=r"it is finished, and its eval.jsonl does not reach its last step"):
        page(tmp_path / "report.html", "--runs", tmp_path / "a")
