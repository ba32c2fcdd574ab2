"""Cells whose gates read the state: one operation that equals its steps, and torch's own GRU and LSTM."""

import pytest
import torch
from helpers import assert_close, randomise, small_config
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from modules.mixers import MIXERS
from modules.scans import run_cell
from modules.scans.cells import CELLS
from modules.stream import Context

B, T, H, P = 2, 9, 2, 3
each_kind = pytest.mark.parametrize("kind", CELLS)


def arguments(kind: str, t: int = T) -> tuple[Tensor, Tensor]:
    """What the gates read of the tokens, and the matrices by which they read the state."""
    generator = torch.Generator().manual_seed(0)
    x, recurrent = (torch.randn(*sizes, generator=generator, dtype=torch.float64) for sizes in (
        (B, t, 4, H, P), (H, P, 4, P)))
    return 2 * x, recurrent


def lstm(gates: list[Tensor], y: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    i, f, z, o = gates
    c = f.sigmoid() * c + i.sigmoid() * z.tanh()
    return o.sigmoid() * c.tanh(), c


def slstm(gates: list[Tensor], y: Tensor, c: Tensor, n: Tensor) -> tuple[Tensor, ...]:
    """As it is published, without what keeps the sums in range."""
    i, f, z, o = gates
    c, n = f.sigmoid() * c + i.exp() * z.tanh(), f.sigmoid() * n + i.exp()
    return o.sigmoid() * c / n, c, n


def gru(gates: list[Tensor], y: Tensor) -> tuple[Tensor, ...]:
    r, z, u, n = gates
    return ((1 - z.sigmoid()) * torch.tanh(n + r.sigmoid() * u) + z.sigmoid() * y,)


PLAIN = {"lstm": (lstm, 2), "slstm": (slstm, 3), "gru": (gru, 1)}


def plain(kind: str, x: Tensor, recurrent: Tensor, fresh: Tensor | None) -> Tensor:
    """The cell, token by token, under autograd."""
    step, number = PLAIN[kind]
    states, found = [torch.zeros(B, H, P, dtype=x.dtype)] * number, []
    for t in range(x.shape[1]):
        if fresh is not None:
            states = [state.where(~fresh[:, t, None, None], 0.0) for state in states]
        states = step([x[:, t, g] + torch.einsum("bhp,hpq->bhq", states[0], recurrent[:, :, g]) for g in range(4)],
                      *states)
        found.append(states[0].flatten(1))
    return torch.stack(found, dim=1)


def with_gradients(call, x: Tensor, recurrent: Tensor) -> list[Tensor]:
    x, recurrent = x.clone().requires_grad_(), recurrent.clone().requires_grad_()
    y = call(x, recurrent)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), (x, recurrent))]


@each_kind
@pytest.mark.parametrize("t", [1, T])
def test_a_row_equals_its_steps_also_if_texts_begin_within_it(kind, t):
    x, recurrent = arguments(kind, t)
    fresh = torch.rand(B, t, generator=torch.Generator().manual_seed(3)) < 0.3
    for marks in (None, fresh):
        found = with_gradients(lambda x, r, marks=marks: run_cell(kind, x, r, fresh=marks)[0], x, recurrent)
        expected = with_gradients(lambda x, r, marks=marks: plain(kind, x, r, marks), x, recurrent)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@each_kind
def test_pieces_equal_one_pass_and_float32_loses_few_digits(kind):
    x, recurrent = arguments(kind)
    expected, last = run_cell(kind, x, recurrent)
    states, found = None, []
    for piece in x.split([4, 1, 4], dim=1):
        y, states = run_cell(kind, piece, recurrent, states)
        found.append(y)
    torch.testing.assert_close([torch.cat(found, dim=1), states], [expected, last], rtol=1e-12, atol=1e-12)
    assert_close(run_cell(kind, x.float(), recurrent.float())[0].double(), expected, "rounding")


def test_large_gates_of_an_slstm_stay_in_range():
    x, recurrent = arguments("slstm")
    x = (100 * x).float().requires_grad_()
    y, _ = run_cell("slstm", x, recurrent.float())
    y.sum().backward()
    assert y.isfinite().all() and x.grad.isfinite().all() and y.abs().max() <= 1.0 + 1e-6


