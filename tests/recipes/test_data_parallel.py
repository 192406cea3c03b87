"""Two processes on half a batch each give the gradient of one process on the whole: what N GPUs rest on."""

import pytest
import torch
import torch.multiprocessing
from torch.nn.parallel import DistributedDataParallel

from cwm_hub import create_model
from cwm_hub.models import rssm

CLIPS, FRAMES = 4, 6
QUIET = {"frame.context.frame": "first", "frame.context.dropout": 0.0, "frame.context.token_dropout": 0.0}
"""No draw in the model but the latents', whose noise the test gives."""


def gradient(norm: str, rows: slice, *, parallel: bool) -> dict[str, torch.Tensor]:
    """Gradients of the training loss on some of the batch's clips, averaged over processes where `parallel`."""
    torch.manual_seed(0)
    model = create_model("contextwm-debug", overrides={**QUIET, "frame.norm": norm}).train()
    random = torch.Generator().manual_seed(1)
    video = torch.randint(0, 256, (CLIPS, FRAMES, 3, 32, 32), dtype=torch.uint8, generator=random)
    config = model.config.rssm
    noise = rssm.gumbel_noise(
        (CLIPS, FRAMES, config.stoch, config.classes), device=torch.device("cpu"), generator=random
    )
    is_first = torch.zeros(CLIPS, FRAMES, dtype=torch.bool)
    is_first[:, 0] = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rssm, "gumbel_noise", lambda shape, **_: noise[rows])
        called = DistributedDataParallel(model) if parallel else model
        loss, _ = called(video[rows], is_first[rows])
        loss.backward()
    return {name: value.grad for name, value in model.named_parameters()}


def one_rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    rows = slice(rank * CLIPS // 2, (rank + 1) * CLIPS // 2)
    for norm in ("group", "batch"):
        torch.save(gradient(norm, rows, parallel=True), f"{folder}/{norm}-{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_gradient_of_two_processes_is_that_of_one(tmp_path):
    """With GroupNorm. BatchNorm sees its own half only: why GPUs share its statistics, and CPU processes differ a little."""
    torch.multiprocessing.spawn(one_rank, (str(tmp_path),), nprocs=2)
    for norm in ("group", "batch"):
        whole = gradient(norm, slice(0, CLIPS), parallel=False)
        halves, others = (torch.load(tmp_path / f"{norm}-{rank}.pt") for rank in (0, 1))
        assert whole.keys() == halves.keys()
        assert all(torch.equal(halves[name], others[name]) for name in whole)
        close = [(halves[name] - whole[name]).norm() <= 1e-4 * whole[name].norm() for name in whole]
        assert all(close) == (norm == "group")
