"""Figures are checked for what they show: pixels where they belong, curves through the numbers they were given."""

import av
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from cwm_hub.agents.rollout import EpisodeRecord, Seen
from cwm_hub.figures import curves, films, sheet
from cwm_hub.figures.films import write_film
from cwm_hub.figures.frames import (
    _heat,
    _shown_times,
    attention_figure,
    composition_figure,
    latent_embedding,
    prediction_grid,
    write_video,
)
from cwm_hub.figures.sheet import Sheet, enlarged


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (*shape, 3, 16, 16), dtype=torch.uint8, generator=torch.manual_seed(seed))


def rendered(figure, tmp_path) -> np.ndarray:
    return np.asarray(Image.open(sheet.save(figure, tmp_path / "figure.png")).convert("RGB"))


def contains(picture: np.ndarray, patch: np.ndarray) -> bool:
    """Whether a patch occurs somewhere in a picture, pixel for pixel."""
    height, width = patch.shape[:2]
    corners = np.argwhere((picture[: 1 - height or None, : 1 - width or None] == patch[0, 0]).all(-1))
    return any(np.array_equal(picture[y : y + height, x : x + width], patch) for y, x in corners)


def channels_last(frame: torch.Tensor) -> np.ndarray:
    return frame.permute(1, 2, 0).numpy()


def test_sheet_copies_pictures_pixel_for_pixel(tmp_path):
    frame = channels_last(noise())
    sheet = Sheet(70, 50)
    sheet.picture(frame, 12, 9, 2)
    picture = rendered(sheet.figure(), tmp_path)
    assert picture.shape == (50, 70, 3)
    np.testing.assert_array_equal(picture[9:41, 12:44], frame.repeat(2, 0).repeat(2, 1))
    assert (picture[:9] == 255).all()


def test_prediction_grid_shows_truth_prediction_and_error(tmp_path):
    truth, prediction = noise(1, 7), noise(1, 7, seed=1)
    prediction[0, 3] = truth[0, 3]
    grid = prediction_grid(truth, {"model": prediction}, observed_frames=3)
    picture = rendered(grid, tmp_path)
    for video in (truth, prediction):
        for time in (0, 3, 6):
            assert contains(picture, enlarged(channels_last(video[0, time]), 6))
    black = np.broadcast_to(np.array([0, 0, 3], np.uint8), (96, 96, 3))  # inferno at 0: the one perfect frame
    assert contains(picture, black)
    assert {"truth", "model", "error", "seen by the model", "+4"} <= {text.get_text() for text in grid.texts}


@pytest.mark.parametrize(
    ("frames", "observed", "columns", "expected"),
    [
        (7, 3, 12, [0, 1, 2, 3, 4, 5, 6]),
        (25, 5, 12, [0, 2, 4, 5, 7, 10, 12, 14, 17, 19, 22, 24]),
        (30, 1, 5, [0, 1, 10, 20, 29]),
    ],
)
def test_long_windows_are_thinned_with_their_ends_kept(frames, observed, columns, expected):
    assert _shown_times(frames, observed, columns) == expected


def test_attention_is_brightest_at_the_largest_weight():
    weights = torch.zeros(4, 4)
    weights[1, 2] = 0.7
    weights[0, 0] = 0.3
    heat = _heat(torch.full((3, 16, 16), 200, dtype=torch.uint8), weights).astype(int).sum(-1)
    assert heat[4:8, 8:12].min() == heat.max()
    assert (heat[12:, 12:] == 3 * 120).all()  # no weight: the frame, grey and darkened to 0.6


