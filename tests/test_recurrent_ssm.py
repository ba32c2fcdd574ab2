"""State space mixers equal their recurrence, written plainly, a token at a time: values and gradients in float64."""

from collections.abc import Callable

import pytest
import torch
from helpers import randomise, small_config
from torch import Tensor
from torch.nn.functional import silu, softplus

from modules.mixers import MIXERS
from modules.mixers.recurrent import Recurrent
from modules.stream import Context

T = 37  # more than a chunk
EVERY_BIAS = {"bias": True, "conv_bias": True}


def rms(x: Tensor, eps: float) -> Tensor:
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt()


def convolved(mixer: Recurrent, x: Tensor) -> Tensor:
    """The convolution before the scan. Shape: (t, _) -> (t, _)."""
    rows = []
    for t in range(len(x)):
        row = torch.zeros_like(x[0]) if mixer.conv.bias is None else mixer.conv.bias
        for back in range(min(mixer.conv.length, t + 1)):
            row = row + mixer.conv.weight[back] * x[t - back]
        rows.append(row)
    return silu(torch.stack(rows))


def plain_mamba2(mixer: Recurrent, x: Tensor, own: object) -> Tensor:
    """Shape: (t, d) -> (t, d)."""
    heads, groups, n, p = own.num_heads, own.num_groups, own.state_dim, own.head_width(x.shape[1])
    xs, keys, queries = convolved(mixer, mixer.xbc(x)).split((heads * p, groups * n, groups * n), dim=-1)
    z, dt = mixer.gate(x), mixer.dt(x)
    state, rows = x.new_zeros(heads, n, p), []
    for t in range(len(x)):
        y, states = [], []
        for h in range(heads):
            group = h // (heads // groups)
            step = softplus(dt[t, h] + mixer.dt_bias[h]).clamp(own.min_step, own.max_step)
            decay = torch.exp(-mixer.A_log[h].exp() * step)
            value = xs[t, h * p:(h + 1) * p]
            key, query = (both[t, group * n:(group + 1) * n] for both in (keys, queries))
            states.append(decay * state[h] + step * torch.outer(key, value))
            y.append(states[h].t() @ query + mixer.D[h] * value)
        state = torch.stack(states)
        rows.append(torch.cat(y))
    y = torch.stack(rows).unflatten(1, (groups, -1))
    gate = silu(z).unflatten(1, (groups, -1))
    y = {"after_gate": lambda: rms(y * gate, own.norm_eps), "before_gate": lambda: rms(y, own.norm_eps) * gate,
         "none": lambda: y * gate}[own.norm]()
    if own.norm == "none":
        return mixer.out(y.flatten(1))
    return mixer.out(mixer.norm.scale * y.flatten(1))


def plain_mamba(mixer: Recurrent, x: Tensor, own: object) -> Tensor:
    """Shape: (t, d) -> (t, d)."""
    n, rank = own.state_dim, own.rank(x.shape[1])
    xs = convolved(mixer, mixer.value(x))
    parts = list(mixer.selection(xs).split((rank, n, n), dim=-1))
    if own.norms != "none":
        parts = [rms(part, own.norm_eps) for part in parts]
    if own.norms == "scaled":
        norms = mixer.dt_norm, mixer.b_norm, mixer.c_norm
        parts = [part * norm.scale for part, norm in zip(parts, norms, strict=True)]
    few, keys, queries = parts
    steps = softplus(few @ mixer.dt.weight.t() + mixer.dt.bias)
    state, rows = x.new_zeros(xs.shape[1], n), []
    for t in range(len(x)):
        decay = torch.exp(-mixer.A_log.exp() * steps[t, :, None])
        state = decay * state + torch.outer(steps[t] * xs[t], keys[t])
        rows.append(state @ queries[t] + mixer.D * xs[t])
    return mixer.out(torch.stack(rows) * silu(mixer.gate(x)))


