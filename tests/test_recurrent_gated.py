"""Recurrent mixers with gates equal their formulas, written token by token: values and gradients."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from helpers import assert_close, randomise, small_config, small_tokens
from torch import Tensor, nn
from torch.nn import functional as F

from model import Model
from modules.mixers import MIXERS
from modules.mixers.rg_lru import bounded_root
from modules.stream import Context
from presets import load_preset, tiny

B, T = 2, 11


def made(word: str, **flags: Any) -> tuple[nn.Module, Tensor]:
    """A mixer with random weights in float64, and its input."""
    cfg = small_config(mixer=word, **{f"{word}.{name}": value for name, value in flags.items()})
    mixer = randomise(MIXERS[word].from_config(cfg.at(0)), std=0.5).double()
    return mixer, torch.randn(B, T, cfg.dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def values_and_gradients(mixer: nn.Module, call: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    """What comes out, and the gradients of the input and of each parameter, for some sum of what comes out."""
    x = x.clone().requires_grad_()
    y = call(x)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=y.dtype)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), [x, *mixer.parameters()])]


def blocks(part: nn.Module, x: Tensor) -> Tensor:
    return F.linear(x, torch.block_diag(*part.weight), getattr(part, "bias", None))


def convolved(conv: nn.Module, x: Tensor) -> Tensor:
    """b + sum over i of w_i x_{t - i}."""
    rows = [sum(conv.weight[i] * x[:, t - i] for i in range(min(conv.length, t + 1))) for t in range(x.shape[1])]
    return torch.stack(rows, dim=1) + (0.0 if conv.bias is None else conv.bias)


def rg_lru(mixer: nn.Module, u: Tensor) -> Tensor:
    x, h, found = convolved(mixer.conv, F.linear(u, mixer.value.weight, mixer.value.bias)), 0.0, []
    for t in range(T):
        i, r = (blocks(gate, x[:, t]).sigmoid() for gate in (mixer.input_gate, mixer.decay_gate))
        a = torch.exp(-8 * r * torch.log1p(mixer.rate.exp()))
        h = a * h + (1.0 if t == 0 else (1 - a**2).sqrt()) * i * x[:, t]
        found.append(h)
    gate = F.gelu(F.linear(u, mixer.gate.weight, mixer.gate.bias), approximate="tanh")
    return F.linear(torch.stack(found, dim=1) * gate, mixer.out.weight, mixer.out.bias)


def min_lstm(mixer: nn.Module, x: Tensor) -> Tensor:
    h, found = 0.0, []
    for row in x.unbind(1):
        f = (F.linear(row, mixer.forget.weight) + mixer.forget_bias).sigmoid()
        i = (F.linear(row, mixer.input.weight) + mixer.input_bias).sigmoid()
        h = (f * h + i * F.linear(row, mixer.value.weight)) / (f + i)
        found.append(h)
    return F.linear(torch.stack(found, dim=1) * F.silu(F.linear(x, mixer.gate.weight)), mixer.out.weight)


def hgrn2(mixer: nn.Module, x: Tensor) -> Tensor:
    found, state, heads = [], 0.0, mixer.num_heads
    for row in x.unbind(1):
        q = F.silu(F.linear(row, mixer.q.weight)).view(B, heads, -1)
        kept = mixer.floor + (1 - mixer.floor) * F.linear(row, mixer.forget.weight).sigmoid().view(B, heads, -1)
        v = F.linear(row, mixer.v.weight).view(B, heads, -1)
        state = kept.unsqueeze(-1) * state + torch.einsum("bhn,bhp->bhnp", 1 - kept, v)
        found.append(torch.einsum("bhn,bhnp->bhp", q / q.shape[-1]**0.5, state).flatten(1))
    y = torch.stack(found, dim=1)
    y = y * (y.square().mean(-1, keepdim=True) + mixer.norm.eps) ** -0.5 * mixer.norm.scale
    return F.linear(y, mixer.out.weight)


def memory(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, *, eps: float, norm: nn.Module) -> Tensor:
    """The memory of an mLSTM as it is published, with sums that are scaled by their running maximum, and its norm.

    Shape: q, k and v (b, t, h, _), i and f (b, t, h) -> (b, t, _).
    """
    found, state, total, m = [], 0.0, 0.0, torch.zeros_like(i[:, 0])
    for t in range(T):
        before, m = m, torch.maximum(F.logsigmoid(f[:, t]) + m, i[:, t])
        kept, added = (F.logsigmoid(f[:, t]) + before - m).exp(), (i[:, t] - m).exp()
        key = k[:, t] / k.shape[-1]**0.5
        state = kept[..., None, None] * state + added[..., None, None] * torch.einsum("bhn,bhp->bhnp", key, v[:, t])
        total = kept[..., None] * total + added[..., None] * key
        below = torch.maximum((q[:, t] * total).sum(-1).abs(), (-m).exp()) + eps
        found.append(torch.einsum("bhn,bhnp->bhp", q[:, t], state) / below.unsqueeze(-1))
    y = torch.stack(found, dim=1)
    y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True, correction=0) + norm.eps).sqrt()
    return y.flatten(2) * norm.scale


def mlstm(mixer: nn.Module, x: Tensor) -> Tensor:
    q, k, v = (F.linear(x, part.weight).unflatten(-1, (mixer.num_heads, -1)) for part in (mixer.q, mixer.k, mixer.v))
    cap = mixer.input_gate.cap
    i, f = (cap * torch.tanh(F.linear(x, gate.weight, gate.bias) / cap)
            for gate in (mixer.input_gate, mixer.forget_gate))
    y = memory(q, k, v, i, f, eps=mixer.eps, norm=mixer.norm)
    return F.linear(y * F.linear(x, mixer.gate.weight).sigmoid(), mixer.out.weight)


def mlstm_v1(mixer: nn.Module, x: Tensor) -> Tensor:
    up = F.linear(x, mixer.value.weight)
    after = F.silu(convolved(mixer.conv, up))
    projected = [blocks(mixer.q, after), blocks(mixer.k, after), blocks(mixer.v, up)]
    i, f = (F.linear(torch.cat(projected, dim=-1), gate.weight, gate.bias)
            for gate in (mixer.input_gate, mixer.forget_gate))
    heads = [part.unflatten(-1, (mixer.num_heads, -1)) for part in projected]
    y = memory(*heads, i, f, eps=mixer.eps, norm=mixer.norm) + mixer.skip * after
    return F.linear(y * F.silu(F.linear(x, mixer.gate.weight)), mixer.out.weight)


CASES: dict[str, tuple[str, dict[str, Any], Callable]] = {
    "min_lstm": ("min_lstm", {}, min_lstm),
    "hgrn2": ("hgrn2", {}, hgrn2),
    "hgrn2, a floor": ("hgrn2", {"num_heads": 3, "key_dim": 5, "head_dim": 6, "floor": 0.4, "norm_eps": 0.1}, hgrn2),
    "mlstm": ("mlstm", {"eps": 0.1, "norm_eps": 0.1}, mlstm),
    "mlstm, capped": ("mlstm", {"num_heads": 3, "key_dim": 5, "head_dim": 7, "gate_cap": 1.5}, mlstm),
    "mlstm_v1": ("mlstm_v1", {"eps": 0.1, "norm_eps": 0.1}, mlstm_v1),
    "mlstm_v1, narrow blocks": ("mlstm_v1", {
        "num_heads": 3, "expand": 1.3, "block_dim": 2, "conv_len": 3}, mlstm_v1),
    "rg_lru": ("rg_lru", {}, rg_lru),
    "rg_lru, three heads, wider": ("rg_lru", {"num_heads": 3, "inner_dim": 30, "conv_len": 2}, rg_lru),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mixer_equals_its_formula(case):
    word, flags, formula = CASES[case]
    mixer, x = made(word, **flags)
    found, expected = (values_and_gradients(mixer, call, x) for call in (
        lambda u: mixer(u, Context(torch.arange(T))), lambda u: formula(mixer, u)))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


def test_the_root_of_rg_lru_has_a_bounded_gradient():
    x = torch.tensor([0.0, 1e-12, 2.4e-7, 1e-4, 0.5], requires_grad=True)
    root = bounded_root(x)
    assert_close(root, x.detach().sqrt(), "rounding")
    (slope,) = torch.autograd.grad(root.sum(), x)
    assert_close(slope, torch.tensor([1000.0, 1000.0, 1000.0, 50.0, 0.5**0.5]), "rounding")


def test_rg_lru_begins_with_decays_between_those_of_its_paper():
    mixer = MIXERS["rg_lru"].from_config(small_config(mixer="rg_lru", dim=512).at(0))
    decays = torch.exp(-F.softplus(mixer.rate))
    assert 0.9 < decays.min() < 0.92 and 0.99 < decays.max() < 0.9991
    assert_close(mixer.input_gate.weight.std(), torch.tensor(0.1 / 128**0.5), "bfloat16")


@pytest.mark.parametrize("word", ["mlstm", "mlstm_v1"])
def test_padding_before_a_text_changes_nothing_of_an_mlstm_with_small_weights(word):
    mixer, x = made(word, eps=0.5)
    with torch.no_grad():
        mixer.input_gate.bias.sub_(5.0)  # the largest weight is then what is left of that before the text, 1
        mixer.input_gate.weight.zero_()
    found = mixer(x, Context(torch.arange(T).expand(B, T) - 4))[:, 4:]
    torch.testing.assert_close(found, mixer(x[:, 4:], Context(torch.arange(T - 4))), rtol=1e-8, atol=1e-9)


def test_the_gates_of_an_mlstm_v1_start_open_and_its_channels_are_shared_evenly():
    cfg = small_config(mixer="mlstm_v1", dim=100, **{"mlstm_v1.num_heads": 6, "mlstm_v1.norm_eps": 0.3})
    mixer = MIXERS["mlstm_v1"].from_config(cfg.at(0))
    assert mixer.norm.eps == 0.3
    assert mixer.skip.shape == (204,) and (mixer.skip == 1).all()  # of 200, 6 heads and blocks of 4
    assert len(mixer.q.weight) == 51 and mixer.q.weight.std().item() == pytest.approx(0.004**0.5, rel=0.1)
    assert mixer.input_gate.weight.abs().max() == mixer.forget_gate.weight.abs().max() == 0
    assert_close(mixer.forget_gate.bias, torch.linspace(3, 6, 6), "same")
    drawn = torch.cat([MIXERS["mlstm_v1"].from_config(cfg.at(0)).input_gate.bias.detach() for _ in range(50)])
    assert drawn.std().item() == pytest.approx(0.1, rel=0.2) and drawn.mean().abs() < 0.02


def test_the_preset_is_the_first_xlstm():
    """Seven layers are an mLSTM alone, the fourth of each eight is an sLSTM and a gated MLP."""
    cfg = tiny(load_preset("xlstm-v1")).model
    model, tokens = randomise(Model(cfg), std=0.3).double(), small_tokens(B, T)
    x, norm = model.embed.tokens(tokens), partial(F.layer_norm, eps=1e-5)
    for place, block in enumerate(model.blocks):
        mixer = block["mixer"].branch
        read = norm(x, (48,), block["mixer"].norm.scale)
        x = x + (mixer(read, Context(torch.arange(T))) if place == 3 else mlstm_v1(mixer, read))
        assert ("mlp" in block) == (place == 3)
        if place == 3:
            mlp, read = block["mlp"].branch, norm(x, (48,), block["mlp"].norm.scale)
            x = x + mlp.out(F.gelu(mlp.gate(read)) * mlp.up(read))
    expected = F.linear(norm(x, (48,), model.norm.scale), model.head.unembed.weight)
    torch.testing.assert_close(model(tokens), expected, rtol=1e-8, atol=1e-8)
    assert type(model.blocks[3]["mixer"].branch).__name__ == "SLSTM" and load_preset("xlstm-v1").model.num_layers == 24
