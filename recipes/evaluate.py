"""Scorecard and figures of a video world model on held-out clips.

    python recipes/evaluate.py --checkpoint runs/demo/contextwm-tiny/model --data runs/demo/shards/real \
        --out runs/demo/contextwm-tiny/evaluation
    python recipes/evaluate.py --checkpoint owner/name@v1 --data shards/mine --compare runs/mine/evaluation --out runs/theirs

Several shard directories (`--data '[shards/real, shards/metaworld]'`) are scored apart and together. `--compare DIR`
adds the differences to another evaluation under the same protocol. The folder gets scorecard.json,
prediction.png and .mp4, horizon*.png and, where they mean something, attention.png, composition.png, embedding.png
and comparison.json. `--lpips true` and `--fvd true` add those distances where the networks' files are on this machine
(without them, one sentence says what to put where); I3D takes about 3 CPU seconds a clip of 25 frames,
and there are two clips to a window. A model with context is also shown other videos' context frames: what that costs says how much
it reads its context. The tiny model with 16 windows of 25 frames takes about 15 s on one CPU core.

`--probe true` adds what the latents know (`probe_r2_state`, or `probe_r2_action` of a set without state): R2 of a linear probe
that is fitted on training videos and scored on the held-out windows. It needs logged states or actions beside the clips.
`--planning true` adds how often a model with actions takes the actions of another window for a better way to a window's last
frame than its own (`planning_error`: 0 never, 0.5 by chance).

A world model with actions (`pretrain --model action-contextwm`) predicts under the logged actions of the windows; beside
it stands what the same model predicts, with the same draws, under the actions of another window.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cwm_hub.command_line import Pace, loading
from cwm_hub.config import check_range
from cwm_hub.evaluation import words
from cwm_hub.evaluation.protocol import ScoringConfig
from recipes.run.command_line import parse_config
from recipes.run.folder import RecipeError, one_sentence_errors, write_text

COMPOSED_WINDOWS = 3
"""Windows of the composition figure."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(ScoringConfig):
    """What is evaluated, on what, and under which protocol."""

    checkpoint: str
    """Directory, embedded name or Hub repository of a world model, of video or with actions."""
    data: list[str]
    """Shard directories."""
    out: str
    """Folder to write to."""
    compare: str | None = None
    """Folder of another evaluation or run, whose scores are compared with these."""
    name: str | None = None
    """What figures call the model; by default the last part of the checkpoint's name (of its run folder's)."""
    lpips: bool = False
    """Add LPIPS, which needs torchvision's AlexNet weights on this machine."""
    fvd: bool = False
    """Add FVD of whole windows, which needs StyleGAN-V's I3D network on this machine and many windows."""
    probe: bool = False
    """Add R2 of a linear probe from latents to the logged state or, where there is none, to the action that comes next."""
    probe_windows: int = 256
    """Windows of the train split that the probe is fitted on; all of a directory that has fewer."""
    planning: bool = False
    """Add the open-loop planning error; of models with actions."""
    figure_windows: int = 4
    """Windows shown in figures, dealt out over the shard directories."""
    figures: bool = True
    """Draw figures and the mp4; without them only the numbers are written."""
    device: str = "auto"
    """torch device; `auto` takes the GPU where there is one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "figure_windows", "probe_windows", at_least=1)
        if not self.data:
            raise RecipeError("evaluate needs at least one shard directory")


if __name__ == "__main__":  # before torch is imported, so that --help and a typo answer at once
    CONFIG = parse_config(EvaluateConfig, description=__doc__)
    loading(f"{CONFIG.checkpoint}, and held-out windows of {', '.join(CONFIG.data)}")

import numpy as np
import torch
from torch import Tensor

from cwm_hub.config import to_dict
from cwm_hub.evaluation import perceptual
from cwm_hub.evaluation.comparison import compare_designs, read_scorecard
from cwm_hub.evaluation.held_out import HeldOut, make_protocol, read_held_out
from cwm_hub.evaluation.linear_probe import probe_scores, read_probe_data
from cwm_hub.evaluation.planning import planning_error
from cwm_hub.evaluation.predict import WorldModel, foreign_windows, posterior_features, score
from cwm_hub.evaluation.probes import labelled_videos
from cwm_hub.evaluation.protocol import check_same_protocol
from cwm_hub.figures import curves, sheet
from cwm_hub.figures.frames import (
    latent_embedding,
    prediction_grid,
    write_video,
)
from cwm_hub.figures.look import attention_of, composition_of
from cwm_hub.hub.names import find_checkpoint
from cwm_hub.models.action_world_model import ActionWorldModel
from cwm_hub.models.video_world_model import VideoWorldModel
from cwm_hub.provenance import provenance


def main(config: EvaluateConfig) -> int:
    """Evaluate one checkpoint and print where it stands."""

    out, roots = Path(config.out), config.data
    device = find_device(config.device)

    # Metrics that need a network of their own are refused before the work begins.
    if config.lpips:
        perceptual.check_lpips()
    if config.fvd:
        perceptual.check_fvd(config.observed_frames + config.horizon)

    # The model.
    checkpoint = find_checkpoint(config.checkpoint)
    model = checkpoint.load(device=device)
    if not isinstance(model, WorldModel):
        raise RecipeError(
            f"{config.checkpoint} is a {type(model).__name__}, and only a world model predicts video"
        )
    with_actions = isinstance(model, ActionWorldModel)
    if config.planning and not with_actions:
        raise RecipeError(f"{config.checkpoint} takes no actions, so that it has no planning error")
    name = config.name or _model_name(config.checkpoint)

    # Prediction and scores; what cannot be compared is refused before the work too.
    held_out = read_held_out(config, roots, image_size=model.image_size, with_actions=with_actions)
    check_actions(model, held_out)
    protocol = make_protocol(config, held_out)
    probed = {
        data_set: read_probe_data(config, root, train_windows=config.probe_windows, with_actions=with_actions)
        for data_set, root in zip(held_out.manifests, roots, strict=True)
        if config.probe
    }
    other = read_scorecard(Path(config.compare)) if config.compare else None
    if other is not None:
        check_same_protocol(to_dict(protocol), other["protocol"])
    pace = Pace(len(held_out.windows) * config.samples, "predictions")
    card, prediction, context = score(
        model, held_out, protocol, lpips=config.lpips, fvd=config.fvd, predicted=pace.add
    )
    card |= probe_scores(model, probed, protocol)
    if config.planning and isinstance(model, ActionWorldModel):
        card["planning_error"] = planning_error(model, held_out, protocol)
    card["name"], card["checkpoint"] = name, checkpoint.identity()
    card["updates"] = (checkpoint.read("train.json") or {}).get("updates")
    card["provenance"] = provenance()
    write_text(out / "scorecard.json", json.dumps(card, indent=1))

    # Comparison, figures, and what to say.
    cards, difference = {name: card}, None
    if other is not None:
        cards[_other_name(other, name)] = other
        compared = compare_designs({key: [one] for key, one in reversed(cards.items())})
        difference = compared["together"]["designs"][name]["psnr_db"]["minus_first"]
        write_text(out / "comparison.json", json.dumps(compared, indent=1))
    if config.figures:
        print("drawing figures", flush=True)
        draw(out, model, held_out, prediction[0], context, cards, config.figure_windows)
    for line in conclusions(cards, difference):
        print(line)
    return 0


def check_actions(model: WorldModel, held_out: HeldOut) -> None:
    """Refuse windows whose actions are not the model's.

    Raises:
        RecipeError: they have another size.
    """
    if isinstance(model, ActionWorldModel) and held_out.action is not None:
        size = held_out.action.shape[-1]
        if size != model.config.action_size:
            raise RecipeError(
                f"the model takes actions of size {model.config.action_size} and the data has actions of size {size}"
            )


def find_device(name: str) -> torch.device:
    """The torch device of that name, which must be there.

    Raises:
        RecipeError: it is not.
    """

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros((), device=device).item()  # meta has no numbers, cuda may not be there
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise RecipeError(f"there is no device {name!r} here: {str(error).splitlines()[0]}") from error
    return device


def draw(
    out: Path,
    model: WorldModel,
    held_out: HeldOut,
    prediction: Tensor,
    context: Tensor | None,
    cards: dict[str, dict[str, Any]],
    figure_windows: int,
) -> None:
    """Write every figure that means something for this model and these windows; `cards` has this model's first."""

    name, protocol = next(iter(cards)), next(iter(cards.values()))["protocol"]
    seen = protocol["observed_frames"]
    shown = held_out.shown(figure_windows)
    captions = held_out.captions(shown)
    truth, predictions = held_out.video[shown], {name: prediction[shown]}
    grid = prediction_grid(truth, predictions, observed_frames=seen, captions=captions)
    sheet.save(grid, out / "prediction.png")
    write_video(out / "prediction.mp4", truth, predictions, observed_frames=seen)

    *single, whole = words.parts(next(iter(cards.values())))
    for part in (whole, *single):
        scores = {label: words.parts(card)[part] for label, card in cards.items()}
        title = f"{part}: {words.counted(next(iter(scores.values())), protocol)}"
        file = "horizon.png" if part == whole else f"horizon_{part}.png"
        sheet.save(curves.horizon_curves(scores, title=title), out / file)

    device = next(model.parameters()).device
    action = None if held_out.action is None else held_out.action.to(device)
    feature = posterior_features(model, held_out.video.to(device), action)
    if context is not None and isinstance(model, VideoWorldModel):
        maps = attention_of(model, feature[shown], context[shown], captions=captions)
        if maps is not None:
            sheet.save(maps, out / "attention.png")
        draw_composition(out, model, held_out, feature, context, shown[:COMPOSED_WINDOWS])
    draw_embedding(out, feature.mean(1).cpu().numpy(), held_out)


