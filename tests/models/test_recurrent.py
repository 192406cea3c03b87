"""A scan's linear layers against the plain ones, step by step, in float64."""

import pytest
import torch
import torch.nn.functional as F

from cwm_hub.models.recurrent import GRUCell, scan_linear
from cwm_hub.models.rssm import RSSM, RSSMConfig


def gradients(layer, weight, bias, start):
    """Of a scan in which a step's result is the next one's input, and of which three results count, differently."""
    h, total = start, 0.0
    for t in range(4):
        h = torch.tanh(layer(h))
        if t < 2 or t == 3:
            total = total + (t + 1) * h.square().sum()
    wanted = [weight, start] if bias is None else [weight, start, bias]
    return h, torch.autograd.grad(total, wanted)


@pytest.mark.parametrize("with_bias", [True, False])
def test_a_scan_has_the_results_and_gradients_of_its_steps(with_bias):
    torch.manual_seed(0)
    whole = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True) if with_bias else None
    start = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    part = whole[:, 2:5]  # a part of a weight, as the posterior's layer has it
    plain = gradients(lambda x: F.linear(x, part, bias), whole, bias, start)
    scan = gradients(scan_linear(part, bias, steps=4, rows=5), whole, bias, start)
    assert torch.equal(plain[0], scan[0])
    for expected, got in zip(plain[1], scan[1], strict=True):
        torch.testing.assert_close(got, expected)
        assert got.abs().sum() > 0


def test_under_autocast_it_multiplies_in_bfloat16_and_gives_gradients_in_float32():
    torch.manual_seed(0)
    weight, bias = torch.randn(8, 8, requires_grad=True), torch.randn(8, requires_grad=True)
    x = torch.randn(2, 8)
    with torch.autocast("cpu", torch.bfloat16):
        got = scan_linear(weight, bias, steps=1, rows=2)(x)
        expected = F.linear(x, weight, bias)
    assert got.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(got, expected, rtol=0.02, atol=0.05)
    (gradient,) = torch.autograd.grad(got.float().sum(), weight)
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(gradient, x.sum(0).expand(8, 8), rtol=0.02, atol=0.02)


def test_autocast_leaves_float64_as_it_is_as_in_every_other_layer():
    weight, x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True), torch.randn(2, 4).double()
    with torch.autocast("cpu", torch.bfloat16):
        got = scan_linear(weight, None, steps=1, rows=2)(x)
    torch.testing.assert_close(got, F.linear(x, weight))


def penalised(weight, x):
    """A gradient's square: its own gradient needs the way from the first gradient to the weight."""
    h = torch.tanh(scan_linear(weight, None, steps=1, rows=2)(x))
    return h.pow(2).sum()


def test_second_derivatives_are_refused_by_create_graph_and_right_by_torch_func():
    torch.manual_seed(0)
    weight, x = (torch.randn(3, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    with pytest.raises(RuntimeError, match="no second derivatives by create_graph"):
        torch.autograd.grad(penalised(weight, x[:2]), x, create_graph=True)
    plain = torch.tanh(F.linear(x[:2], weight)).pow(2).sum()
    (first,) = torch.autograd.grad(plain, x, create_graph=True)
    (expected,) = torch.autograd.grad(first.square().sum(), weight)
    of_x = torch.func.grad(lambda weight, x: penalised(weight, x[:2]), argnums=1)
    got = torch.func.grad(lambda weight: of_x(weight, x.detach()).square().sum())(weight.detach())
    torch.testing.assert_close(got, expected)


def test_without_gradients_nothing_is_kept():
    cell = GRUCell(3, 4)
    with torch.no_grad():
        layer = scan_linear(cell.gates.weight, cell.gates.bias, steps=1, rows=2)
        assert layer.func is F.linear
    frozen = scan_linear(cell.gates.weight.detach(), None, steps=1, rows=2)
    assert frozen.func is F.linear


def test_observing_step_by_step_and_at_once_has_the_same_gradients():
    """One call over three frames, and three calls that carry the state; modes, so that nothing is drawn."""
    torch.manual_seed(0)
    rssm = RSSM(RSSMConfig(stoch=2, classes=3, deter=5, hidden=4, action_size=2), embed=6).double()
    embed, action = torch.randn(2, 3, 6).double(), torch.randn(2, 3, 2).double()
    is_first = torch.tensor([[True, False, False]] * 2)
    whole = rssm.observe(embed, action, is_first, sample=False)[0].deter
    state, parts = rssm.initial(2), []
    for t in range(3):
        state, _ = rssm.obs_step(state, action[:, t], embed[:, t], is_first[:, t], sample=False)
        parts.append(state.deter)
    stepped = torch.stack(parts, 1)
    torch.testing.assert_close(whole, stepped)
    parameters = [p for n, p in rssm.named_parameters() if "prior" not in n]
    expected = torch.autograd.grad(stepped.square().sum(), parameters)
    for got, wanted in zip(torch.autograd.grad(whole.square().sum(), parameters), expected, strict=True):
        torch.testing.assert_close(got, wanted)


def test_every_step_of_a_scan_draws_with_noise_of_its_own():
    """Of a posterior that says nothing a latent is what its noise says: over eight frames not the same class again and again."""
    rssm = RSSM(RSSMConfig(stoch=4, classes=8, deter=4, hidden=4, action_size=2), embed=3)
    torch.nn.init.zeros_(rssm.posterior_logits.weight)
    posterior, _ = rssm.observe(torch.zeros(1, 8, 3), None, torch.zeros(1, 8, dtype=torch.bool))
    drawn = posterior.stoch.argmax(-1)[0]
    assert len(torch.unique(drawn, dim=0)) > 4
