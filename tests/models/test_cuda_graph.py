"""When an update is recorded, replayed and recorded anew, with a stand-in for torch's graph; what a GPU does is in test_compiled."""

import contextlib

import pytest
import torch

from cwm_hub.models import cuda_graph
from cwm_hub.models.cuda_graph import EAGER_CALLS, CudaGraph


class Stream:
    """Of no device."""

    device = torch.device("cpu")

    def __init__(self, *_):
        pass

    def wait_stream(self, other):
        """Nothing to wait for."""


class Graph:
    """Replays by doing the work again on the inputs it was recorded with."""

    recording = None

    def replay(self):
        """Into the tensor that was given at recording."""
        self.result.copy_(self.work(**self.inputs))


@pytest.fixture
def calls(monkeypatch):
    """How the work was called: eagerly, or while a graph was recorded."""
    seen = []

    @contextlib.contextmanager
    def recorded(graph, **_):
        Graph.recording = graph
        yield
        Graph.recording = None

    for name, stand_in in {
        "Stream": Stream,
        "CUDAGraph": Graph,
        "graph": recorded,
        "synchronize": lambda _: None,
        "current_stream": lambda _: Stream(),
        "stream": lambda _: contextlib.nullcontext(),
    }.items():
        monkeypatch.setattr(cuda_graph.torch.cuda, name, stand_in)
    return seen


def doubled(calls):
    def work(x):
        calls.append("eager" if Graph.recording is None else "recorded")
        result = 2 * x
        if Graph.recording is not None:
            Graph.recording.work, Graph.recording.inputs = (lambda x: 2 * x), {"x": x}
            Graph.recording.result = result
        return result

    return CudaGraph(work, torch.device("cpu"))


def test_the_first_calls_are_eager_then_it_is_recorded_once_and_replayed_on_each_input(calls):
    graph = doubled(calls)
    results = [graph({"x": torch.full((3,), float(at))}).tolist() for at in range(EAGER_CALLS + 3)]
    assert results == [[2.0 * at] * 3 for at in range(EAGER_CALLS + 3)]
    assert calls == ["eager"] * EAGER_CALLS + ["recorded"]


@pytest.mark.parametrize("change", ["key", "shape", "type"])
def test_another_key_shape_or_type_is_recorded_anew(calls, change):
    graph = doubled(calls)
    for _ in range(EAGER_CALLS + 1):
        graph({"x": torch.ones(3)}, key=0.5)
    x = torch.ones(4 if change == "shape" else 3, dtype=torch.float64 if change == "type" else torch.float32)
    for _ in range(EAGER_CALLS + 1):
        assert graph({"x": x}, key=0.75 if change == "key" else 0.5).tolist() == [2.0] * len(x)
    assert calls == 2 * (["eager"] * EAGER_CALLS + ["recorded"])


def test_an_eager_call_waits_for_its_inputs_and_its_result_is_waited_for(calls, monkeypatch):
    monkeypatch.setattr(Stream, "wait_stream", lambda self, other: calls.append("wait"))
    doubled(calls)({"x": torch.ones(1)})
    assert calls == ["wait", "eager", "wait"]


def test_the_callers_tensors_stay_as_they_are(calls):
    graph, recorded_with = doubled(calls), torch.ones(1)
    for _ in range(EAGER_CALLS + 1):
        graph({"x": recorded_with})
    assert graph({"x": torch.full((1,), 5.0)}).item() == 10
    assert recorded_with.item() == 1


def test_what_cannot_be_recorded_says_how_to_go_on(calls):
    def work(x):
        if Graph.recording is not None:
            raise RuntimeError("operation not permitted when stream is capturing")
        return x

    graph = CudaGraph(work, torch.device("cpu"))
    with pytest.raises(RuntimeError, match="cuda_graphs false runs it kernel by kernel"):
        for _ in range(EAGER_CALLS + 1):
            graph({"x": torch.ones(1)})
