"""A timm feature pyramid as the context encoder, in place of the paper's own residual network.

Axes: N images, C channels of the decoder stage that reads the map.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cwm_hub.models.context import CONTEXT_STRIDES


class TimmContextEncoder(nn.Module):
    """Maps at strides 4 and 8 of a timm model, projected to the decoder's widths by 1x1 convolutions.

    Args:
        name: a timm model that offers `features_only` maps at reductions 4 and 8.
        widths: channels wanted at each stride.
        image_size: side of the input in pixels.
        pretrained: start from timm's published weights.

    Raises:
        ValueError: timm does not import, has no such model, or the model lacks a map at one of the strides.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, *, widths: dict[int, int], image_size: int, pretrained: bool):
        super().__init__()
        timm = _import_timm()
        if not timm.is_model(name):
            raise ValueError(
                f"timm has no model named {name!r}; timm.list_models('*{name[:6]}*') shows near ones"
            )
        reductions = timm.create_model(name, features_only=True).feature_info.reduction()
        missing = [stride for stride in widths if stride not in reductions]
        if missing:
            raise ValueError(
                f"timm model {name!r} has maps at strides {reductions}, the decoder reads strides "
                f"{list(CONTEXT_STRIDES)}"
            )
        self.strides = sorted(widths)
        self.body = timm.create_model(
            name,
            features_only=True,
            pretrained=pretrained,
            out_indices=tuple(reductions.index(stride) for stride in self.strides),
        )
        config = timm.data.resolve_data_config({}, model=self.body)
        self.register_buffer("mean", torch.tensor(config["mean"]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config["std"]).view(3, 1, 1), persistent=False)
        self.project = nn.ModuleDict(
            {
                str(stride): nn.Conv2d(channels, widths[stride], 1)
                for stride, channels in zip(self.strides, self.body.feature_info.channels(), strict=True)
            }
        )
        with torch.no_grad():
            sides = {
                s: m.shape[-1] for s, m in self.eval().maps(torch.zeros(1, 3, image_size, image_size)).items()
            }
        self.train()
        if any(side * stride != image_size for stride, side in sides.items()):
            raise ValueError(f"timm model {name!r} gives maps of sides {sides} on {image_size} pixel images")

    def maps(self, image: Float[Tensor, "N 3 H W"]) -> dict[int, Float[Tensor, "N C h w"]]:
        """Projected feature maps by stride, from images given as `pixel / 255 - 0.5`."""
        found = self.body(((image + 0.5 - self.mean) / self.std).to(self.mean.dtype))
        return {
            stride: self.project[str(stride)](feature)
            for stride, feature in zip(self.strides, found, strict=True)
        }


def _import_timm():
    try:
        import timm
        import timm.data
    except (ImportError, RuntimeError) as error:  # a torchvision built for another torch raises RuntimeError
        raise ValueError(
            f"a timm context encoder needs timm and a torchvision that matches torch, and importing them fails: {error}"
        ) from error
    return timm