def words(figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_attention_says_how_far_each_map_is_from_uniform():
    """A flat map is as bright as a sharp one, so the number has to tell them apart."""
    attention = torch.full((1, 3, 4, 4), 1 / 16)
    attention[0, 1] = torch.eye(4) / 4
    attention[0, 2] /= 2  # half of the weight is on an earlier context frame
    queries = [(0.1, 0.1), (0.5, 0.5), (0.9, 0.9)]
    said = words(attention_figure(noise(1), noise(1, seed=1), attention, queries))
    assert [text for text in said if text.startswith("peak")] == [
        "peak 1.0 x uniform",
        "peak 4.0 x uniform",
        "peak 1.0 x uniform\n50 % of the weight",
    ]
    assert "reconstruction" in said
    assert any("latents that have seen it" in text for text in said)
    assert any("the last context frame" in text for text in said)


def test_attention_marks_the_centre_of_the_token_that_asks():
    """At 0.3125 of 16 tokens a side lies the edge between tokens 4 and 5; it is 5 that is read."""
    figure = attention_figure(noise(1), noise(1), torch.rand(1, 1, 16, 16) + 0.1, [(0.3125, 0.6875)])
    width, height = figure.get_size_inches() * figure.dpi
    rings = [text.get_position() for text in figure.texts if text.get_text() == "1"]
    side = 128
    for (x, y), left in zip(rings, (8 + side + 6, 8 + 2 * (side + 6)), strict=True):
        assert x * width - left == pytest.approx(11.5 / 16 * side, abs=1)
        assert (1 - y) * height - 44 == pytest.approx(5.5 / 16 * side, abs=1)


def test_composition_names_whose_dynamics_and_whose_context():
    video, frame = noise(1, 2), noise(1)
    said = words(composition_figure(video, frame, video, frame, video))
    assert {"A, truth", "dynamics of A,\ncontext of A", "dynamics of A,\ncontext of B"} <= set(said)


def test_attention_and_composition_show_their_frames(tmp_path):
    context, decoded = noise(2), noise(2, seed=1)
    attention = torch.rand(2, 2, 4, 4, generator=torch.manual_seed(0))
    figure = attention_figure(context, decoded, attention, [(0.25, 0.25), (0.75, 0.5)])
    assert contains(rendered(figure, tmp_path), enlarged(channels_last(context[1]), 8))
    video, own, composed = (noise(2, 6, seed=seed) for seed in (2, 3, 4))
    picture = rendered(composition_figure(video, context, own, decoded, composed), tmp_path)
    for frame in (video[0, 0], own[1, 5], composed[1, 5], context[0], decoded[1]):
        assert contains(picture, enlarged(channels_last(frame), 6))


def test_video_is_playable_and_shows_truth_beside_prediction(tmp_path):
    truth = torch.zeros(3, 6, 3, 16, 16, dtype=torch.uint8)
    truth[:, :, 0] = 200
    prediction = torch.zeros_like(truth)
    prediction[:, :, 2] = 200
    path = write_video(tmp_path / "v.mp4", truth, {"model": prediction}, observed_frames=2)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.width % 2 == 0 and stream.height % 2 == 0
        pictures = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(stream)]
    assert len(pictures) == 6 + 4  # half a second of the last frame at 8 a second
    left, right = pictures[0][100, 70], pictures[0][100, 290]
    assert left[0] > 180 > 40 > left[2] and right[2] > 180 > 40 > right[0]
    seen, open_loop = pictures[1][215, 60], pictures[2][215, 60]
    assert abs(seen - (0x8C, 0x95, 0x9F)).max() < 20 and abs(open_loop - (0xBC, 0x4C, 0x00)).max() < 40


def seen(levels: list[int], rewards: list[float], success: list[float]) -> tuple[EpisodeRecord, Seen]:
    """An episode of plain frames."""
    image = np.stack([np.full((3, 16, 16), level, np.uint8) for level in levels])
    record = EpisodeRecord(7, sum(rewards), success[-1], len(levels) - 1, False)
    return record, Seen(image, np.array(rewards, np.float32), np.array(success, np.float32))


