"""Held-out windows, the protocol, and a model's scores on them: what `evaluate.py` and `pretrain.py` share."""

import json
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cwm_hub.provenance import provenance
from recipes.run.folder import RecipeError, append_row, check_least, step_directory, write_text

if TYPE_CHECKING:
    import pyarrow
    from torch import Generator, Tensor

    from cwm_hub.evaluation.scorecard import Protocol
    from cwm_hub.models.video_world_model import VideoWorldModel

LEAST = {
    "windows": 2,
    "observed_frames": 1,
    "horizon": 1,
    "samples": 1,
    "seed": 0,
    "mean_frame_frames": 1,
}
"""Setting to its least value."""

EVALUATION_WINDOWS = 4
"""Windows of the prediction grids that are drawn during training."""


@dataclass(frozen=True, kw_only=True)
class ScoringConfig:
    """Which held-out windows are predicted, and how."""

    split: str = "validation"
    """Split whose windows are predicted; the mean frame always comes from `train`."""
    windows: int = 16
    """Windows of every shard directory."""
    observed_frames: int = 5
    """Frames the model sees."""
    horizon: int = 20
    """Frames it predicts open loop."""
    protocol: Literal["observed", "official"] = "observed"
    """`official` draws the context frame from the whole window, the frames to predict included, as the official
    code does."""
    context: Literal["last", "first"] = "last"
    """Observed frame that is the context, under the `observed` protocol."""
    latents: Literal["sampled", "mode"] = "sampled"
    """Draw latents or take the most probable ones."""
    samples: int = 1
    """Predictions per window: scores average over them, the best is reported apart."""
    seed: int = 0
    """Of windows, latents and official context frames."""
    mean_frame_frames: int = 512
    """Training frames, drawn uniformly, behind the mean frame of a shard directory."""

    def __post_init__(self) -> None:
        check_least(self, LEAST)


@dataclass(frozen=True)
class Data:
    """Held-out windows of every shard directory, one after another."""

    video: "Tensor"
    """uint8 [B, T, 3, H, W]."""
    windows: list[tuple[str, str, str, int]]
    """(data set, source video, clip key, first frame) of each."""
    labels: list[str]
    """Class of each in words, or its number, "" where unknown."""
    mean_frames: dict[str, "Tensor"]
    """Data set -> average training frame."""
    manifests: dict[str, str]
    """Data set -> manifest hash."""

    def shown(self, count: int) -> list[int]:
        """Rows for a figure: the first windows of every data set in turn, at most `count`."""
        return shown_windows([source for source, *_ in self.windows], count)

    def captions(self, rows: list[int]) -> list[str]:
        """Where each of these windows comes from."""
        return ["{0}: {2}, from frame {3}".format(*self.windows[row]) for row in rows]


def shown_windows(sources: list[str], count: int) -> list[int]:
    """The first windows of every data set in turn, at most `count`, in the order of the list."""
    seen: Counter[str] = Counter()
    turns = []
    for row, source in enumerate(sources):
        turns.append((seen[source], row))
        seen[source] += 1
    return sorted(row for _, row in sorted(turns)[:count])


def load_data(config: ScoringConfig, roots: list[str], *, image_size: int) -> Data:
    """Read the windows and the mean frames; data sets are called by their folder's name.

    A directory behind a URL is read with the loader's retries, and one on the Hub at the commit that it names now.

    Raises:
        RecipeError: two directories of one name.
        ShardError, SamplingError: a directory that cannot give what was asked.
    """
    import torch

    from cwm_hub.clips.clip_index import ClipSource
    from cwm_hub.clips.loader import validation_windows
    from cwm_hub.clips.remote_shards import pin_revision
    from cwm_hub.clips.retries import FetchConfig, with_retries
    from cwm_hub.shards.codecs import ShardError
    from cwm_hub.shards.index import read_index_table
    from cwm_hub.shards.manifest import Manifest

    names = [root.rstrip("/").rsplit("/", 1)[-1] for root in roots]
    if len(set(names)) < len(names):
        raise RecipeError(f"data sets are told apart by their folder's name, got {', '.join(names)}")
    videos, windows, labels, mean_frames, manifests = [], [], [], {}, {}
    for name, place in zip(names, roots, strict=True):
        root = with_retries(partial(pin_revision, place), FetchConfig(), what=place)
        manifest = with_retries(partial(Manifest.load, root), FetchConfig(), what=root)
        clips = clip_facts(with_retries(partial(read_index_table, root), FetchConfig(), what=root))
        if manifest.image_size != image_size:
            raise ShardError(
                f"{root} holds {manifest.image_size} px frames and the model takes {image_size} px"
            )
        manifests[name] = manifest.hash
        batches = validation_windows(
            ClipSource(root, split=config.split),
            count=config.windows,
            window_frames=config.observed_frames + config.horizon,
            seed=config.seed,
        )
        for batch in batches:
            videos.append(batch.video)
            labels += [clips[key][1] for key in batch.source]
            windows += [
                (name, clips[key][0], key, start)
                for key, start in zip(batch.source, batch.start, strict=True)
            ]
        mean_frames[name] = mean_frame(root, frames=config.mean_frame_frames, seed=config.seed)
    return Data(torch.cat(videos), windows, labels, mean_frames, manifests)


