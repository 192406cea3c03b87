"""Settings of a pre-training run. No torch, so that a mistyped one is refused at once."""

from dataclasses import dataclass, field
from typing import Any, Literal

from cwm_hub.clips.clip_index import ClipSource
from cwm_hub.clips.retries import FetchConfig
from cwm_hub.config import check_range
from cwm_hub.evaluation.protocol import ScoringConfig


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of a pre-training run; the defaults are the paper's where it has them."""

    data: list[ClipSource]
    """The mixture of shard directories."""
    run: str = "runs/pretrain"
    """Run folder. A folder with checkpoints is resumed."""
    model: str = "contextwm"
    """Preset of a world model: contextwm, contextwm-concat or plainwm, each also as -tiny (32 pixels); contextwm and plainwm as
    -small (64 pixels, for a CPU) and -mini. On data with logged actions action-contextwm, also as -tiny and -mini; or dreamerv2."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Values of the preset to replace, by dotted name, such as `{rssm.deter: 256}`."""
    init: str | None = None
    """Checkpoint to start from: a folder, an embedded name or a Hub repository. It must be of the same shape, or the video
    world model below the one with actions."""
    updates: int = 1_200_000
    """Gradient updates (official commands; follow-up papers use 600,000)."""
    batch_clips: int = 16
    """Clips an update, over all processes and accumulation steps."""
    window_frames: int = 25
    """Consecutive stored frames of a clip."""
    sampling: Literal["source", "clip", "frame"] = "source"
    """What is drawn uniformly: source videos (the paper), clips or frames."""
    accumulation: int = 1
    """Batches whose gradients are averaged into an update."""
    learning_rate: float = 3e-4
    """Of Adam."""
    adam_epsilon: float = 1e-5
    """Of Adam."""
    weight_decay: float = 1e-6
    """L2 penalty coupled into the gradient, as torch's Adam has it."""
    clip_norm: float = 100.0
    """Bound on the global gradient norm; finite, since JSON records it: 1e9 bounds nothing."""
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """Autocast type; auto is bf16 on a GPU and none on a CPU. Losses are float32 in any case."""
    sync_batchnorm: bool = True
    """Share BatchNorm statistics between GPUs (CPU processes keep their own: torch has no such layer there)."""
    compile: bool = False
    """Compile the image networks and the scan's steps with torch.compile: 0.71 of an update's time on a GPU, after two minutes. The
    draws are eager's, so that losses are too."""
    cuda_graphs: bool = True
    """Record an update as one CUDA graph and replay it, on one GPU without accumulation and fp16; elsewhere it says nothing."""
    cpu: bool = False
    """Stay on the CPU where there is a GPU."""
    processes: int | None = None
    """Processes that must be there; null takes the launcher's environment at its word."""
    workers: int = 2
    """Loader processes of each process, at most one for each of its cores; 0 reads between updates."""
    max_broken: int = 8
    """Shards or clips that a process may find unreadable before the run stops; unreadable.jsonl names them."""
    max_broken_share: float = 0.5
    """Share of the clips of each data set of which the same is true, so that a small one is not worn down to its last."""
    fetch: FetchConfig = field(default_factory=FetchConfig)
    """Cache, retries and timeouts for remote roots."""
    seed: int = 0
    """Of weights, data order and every draw."""
    log_every: int = 50
    """Updates between rows of metrics.jsonl."""
    checkpoint_every: int = 1000
    """Updates between checkpoints."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept."""
    evaluate_every: int = 0
    """Updates between scorecards on held-out windows, the last update included; 0 for none."""
    evaluate_data: list[str] = field(default_factory=list)
    """Shard directories whose held-out windows are scored; empty takes those of `data`."""
    evaluation: ScoringConfig = field(default_factory=ScoringConfig)
    """Windows and protocol of these scorecards."""
    max_bad_updates: int = 100
    """Skipped updates in a row, because of a non-finite gradient, at which the run stops."""
    trackers: list[str] = field(default_factory=list)
    """Trackers of accelerate that log beside metrics.jsonl, such as tensorboard."""
    audit: bool = False
    """Leave audit-<rank>.json from every process: the hash of its weights and the clips it used, in order."""

    def __post_init__(self) -> None:
        """Raises ValueError for the first value out of its range."""
        counts = (
            "updates",
            "batch_clips",
            "accumulation",
            "log_every",
            "checkpoint_every",
            "keep_checkpoints",
        )
        check_range(self, *counts, "max_bad_updates", at_least=1)
        check_range(self, "window_frames", at_least=2)
        check_range(self, "weight_decay", "workers", "evaluate_every", "max_broken", at_least=0)
        check_range(self, "max_broken_share", at_least=0, at_most=1)
        check_range(self, "learning_rate", "adam_epsilon", "clip_norm", above=0)