@each_kind
def test_a_cell_is_one_operation_for_meta_tensors_the_compiler_and_the_count_of_operations(kind):
    x, recurrent = (part.float() for part in arguments(kind))
    fresh = torch.zeros(B, T, dtype=torch.bool)
    y, last = run_cell(kind, x.to("meta"), recurrent.to("meta"), fresh=fresh.to("meta"))
    expected = run_cell(kind, x, recurrent, fresh=fresh)
    assert (y.shape, last.shape) == tuple(part.shape for part in expected)
    compiled = torch.compile(run_cell, backend="aot_eager", fullgraph=True)
    found, wanted = (with_gradients(lambda x, r, call=call: call(kind, x, r, fresh=fresh)[0], x, recurrent)
                     for call in (compiled, run_cell))
    assert_close(found, wanted, "rounding")
    with FlopCounterMode(display=False) as counter:
        with_gradients(lambda x, r: run_cell(kind, x, r, fresh=fresh)[0], x, recurrent)
    counts, once = counter.get_flop_counts()["Global"], 2 * T * B * H * P * 4 * P
    assert counts[torch.ops.shapeshifter.cell] == counts[torch.ops.shapeshifter.cell_back] == once


def of_word(word: str, **flags) -> tuple[nn.Module, Tensor]:
    cfg = small_config(mixer=word, **{f"{word}.{name}": value for name, value in flags.items()})
    mixer = randomise(MIXERS[word].from_config(cfg.at(0)), std=0.5).double()
    return mixer, torch.randn(B, T, cfg.dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(("word", "theirs"), [("gru", nn.GRU), ("lstm", nn.LSTM)])
def test_gru_and_lstm_are_those_of_torch(word, theirs):
    mixer, x = of_word(word, expand=1.5)
    theirs = theirs(24, 36, batch_first=True).double()
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(mixer.read.weight)
        theirs.weight_hh_l0.copy_(mixer.recurrent[0].T)
        if word == "lstm":
            theirs.bias_ih_l0.copy_(mixer.bias.flatten())
            theirs.bias_hh_l0.zero_()
        else:
            r, z, candidate, n = mixer.bias
            theirs.bias_ih_l0.copy_(torch.cat((r, z, n)))
            theirs.bias_hh_l0.copy_(torch.cat((0 * r, 0 * z, candidate)))
    found, expected = mixer(x, Context(torch.arange(T))), F.linear(theirs(x)[0], mixer.out.weight)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    for y in (found, expected):
        y.square().sum().backward()
    torch.testing.assert_close(mixer.read.weight.grad, theirs.weight_ih_l0.grad, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(mixer.recurrent.grad[0].T, theirs.weight_hh_l0.grad, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("out_proj", [True, False])
def test_an_slstm_equals_its_formula(out_proj):
    mixer, x = of_word("slstm", num_heads=2, conv_len=3, norm_eps=0.1, out_proj=out_proj)
    weight, bias = mixer.conv.weight, mixer.conv.bias
    read = F.silu(torch.stack([bias + sum(weight[i] * x[:, t - i] for i in range(min(3, t + 1))) for t in range(T)], 1))
    gates = torch.stack([F.linear(source, torch.block_diag(*part.weight)) for part, source in (
        (mixer.input_gate, read), (mixer.forget_gate, read), (mixer.value, x), (mixer.output_gate, x))], dim=2)
    gates, recurrent = (gates + mixer.bias).view(B, T, 4, 2, 12), mixer.recurrent.view(2, 12, 4, 12)
    states, found = [torch.zeros(B, 2, 12, dtype=x.dtype)] * 3, []
    for t in range(T):
        states = slstm([gates[:, t, g] + torch.einsum("bhp,hpq->bhq", states[0], recurrent[:, :, g])
                        for g in range(4)], *states)
        found.append(states[0])
    y = torch.stack(found, dim=1)
    y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True, correction=0) + 0.1).sqrt()
    expected = y.flatten(2) * mixer.norm.scale
    expected = F.linear(expected, mixer.out.weight) if out_proj else expected
    torch.testing.assert_close(mixer(x, Context(torch.arange(T))), expected, rtol=1e-9, atol=1e-10)


def test_forget_gates_start_by_depth_in_an_slstm_and_open_in_an_lstm():
    cfg = small_config(mixer="slstm", num_layers=3)
    for layer, power in enumerate((0.3, 0.95, 1.6)):
        bias = MIXERS["slstm"].from_config(cfg.at(layer)).bias
        expected = [5 - 12 * (j / 5) ** power for j in range(6)] * 4
        assert_close(bias[1], torch.tensor(expected), "same")
        assert bias[0].abs().max() == 0
    assert (MIXERS["lstm"].from_config(small_config(mixer="lstm").at(0)).bias[1] == 1).all()
