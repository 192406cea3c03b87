"""Networks with the real ones' interfaces and file names, for metrics whose real weights are not ours to ship."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import alexnet


class StandInI3D(nn.Module):
    """Two features that can be worked out by hand: red of the whole clip and green of its first frame, in [-1, 1]."""

    def forward(
        self, x: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False
    ) -> Tensor:
        assert not rescale and not resize and return_features
        assert x.shape[1] == 3 and x.shape[3] == 224 and x.shape[4] == 224
        return torch.stack([x[:, 0].mean([1, 2, 3]), x[:, 1, 0].mean([1, 2])], 1)


def write_i3d(torch_home: Path) -> Path:
    """`StandInI3D` where `fvd` looks for I3D."""
    path = _checkpoints(torch_home) / "i3d_torchscript.pt"
    torch.jit.script(StandInI3D()).save(path)
    return path


def write_alexnet(torch_home: Path) -> Path:
    """An AlexNet of random weights where LPIPS looks for the trained one."""
    path = _checkpoints(torch_home) / "alexnet-owt-7be5be79.pth"
    torch.manual_seed(0)
    torch.save(alexnet(weights=None).state_dict(), path)
    return path


def _checkpoints(torch_home: Path) -> Path:
    folder = torch_home / "hub" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
