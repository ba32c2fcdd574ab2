"""Mamba-2: linear attention with values from a short convolution, in which the state of a head decays as a whole."""

import torch
from einops import rearrange
from torch import Tensor, nn

from config import LayerConfig
from modules.linear import Linear
from modules.mixers.recurrent import (
    CausalConv,
    Gate,
    GatedNorm,
    NormOfGated,
    Recurrent,
    State,
    draw_step_bias,
    held,
    hold,
    runs_of,
)
from modules.norm import fill, times
from modules.precision import widen
from modules.scans import decayed_attention
from modules.stream import Context
from tools import log_io

NORMS = {"after_gate": NormOfGated, "before_gate": GatedNorm}


class Mamba2(Recurrent):
    """S_t = e^{-step exp(A_log)} S_{t-1} + step B_t x_t^T, y_t = S_t^T C_t + D x_t for each head; out(norm(y silu(z))).

    Dao & Gu 2024, arXiv:2405.21060. z, [x | B | C] and dt are projections of the token, the three in brackets go
    through a short convolution and a silu, and step = softplus(dt + dt_bias), within limits. Heads of a group share B
    and C. `scales` are constant factors on the projections z, x, B, C and dt (Falcon-H1, arXiv:2507.22448).
    Shape: x (b, t, d) -> (b, t, d).
    """

    def __init__(
        self, dim: int, *, num_heads: int, head_dim: int, state_dim: int, num_groups: int, conv_len: int,
        conv_bias: bool, bias: bool, norm: str, norm_eps: float, limits: tuple[float, float | None],
        scales: tuple[float, ...] = (1.0,) * 5,
    ):
        super().__init__()
        inner, shared = num_heads * head_dim, num_groups * state_dim
        self.num_groups, self.sizes, self.limits = num_groups, (inner, shared, shared), limits
        self.gate_scale, *self.xbc_scales, self.dt_scale = scales
        self.gate, self.dt = Linear(dim, inner, bias=bias), Linear(dim, num_heads, bias=bias)
        self.xbc = Linear(dim, sum(self.sizes), bias=bias)
        self.conv = CausalConv(sum(self.sizes), length=conv_len, bias=conv_bias)
        self.A_log, self.D, self.dt_bias = (nn.Parameter(torch.empty(num_heads)) for _ in range(3))
        self.norm = Gate() if norm == "none" else NORMS[norm](
            inner, group=inner // num_groups, eps=norm_eps, shared=False)
        self.out = Linear(inner, dim, bias=bias)
        self.reset_parameters()

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "Mamba2":
        own = cfg.mamba2
        return cls(cfg.dim, num_heads=own.num_heads, head_dim=own.head_width(cfg.dim), state_dim=own.state_dim,
                   num_groups=own.num_groups, conv_len=own.conv_len, conv_bias=own.conv_bias, bias=own.bias,
                   norm=own.norm, norm_eps=own.norm_eps, limits=(own.min_step, own.max_step), scales=own.scales)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.A_log.uniform_(1, 16).log_()
        fill(self.D, 1.0)
        draw_step_bias(self.dt_bias)

    @log_io("b t d -> b h t, b h t")
    def steps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The step of time of each head, and the logarithm of the decay in it. In float32."""
        step = nn.functional.softplus(widen(times(self.dt(x), self.dt_scale)) + self.dt_bias).clamp(*self.limits)
        step = rearrange(step, "b t h -> b h t")
        return step, -widen(self.A_log).exp().unsqueeze(-1) * step

    @log_io("b t d -> b h t p, b g t n, b g t n")
    def inputs(self, x: Tensor, context: Context, cache: State | None) -> tuple[Tensor, Tensor, Tensor]:
        """x, B and C; zeros at padding."""
        projected = self.xbc(x)
        if {*self.xbc_scales} != {1.0}:
            parts = zip(projected.split(self.sizes, dim=-1), self.xbc_scales, strict=True)
            projected = torch.cat([part * scale for part, scale in parts], dim=-1)
        mixed = self.conv(projected, context, cache and cache.conv)
        values, b, c = mixed.split(self.sizes, dim=-1)
        keys, queries = (rearrange(y, "b t (g n) -> b g t n", g=self.num_groups) for y in (b, c))
        return widen(rearrange(values, "b t (h p) -> b h t p", h=len(self.D))), keys, queries

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: State | None = None) -> Tensor:
        step, decay = self.steps(x)
        values, keys, queries = self.inputs(x, context, cache)
        y, last = decayed_attention(queries, keys, values * step.unsqueeze(-1), decay, held(cache, "S"),
                                    runs=runs_of(context))
        hold(cache, S=last)
        y = rearrange(y + self.D[:, None, None] * values, "b h t p -> b t (h p)")
        return self.out(self.norm(y, times(self.gate(x), self.gate_scale)).type_as(x))
