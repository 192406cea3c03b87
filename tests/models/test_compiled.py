"""What compilation and a GPU's queue need of the graphs: one graph without breaks, no question to the host."""

import json
import subprocess
import sys

import pytest
import torch

from benchmarks.bench_pretrain import Trainer
from cwm_hub.agents.dreamer import DreamerAgent
from cwm_hub.agents.presets import agent_preset
from cwm_hub.models.compiled import compile_parts
from cwm_hub.models.registry import create_model

COUNT = """
import json, torch
from cwm_hub.agents.actor_critic import ActorCritic, imagine
from cwm_hub.agents.presets import agent_preset
from cwm_hub.models.action_world_model import ActionWorldModel
from cwm_hub.models.registry import create_model

def inputs(model):
    is_first = torch.zeros(2, 3, dtype=torch.bool)
    is_first[:, 0] = True
    return torch.zeros(2, 3, 3, model.image_size, model.image_size, dtype=torch.uint8), is_first

graphs = {}
for name in ("contextwm-tiny", "contextwm-concat-tiny", "plainwm-tiny"):
    model = create_model(name).train()
    graphs[name] = torch._dynamo.explain(model)(*inputs(model))
config = agent_preset("contextwm-tiny", action_size=2)
model = ActionWorldModel(config.world).train()
video, is_first = inputs(model)
graphs["two RSSMs"] = torch._dynamo.explain(model.observe)(video, torch.zeros(2, 3, 2), is_first)
actor = ActorCritic(config.behaviour, feature_size=model.feature_size, action_size=2).actor
def imagined(start):
    return imagine(model.rssm, actor, start, steps=4)
graphs["imagination"] = torch._dynamo.explain(imagined)(model.rssm.initial(2))
print(json.dumps({name: [g.graph_count, [str(r.reason) for r in g.break_reasons]] for name, g in graphs.items()}))
"""
"""In a process of its own: here every function is wrapped by the checks of its shapes, which are no graph."""


@pytest.mark.slow
def test_passes_and_scans_are_one_graph_each():
    run = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    graphs = json.loads(run.stdout.splitlines()[-1])
    assert graphs == {name: [1, []] for name in graphs}
    assert len(graphs) == 5


EAGER_AND_COMPILED = """
import functools, json, torch
graphs = []
torch.compile = functools.partial(torch.compile, backend=lambda graph, inputs: graphs.append(graph) or graph.forward)
from cwm_hub.models.compiled import compile_parts, eager
from cwm_hub.models.registry import create_model

losses = []
for compiled in (False, True):
    torch.manual_seed(0)
    model = create_model("contextwm-debug").train()
    if compiled:
        compile_parts(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    video = torch.randint(0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8)
    is_first = torch.tensor([[True, False, False, False]] * 2)
    for _ in range(3):
        loss, _ = model(video, is_first)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
names = list(model.state_dict()) == list(create_model("contextwm-debug").state_dict())
found = [getattr(node.target, "__name__", "") for graph in graphs for node in graph.graph.nodes]
wanted = [type(module).__name__.lower() for module in model.modules()]
counts = {name: [found.count(name), wanted.count(name)] for name in ("conv2d", "batch_norm")}
counts["batch_norm"][1] = wanted.count("batchnorm2d")
before = len(graphs)
with eager():
    model.eval().predict(video[:1], observed_frames=2)
print(json.dumps([losses[:3], losses[3:], names, counts, len(graphs) == before]))
"""


def test_both_rssms_of_an_agent_are_compiled_with_the_draws_of_eager(monkeypatch):
    import torch._inductor.config as inductor

    compiled = []
    monkeypatch.setattr(inductor, "fallback_random", False)
    monkeypatch.setattr(torch, "compile", lambda part, **how: compiled.append((part, how)) or part)
    agent = DreamerAgent(agent_preset("contextwm-tiny", action_size=2))
    compile_parts(agent)
    world = agent.world_model
    steps = [step for rssm in (world.video_rssm, world.rssm) for step in (rssm.cell.mix, rssm._latent)]
    assert [part for part, how in compiled if how == {"fullgraph": True, "dynamic": False}] == steps
    assert world.frame_model.context_encoder.maps in [part for part, how in compiled]
    assert inductor.fallback_random


@pytest.mark.slow
def test_what_is_compiled_draws_and_learns_as_written_and_evaluation_compiles_nothing():
    """Traced by the compiler and run without its kernels, so that every bit must be the same."""
    run = subprocess.run([sys.executable, "-c", EAGER_AND_COMPILED], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    eager, compiled, names, layers, nothing_new = json.loads(run.stdout.splitlines()[-1])
    assert eager == compiled
    assert names and nothing_new
    for traced, there in layers.values():  # of encoder, context encoder and decoder
        assert traced == there > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_recorded_update_is_the_eager_one():
    """The first loss exactly; later ones as near as two eager runs are, whose sums have no fixed order."""
    losses = {}
    for recorded in (False, True):
        torch.manual_seed(0)
        trainer = Trainer(
            "contextwm-tiny", torch.device("cuda"), torch.float32, 2, 6, compile=False, cuda_graph=recorded
        )
        losses[recorded] = [float(trainer.update()) for _ in range(8)]
    assert losses[True][0] == losses[False][0]
    assert losses[True] == pytest.approx(losses[False], rel=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("name", ["contextwm-tiny", "plainwm-tiny"])
def test_an_update_never_waits_for_the_gpu(name):
    model = create_model(name).cuda().train()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    video = torch.zeros(2, 3, 3, model.image_size, model.image_size, dtype=torch.uint8, device="cuda")
    is_first = torch.tensor([[True, False, False]] * 2, device="cuda")
    mode = torch.cuda.get_sync_debug_mode()
    for warm in (True, False):
        torch.cuda.set_sync_debug_mode(mode if warm else "error")
        try:
            loss, _ = model(video, is_first)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 100.0)
            optimizer.found_inf = 1 - torch.isfinite(norm).float()
            optimizer.step()
            optimizer.zero_grad()
        finally:
            torch.cuda.set_sync_debug_mode(mode)
