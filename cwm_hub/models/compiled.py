"""Compile what an update spends its time in, in place: image networks, and a scan's step between its products. Names of weights
do not change.

The scan over frames is not compiled as a whole: unrolled, it takes many minutes to compile, and what it costs on a GPU, the launches
of thousands of small kernels, a CUDA graph saves without.
"""

from typing import Any

import torch
from torch import nn

from cwm_hub.models.frame_model import FrameModel
from cwm_hub.models.rssm import RSSM


def compile_parts(model: nn.Module) -> None:
    """Compile encoder, context encoder, decoder and the steps of every RSSM. The draws stay eager's, so that losses do.

    Evaluation has other shapes and would compile anew for each: run it under `eager()`.
    """
    import torch._inductor.config

    torch._inductor.config.fallback_random = True
    for module in model.modules():
        if isinstance(module, RSSM):
            module.compile_steps()
        if isinstance(module, FrameModel):
            module.encoder.compile(fullgraph=True)
            module.decoder.compile(fullgraph=True)
            context = module.context_encoder
            if context is not None:  # asked for its maps, and never called itself
                context.maps = torch.compile(context.maps, fullgraph=True)  # type: ignore[method-assign]


def eager() -> Any:
    """A context in which what is compiled runs as it was written."""
    return torch.compiler.set_stance("force_eager")
