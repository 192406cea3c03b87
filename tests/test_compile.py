"""Compilation changes the speed and nothing else: `recipes/pretrain.py --compile true`."""

import pytest
import torch

from cwm_hub import create_model
from recipes.pretrain import PretrainConfig, compiling

CLIPS, FRAMES, UPDATES = 2, 2, 3


def losses(*, compiled: bool) -> list[float]:
    """Losses of a few updates from one seed."""
    torch.manual_seed(0)
    model = create_model("contextwm-debug").train()
    plugin = compiling(PretrainConfig(data=[], compile=compiled))
    forward = torch.compile(model, **plugin.to_kwargs(), fullgraph=True) if compiled else model
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    random = torch.Generator().manual_seed(1)
    video = torch.randint(0, 256, (CLIPS, FRAMES, 3, 32, 32), dtype=torch.uint8, generator=random)
    is_first = torch.tensor([[True, False]] * CLIPS)
    torch.manual_seed(2)
    found = []
    for _ in range(UPDATES):
        loss, _ = forward(video, is_first)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


@pytest.mark.slow
def test_compiled_and_eager_losses_are_equal_on_one_seed():
    """The whole training forward is one graph, scan and draws included; about two minutes of C++ compiler."""
    assert losses(compiled=True) == pytest.approx(losses(compiled=False), rel=1e-5)
