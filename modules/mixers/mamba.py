"""Mamba: several states for each channel, whose steps of time, and what is written and read, depend on the token."""

import torch
from torch import Tensor, nn

from config import LayerConfig
from modules.linear import Linear
from modules.mixers.recurrent import CausalConv, Gate, Recurrent, State, draw_step_bias, held, hold, runs_of
from modules.norm import RMSNorm, fill
from modules.precision import widen
from modules.scans import selective_scan
from modules.stream import Context
from tools import LoggingModule, log_io


class Steps(LoggingModule):
    """The step of time of each channel, softplus(W r + b), from a vector r of few numbers.

    Shape: (b, t, _) -> (b, t, i). In float32.
    """

    roles = {"weight": "matrix"}

    def __init__(self, rank: int, channels: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(channels, rank)), nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def fan_in(self) -> dict[str, int]:
        return {"weight": self.weight.shape[1]}

    def reset_parameters(self) -> None:
        bound = self.weight.shape[1]**-0.5
        nn.init.uniform_(self.weight, -bound, bound)
        draw_step_bias(self.bias)

    @log_io("b t _ -> b t i")
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.softplus(widen(nn.functional.linear(x, self.weight)) + self.bias)


class Mamba(Recurrent):
    """h_t = e^{-step exp(A_log)} h_{t-1} + step x_t B_t, y_t = C_t . h_t + D x_t for each channel; out(y silu(z)).

    Gu & Dao 2023, arXiv:2312.00752. x and z are projections of the token; x goes through a short convolution and a
    silu. What gives the step, B and C are projections of that x, and may have norms of their own: with scales in
    Jamba, arXiv:2403.19887, without in Falcon Mamba, arXiv:2410.05355. Shape: x (b, t, d) -> (b, t, d).
    """

    def __init__(
        self, dim: int, *, inner_dim: int, state_dim: int, step_rank: int, conv_len: int, conv_bias: bool, bias: bool,
        norms: str, norm_eps: float,
    ):
        super().__init__()
        self.sizes = (step_rank, state_dim, state_dim)
        self.value, self.gate = (Linear(dim, inner_dim, bias=bias) for _ in range(2))
        self.conv = CausalConv(inner_dim, length=conv_len, bias=conv_bias)
        self.selection = Linear(inner_dim, sum(self.sizes), bias=False)
        self.dt_norm, self.b_norm, self.c_norm = (
            nn.Identity() if norms == "none" else RMSNorm(size, eps=norm_eps, affine=norms == "scaled")
            for size in self.sizes)
        self.dt = Steps(step_rank, inner_dim)
        self.A_log, self.D = nn.Parameter(torch.empty(inner_dim, state_dim)), nn.Parameter(torch.empty(inner_dim))
        self.gated, self.out = Gate(), Linear(inner_dim, dim, bias=bias)
        self.reset_parameters()

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "Mamba":
        own = cfg.mamba
        return cls(cfg.dim, inner_dim=own.inner_dim(cfg.dim), state_dim=own.state_dim, step_rank=own.rank(cfg.dim),
                   conv_len=own.conv_len, conv_bias=own.conv_bias, bias=own.bias, norms=own.norms,
                   norm_eps=own.norm_eps)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.A_log.copy_(torch.arange(1, self.A_log.shape[1] + 1, device=self.A_log.device).log())
        fill(self.D, 1.0)

    @log_io("b t i -> b t i, b t n, b t n")
    def select(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The step of each channel, in float32, and B and C, from the channels after the convolution."""
        steps, keys, queries = self.selection(x).split(self.sizes, dim=-1)
        return self.dt(self.dt_norm(steps)), self.b_norm(keys), self.c_norm(queries)

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: State | None = None) -> Tensor:
        values = self.conv(self.value(x), context, cache and cache.conv)
        steps, keys, queries = self.select(values)
        values, rates = widen(values), -widen(self.A_log).exp().t()  # (b, t, i), (n, i)
        y, last = selective_scan(values, steps, rates, keys, queries, held(cache, "h"), runs=runs_of(context))
        hold(cache, h=last)
        return self.out(self.gated(y + self.D * values, self.gate(x)).type_as(x))