def test_a_film_shows_episodes_side_by_side_under_their_captions(tmp_path, monkeypatch):
    written = []
    real = films.ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        films.ImageDraw.ImageDraw,
        "text",
        lambda self, at, text, **options: (written.append(text), real(self, at, text, **options))[1],
    )
    grey = seen([60, 60, 60], [0.0, 1.5, -0.25], [0.0, 0.0, 0.0])
    light = seen([120, 200], [0.0, 10.0], [0.0, 1.0])
    path = write_film(tmp_path / "new/film.mp4", [grey, light], title="dummy, mode", frames_per_second=4.0)
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    assert len(pictures) == 3 + 2  # half a second of the last frame
    top = 3 * films.LINE + 2  # of the title, the seed, the return
    assert pictures[0].shape == (top + 128, 128 + 4 + 128, 3)  # every pixel 8 x 8
    for time, level in enumerate((120, 200, 200, 200)):
        left, right = pictures[time][top + 64, 64], pictures[time][top + 64, 196]
        assert abs(left - 60).max() < 6 and abs(right - level).max() < 6
    told = [
        "return 0.0",
        "return 0.0",
        "return 1.5",
        "return 10.0",
        "success",
        "return 1.2",
        "return 10.0",
        "success",
    ]
    assert written == ["dummy, mode", "seed 7", "seed 7", *told]
    strips = [picture[:top] for picture in pictures]
    assert all(strip.min() < 120 for strip in strips) and abs(strips[0] - strips[1]).max() > 60
    assert [file.name for file in path.parent.iterdir()] == ["film.mp4"]


def test_the_same_film_has_the_same_bytes(tmp_path):
    """Sides that are no multiples of 16, and blocks that move."""
    blocks = np.random.default_rng(0).integers(0, 255, (12, 17, 3)).astype(np.uint8)
    pictures = [Image.fromarray(np.roll(blocks, n, 1)).resize((130, 90), 0) for n in range(12)]
    made = [films.write_mp4(tmp_path / f"{n}.mp4", pictures, frames_per_second=9.0) for n in range(4)]
    assert len({path.read_bytes() for path in made}) == 1


def test_a_title_that_is_too_long_is_broken():
    font = films.ImageFont.load_default(size=films.FONT_SIZE)
    title = "metaworld:button-press-topdown-wall-of-another-name-still, mode after 250,000 agent steps"
    lines = list(films._broken(title, font, 128))
    assert max(map(font.getlength, lines)) <= 128 and len(lines) > 3
    assert "".join(lines).replace(" ", "") == title.replace(" ", "")
    assert list(films._broken("dummy, mode", font, 128)) == ["dummy, mode"]


def test_loss_curves_go_through_the_logged_rows():
    rows = [{"updates": 10, "image_loss": 30.0, "kl": 2.0}, {"updates": 20, "image_loss": 20.0, "kl": 3.0}]
    figure = curves.loss_curves({"a": rows, "b": [*rows, {"updates": 30, "seconds": 1.0}]})
    image, kl = figure.axes
    assert [line.get_label() for line in image.lines] == ["a", "b"]
    assert image.lines[1].get_xydata().tolist() == [[10, 30], [20, 20]]
    assert kl.lines[0].get_xydata().tolist() == [[10, 2], [20, 3]]
    assert image.get_ylabel() == "nats per frame"


def test_an_interval_whose_every_update_was_skipped_is_a_gap():
    """Such a row holds null: the line breaks there, and neither falls to zero nor is drawn across."""
    rows = [
        {"updates": 10, "image_loss": 30.0, "kl": 2.0},
        {"updates": 20, "image_loss": None, "kl": None},
        {"updates": 30, "image_loss": 20.0, "kl": None},
    ]
    figure = curves.loss_curves({"a": rows, "all skipped": [{"updates": 10, "image_loss": None, "kl": None}]})
    image, kl = (axes.lines[0].get_xydata() for axes in figure.axes)
    np.testing.assert_array_equal(image, [[10, 30], [20, np.nan], [30, 20]])
    np.testing.assert_array_equal(kl, [[10, 2], [20, np.nan], [30, np.nan]])
    sheet.png(figure)