def plain_mamba3(mixer: Recurrent, x: Tensor, own: object) -> Tensor:
    """Shape: (t, d) -> (t, d)."""
    heads, n, p, m = own.num_heads, own.state_dim, own.head_width(x.shape[1]), own.num_angles
    xs, zs = (mixer.value(x).unflatten(1, (heads, p)), mixer.gate(x).unflatten(1, (heads, p)))
    turned = [[0.0] * m for _ in range(heads)]
    state, k_before, v_before, rows = x.new_zeros(heads, n, p), x.new_zeros(heads, n), x.new_zeros(heads, p), []
    for t in range(len(x)):
        dt, rate, share, angle = mixer.rates(x[t]).split((heads, heads, heads, m))
        states, keys, ys = [], [], []
        for h in range(heads):
            step = softplus(dt[h] + mixer.dt_bias[h])
            alpha = torch.exp(-max(1 + rate[h] if rate[h] >= 0 else 1 / (1 - rate[h]), x.new_tensor(1e-4)) * step)
            turned[h] = [sum_ + step * torch.pi * torch.tanh(a) for sum_, a in zip(turned[h], angle, strict=True)]
            both = []
            for projection, norm, bias in ((mixer.key, mixer.k_norm, mixer.k_bias),
                                           (mixer.query, mixer.q_norm, mixer.q_bias)):
                y = projection(x[t]).unflatten(0, (own.num_groups, n))[h // (heads // own.num_groups)]
                y = list((rms(y, own.norm_eps) * norm.scale + bias[h]).unbind())
                for i, theta in enumerate(turned[h]):
                    one, other = y[2 * i:2 * i + 2]
                    y[2 * i] = one * theta.cos() - other * theta.sin()
                    y[2 * i + 1] = one * theta.sin() + other * theta.cos()
                both.append(torch.stack(y))
            key, query = both
            m_t = share[h].sigmoid()
            states.append(alpha * state[h] + (1 - m_t) * step * alpha * torch.outer(k_before[h], v_before[h])
                          + m_t * step * torch.outer(key, xs[t, h]))
            y = states[h].t() @ query + mixer.D[h] * xs[t, h]
            ys.append(rms(y, own.norm_eps) * mixer.norm.scale[h * p:(h + 1) * p] if own.norm else y)
            keys.append(key)
        state, k_before, v_before = torch.stack(states), torch.stack(keys), xs[t]
        rows.append((torch.stack(ys) * silu(zs[t])).flatten())
    return mixer.out(torch.stack(rows))


CASES: dict[str, tuple[Callable, str, dict]] = {
    "mamba": (plain_mamba, "mamba", {}),
    "mamba, norms, biases": (plain_mamba, "mamba", {
        "norms": "scaled", "norm_eps": 0.1, "expand": 1.5, "state_dim": 5, "step_rank": 3, **EVERY_BIAS}),
    "mamba, norms without scales": (plain_mamba, "mamba", {"norms": "plain", "conv_len": 3, "conv_bias": False}),
    "mamba2": (plain_mamba2, "mamba2", {}),
    "mamba2, groups": (plain_mamba2, "mamba2", {"num_heads": 6, "head_dim": 5, "num_groups": 3, "state_dim": 7}),
    "mamba2, limits, biases": (plain_mamba2, "mamba2", {
        "min_step": 0.5, "max_step": 0.7, "norm": "before_gate", "norm_eps": 0.1, "num_groups": 2, **EVERY_BIAS}),
    "mamba2, no norm": (plain_mamba2, "mamba2", {"norm": "none", "conv_len": 2, "conv_bias": False}),
    "mamba3": (plain_mamba3, "mamba3", {"num_heads": 3, "state_dim": 10}),
    "mamba3, groups, norm": (plain_mamba3, "mamba3", {
        "num_heads": 4, "num_groups": 2, "head_dim": 3, "state_dim": 7, "turned": 0.9, "norm": True, "norm_eps": 0.1}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_mixer_equals_its_recurrence(name):
    plain, word, flags = CASES[name]
    cfg = small_config(mixer=word, **{f"{word}.{flag}": value for flag, value in flags.items()})
    mixer = randomise(MIXERS[word].from_config(cfg.at(0)), std=0.5).double()
    x = torch.randn(2, T, cfg.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    out = mixer(x, Context(torch.arange(T)))
    expected = torch.stack([plain(mixer, row, getattr(cfg, word)) for row in x])
    torch.testing.assert_close(out, expected, atol=1e-10, rtol=1e-8)
    weights = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    parameters = dict(mixer.named_parameters())
    found, wanted = (torch.autograd.grad((y * weights).sum(), list(parameters.values())) for y in (out, expected))
    for path, one, other in zip(parameters, found, wanted, strict=True):
        assert (one - other).abs().max() <= 1e-9 * other.abs().max(), path
