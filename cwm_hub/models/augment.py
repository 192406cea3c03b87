"""Augmentations of the context frame (arXiv 2305.18499, appendix), one draw an image, on `pixel / 255 - 0.5`.

Axes: N images of 3 channels and H x W pixels. Every parameter is drawn on the images' own device.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "N 3 H W"]


def augment(image: Images, kind: str) -> Images:
    """Apply the named augmentation: none, shift, flip, scale or erasing."""
    return {"none": lambda x: x, "shift": shift, "flip": flip, "scale": scale, "erasing": erasing}[kind](
        image
    )


def shift(image: Images, *, fraction: float = 1 / 8) -> Images:
    """Random crop after replicating the border by `fraction` of the side (8 pixels at 64, as officially)."""
    side = image.shape[-1]
    reach = 2 * round(side * fraction) / side  # affine grids run from -1 to 1
    offset = (2 * torch.rand(len(image), 2, device=image.device) - 1) * reach
    return _affine(image, torch.ones(len(image), 2, device=image.device), offset, mode="nearest")


def flip(image: Images) -> Images:
    """Mirror left to right with probability one half."""
    mirrored = torch.rand(len(image), 1, 1, 1, device=image.device) < 0.5
    return torch.where(mirrored, image.flip(-1), image)


def scale(image: Images, *, smallest: float = 2 / 3) -> Images:
    """Random resized crop: a share in [`smallest`, 1] of the area, of ratio in [3/4, 4/3], anywhere inside."""
    count, device = len(image), image.device
    area = smallest + (1 - smallest) * torch.rand(count, device=device)
    ratio = torch.exp((2 * torch.rand(count, device=device) - 1) * math.log(4 / 3))
    size = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1).clamp(max=1)
    offset = (2 * torch.rand(count, 2, device=device) - 1) * (1 - size)
    return _affine(image, size, offset, mode="bilinear")


def erasing(
    image: Images,
    *,
    probability: float = 0.5,
    area: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
) -> Images:
    """With some probability set a random rectangle to 0, which is mid-grey on the shifted image (officially so)."""
    count, device = len(image), image.device
    height, width = image.shape[-2:]
    share = area[0] + (area[1] - area[0]) * torch.rand(count, device=device)
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(log_low + (log_high - log_low) * torch.rand(count, device=device))
    tall = ((share * aspect).sqrt() * height).round().clamp(1, height)
    wide = ((share / aspect).sqrt() * width).round().clamp(1, width)
    top = (torch.rand(count, device=device) * (height - tall + 1)).floor()
    left = (torch.rand(count, device=device) * (width - wide + 1)).floor()
    row = torch.arange(height, device=device)[None]
    column = torch.arange(width, device=device)[None]
    rows = (row >= top[:, None]) & (row < (top + tall)[:, None])
    columns = (column >= left[:, None]) & (column < (left + wide)[:, None])
    chosen = torch.rand(count, device=device) < probability
    mask = chosen[:, None, None] & rows[:, :, None] & columns[:, None, :]
    return image.masked_fill(mask[:, None], 0.0)


def _affine(image: Images, size: Tensor, offset: Tensor, *, mode: str) -> Images:
    theta = torch.zeros(len(image), 2, 3, device=image.device)
    theta[:, 0, 0], theta[:, 1, 1] = size[:, 0], size[:, 1]
    theta[:, :, 2] = offset
    grid = F.affine_grid(theta, list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, mode=mode, padding_mode="border", align_corners=False)
