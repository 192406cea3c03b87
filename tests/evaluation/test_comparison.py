"""Several designs with several seeds: means, paired differences and refusals, worked out by hand."""

import json

import pytest

from cwm_hub.evaluation.comparison import compare_designs, markdown_tables, read_scorecard
from cwm_hub.evaluation.protocol import SCORECARD_VERSION, ProtocolError
from recipes import compare
from recipes.run.command_line import parse_config
from recipes.run.folder import one_sentence_errors

PROTOCOL = {
    "resamples": 200,
    "confidence": 0.95,
    "seed": 0,
    "observed_frames": 5,
    "horizon": 20,
    "split": "validation",
}


def card(*psnr: float, **protocol) -> dict:
    """A scorecard with these PSNRs, the first two windows from `a`, the others from `b`."""
    windows = [
        {
            "source": "a" if at < 2 else "b",
            "video": f"film {at}",
            "psnr_db": value,
            "ssim": value / 100,
            "copy_last_frame_psnr_db": 30.0,
        }
        for at, value in enumerate(psnr)
    ]
    return {"format_version": SCORECARD_VERSION, "protocol": PROTOCOL | protocol, "windows": windows}


CARDS = {
    "context": [card(20, 22, 10, 12), card(22, 24, 10, 12)],
    "plain": [card(19, 21, 12, 14), card(19, 21, 12, 14)],
}


def test_means_seeds_and_paired_differences():
    result = compare_designs(CARDS)
    context = result["together"]["designs"]["context"]["psnr_db"]
    assert context["mean"] == 16.5 and context["seeds"] == [16.0, 17.0] and "minus_first" not in context
    difference = result["sources"]["a"]["designs"]["plain"]["psnr_db"]["minus_first"]
    assert difference["mean"] == -2.0 and difference["seeds"] == [-1.0, -3.0]
    assert difference["low"] == difference["high"] == -2.0  # every window differs by as much
    assert result["sources"]["b"]["designs"]["plain"]["psnr_db"]["minus_first"]["seeds"] == [2.0, 2.0]
    assert result["sources"]["b"]["baselines_psnr_db"] == {"copy_last_frame": 30.0}


def test_every_data_set_has_a_table_with_a_row_a_design_and_a_baseline():
    heading, _, *table = markdown_tables(compare_designs(CARDS)).split("## ")[1].splitlines()
    assert heading == "a: 2 validation windows of 2 videos, 5 frames seen, 20 predicted"
    assert table[2].startswith("| context | 22.00 [21.00, 23.00] | 21.00, 23.00 | 0.220 [0.210, 0.230] |")
    assert table[3].endswith("| -2.00 [-2.00, -2.00]; each seed -1.00, -3.00 |")
    assert table[4].startswith("| *copy-last-frame* | 30.00 |") and len(table) == 6 and not table[5]


def test_designs_of_different_numbers_of_seeds_are_compared_by_their_means():
    result = compare_designs({"context": CARDS["context"], "plain": CARDS["plain"][:1]})
    difference = result["sources"]["a"]["designs"]["plain"]["psnr_db"]["minus_first"]
    assert difference["mean"] == -2.0 and difference["seeds"] == []
    assert "| -2.00 [-2.00, -2.00] |\n| *copy-last-frame*" in markdown_tables(result)


def test_runs_of_different_length_are_refused(tmp_path):
    for updates in (10, 20):
        (tmp_path / str(updates)).mkdir()
        found = card(1, 2, 3, 4) | {"updates": updates}
        (tmp_path / str(updates) / "scorecard.json").write_text(json.dumps(found))
    words = ["--designs.a", str(tmp_path / "10"), "--designs.b", str(tmp_path / "20")]
    with pytest.raises(ValueError, match="different numbers of updates"):
        compare.main(parse_config(compare.CompareConfig, [*words, "--out", str(tmp_path)]))


def test_other_protocols_and_missing_cards_are_refused():
    with pytest.raises(ProtocolError, match="do not compare: horizon"):
        compare_designs({"a": [card(1, 2, 3, 4)], "b": [card(1, 2, 3, 4, horizon=10)]})
    with pytest.raises(ValueError, match="b has no scorecard"):
        compare_designs({"a": [card(1, 2, 3, 4)], "b": []})


def test_recipe_reads_runs_and_writes_tables_and_curves(tmp_path, capsys):
    for design, cards in CARDS.items():
        for seed, found in enumerate(cards):
            for updates in (10, 20):  # the last scorecard counts
                folder = tmp_path / f"{design}-{seed}" / "evaluations" / f"step-{updates:08d}"
                folder.mkdir(parents=True)
                shown = found if updates == 20 else card(1, 1, 1, 1)
                (folder / "scorecard.json").write_text(json.dumps(shown))
            rows = [{"updates": updates, "psnr_db": 10.0 + updates} for updates in (10, 20)]
            (tmp_path / f"{design}-{seed}" / "scores.jsonl").write_text(
                "".join(json.dumps(row) + "\n" for row in rows)
            )
    designs = [
        word
        for name in CARDS
        for word in (f"--designs.{name}", *(str(tmp_path / f"{name}-{seed}") for seed in (0, 1)))
    ]
    assert compare.main(parse_config(compare.CompareConfig, [*designs, "--out", str(tmp_path / "out")])) == 0
    printed = capsys.readouterr().out
    assert "all data sets: 4 validation windows of 4 videos, 5 frames seen, 20 predicted" in printed
    assert (tmp_path / "out" / "table.md").read_text().strip() == printed.strip()
    result = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert result["together"]["designs"]["context"]["psnr_db"]["mean"] == 16.5
    assert (tmp_path / "out" / "scores.png").stat().st_size > 0


def test_the_scorecard_after_most_updates_counts(tmp_path):
    for place, updates in (("evaluation", 2), ("evaluations/step-00000006", 6)):
        (tmp_path / place).mkdir(parents=True)
        found = card(1, 2, 3, 4) | {"updates": updates}
        (tmp_path / place / "scorecard.json").write_text(json.dumps(found))
    assert read_scorecard(tmp_path)["updates"] == 6
    later = card(1, 2, 3, 4) | {"updates": 9}
    (tmp_path / "evaluation" / "scorecard.json").write_text(json.dumps(later))
    assert read_scorecard(tmp_path)["updates"] == 9


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--designs.a", "nowhere"], "nowhere has no scorecard.json"),
        (["--designs", "{a: []}"], "a has no scorecard"),
        (["--designs.a", "old"], "old/scorecard.json has format 1 and this code reads 2"),
        (["--designs.a", "cut"], "cut/scorecard.json is not a scorecard, or damaged"),
    ],
)
def test_mistakes_are_one_sentence(words, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in (("old", '{"format_version": 1}'), ("cut", '{"format_version')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "scorecard.json").write_text(text)
    with pytest.raises(SystemExit, match=sentence), one_sentence_errors():
        compare.main(parse_config(compare.CompareConfig, [*words, "--out", str(tmp_path)]))


def test_a_field_that_one_protocol_lacks_is_a_difference():
    with pytest.raises(ProtocolError, match="do not compare: crop"):
        compare_designs({"a": [card(1, 2)], "b": [card(1, 2, crop="centre")]})
    with pytest.raises(ProtocolError, match="do not compare: crop"):
        compare_designs({"a": [card(1, 2, crop="centre")], "b": [card(1, 2)]})
