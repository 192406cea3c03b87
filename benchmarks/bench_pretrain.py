"""Speed of a pre-training update against the machine's own matrix products, and of context against none.

    python benchmarks/bench_pretrain.py [--model contextwm] [--batch-clips 16 ...] [--window-frames 25] [--compile] [--json]

For each batch size: updates/s and frames/s, TFLOP/s beside a ceiling measured in the same run with one large matrix product,
the stages' shares, peak memory, contextwm against plainwm and bfloat16 against float32. Floating point operations are counted
by torch.utils.flop_counter over forward and backward of one update. The models step in turns until the interval of their
ratio is narrow (pairs.py), by CPU seconds on a CPU and by wall seconds on a GPU.
"""

import argparse
import json
import resource
import statistics
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.pairs import Clock, Pairs, time_pairs, timed, warning
from cwm_hub import VideoWorldModel, create_model
from cwm_hub.models.compiled import compile_parts
from cwm_hub.models.cuda_graph import EAGER_CALLS, CudaGraph
from cwm_hub.models.frame_model import image_loss
from cwm_hub.models.rssm import balanced_kl
from cwm_hub.models.running_statistics import RunningStatistics
from recipes.run.memory import keep_memory
from recipes.run.pretrain_checkpoint import adam_settings
from recipes.run.pretrain_settings import PretrainConfig


@dataclass
class Trainer:
    """One model with its optimiser and a fixed batch, stepping as recipes/pretrain.py does, but for the meter's sums."""

    name: str
    device: torch.device
    dtype: torch.dtype
    batch_clips: int
    window_frames: int
    compile: bool
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        model = create_model(self.name).to(self.device, memory_format=torch.channels_last)
        assert isinstance(model, VideoWorldModel)
        self.model = model.train()
        self.settings = PretrainConfig(data=[])
        self.optimizer = torch.optim.Adam(self.model.parameters(), **adam_settings(self.settings), fused=True)
        self.statistics = RunningStatistics(self.model)
        side = self.model.image_size
        shape = (self.batch_clips, self.window_frames, 3, side, side)
        last = (*shape[:2], side, side, 3)  # channels last in memory, as the loader gives them
        self.video = torch.randint(0, 256, last, dtype=torch.uint8, device=self.device).movedim(-1, 2)
        self.is_first = torch.zeros(shape[:2], dtype=torch.bool, device=self.device)
        self.is_first[:, 0] = True
        if self.compile:
            compile_parts(self.model)
        if self.cuda_graph:
            self.optimizer.param_groups[0]["capturable"] = True
            self.graph = CudaGraph(self.update_on, self.device)

    def autocast(self) -> Any:
        """Mixed precision as accelerate sets it up."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def update(self) -> torch.Tensor:
        """Forward, backward, clip, step, as one CUDA graph where that is asked for; the loss."""
        if self.cuda_graph:
            return self.graph({"video": self.video, "is_first": self.is_first})
        return self.update_on(self.video, self.is_first)

    def update_on(self, video: torch.Tensor, is_first: torch.Tensor) -> torch.Tensor:
        """The same, operation by operation."""
        loss = self.loss(video, is_first)
        loss.backward()
        self.step()
        return loss.detach()

    def loss(self, video: torch.Tensor, is_first: torch.Tensor) -> torch.Tensor:
        """The forward pass."""
        self.statistics.keep()
        with self.autocast():
            loss, _ = self.model(video, is_first)
        return loss

    def step(self) -> None:
        """What follows the backward pass."""
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        bad = 1 - torch.isfinite(norm).float()
        self.optimizer.found_inf = bad  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.statistics.take_back(bad)

    def forward_stages(self) -> dict[str, Callable[[], Any]]:
        """Parts of the forward pass by themselves, eager."""
        model = self.model
        with torch.no_grad(), self.autocast():
            embed = model.frame_model.encode(self.video)
            posterior, prior = model.rssm.observe(embed, None, self.is_first)
            feature = model.rssm.feature(posterior)
            tokens = model.frame_model.context(self.video)
            mean = model.frame_model.decode(feature, tokens)
        return {
            "encoder": lambda: model.frame_model.encode(self.video),
            "dynamics": lambda: model.rssm.observe(embed, None, self.is_first),
            "context encoder": lambda: model.frame_model.context(self.video),
            "decoder": lambda: model.frame_model.decode(feature, tokens),
            "losses": lambda: (image_loss(mean, self.video), balanced_kl(posterior, prior)),
        }


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """CPU seconds of one call, or wall seconds with a GPU's queue emptied before and after."""
    if device.type == "cpu":
        return timed(work).cpu
    torch.cuda.synchronize(device)
    return timed(lambda: (work(), torch.cuda.synchronize(device))).wall


