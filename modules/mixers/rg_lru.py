"""RG-LRU: a diagonal recurrence whose decay and input have gates that read the token (Griffin, Hawk)."""

import torch
from torch import Tensor, nn

from config import LayerConfig
from modules.linear import Linear
from modules.mixers.block_diagonal import BlockDiagonal
from modules.mixers.recurrent import GATES, CausalConv, Recurrent, State, held, hold, runs_of
from modules.precision import widen
from modules.scans import diagonal_scan
from modules.stream import Context
from tools import log_io

SHARPNESS = 8.0  # c of the paper: the decay of a step is that of the channel to the power of c times its gate
STEEPEST = 1000.0  # largest slope of the root
SLOW, FAST = 0.999, 0.9  # between these are the channels' decays at first


class RGLRU(Recurrent):
    """h_t = a_t h_{t-1} + sqrt(1 - a_t^2) i_t x_t, a_t = exp(-8 r_t softplus(rate)), with gates i_t and r_t of x_t.

    De et al. 2024, arXiv:2402.19427. x is a short convolution of W_x u; the output is out(h gelu(W_y u)). The first
    token of a text has the factor 1 in place of the root. Shape: u (b, t, d) -> (b, t, d).
    """

    def __init__(self, dim: int, *, inner_dim: int, num_heads: int, conv_len: int):
        super().__init__()
        self.value, self.gate = Linear(dim, inner_dim), Linear(dim, inner_dim)
        self.conv = CausalConv(inner_dim, length=conv_len, bias=True, activation="none")
        std = 0.1 * (num_heads / inner_dim) ** 0.5  # of RecurrentGemma
        self.input_gate, self.decay_gate = (BlockDiagonal(inner_dim, num_heads=num_heads, std=std) for _ in range(2))
        self.rate = nn.Parameter(torch.empty(inner_dim))
        self.out = Linear(inner_dim, dim)
        self.reset_parameters()

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "RGLRU":
        own = cfg.rg_lru
        return cls(cfg.dim, inner_dim=own.inner_width(cfg), num_heads=own.heads(cfg), conv_len=own.conv_len)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.rate.uniform_(FAST**2, SLOW**2).sqrt_().logit_().neg_()  # softplus(rate) = -log(decay)

    @log_io("b t i -> b t i, b t i")
    def gates(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """What is kept of each channel's state, and what is added to it; nothing at padding. In float32."""
        slowed = nn.functional.softplus(widen(self.rate)) * widen(self.decay_gate(x)).sigmoid()
        log_decay = -SHARPNESS * slowed
        factor = bounded_root(-torch.expm1(2 * log_decay)).where(positions.unsqueeze(-1) != 0, 1.0)
        return log_decay.exp(), factor * widen(self.input_gate(x)).sigmoid() * widen(x)

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: State | None = None) -> Tensor:
        convolved = self.conv(self.value(x), context, cache and cache.conv)
        kept, added = self.gates(convolved, context.positions)
        y, last = diagonal_scan(kept, added, held(cache, "h"), runs=runs_of(context))
        hold(cache, h=last)
        return self.out(y.type_as(x) * GATES["gelu_tanh"](self.gate(x)))


def bounded_root(x: Tensor) -> Tensor:
    """The square root of x >= 0, whose gradient is no larger than `STEEPEST`, also at zero. Shape: any."""
    least = (2 * STEEPEST) ** -2
    steep = x.detach().sqrt() + STEEPEST * (x - x.detach())
    return x.clamp(min=least).sqrt().where(x > least, steep)
