"""minGRU and minLSTM: recurrences whose gates read the token and not the state, so that all tokens go at once."""

import torch
from torch import Tensor, nn

from config import LayerConfig
from modules.linear import Linear
from modules.mixers.recurrent import Recurrent, State, held, hold, runs_of
from modules.precision import widen
from modules.scans import diagonal_scan
from modules.short_conv import without_padding
from modules.stream import Context
from tools import log_io


class GatedAverage(Recurrent):
    """out(h silu(gate(x))) with h_t = kept_t h_{t-1} + added_t, of which `gates` makes what is kept and added.

    Shape: x (b, t, d) -> (b, t, d).
    """

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: State | None = None) -> Tensor:
        kept, added = self.gates(x, context.positions)
        y, last = diagonal_scan(kept, added, held(cache, "h"), runs=runs_of(context))
        hold(cache, h=last)
        return self.out(y.type_as(x) * nn.functional.silu(self.gate(x)))


class MinGRU(GatedAverage):
    """h_t = (1 - z_t) h_{t-1} + z_t W_h x_t with z_t = sigmoid(W_z x_t + b); the output is out(h silu(W_g x)).

    Feng et al. 2024, arXiv:2410.01201. The bias of z starts below zero, so that a channel keeps what it has.
    Shape: x (b, t, d) -> (b, t, d).
    """

    def __init__(self, dim: int, *, inner_dim: int, start: float):
        super().__init__()
        self.start = start
        self.value, self.z, self.gate = (Linear(dim, inner_dim, bias=False) for _ in range(3))
        self.z_bias = nn.Parameter(torch.empty(inner_dim))
        self.out = Linear(inner_dim, dim, bias=False)
        self.reset_parameters()

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "MinGRU":
        return cls(cfg.dim, inner_dim=cfg.min_gru.inner_dim(cfg.dim), start=cfg.min_gru.start)

    def reset_parameters(self) -> None:
        nn.init.constant_(self.z_bias, -self.start)

    @log_io("b t d -> b t i, b t i")
    def gates(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """What is kept of each channel's state, and what is added to it; nothing at padding. In float32."""
        z = (widen(self.z(x)) + self.z_bias).sigmoid()
        return 1 - z, without_padding(z * widen(self.value(x)), positions)


class MinLSTM(GatedAverage):
    """h_t = (f h_{t-1} + i W_h x_t) / (f + i), f = sigmoid(W_f x_t + b_f), i = sigmoid(W_i x_t + b_i).

    Feng et al. 2024, arXiv:2410.01201. The biases start at `start` and -`start`, so that a channel keeps what it has;
    the output is out(h silu(W_g x)). Shape: x (b, t, d) -> (b, t, d).
    """

    def __init__(self, dim: int, *, inner_dim: int, start: float):
        super().__init__()
        self.start = start
        self.value, self.forget, self.input, self.gate = (Linear(dim, inner_dim, bias=False) for _ in range(4))
        self.forget_bias, self.input_bias = (nn.Parameter(torch.empty(inner_dim)) for _ in range(2))
        self.out = Linear(inner_dim, dim, bias=False)
        self.reset_parameters()

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "MinLSTM":
        return cls(cfg.dim, inner_dim=cfg.min_lstm.inner_dim(cfg.dim), start=cfg.min_lstm.start)

    def reset_parameters(self) -> None:
        nn.init.constant_(self.forget_bias, self.start)
        nn.init.constant_(self.input_bias, -self.start)

    @log_io("b t d -> b t i, b t i")
    def gates(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """What is kept of each channel's state, and what is added to it; nothing at padding. In float32."""
        log_forget = nn.functional.logsigmoid(widen(self.forget(x)) + self.forget_bias)
        log_input = nn.functional.logsigmoid(widen(self.input(x)) + self.input_bias)
        kept = (log_forget - log_input).sigmoid()  # f / (f + i), also if both are tiny
        return kept, without_padding((1 - kept) * widen(self.value(x)), positions)
