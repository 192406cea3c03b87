"""One vocabulary: every sentence and table of a scorecard, on numbers chosen by hand."""

import pytest

from cwm_hub.config import to_dict
from cwm_hub.evaluation import words
from cwm_hub.evaluation.protocol import Protocol


def score(mean: float) -> dict[str, float]:
    mean = float(mean)
    return {"mean": mean, "low": mean - 1, "high": mean + 2}


def part(psnr: float, *, videos: int = 7, **more: dict) -> dict:
    return {
        "windows": 16,
        "videos": videos,
        "model": {"psnr_db": score(psnr), "ssim": score(0.5)},
        "copy_last_frame": {"psnr_db": score(psnr + 1.5), "ssim": score(0.25)},
        "mean_frame": {"psnr_db": score(psnr - 3), "ssim": score(0)},
        "model_minus_copy_last_frame": {"psnr_db": score(-1.5), "ssim": score(0.25)},
        "model_minus_mean_frame": {"psnr_db": score(3.0), "ssim": score(0.5)},
        **more,
    }


def test_all_data_sets_come_last_and_only_where_there_are_several():
    a, b, both = part(1), part(2), part(1.5)
    assert list(words.parts({"sources": {"a": a, "b": b}, "together": both})) == ["a", "b", "all data sets"]
    assert words.parts({"sources": {"a": a}, "together": a}) == {"a": a}


def test_windows_and_what_their_intervals_resample():
    assert words.counted(part(1), {"split": "test"}) == "16 test windows of 7 videos"
    assert words.intervals_over(part(1)) == "intervals over source videos"
    assert words.intervals_over(part(1, videos=1)) == "no interval, as all windows are of one video"


def test_a_number_has_the_decimals_of_its_metric():
    assert words.number(score(24.321), "psnr_db") == "24.32 [23.32, 26.32]"
    assert words.number(score(24.321), "psnr_db", unit=True) == "24.32 dB [23.32, 26.32]"
    assert words.number(score(0.5), "ssim", unit=True, signed=True) == "+0.500 [-0.500, +2.500]"


def test_where_a_model_stands():
    assert words.standing(part(20)) == (
        "PSNR 20.00 dB [19.00, 22.00], SSIM 0.500 [-0.500, 2.500], 1.50 dB below copy-last-frame [-2.50, +0.50], "
        "3.00 dB above mean-frame [+2.00, +5.00]"
    )
    own = part(20, model_minus_source_mean_frame={"psnr_db": score(-0.5)})
    assert words.standing(own).endswith("0.50 dB below mean-frame of its own data set [-1.50, +1.50]")


@pytest.mark.parametrize(
    ("mean", "low", "sentence"),
    [
        (1.0, 0.5, "a is 1.00 dB ahead of b (a minus b: 90 % interval +0.50 to +2.00 dB)"),
        (
            1.0,
            -0.5,
            "a and b are not told apart: a is 1.00 dB ahead, a minus b has the 90 % interval -0.50 to +2.00 dB",
        ),
        (
            -0.25,
            -0.5,
            "a and b are not told apart: b is 0.25 dB ahead, a minus b has the 90 % interval -0.50 to +2.00 dB",
        ),
    ],
)
def test_the_verdict(mean, low, sentence):
    assert words.verdict("a", "b", {"mean": mean, "low": low, "high": 2.0}, confidence=0.9) == sentence


def test_the_verdict_names_the_one_ahead_first():
    difference = {"mean": -1.0, "low": -2.0, "high": -0.5}
    assert words.verdict("a", "b", difference, confidence=0.95) == (
        "b is 1.00 dB ahead of a (a minus b: 95 % interval -2.00 to -0.50 dB)"
    )


def test_one_video_has_no_interval_and_says_so():
    one = part(20, videos=1)
    for series in (value for value in one.values() if isinstance(value, dict)):
        for metric in series:
            series[metric] = {"mean": series[metric]["mean"]}
    assert words.counted(one, {"split": "validation"}) == "16 validation windows of 1 video"
    assert words.standing(one) == (
        "PSNR 20.00 dB, SSIM 0.500, 1.50 dB below copy-last-frame, 3.00 dB above mean-frame (no interval, as all windows "
        "are of one video)"
    )
    cameras = one | {"videos": 2, "recordings": 1}
    assert words.standing(cameras).endswith("(no interval, as all windows are of one recording)")
    assert words.score_table({"x": one}).rows["x minus mean-frame"] == ["+3.00", "+0.500"]
    assert words.verdict("a", "b", {"mean": -1.0}, confidence=0.95) == (
        "b is 1.00 dB ahead of a on one video, which says nothing of others"
    )

    def said(*videos: tuple[str, str]) -> str:
        windows = tuple((data_set, video, video, at) for at, (data_set, video) in enumerate(videos))
        return words.protocol_sentences(to_dict(Protocol(windows=windows)))

    assert said(("a", "x"), ("a", "x")).endswith(
        "There are no intervals, since all windows are of one video."
    )
    assert said(("a", "x"), ("a", "y")).endswith("which resample source videos.")
    of_one = said(("a", "x"), ("a", "y"), ("b", "x"), ("b", "x"))
    assert of_one.endswith("source videos; of one video there is none.")


def test_the_protocol_in_words():
    plain = words.protocol_sentences(to_dict(Protocol(data={"a": "1"})))
    assert plain.startswith(
        "Windows of 25 frames of the validation split: 5 are seen, the other 20 are predicted"
    )
    assert "with sampled latents; the context frame, where there is one, is the last of them." in plain
    assert plain.endswith("In brackets: 95 % bootstrap intervals, which resample source videos.")
    assert "own shards" not in plain
    other = Protocol(data={"a": "1", "b": "2"}, context="official", samples=3, latents="mode")
    said = words.protocol_sentences(to_dict(other))
    assert "mode latents, 3 predictions a window" in said and "is drawn from the whole window." in said
    assert "own shards" in said


def test_a_table_has_models_then_baselines_then_differences():
    lpips = part(10, best_of_n={"psnr_db": score(11)})
    lpips["model"] = lpips["model"] | {"lpips": score(0.125)}
    table = words.score_table({"x": part(20), "y": lpips})
    assert table.columns == ["PSNR (dB)", "SSIM", "LPIPS (AlexNet, lower is better)"]
    assert list(table.rows) == [
        "x",
        "y",
        "y, best of N samples",
        "copy-last-frame",
        "mean-frame",
        "x minus copy-last-frame",
        "x minus mean-frame",
        "y minus copy-last-frame",
        "y minus mean-frame",
    ]
    assert table.rows["x"] == ["20.00 [19.00, 22.00]", "0.500 [-0.500, 2.500]", "-"]
    assert table.rows["y minus mean-frame"][0] == "+3.00 [+2.00, +5.00]"


def test_lists():
    assert [words.listed(list(names)) for names in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]