def clip_facts(index: "pyarrow.Table") -> dict[str, tuple[str, str]]:
    """Key of every clip -> its source video, and words of its class: its number where it has no words, "" where none."""
    columns = index.select(["key", "source", "label", "label_text"]).to_pydict()
    return {
        key: (source, text or (str(label) if label >= 0 else ""))
        for key, source, label, text in zip(*columns.values(), strict=True)
    }


def mean_frame(root: str, *, frames: int, seed: int) -> "Tensor":
    """The baseline's constant picture: the average of training frames drawn uniformly, uint8 [3, H, W]."""
    from cwm_hub.clips.clip_index import ClipSource
    from cwm_hub.clips.loader import ClipLoader

    loader = ClipLoader([ClipSource(root)], batch_clips=frames, window_frames=1, seed=seed, sampling="frame")
    return next(iter(loader)).video.double().mean((0, 1)).round().byte()


def make_protocol(config: ScoringConfig, data: Data) -> "Protocol":
    """The protocol that travels with the scores."""
    from cwm_hub.evaluation import scorecard

    return scorecard.Protocol(
        observed_frames=config.observed_frames,
        horizon=config.horizon,
        context="official" if config.protocol == "official" else config.context,
        latents=config.latents,
        samples=config.samples,
        seed=config.seed,
        image_size=data.video.shape[-1],
        split=config.split,
        data=data.manifests,
        mean_frames={source: scorecard.picture_hash(picture) for source, picture in data.mean_frames.items()},
        windows=tuple(data.windows),
    )


def score(
    model: "VideoWorldModel", data: Data, protocol: "Protocol", *, lpips: bool = False
) -> "tuple[dict[str, Any], Tensor, Tensor | None]":
    """Predict every window and score it; no draw touches torch's global random state.

    Args:
        model: in evaluation mode.
        data: the windows.
        protocol: of `make_protocol`.
        lpips: add that distance to the scores.

    Returns:
        The scorecard; the predictions, uint8 [samples, B, T, 3, H, W] on the CPU; the context frames on the model's device.
    """
    import torch

    from cwm_hub.evaluation import perceptual, scorecard

    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(protocol.seed)
    video = data.video.to(device)
    context = context_frames(model, video, protocol, generator)
    prediction = torch.stack(
        [predict(model, video, context, protocol, generator) for _ in range(protocol.samples)]
    ).cpu()
    card = scorecard.scorecard(
        prediction,
        data.video,
        mean_frames=data.mean_frames,
        protocol=protocol,
        distances={"lpips": perceptual.lpips} if lpips else None,
    )
    card["frechet_encoder_distance"] = encoder_distance(
        model, prediction[0], data.video, protocol.observed_frames
    )
    return card, prediction, context


def context_frames(
    model: "VideoWorldModel", video: "Tensor", protocol: "Protocol", generator: "Generator"
) -> "Tensor | None":
    """What the decoder is shown, uint8 [B, k, 3, H, W]; None for a model without context."""
    import torch

    config = model.config.frame.context
    if config is None:
        return None
    if protocol.context == "official":
        order = torch.rand(video.shape[:2], generator=generator, device=video.device).argsort(1)
        return video[torch.arange(len(video), device=video.device)[:, None], order[:, : config.frames]]
    seen = video[:, : protocol.observed_frames]
    return model.default_context(seen if protocol.context == "last" else seen[:, : config.frames])


