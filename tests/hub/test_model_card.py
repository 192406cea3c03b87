"""The card says what a checkpoint's own files say, as text, and nothing that was not measured."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoint_facts import SCORECARD, SUMMARY, TRAIN, score
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from torch import nn

from cwm_hub.agents.dreamer import DreamerAgent, DreamerConfig
from cwm_hub.agents.drqv2 import DrQV2Agent, DrQV2Config
from cwm_hub.config import override
from cwm_hub.hub.card_results import episode_facts, scorecard_results
from cwm_hub.hub.checkpoint import CheckpointError
from cwm_hub.hub.model_kinds import USAGE
from cwm_hub.hub.names import find_checkpoint
from cwm_hub.hub.saving import save_pretrained
from cwm_hub.models.action_world_model import ActionWorldModel, ActionWorldModelConfig
from cwm_hub.models.registry import DEBUG_FRAME, DEBUG_RSSM, create_model

MALFORMED = {
    "scorecard.json": [
        {"together": SUMMARY, "sources": {"clips": {"windows": 8, "model": {"psnr_db": {"mean": "high"}}}}},
        {"sources": []},
        {"protocol": 3},
        {"sources": {"clips": {"model": {}}}},
        {"sources": {"clips": 3}},
    ],
    "train.json": [
        {"parents": []},
        {"config": 3},
        {"evaluation": {"score": "high", "episodes": 1}},
        {"parents": {"shards": [3]}},
        {"versions": 3},
    ],
}


@pytest.mark.parametrize("file", MALFORMED)
@pytest.mark.parametrize("case", range(5))
def test_a_file_of_another_form_is_one_sentence(file, case, model, tmp_path):
    with pytest.raises(
        CheckpointError, match=rf"{file} does not have the form that the recipes write"
    ) as error:
        save_pretrained(model, tmp_path / "model", **{file.split(".")[0]: MALFORMED[file][case]})
    assert not re.search(r"\n|Error|object", str(error.value)) and not (tmp_path / "model").exists()


def test_texts_of_the_files_are_inert_in_the_card(model, tmp_path):
    hostile = "<img src=x>\n\n# Big\n\n| a | b |\n---\n"
    train = json.loads(json.dumps(TRAIN)) | {
        "preset": hostile,
        "versions": {hostile: hostile},
        "device": hostile,
    }
    train["parents"]["shards"][0] |= {"name": hostile, "licence": hostile, "manifest_hash": hostile}
    train["parents"]["init"] |= {"name": hostile, "revision": hostile}
    scorecard = SCORECARD | {
        "sources": {hostile: SUMMARY},
        "protocol": SCORECARD["protocol"] | {"split": hostile},
    }
    saved = save_pretrained(model, tmp_path / "m", train=train, scorecard=scorecard, name=f"a/{hostile}")
    card = ModelCard.load(saved / "README.md")
    page = MarkdownIt("commonmark").enable("table").render(card.text)
    plain = (
        MarkdownIt("commonmark")
        .enable("table")
        .render(
            (save_pretrained(model, tmp_path / "p", train=TRAIN, scorecard=SCORECARD) / "README.md")
            .read_text()
            .split("---\n", 2)[2]
        )
    )
    assert "<img" not in page and page.count("<table>") == plain.count("<table>")
    assert [page.count(f"<h{n}>") for n in (1, 2, 3)] == [plain.count(f"<h{n}>") for n in (1, 2, 3)]
    assert card.data.eval_results[0].dataset_name == " ".join(hostile.split())


def test_an_edited_card_survives_the_next_save(model, saved):
    card = saved / "README.md"
    card.write_text(card.read_text().replace("# contextwm-debug\n", "# Ours\n\nRead me.\n"))
    save_pretrained(model, saved, train=TRAIN)
    assert "# Ours\n\nRead me.\n" in card.read_text() and "21.25" not in card.read_text()
    save_pretrained(model, saved, train=TRAIN, replace_card=True)
    assert "Read me." not in card.read_text() and "# contextwm-debug\n" in card.read_text()


def test_secrets_and_homes_do_not_reach_the_directory(model, tmp_path):
    train = json.loads(json.dumps(TRAIN)) | {
        "command": f"pretrain.py --run {Path.home()}/runs/x --data /data/mine/y"
    }
    train["parents"]["shards"][0]["root"] = "https://anna:geheim@example.org/clips"
    saved = save_pretrained(model, tmp_path / "m", train=train)
    assert (
        find_checkpoint(saved).read("train.json")["command"]
        == "pretrain.py --run ~/runs/x --data /data/mine/y"
    )
    for path in saved.glob("*.[jm]*"):
        assert "geheim" not in path.read_text() and str(Path.home()) + "/" not in path.read_text()
    assert "| command | pretrain.py --run .../x --data .../y |" in (saved / "README.md").read_text()


@pytest.mark.parametrize(("redistributable", "licence"), [(True, "mit"), (False, "other"), (None, "mit")])
def test_the_licence_follows_the_videos_unless_it_is_given(redistributable, licence, model, tmp_path):
    train = json.loads(json.dumps(TRAIN))
    train["parents"]["shards"][0]["redistributable"] = redistributable
    saved = save_pretrained(model, tmp_path / "m", train=train)
    assert ModelCard.load(saved / "README.md").data.license == licence
    saved = save_pretrained(model, tmp_path / "m", train=train, licence="cc-by-4.0")
    assert ModelCard.load(saved / "README.md").data.license == "cc-by-4.0"


def test_the_front_matter_parses_and_carries_the_scores(saved):
    data = ModelCard.load(saved / "README.md").data
    assert (data.library_name, data.license, data.pipeline_tag) == ("cwm-hub", "mit", "video-to-video")
    assert data.datasets == ["someone/clips"] and "arxiv:2305.18499" in data.tags
    results = {result.metric_type: result.metric_value for result in data.eval_results}
    assert results == {"psnr_db": 21.25, "ssim": 0.4}


def test_the_card_shows_what_the_files_say(saved):
    text = (saved / "README.md").read_text()
    for fact in (
        "arXiv 2305.18499",
        "5e1f" * 16,
        "| updates | 300 |",
        "| learning rate | 0.0003 |",
        r"| command | accelerate launch recipes/pretrain.py \| tee log |",
        "| this model | 21.25 [20.75, 21.75] | 0.400 [-0.100, 0.900] |",
        "| copy-last-frame | 23.00 [22.50, 23.50] | 0.600 [0.100, 1.100] |",
        "**clips** (8 validation windows of 5 videos)",
        "95 % bootstrap intervals, which resample source videos.",
        "| this model minus copy-last-frame | -1.75 [-2.25, -1.25] |",
        "horizon 7",
        "Initial weights: `contextwm-tiny`",
        "@inproceedings{wu2023contextwm,",
        '"image_size": 32',
    ):
        assert fact in text, fact
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert len(tables) == 4
    for table in tables:  # every row as wide as its header, or the page shows bars instead of a table
        assert len({line.replace(r"\|", "").count("|") for line in table.splitlines()}) == 1, table


def test_the_card_shows_lpips_and_fvd_where_they_were_measured(model, tmp_path, saved):
    fvd = {
        "model": 512.34,
        "clips": 8,
        "observed_frames": 5,
        "predicted_frames": 7,
        "note": "few clips bias it",
    }
    scored = SUMMARY | {"model": SUMMARY["model"] | {"lpips": score(0.7)}}
    scorecard = SCORECARD | {"sources": {"clips": scored}, "fvd": fvd}
    text = (save_pretrained(model, tmp_path / "measured", scorecard=scorecard) / "README.md").read_text()
    assert "| | PSNR (dB) | SSIM | LPIPS (AlexNet, lower is better) |" in text
    assert "| this model | 21.25 [20.75, 21.75] | 0.400 [-0.100, 0.900] | 0.700 [0.200, 1.200] |" in text
    assert "| copy-last-frame | 23.00 [22.50, 23.50] | 0.600 [0.100, 1.100] | - |" in text
    said = " ".join(text.split())
    assert (
        "FVD of 8 windows, 5 true frames followed by 7 predicted ones: 512.3; lower is better, and few"
        in said
    )
    assert "FVD" not in (saved / "README.md").read_text() and "LPIPS" not in (saved / "README.md").read_text()


def test_the_card_of_an_agent_shows_its_task_and_episodes(tmp_path):
    evaluation = {"score": 12.345, "success_rate": 0.4, "episodes": 10}
    train = {
        "task": "metaworld:reach",
        "agent_steps": 9000,
        "seed": 1,
        "evaluation": evaluation,
        "parents": {"init": None},
    }
    directory = save_pretrained(debug_model("dreamer_agent"), tmp_path / "agent", train=train)
    card = ModelCard.load(directory / "README.md")
    assert "| agent steps | 9000 |" in card.text and "| task | metaworld:reach |" in card.text
    assert "Mean of 10 evaluation episodes" in card.text and "success rate 0.40" in card.text
    results = {
        result.metric_type: (result.dataset_name, result.metric_value) for result in card.data.eval_results
    }
    assert results == {"score": ("metaworld:reach", 12.345), "success_rate": ("metaworld:reach", 0.4)}
    assert "the task and the camera" in card.text and "kind of video" not in card.text


def test_a_model_free_agent_is_not_said_to_be_the_papers(tmp_path):
    agent = DrQV2Agent(DrQV2Config(action_size=1, image_size=32, channels=4, feature_units=4, hidden_units=8))
    card = ModelCard.load(save_pretrained(agent, tmp_path / "agent") / "README.md")
    assert "arxiv:2107.09645" in card.data.tags and not {"contextwm", "arxiv:2305.18499"} & set(
        card.data.tags
    )
    assert "predictions blur" not in card.text and "Limits\n\n- It knows the task" in card.text


def test_a_card_claims_nothing_that_was_not_measured(model, tmp_path):
    directory = save_pretrained(model, tmp_path / "bare")
    text = (directory / "README.md").read_text()
    assert "Nothing yet." in text and text.count("Not recorded.") == 2
    assert ModelCard.load(directory / "README.md").data.eval_results is None
    assert "<video" not in text and "dB" not in text


def test_the_card_shows_its_video_and_pictures(model, tmp_path):
    names = ("prediction.mp4", "a_grid.png", "prediction.png")
    for name in names:
        (tmp_path / name).write_bytes(b"picture")
    assets = {name: tmp_path / name for name in names}
    directory = save_pretrained(model, tmp_path / "model", assets=assets)
    text = (directory / "README.md").read_text()
    assert '<video src="prediction.mp4"' in text and "![a grid](a_grid.png)" in text
    assert text.index("(prediction.png)") < text.index("(a_grid.png)")
    assert (directory / "prediction.mp4").read_bytes() == b"picture"


def debug_model(model_type: str) -> nn.Module:
    """The smallest model of each type."""
    action = override(
        ActionWorldModelConfig(action_size=2),
        {"frame": DEBUG_FRAME, "rssm": DEBUG_RSSM, "video_rssm": DEBUG_RSSM},
    )
    return {
        "video_world_model": lambda: create_model("contextwm-debug"),
        "action_world_model": lambda: ActionWorldModel(action),
        "dreamer_agent": lambda: DreamerAgent(DreamerConfig(world=action)),
        "drqv2_agent": lambda: DrQV2Agent(DrQV2Config(action_size=2, image_size=32, hidden_units=8)),
    }[model_type]()


@pytest.mark.parametrize(
    "model_type",
    [
        "video_world_model",
        pytest.param("action_world_model", marks=pytest.mark.slow),
        pytest.param("dreamer_agent", marks=pytest.mark.slow),
        pytest.param("drqv2_agent", marks=pytest.mark.slow),
    ],
)
def test_the_snippet_of_the_card_runs_as_it_stands(model_type, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved = save_pretrained(debug_model(model_type), "published/model")
    assert json.loads((saved / "config.json").read_text())["model_type"] == model_type
    (snippet,) = re.findall(r"```python\n(.*?)```", (saved / "README.md").read_text(), flags=re.DOTALL)
    assert 'from_pretrained("published/model")' in snippet
    subprocess.run([sys.executable, "-W", "error", "-c", snippet], check=True)


def test_the_card_can_name_another_place(model, tmp_path):
    directory = save_pretrained(model, tmp_path / "model", name="someone/contextwm")
    assert 'from_pretrained("someone/contextwm")' in (directory / "README.md").read_text()


def test_each_policy_has_its_own_scores():
    evaluation = {"score": 2.0, "success_rate": 0.5, "episodes": 3, "random": {"score": 1.0}}
    rows = episode_facts({"evaluation": evaluation})["episode_rows"]
    assert rows == {"this agent": ["2.00", "0.50"], "a random policy": ["1.00", "-"]}


def test_a_score_that_is_infinite_is_no_result():
    part = {"model": {"psnr_db": {"mean": float("inf")}, "ssim": {"mean": 1.0}}}
    results = scorecard_results({"sources": {"clips": part}}, USAGE["video_world_model"])
    assert [one.metric_type for one in results] == ["ssim"]