def draw_composition(
    out: Path, model: VideoWorldModel, held_out: HeldOut, feature: Tensor, context: Tensor, shown: list[int]
) -> None:
    """Dynamics of these windows in the context of another video's; of one video there is no such picture."""

    videos = [window[:2] for window in held_out.windows]
    if len(set(videos)) < 2:
        print("no composition.png: it needs windows of two source videos")
        return
    foreign = foreign_windows(videos)
    other = context[[foreign[row] for row in shown]]
    video = held_out.video[shown].to(context.device)
    sheet.save(composition_of(model, video, feature[shown], context[shown], other), out / "composition.png")


def draw_embedding(out: Path, features: np.ndarray, held_out: HeldOut) -> None:
    """t-SNE of time-averaged latents, a point for each source video; needs scikit-learn."""

    videos = labelled_videos(features, held_out)
    if len(videos.names) < 2:
        if len(set(held_out.labels)) > 1:
            print("no embedding.png: it needs two labels with two source videos each among the windows")
        return
    try:
        figure, numbers = latent_embedding(videos.features, videos.labels, dict(enumerate(videos.names)))
    except ModuleNotFoundError:
        print("no embedding.png: it needs scikit-learn, pip install 'cwm-hub[figures]'")
        return
    sheet.save(figure, out / "embedding.png")
    counts = {"videos": len(videos.labels), "windows": videos.windows}
    write_text(out / "separability.json", json.dumps(numbers | counts))


def conclusions(cards: dict[str, dict[str, Any]], difference: dict[str, Any] | None) -> list[str]:
    """Lines that say where the model stands, per data set and together."""
    names, card = list(cards), next(iter(cards.values()))
    parts = words.parts(card)
    lines = [
        f"{part}: {'' if part == names[0] else f'{names[0]} '}{words.standing(scores)}"
        for part, scores in parts.items()
    ]
    lines += words.further_sentences(card)
    if difference is not None:
        own, other = names
        verdict = words.verdict(own, other, difference, confidence=card["protocol"]["confidence"])
        lines.append(f"{list(parts)[-1]}: {verdict}")
    return lines


def _model_name(checkpoint: str) -> str:
    """`contextwm-tiny` of runs/demo/contextwm-tiny/model as of someone/contextwm-tiny."""
    parts = [part for part in checkpoint.rstrip("/").split("/") if part]
    return parts[-2] if parts[-1] == "model" and len(parts) > 1 else parts[-1]


def _other_name(card: dict[str, Any], name: str) -> str:
    other = card["name"]
    return f"{other} (other)" if other == name else other


if __name__ == "__main__":
    with one_sentence_errors():
        sys.exit(main(CONFIG))
