"""Compile the image networks, which are most of an update's arithmetic, in place; names of weights do not change.

The scan over frames is not compiled: unrolled, it takes many minutes to compile on a CPU, and what it costs on a GPU, the launches
of thousands of small kernels, a CUDA graph saves without.
"""

from typing import Any

import torch

from cwm_hub.models.frame_model import FrameModel


def compile_images(frame_model: FrameModel) -> None:
    """Compile encoder, context encoder and decoder. The draws stay eager's, so that losses do.

    Evaluation has other shapes and would compile anew for each: run it under `eager()`.
    """
    import torch._inductor.config

    torch._inductor.config.fallback_random = True
    for part in (frame_model.encoder, frame_model.context_encoder, frame_model.decoder):
        if part is not None:
            part.compile(fullgraph=True)


def eager() -> Any:
    """A context in which what is compiled runs as it was written."""
    return torch.compiler.set_stance("force_eager")