def summary(level: float) -> dict:
    values = {"mean": [level, level - 1], "low": [level - 2, level - 3], "high": [level + 2, level + 1]}
    metrics = {metric: {"per_step": values} for metric in ("psnr_db", "ssim")}
    return {"videos": 3, "model": metrics, "copy_last_frame": metrics, "mean_frame": metrics}


def test_score_curves_have_a_line_a_seed_and_their_mean():
    runs = [
        [{"updates": at, "psnr_db": level + at} for at in updates]
        for level, updates in ((1.0, (5, 10)), (3.0, (5,)))
    ]
    axes = curves.score_curves({"a": runs, "b": runs[:1]}).axes[0]
    lines = [line.get_xydata().tolist() for line in axes.get_lines()]
    assert lines[:3] == [[[5, 6], [10, 11]], [[5, 8]], [[5, 7]]]  # the mean only where every seed has a score
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a (2 seeds)", "b"]


def test_horizon_curves_show_models_baselines_and_intervals():
    figure = curves.horizon_curves({"context": summary(20.0), "plain": summary(18.0)}, title="toy")
    psnr = figure.axes[0]
    lines = {line.get_label(): line.get_xydata().tolist() for line in psnr.lines}
    assert lines["plain"] == [[1, 18], [2, 17]]
    assert lines["copy-last-frame"] == [[1, 20], [2, 19]]
    band = psnr.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (17, 22)
    assert figure.get_suptitle() == "toy; bands: intervals over source videos"


def test_horizon_curves_of_one_video_have_no_band():
    steps = {"per_step": {"mean": [20.0, 19.0]}}
    one = summary(20.0) | {"videos": 1, "model": {"psnr_db": steps, "ssim": steps}}
    figure = curves.horizon_curves({"context": one}, title="toy")
    assert not figure.axes[0].collections
    assert figure.get_suptitle() == "toy; no interval, as all windows are of one video"


def test_finetuning_curve_draws_evaluations_training_and_the_random_policy():
    evaluations = {"success": [(0, [0.0, 0.0]), (500, [1.0, 0.0])], "score": [(0, [3.0]), (500, [7.0])]}
    training = {"score": [(100, 2.0), (200, 4.0)]}
    figure = curves.finetuning_curve(
        evaluations,
        sampled={"score": [(0, 1.0), (500, 5.0)]},
        training=training,
        random_policy={"score": 2.5},
    )
    success, score = (
        {line.get_label(): line.get_xydata().tolist() for line in axes.lines} for axes in figure.axes
    )
    assert success["mode, mean"] == [[0, 0], [500, 0.5]]
    assert len(success["mode, episode"]) == 4 and not {"training episode", "samples, mean"} & set(success)
    assert score["samples, mean"] == [[0, 1], [500, 5]]
    assert score["training episode"] == [[100, 2], [200, 4]]
    assert score["random policy, mean"][0][1] == 2.5


def test_latent_embedding_has_a_point_per_clip_and_the_numbers():
    labels = [0] * 6 + [3] * 6
    features = np.random.default_rng(0).normal(size=(12, 4)) + 50 * np.array(labels)[:, None]
    figure, numbers = latent_embedding(features, labels, {0: "left", 3: "right"})
    assert numbers["knn_accuracy"] == 1.0
    assert {line.get_label(): len(line.get_xdata()) for line in figure.axes[0].lines} == {
        "left": 6,
        "right": 6,
    }


def test_a_long_name_is_not_cut_off_and_legends_hide_no_line():
    video = torch.zeros(1, 4, 3, 8, 8, dtype=torch.uint8)
    grid = prediction_grid(video, {"a-model-with-a-long-name": video}, observed_frames=2)
    renderer = FigureCanvasAgg(grid).get_renderer()
    assert min(text.get_window_extent(renderer).x0 for text in grid.texts) > 0
    panels = curves.horizon_curves({"context": summary(20.0)})
    renderer = FigureCanvasAgg(panels).get_renderer()
    panels.draw(renderer)
    (legend,) = panels.legends
    assert legend.get_window_extent(renderer).y1 <= min(
        axes.get_window_extent(renderer).y0 for axes in panels.axes
    )