def predict(
    model: "VideoWorldModel",
    video: "Tensor",
    context: "Tensor | None",
    protocol: "Protocol",
    generator: "Generator",
    batch_clips: int = 16,
) -> "Tensor":
    """One prediction of every window, in batches."""
    import torch

    return torch.cat(
        [
            model.predict(
                video[at : at + batch_clips],
                observed_frames=protocol.observed_frames,
                context_frames=None if context is None else context[at : at + batch_clips],
                sample=protocol.latents == "sampled",
                generator=generator,
            )
            for at in range(0, len(video), batch_clips)
        ]
    )


def encoder_distance(
    model: "VideoWorldModel", prediction: "Tensor", video: "Tensor", observed_frames: int
) -> dict[str, Any]:
    """Fréchet distances of open-loop frames to the true ones, in the features of this model's own frame encoder.

    Not FID and not FVD. Every encoder is a ruler of its own: values compare within one checkpoint, not between two.
    """
    import torch

    from cwm_hub.evaluation.perceptual import frechet_distance

    def features(frames: "Tensor") -> "Tensor":
        with torch.no_grad():
            device = next(model.parameters()).device
            parts = [
                model.frame_model.encode(part.to(device)).flatten(0, 1).cpu() for part in frames.split(16)
            ]
            return torch.cat(parts)

    future = video[:, observed_frames:]
    truth = features(future)
    last = video[:, observed_frames - 1 : observed_frames].expand_as(future)
    return {
        "model": frechet_distance(features(prediction[:, observed_frames:]), truth),
        "copy_last_frame": frechet_distance(features(last), truth),
        "frames": len(truth),
        "features": truth.shape[1],
    }


class Evaluation:
    """Scores the model under training on held-out windows that were read once; the main process's alone."""

    def __init__(self, config: ScoringConfig, roots: list[str], *, run: Path, image_size: int):
        from cwm_hub.config import to_dict
        from cwm_hub.evaluation.comparison import check_same_protocol

        self._run = run
        self._data = load_data(config, roots, image_size=image_size)
        self._protocol = make_protocol(config, self._data)
        earlier = sorted(run.glob("evaluations/step-*/scorecard.json"))
        if earlier:  # one curve has one protocol
            check_same_protocol(json.loads(earlier[-1].read_text())["protocol"], to_dict(self._protocol))

    def write(self, model: "VideoWorldModel", updates: int) -> dict[str, Any]:
        """A scorecard and a prediction grid in evaluations/step-<updates>, a row in scores.jsonl, a printed line.

        Returns:
            The row.
        """
        from cwm_hub.figures import sheet
        from cwm_hub.figures.frames import prediction_grid

        model.eval()
        card, prediction, _ = score(model, self._data, self._protocol)
        model.train()
        folder, seen = step_directory(self._run / "evaluations", updates), self._protocol.observed_frames
        card |= {"name": self._run.name, "updates": updates, "provenance": provenance()}
        write_text(folder / "scorecard.json", json.dumps(card, indent=1))
        shown = self._data.shown(EVALUATION_WINDOWS)
        grid = prediction_grid(
            self._data.video[shown],
            {f"{updates:,} updates": prediction[0][shown]},
            observed_frames=seen,
            captions=self._data.captions(shown),
        )
        sheet.save(grid, folder / "prediction.png")
        row = summary_row(card, updates)
        append_row(self._run / "scores.jsonl", row)
        print(
            f"\n{updates:>9,} updates: PSNR {row['psnr_db']:.2f} dB [{row['psnr_db_low']:.2f}, {row['psnr_db_high']:.2f}] on "
            f"{counted(card['together'], card['protocol'])}, {row['minus_copy_last_frame_db']:+.2f} dB to copy-last-frame, "
            f"{row['minus_mean_frame_db']:+.2f} dB to mean-frame",
            flush=True,
        )
        return row


def counted(part: dict[str, Any], protocol: dict[str, Any]) -> str:
    """`16 validation windows of 7 videos`."""
    return f"{part['windows']} {protocol['split']} windows of {part['videos']} videos"


def summary_row(card: dict[str, Any], updates: int) -> dict[str, Any]:
    """What curves over the updates need of a scorecard."""
    scores = card["together"]
    psnr = scores["model"]["psnr_db"]
    row = {
        "updates": updates,
        "psnr_db": psnr["mean"],
        "psnr_db_low": psnr["low"],
        "psnr_db_high": psnr["high"],
    }
    row["ssim"] = scores["model"]["ssim"]["mean"]
    for baseline in ("copy_last_frame", "mean_frame"):
        row[f"minus_{baseline}_db"] = scores[f"model_minus_{baseline}"]["psnr_db"]["mean"]
    return row
