"""The report on run folders as the demo leaves them, whole and with stages missing."""

import base64
import json
import re
from pathlib import Path

import pytest
import torch
from moving_squares import write_clips
from PIL import Image

from cwm_hub import create_model, save_pretrained
from cwm_hub.figures.films import write_mp4
from recipes import evaluate, report
from recipes.report import ReportConfig
from recipes.run import demo_report, folder, report_page
from recipes.run.command_line import parse_config
from recipes.run.folder import one_sentence_errors

MODELS = ("contextwm-debug", "plainwm-debug")


def write_rows(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run: two models with random weights, evaluated, published, and a fine-tuning log."""
    folder = tmp_path_factory.mktemp("run")
    roots = [str(write_clips(folder / "shards" / name)) for name in ("metaworld", "real")]
    for name, sets in zip(MODELS, (["real"], ["real", "metaworld"]), strict=True):
        torch.manual_seed(0)
        shards = [{"root": f"shards/{one}"} for one in sets]
        train = {"updates": 3, "parents": {"init": {"name": "embedded-tiny"}, "shards": shards}}
        save_pretrained(create_model(name).eval(), folder / name / "model", train=train)
        rows = [
            {"updates": at, "image_loss": 90.0 / at, "kl": 1.5, "seconds": 2.0 * at, "skipped_updates": 0}
            for at in (10, 20)
        ]
        write_rows(folder / name / "metrics.jsonl", rows)
        scores = [{"updates": at, "psnr_db": 10.0 + at} for at in (10, 20)]
        write_rows(folder / name / "scores.jsonl", scores)
        arguments = ["--checkpoint", folder / name / "model", "--data", json.dumps(roots), "--windows", 3]
        arguments += [
            "--figures",
            "true" if name == MODELS[0] else "false",
            "--horizon",
            4,
            "--out",
            folder / name / "evaluation",
            "--device",
            "cpu",
        ]
        evaluate.main(parse_config(evaluate.EvaluateConfig, [str(word) for word in arguments]))
        card = json.loads((folder / name / "evaluation/scorecard.json").read_text())
        save_pretrained(create_model(name).eval(), folder / "hub" / name, train=train, scorecard=card)
    episodes = [
        {"agent_steps": at, "env_frames": 2 * at, "score": float(at), "success": 0.0} for at in (50, 100, 150)
    ]
    write_rows(folder / "finetune/episodes.jsonl", episodes)
    evaluation = [
        {
            "policy": policy,
            "agent_steps": at,
            "env_frames": 2 * at,
            "updates": 10 * (at - 100),
            "score": score,
            "success": success,
        }
        for policy, at, score, success in (
            ("random", 0, 20.0, 0.0),
            ("random", 0, 40.0, 0.0),
            ("mode", 100, 50.0, 0.0),
            ("sampled", 100, 60.0, 0.0),
            ("mode", 150, 400.0, 1.0),
            ("mode", 150, 200.0, 0.0),
            ("sampled", 150, 500.0, 1.0),
        )
    ]
    write_rows(folder / "finetune/eval.jsonl", evaluation)
    for at in (0, 100, 150):
        film = folder / f"finetune/films/step-{at:09d}.mp4"
        write_mp4(film, [Image.new("RGB", (16, 16), (at, at, at))] * 3, frames_per_second=5.0)
    (folder / "finetune/config.yaml").write_text(
        "env: {name: 'metaworld:reach'}\ninit: contextwm-debug\nagent_steps: 150\nprefill_steps: 100\nwarmup_updates: 7\n"
    )
    stages = [
        {"stage": "shard", "seconds": 300.0, "status": "failed", "command": "make it"},
        {"stage": "shard", "seconds": 5.25, "cpu_seconds": 4.0, "status": "done", "command": "make it"},
        {
            "stage": "pre-train",
            "seconds": 125.0,
            "cpu_seconds": 61.0,
            "status": "done",
            "command": "train <all> & more",
        },
    ]
    write_rows(folder / "stages.jsonl", stages)
    return folder


@pytest.fixture(scope="module")
def html(run) -> str:
    assert report.main(ReportConfig(run=str(run), out=str(run / "report.html"))) == 0
    return (run / "report.html").read_text()


def words(html: str) -> str:
    """What a reader sees, without tags and with single spaces."""
    text = re.sub(r"<style>.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL)
    return " ".join(
        text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").replace("&#39;", "'").split()
    )


def test_page_is_self_contained(html):
    sources = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert len([source for source in sources if source.startswith("data:")]) >= 10
    outside = [source for source in sources if not source.startswith(("data:", "#"))]
    assert all(
        source.startswith("https://arxiv.org/") or "github.com" in source for source in outside
    )  # card links
    assert "<script" not in html and "@import" not in html and "url(" not in html
    for source in sources:
        if source.startswith("data:video/mp4;base64,"):
            assert base64.b64decode(source.partition(",")[2])[4:8] == b"ftyp"
        if source.startswith("data:image/png;base64,"):
            assert base64.b64decode(source.partition(",")[2]).startswith(b"\x89PNG")


def test_findings_say_who_is_ahead_and_how_far_from_the_baselines(run, html):
    cards = [json.loads((run / name / "evaluation/scorecard.json").read_text()) for name in MODELS]
    psnr = [card["together"]["model"]["psnr_db"]["mean"] for card in cards]
    margin = cards[0]["together"]["model_minus_copy_last_frame"]["psnr_db"]["mean"]
    text = words(html)
    assert f"{abs(psnr[0] - psnr[1]):.2f} dB ahead" in text
    assert f"{abs(margin):.2f} dB {'above' if margin >= 0 else 'below'} copy-last-frame" in text
    assert "95 % bootstrap intervals, which resample source videos." in text
    assert "step, intervals over source videos; the baselines beside it." in text
    assert re.search(r"all data sets \(6 validation windows of \d videos\)", text)
    assert text.index("real (3 validation windows of") > text.index(
        "metaworld (3 validation windows of"
    )  # the order of the evaluation


def test_training_table_and_stages(html):
    text = words(html)
    assert "contextwm-debug 20 40.0 s 0.5 4.50 1.50 0 real checkpoint embedded-tiny" in text
    assert "plainwm-debug 20 40.0 s 0.5 4.50 1.50 0 real and metaworld checkpoint embedded-tiny" in text
    alike = (
        "Curves compare on the same clips only: contextwm-debug on real; plainwm-debug on real and metaworld."
    )
    assert alike in text
    assert "real 8 clips (4 train, 4 validation) of 8 source videos" in text
    assert text.count("The held-out clips are later stretches of recordings that training has too") == 1
    assert "shard 5.2 s 4.0 s done make it pre-train 2 min 05 s 1 min 01 s done train <all> & more" in text
    assert "all 2 min 10 s 1 min 05 s" in text
    assert "Open-loop PSNR on held-out windows during training." in words(html)


def test_finetuning_is_told_beside_the_random_policy(html):
    text = words(html)
    assert (
        "contextwm-debug on metaworld:reach: 100 random steps, 7 updates on them and 150 steps of the agent, 3 training "
        "episodes in all. Last evaluation on metaworld:reach, after 300 environment frames: return 300.0 and success 50 % over "
        "2 episodes of the policy's mode." in text
    )
    assert "Samples of that policy on the same seeds: return 500.0 and success 100 %." in text
    assert "A random policy on the same seeds: return 30.0 and success 0 %." in text
    assert "How far pre-training mattered was not measured in this run" in text


def test_the_agent_is_filmed_before_and_after(run, html):
    section = html[html.index('<h2 id="finetuning"') : html.index('<h2 id="card"')]
    films = [base64.b64decode(data) for data in re.findall(r"data:video/mp4;base64,([^\"]*)", section)]
    assert films == [(run / f"finetune/films/step-{at:09d}.mp4").read_bytes() for at in (0, 150)]
    text = words(section)
    told = "First episodes of an evaluation with return"
    assert f"Before learning: a random policy. {told} 30.0 and success 0 %." in text
    assert f"The policy's mode after 500 updates. {told} 300.0 and success 50 %." in text


def test_card_is_rendered_without_its_pictures(html):
    card = html[html.index('<div class="card') : html.index('<h2 id="stages"')]
    assert "<h1>contextwm-debug</h1>" in card and "<table>" in card and "<details>" in card
    assert "library_name" not in card and "<img" not in card and "<video" not in card


def test_card_html_lets_no_foreign_markup_through():
    card = "---\na: 1\n---\n<!-- for\nprograms -->\n# T\n\n<script>alert(1)</script>\n\nx <b onclick='y'>z</b> ![p](q.png)\n"
    html = str(demo_report.card_html(card))
    assert html.startswith("<h1>T</h1>")
    assert "<script" not in html and "<b " not in html and "<img" not in html and "programs" not in html


def test_missing_stages_are_sentences(tmp_path):
    write_clips(tmp_path / "run/shards/real")
    write_rows(
        tmp_path / "run/stages.jsonl",
        [
            {
                "stage": "fine-tune on reach",
                "seconds": 1.0,
                "cpu_seconds": 0.5,
                "status": "failed",
                "command": "make it",
            }
        ],
    )
    text = words(demo_report.demo_page(tmp_path / "run", title="half a run"))
    for sentence in (
        "without headless GL that stage is left out",
        "No pre-training run has logged an update.",
        "No evaluation has run.",
        "No scorecard has been written.",
        "There is no fine-tuning result: its stage ended with status 'failed'.",
        "No model has been published.",
    ):
        assert sentence in text


def test_empty_run_is_a_page_too(tmp_path):
    text = words(demo_report.demo_page(tmp_path, title="nothing"))
    assert "This run has not done anything yet." in text and "No stage has been timed" in text


def test_a_row_cut_short_by_a_kill_is_left_out(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"updates": 1}\n{"upda')
    assert folder.read_rows(tmp_path / "rows.jsonl") == [{"updates": 1}]


@pytest.mark.parametrize(
    ("run", "out", "sentence"),
    [
        ("nowhere", "x.html", "error: no such run folder: nowhere"),
        (".", "runs/demo", "--out is the HTML file to write"),
        ("run", "x.html", "run is one run and not a folder of the demo: fine-tuning runs are --runs"),
    ],
)
def test_bad_arguments_are_one_sentence(run, out, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").touch()
    with pytest.raises(SystemExit) as stopped, one_sentence_errors():
        report.main(ReportConfig(run=run, out=out))
    assert sentence in str(stopped.value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(7.25, "7.2 s"), (65.0, "1 min 05 s"), (119.7, "2 min 00 s"), (7800.0, "2 h 10 min")],
)
def test_durations(seconds, text):
    assert report_page.duration(seconds) == text


def test_designs_are_compared_only_where_they_began_alike():
    cards = {"contextwm-tiny": {}, "plainwm-tiny": {}}
    beginnings = {
        "contextwm-tiny": "200 updates from the checkpoint x",
        "plainwm-tiny": "200 updates from new weights",
    }
    assert demo_report.leader("together", cards, beginnings) == (
        "No two designs can be compared: contextwm-tiny had 200 updates from the checkpoint x and plainwm-tiny had "
        "200 updates from new weights."
    )


def test_two_designs_of_one_seed_each_say_so(html):
    told = "Both had 3 updates from the checkpoint embedded-tiny, one seed each: how far another seed would be off"
    assert told in words(html)
