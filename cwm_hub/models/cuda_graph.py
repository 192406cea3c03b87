"""An update recorded once as a CUDA graph and replayed: thousands of kernels for one launch.

    call   1 ... 3       eager, on a stream of its own       (optimiser states, libraries' workspaces come to be)
           4             recorded, then replayed
           5 ...         inputs copied into place, replayed

Losses and draws are eager's: what is replayed are the same kernels, and the device's default generator moves on as without
a graph. What Python decides is decided at recording, hence `key`.
"""

from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

EAGER_CALLS = 3
"""Calls before the recording, as torch's own notes ask for."""


Result = TypeVar("Result")


class CudaGraph(Generic[Result]):
    """A function of tensors that runs without asking the host for anything.

    Args:
        work: takes the inputs by name and gives tensors, in whatever nesting. They are overwritten by the next call. It
            leaves no gradient behind that the next call adds to.
        device: a GPU.
    """

    def __init__(self, work: Callable[..., Result], device: torch.device):
        self._work, self._stream = work, torch.cuda.Stream(device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._recorded_for: Any = None
        self._eager_calls = 0
        self._inputs: dict[str, Tensor] = {}
        self._result: Result | None = None

    def __call__(self, inputs: dict[str, Tensor], *, key: Hashable = None) -> Result:
        """The work's result.

        Args:
            inputs: tensors of the device.
            key: whatever else the work depends on; where it or a shape changes, the graph is recorded anew.
        """
        wanted = (key, *((name, tensor.shape, tensor.dtype) for name, tensor in inputs.items()))
        if wanted != self._recorded_for:
            self._graph, self._result, self._recorded_for, self._eager_calls = None, None, wanted, 0
        if self._graph is None and self._eager_calls < EAGER_CALLS:
            self._eager_calls += 1
            return self._eager(inputs)
        if self._graph is None:
            self._record(inputs)
        assert self._graph is not None and self._result is not None
        for name, tensor in inputs.items():
            self._inputs[name].copy_(tensor, non_blocking=True)
        self._graph.replay()
        return self._result

    def _eager(self, inputs: dict[str, Tensor]) -> Result:
        here = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            result = self._work(**inputs)
        here.wait_stream(self._stream)
        return result

    def _record(self, inputs: dict[str, Tensor]) -> None:
        self._inputs = {name: tensor.clone() for name, tensor in inputs.items()}
        torch.cuda.synchronize(self._stream.device)
        self._graph = torch.cuda.CUDAGraph()
        # A loader's thread may ask the driver for pinned memory meanwhile: only this thread is held to the rules.
        try:
            with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
                self._result = self._work(**self._inputs)
        except RuntimeError as error:
            raise RuntimeError(
                f"an update cannot be recorded as a CUDA graph ({error}); cuda_graphs false runs it kernel by kernel"
            ) from error
