"""Linear attentions and convolutions equal their formulas, token by token in float64, with their gradients."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import randomise, small_config, small_model
from torch import Tensor, nn
from torch.nn import functional as F

from config import LayerConfig
from model import Model
from modules.stream import Context, Stream

T, LAYERS = 37, 3  # a row of more than a chunk; the second of three layers is compared
Formula = Callable[[nn.Module, Tensor, LayerConfig], Tensor]


def heads(x: Tensor, number: int) -> Tensor:
    """Shape: (b, t, h p) -> (b, t, h, p)."""
    return x.unflatten(-1, (number, -1))


def rms(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * scale


def decaying(q: Tensor, k: Tensor, v: Tensor, decay: Tensor) -> Tensor:
    """Shape: q and k (b, t, h, n), v (b, t, h, p), decay, a factor, (b, t, h, n or 1) -> (b, t, h, p)."""
    state, found = torch.zeros(*k.shape[:1], *k.shape[2:], v.shape[-1], dtype=torch.float64), []
    for t in range(v.shape[1]):
        state = decay[:, t].unsqueeze(-1) * state + torch.einsum("bhn,bhp->bhnp", k[:, t], v[:, t])
        found.append(torch.einsum("bhn,bhnp->bhp", q[:, t], state))
    return torch.stack(found, dim=1)


def lightning(m: nn.Module, x: Tensor, cfg: LayerConfig) -> Tensor:
    own = cfg.lightning
    q, k, v = heads(F.silu(x @ m.qkv.weight.T), own.num_heads).chunk(3, dim=-1)
    slopes = torch.tensor([2 ** (-8 / own.num_heads * (i + 1)) for i in range(own.num_heads)], dtype=torch.float64)
    slopes = slopes * (1 - 1 / (LAYERS - 1 + 1e-5) + 1e-5 if own.by_depth else 1 + 1e-5)
    y = decaying(q, k, v, (-slopes).exp().view(1, 1, -1, 1).expand(2, T, -1, 1)).flatten(2)
    return (rms(y, m.norm.scale, own.norm_eps) * (x @ m.gate.weight.T).sigmoid()) @ m.out.weight.T


def short_conv(m: nn.Module, x: Tensor, cfg: LayerConfig) -> Tensor:
    b, c, v = (F.linear(x, part.weight, part.bias) for part in (m.in_gate, m.out_gate, m.value))
    u, found = b * v, []
    for t in range(T):
        reached = [m.conv.weight[i] * u[:, t - i] for i in range(cfg.short_conv.length) if t >= i]
        found.append(sum(reached) + (m.conv.bias if cfg.short_conv.bias else 0))
    return F.linear(c * torch.stack(found, dim=1), m.out.weight, m.out.bias)


def gla(m: nn.Module, x: Tensor, cfg: LayerConfig) -> Tensor:
    own = cfg.gla
    q, k, v, gate = (heads(x @ part.weight.T, own.num_heads) for part in (m.q, m.k, m.v, m.gate))
    decay = (x @ m.logits.down.weight.T @ m.logits.up.weight.T + m.logits.up.bias).sigmoid() ** (1 / own.divisor)
    y = decaying(q / q.shape[-1] ** 0.5, k, v, heads(decay, own.num_heads))
    return (rms(y, m.norm.scale, own.norm_eps) * F.silu(gate)).flatten(2) @ m.out.weight.T


def retnet(m: nn.Module, x: Tensor, cfg: LayerConfig) -> Tensor:
    own = cfg.retnet
    q, k, v, gate = (heads(x @ part.weight.T, own.num_heads) for part in (m.q, m.k, m.v, m.gate))
    if cfg.position == "rope":
        turns = 10_000.0 ** -(torch.arange(0, q.shape[-1], 2, dtype=torch.float64) / q.shape[-1])
        angles = torch.arange(T, dtype=torch.float64)[:, None] * turns
        cos, sin = (wave.unsqueeze(1) for wave in (angles.cos(), angles.sin()))
        q, k = (torch.cat((one * cos - two * sin, two * cos + one * sin), dim=-1)
                for one, two in (part.chunk(2, dim=-1) for part in (q, k)))
    kept = torch.tensor([1 - 2 ** -(own.first_power + i) for i in range(own.num_heads)], dtype=torch.float64)
    y = decaying(q / q.shape[-1] ** 0.5, k, v, kept.view(1, 1, -1, 1).expand(2, T, -1, 1))
    return (rms(y, m.norm.scale, own.norm_eps) * F.silu(gate)).flatten(2) @ m.out.weight.T


def linear(m: nn.Module, x: Tensor, cfg: LayerConfig) -> Tensor:
    """By the weights of all earlier tokens, as attention is."""
    own = cfg.linear
    q, k, v = (heads(x @ part.weight.T, own.num_heads) for part in (m.q, m.k, m.v))
    if own.feature_map == "taylor":
        s = torch.einsum("bthn,bshn->bhts", q, k) / q.shape[-1] ** 0.5
        weights = 1 + s + s.square() / 2
    else:
        weights = torch.einsum("bthn,bshn->bhts", *(F.elu(part) + 1 for part in (q, k)))
    weights = weights.tril()
    weights = weights / (weights.sum(-1, keepdim=True) + own.eps)
    return torch.einsum("bhts,bshp->bthp", weights, v).flatten(2) @ m.out.weight.T


FORMULAS: dict[str, Formula] = {"gla": gla, "lightning": lightning, "linear": linear, "retnet": retnet,
                                "short_conv": short_conv}
# some flags of a mixer; the formula reads all of them
CASES: dict[str, dict[str, Any]] = {
    "lightning": {}, "lightning, wide heads": {"lightning.num_heads": 3, "lightning.head_dim": 10},
    "lightning, all layers alike": {"lightning.by_depth": False, "lightning.norm_eps": 0.1},
    "gla": {}, "gla, wide": {"gla.num_heads": 2, "gla.expand_k": 1.5, "gla.expand_v": 2.0, "gla.rank": 5,
                             "gla.divisor": 2.0, "gla.norm_eps": 0.1},
    "retnet": {}, "retnet, fast": {"retnet.first_power": 0.5, "retnet.num_heads": 3, "retnet.expand_v": 1.0,
                                   "retnet.norm_eps": 0.1, "position": "none"},
    "linear": {}, "linear, of three heads": {"linear.num_heads": 3, "linear.key_dim": 5, "linear.eps": 0.3},
    "linear, Taylor": {"linear.feature_map": "taylor"},
    "linear, short Taylor": {"linear.feature_map": "taylor", "linear.key_dim": 4, "linear.eps": 0.3},
    "short_conv": {}, "short_conv, longer, with biases": {"short_conv.length": 4, "short_conv.bias": True},
}


def made(case: str, flags: dict[str, Any]) -> tuple[nn.Module, LayerConfig]:
    """The mixer of the second layer with random parameters, in float64, and its flags."""
    cfg = small_config(**{"mixer": case.partition(",")[0], "num_layers": LAYERS} | flags)
    return randomise(Model(cfg), std=0.4).double().blocks[1]["mixer"].branch, cfg.at(1)


def results(call: Callable[[Tensor], Tensor], mixer: nn.Module) -> list[Tensor]:
    """What a mixer gives for a row, and the gradients of the row and of all its parameters."""
    generator = torch.Generator().manual_seed(1)
    x, weight = (torch.randn(2, T, 24, generator=generator, dtype=torch.float64) for _ in range(2))
    y = call(x.requires_grad_())
    return [y.detach(), *torch.autograd.grad((y * weight).sum(), [x, *mixer.parameters()])]


@pytest.mark.parametrize("case", CASES)
def test_a_mixer_equals_its_formula(case):
    mixer, cfg = made(case, CASES[case])
    formula = FORMULAS[cfg.mixer]
    expected = results(lambda x: formula(mixer, x, cfg), mixer)
    found = results(lambda x: mixer(x, Context(torch.arange(T))), mixer)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6 * other.abs().max().item(), rtol=0)  # decays are in float32


# one flag of a mixer that leaves its weights as they are, and another value: the formula of the first is not the second
OTHER: dict[str, tuple[str, Any]] = {
    "lightning.by_depth": ("lightning", False), "lightning.norm_eps": ("lightning", 0.01),
    "gla.divisor": ("gla", 8.0), "gla.norm_eps": ("gla", 0.01), "retnet.first_power": ("retnet", 3.0),
    "retnet.norm_eps": ("retnet", 0.01), "position": ("retnet", "none"), "linear.eps": ("linear", 0.1),
}


@pytest.mark.parametrize("flag", OTHER)
def test_the_formula_of_other_flags_is_not_equal(flag):
    case, value = OTHER[flag]
    mixer, cfg = made(case, {flag: value})
    x = torch.randn(2, T, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = mixer(x, Context(torch.arange(T)))
    torch.testing.assert_close(found, FORMULAS[cfg.mixer](mixer, x, cfg), atol=1e-6, rtol=1e-6)
    assert not torch.allclose(found, FORMULAS[cfg.mixer](mixer, x, made(case, {})[1]), atol=1e-4)


def test_a_scaled_stream_is_normalised_with_what_is_added():
    wiring = small_model(residual="post", skip_scale=2.5, mixer="none").blocks[0]["mlp"]
    x = torch.randn(2, T, 24, generator=torch.Generator().manual_seed(1))
    expected = wiring.norm(2.5 * x + wiring.branch(x))
    torch.testing.assert_close(wiring(Stream(x), Context(torch.arange(T))).x, expected)