def page_faults(trainer: Trainer) -> int:
    """Pages that the system hands to this process during one update."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    trainer.update()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def matrix_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Best TFLOP/s of a square matrix product, of ten."""
    side = 8192 if device.type == "cuda" else 2048
    left, right = torch.randn(2, side, side, device=device, dtype=dtype)
    best = min(seconds(lambda: left @ right, device) for _ in range(10))
    return 2 * side**3 / best / 1e12


def stage_shares(trainer: Trainer, rounds: int) -> dict[str, float]:
    """Share of an update's time that each stage takes; the parts of the forward pass by their shares of it, eager."""
    whole: dict[str, list[float]] = {"forward": [], "backward": [], "clip and step": []}
    for _ in range(rounds):
        losses: list[torch.Tensor] = []
        inputs = trainer.video, trainer.is_first
        whole["forward"].append(seconds(lambda: losses.append(trainer.loss(*inputs)), trainer.device))  # noqa: B023
        whole["backward"].append(seconds(lambda: losses[0].backward(), trainer.device))  # noqa: B023
        whole["clip and step"].append(seconds(trainer.step, trainer.device))
    times = {name: statistics.median(values) for name, values in whole.items()}
    forward, parts = times.pop("forward"), {}
    with torch.no_grad(), trainer.autocast():
        for name, work in trainer.forward_stages().items():
            work()
            parts[name] = statistics.median(seconds(work, trainer.device) for _ in range(rounds))
    shares = {f"forward, {name}": forward * part / sum(parts.values()) for name, part in parts.items()}
    return {name: value / (forward + sum(times.values())) for name, value in (shares | times).items()}


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16; a CPU that does not takes ten times as long as for float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def peak_memory(trainer: Trainer) -> int:
    """Bytes at the highest point of an update: of the device, or of this process on a CPU."""
    if trainer.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(trainer.device)
    for _ in range(2):
        trainer.update()
    if trainer.device.type == "cuda":
        return torch.cuda.max_memory_allocated(trainer.device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(arguments: argparse.Namespace, batch_clips: int, device: torch.device) -> dict[str, Any]:
    """All figures of one batch size."""
    clock: Clock = "wall" if device.type == "cuda" else "cpu"
    size = {"batch_clips": batch_clips, "window_frames": arguments.window_frames}
    graph = device.type == "cuda" and not arguments.no_cuda_graph
    common = {"device": device, "cuda_graph": graph, **size}
    usual, other = torch.float32, torch.bfloat16
    if device.type == "cuda":
        usual, other = other, usual
    first = Trainer(arguments.model, dtype=usual, compile=arguments.compile, **common)
    with FlopCounterMode(display=False) as flops:
        first.update_on(first.video, first.is_first)
    peak_bytes = peak_memory(first)
    trainers = {
        "context": first,
        "plain": Trainer(arguments.plain, dtype=usual, compile=arguments.compile, **common),
    }
    if has_bf16(device):
        trainers["other"] = Trainer(arguments.model, dtype=other, compile=arguments.compile, **common)
    if arguments.compile:
        trainers["uncompiled"] = Trainer(arguments.model, dtype=usual, compile=False, **common)
    if graph:
        trainers["eager"] = Trainer(
            arguments.model, dtype=usual, compile=False, **{**common, "cuda_graph": False}
        )
    pairs = time_updates(trainers, clock, arguments)
    wall = pairs.median("context", "wall")
    result: dict[str, Any] = {
        **size,
        "compiled": arguments.compile,
        "cuda_graph": graph,
        "precision": str(first.dtype).removeprefix("torch."),
        "updates_per_second": 1 / wall,
        "frames_per_second": batch_clips * arguments.window_frames / wall,
        "tflops": flops.get_total_flops() / pairs.median("context", clock) / 1e12,
        "tflops_ceiling": matrix_ceiling(device, first.dtype),
        "peak_memory_gib": peak_bytes / 2**30,
        "page_faults": page_faults(first),
    }
    compared = {"contextwm_over_plainwm": ("context", "plain")}
    if "other" in trainers:
        half, full = ("context", "other") if device.type == "cuda" else ("other", "context")
        compared["bf16_over_float32"] = (half, full)
    if arguments.compile:
        compared["compiled_over_uncompiled"] = ("context", "uncompiled")
    if graph:
        compared["recorded_over_eager"] = ("context", "eager")
    for name, names in compared.items():
        ratio = pairs.ratio(*names, clock)
        result |= {name: ratio.median, f"{name}_interval": [ratio.low, ratio.high]}
        if said := warning(name, ratio):
            print(said)
    return result | {
        "rounds": len(pairs.timings["context"]),
        "seconds": pairs.seconds(),
        "stage_shares": stage_shares(first, 5),
    }


def time_updates(trainers: dict[str, Trainer], clock: Clock, arguments: argparse.Namespace) -> Pairs:
    """Updates in turns, after some of each to warm up, compile and record."""

    def work(trainer: Trainer) -> Callable[[], None]:
        def update() -> None:
            trainer.update()
            if trainer.device.type == "cuda":
                torch.cuda.synchronize(trainer.device)

        return update

    ways = {name: work(trainer) for name, trainer in trainers.items()}
    for name, way in ways.items():
        for _ in range(EAGER_CALLS + 1 if trainers[name].cuda_graph else 2):
            way()
    compared: dict[tuple[str, str], Clock] = {
        ("context", name): clock for name in trainers if name != "context"
    }
    return time_pairs(ways, compared=compared, most_seconds=arguments.most_seconds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="contextwm")
    parser.add_argument("--plain", default="plainwm", help="the model without context to compare with")
    parser.add_argument("--batch-clips", type=int, nargs="+", default=[16])
    parser.add_argument("--window-frames", type=int, default=25)
    parser.add_argument("--most-seconds", type=float, default=180.0, help="of each batch size (default 180)")
    parser.add_argument("--system-memory", action="store_true", help="without the recipe's keep_memory")
    parser.add_argument("--compile", action="store_true", help="compile, and measure without beside it")
    parser.add_argument(
        "--no-cuda-graph", action="store_true", help="on a GPU: operation by operation, as on a CPU"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    arguments = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True  # as the recipe has it
    if device.type == "cpu" and not arguments.system_memory:
        keep_memory()
    if not has_bf16(device):
        print("bfloat16 is not measured: this processor has no instructions for it")
    gpu = device.type == "cuda"
    machine = {
        "device": torch.cuda.get_device_name(device) if gpu else f"cpu x {torch.get_num_threads()}",
        "torch": torch.__version__,
        "model": arguments.model,
    }
    for name, value in machine.items():
        print(f"{name:24s} {value}")
    results = []
    for batch_clips in arguments.batch_clips:
        results.append(measure(arguments, batch_clips, device))
        show(results[-1])
    if arguments.json:
        print(json.dumps(machine | results[0] | ({"sizes": results} if len(results) > 1 else {})))


def show(result: dict[str, Any]) -> None:
    """One figure a line."""
    print()
    for name, value in result.items():
        if isinstance(value, dict):
            continue
        words = value if not isinstance(value, list) else "to ".join(f"{end:.3f} " for end in value)
        print(f"{name:32s} {value:.3f}" if isinstance(value, float) else f"{name:32s} {words}")
    for name, kinds in result["seconds"].items():
        print(f"  {name:30s} " + ", ".join(f"{kind} {value:.3f} s" for kind, value in kinds.items()))
    for name, share in result["stage_shares"].items():
        print(f"  {name:30s} {100 * share:5.1f} %")


if __name__ == "__main__":
    main()
