"""Mamba-3: the heads of Mamba-2 with rotated keys and queries, whose state also adds the token before, in part."""

import math

import torch
from einops import rearrange
from torch import Tensor, nn

from config import LayerConfig
from modules.linear import Linear
from modules.mixers.recurrent import Gate, GatedNorm, Recurrent, State, draw_step_bias, held, hold, runs_of
from modules.norm import RMSNorm, fill
from modules.precision import widen
from modules.scans import decayed_attention
from modules.scans.selective import same_as_before
from modules.short_conv import without_padding
from modules.stream import Context
from tools import log_io

LEAST = 1e-4  # rate of decay


class Mamba3(Recurrent):
    """S_t = e^{A step} (S_{t-1} + (1 - m) step k_{t-1} v_{t-1}^T) + m step k_t v_t^T, y_t = S_t^T q_t + D v_t.

    Lahoti et al. 2026, arXiv:2603.15569 (one input and one output of each head). The share m = sigmoid of a projection
    makes the sum over time a trapezoid's; A < 0 and the step of a head come from the token. k and q are B and C,
    normalised, with a bias of each head, and turned by the sum of step pi tanh(angle) up to the token. There is no
    convolution. The output is out(y silu(z)), y being normalised before if `norm`. Shape: x (b, t, d) -> (b, t, d).
    """

    def __init__(
        self, dim: int, *, num_heads: int, head_dim: int, state_dim: int, num_groups: int, num_angles: int, norm: bool,
        norm_eps: float,
    ):
        super().__init__()
        inner = num_heads * head_dim
        self.num_heads, self.num_groups, self.sizes = num_heads, num_groups, (num_heads,) * 3 + (num_angles,)
        self.value, self.gate = (Linear(dim, inner, bias=False) for _ in range(2))
        self.key, self.query = (Linear(dim, num_groups * state_dim, bias=False) for _ in range(2))
        self.rates = Linear(dim, sum(self.sizes), bias=False)
        self.k_norm, self.q_norm = (RMSNorm(state_dim, eps=norm_eps) for _ in range(2))
        self.k_bias, self.q_bias = (nn.Parameter(torch.empty(num_heads, state_dim)) for _ in range(2))
        self.D, self.dt_bias = (nn.Parameter(torch.empty(num_heads)) for _ in range(2))
        self.norm = GatedNorm(inner, group=head_dim, eps=norm_eps, shared=False) if norm else Gate()
        self.out = Linear(inner, dim, bias=False)
        self.reset_parameters()

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "Mamba3":
        own = cfg.mamba3
        return cls(cfg.dim, num_heads=own.num_heads, head_dim=own.head_width(cfg.dim), state_dim=own.state_dim,
                   num_groups=own.num_groups, num_angles=own.num_angles, norm=own.norm, norm_eps=own.norm_eps)

    def reset_parameters(self) -> None:
        for ones in (self.k_bias, self.q_bias, self.D):
            fill(ones, 1.0)
        draw_step_bias(self.dt_bias)

    @log_io("b t d -> b h t, b h t, b h t, b h t _")
    def steps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Steps of time, shares m, logarithms of decays, and angles by which this token turns further. In float32."""
        step, rate, share, angle = widen(self.rates(x)).split(self.sizes, dim=-1)
        step = nn.functional.softplus(step + self.dt_bias)
        rate = (rate.clamp(min=0) + 1 / (1 - rate.clamp(max=0))).clamp(min=LEAST)  # 1 + r, or 1 / (1 - r) below zero
        step, rate, share = (rearrange(y, "b t h -> b h t") for y in (step, rate, share.sigmoid()))
        return step, share, -rate * step, step.unsqueeze(-1) * (math.pi * angle.tanh()).unsqueeze(1)

    @log_io("b t d, b h t _ -> b h t n, b h t n")
    def turned(self, x: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and queries of each head, turned by these angles. In float32."""
        found = []
        for projection, norm, bias in ((self.key, self.k_norm, self.k_bias), (self.query, self.q_norm, self.q_bias)):
            shared = norm(widen(rearrange(projection(x), "b t (g n) -> b g t n", g=self.num_groups)))
            own = shared.repeat_interleave(self.num_heads // self.num_groups, dim=1) + bias.unsqueeze(1)
            found.append(turn(own, angles))
        return found[0], found[1]

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: State | None = None) -> Tensor:
        step, share, decay, further = self.steps(x)
        angles = further.cumsum(2)
        if (begin := held(cache, "angles")) is not None:
            angles = angles + begin.unsqueeze(2)
        angles = angles.remainder(2 * math.pi)
        k, q = self.turned(x, angles)
        v = without_padding(self.value(x), context.positions)
        v = widen(rearrange(v, "b t (h p) -> b h t p", h=self.num_heads))
        hold(cache, angles=angles[:, :, -1])
        y = summed(q, k, v, step, share, decay, runs_of(context), cache) + self.D[:, None, None] * v
        return self.out(self.norm(rearrange(y, "b h t p -> b t (h p)"), self.gate(x)).type_as(x))


def summed(
    q: Tensor, k: Tensor, v: Tensor, step: Tensor, share: Tensor, decay: Tensor, runs: Tensor | None,
    cache: State | None,
) -> Tensor:
    """S_t^T q_t, from a scan over what each token's state has of all tokens before it, and its own part.

    Shape: q and k (b, h, t, n), v (b, h, t, p), the others (b, h, t) -> (b, h, t, p).
    """
    now = share * step
    before = decay.exp() * ((1 - share) * step + shifted(now, None))  # weight of the token before
    if runs is not None:
        before = before * same_as_before(runs, before.dtype).unsqueeze(1)
    values = before.unsqueeze(-1) * shifted(v, held(cache, "v"))
    y, last = decayed_attention(q, shifted(k, held(cache, "k")), values, decay, held(cache, "S"), runs=runs)
    own = now.unsqueeze(-1) * v
    hold(cache, S=last + k[:, :, -1].unsqueeze(-1) * own[:, :, -1].unsqueeze(-2), k=k[:, :, -1], v=v[:, :, -1])
    return y + (q * k).sum(-1, keepdim=True) * own


def shifted(x: Tensor, first: Tensor | None) -> Tensor:
    """What the token before has; the first has `first`, or zeros. Shape: (b, h, t, ...), (b, h, ...)."""
    first = torch.zeros_like(x[:, :, 0]) if first is None else first
    return torch.cat((first.unsqueeze(2), x[:, :, :-1]), dim=2)


def turn(x: Tensor, angles: Tensor) -> Tensor:
    """Turn pairs of neighbours, as many as there are angles; other channels stay. Shape: (..., n), (..., _)."""
    pairs = x[..., :2 * angles.shape[-1]].unflatten(-1, (-1, 2))
    one, other = pairs.unbind(-1)
    cos, sin = angles.cos(), angles.sin()
    turned = torch.stack((one * cos - other * sin, one * sin + other * cos), dim=-1).flatten(-2)
    return torch.cat((turned, x[..., turned.shape[-1]:]), dim=-1)
