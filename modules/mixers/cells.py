"""Recurrent networks whose gates read the state: the GRU, the LSTM, and the sLSTM of xLSTM."""

import torch
from einops import rearrange
from torch import Tensor, nn

from config import LayerConfig
from modules.linear import Linear
from modules.mixers.block_diagonal import BlockDiagonal
from modules.mixers.recurrent import CausalConv, GatedNorm, Recurrent, State, held, hold
from modules.norm import fill
from modules.precision import widen
from modules.scans import run_cell
from modules.stream import Context
from tools import log_io


class Cell(Recurrent):
    """What GRU and LSTM share: x_t and y_{t-1} give the gates of each channel, and y the output.

    With several heads, the state is mixed within the channels of each alone. Shape: x (b, t, d) -> (b, t, d).
    """

    kind: str  # of modules/scans/cells.py
    num_read: int  # gates that read the token

    def __init__(self, dim: int, *, inner_dim: int, num_heads: int):
        super().__init__()
        width = inner_dim // num_heads
        self.num_heads = num_heads
        self.read = Linear(dim, self.num_read * inner_dim, bias=False)
        self.recurrent = nn.Parameter(torch.empty(num_heads, width, self.num_read * width))
        self.bias = nn.Parameter(torch.empty(4, inner_dim))
        self.out = Linear(inner_dim, dim, bias=False)
        self.reset_parameters()

    roles = {"recurrent": "matrix"}

    def fan_in(self) -> dict[str, int]:
        return {"recurrent": self.recurrent.shape[1]}

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.recurrent, -self.out.in_features**-0.5, self.out.in_features**-0.5)
        fill(self.bias, 0.0)

    @log_io("b t d -> b t _ i, h _ _ _")
    def gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the four gates read of the tokens, and the matrices by which they read the state. In float32."""
        read = rearrange(widen(self.read(x)), "b t (g i) -> b t g i", g=self.num_read)
        return read + self.bias, rearrange(self.recurrent, "h p (g q) -> h p g q", g=self.num_read)

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: State | None = None) -> Tensor:
        gates, recurrent = self.gates(x)
        gates = rearrange(gates, "b t g (h p) -> b t g h p", h=self.num_heads)
        y, last = run_cell(self.kind, gates, recurrent, held(cache, "states"), fresh=fresh_tokens(context))
        hold(cache, states=last)
        return self.out(y.type_as(x))


class LSTM(Cell):
    """The long short-term memory: a state that gates keep, add to and show.

    Hochreiter & Schmidhuber 1997, Gers et al. 2000. The gates i, f, z and o; the bias of f starts at `start`.
    Shape: x (b, t, d) -> (b, t, d).
    """

    kind, num_read = "lstm", 4

    def __init__(self, dim: int, *, inner_dim: int, num_heads: int, start: float):
        self.start = start
        super().__init__(dim, inner_dim=inner_dim, num_heads=num_heads)

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "LSTM":
        own = cfg.lstm
        return cls(cfg.dim, inner_dim=own.inner_dim(cfg.dim), num_heads=own.num_heads, start=own.start)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.bias[1] = self.start


class GRU(Cell):
    """The gated recurrent unit, as torch has it: a reset gate r, an update gate z and a candidate.

    Cho et al. 2014, arXiv:1406.1078. The candidate is tanh(W x + b + r (U y + c)); the rows of `bias` are those of r,
    of z, c and b. Shape: x (b, t, d) -> (b, t, d).
    """

    kind, num_read = "gru", 3

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "GRU":
        return cls(cfg.dim, inner_dim=cfg.gru.inner_dim(cfg.dim), num_heads=cfg.gru.num_heads)

    @log_io("b t d -> b t _ i, h _ _ _")
    def gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As of all cells; the third gate reads the state alone, and the fourth the token alone."""
        r, z, n = widen(self.read(x)).chunk(3, dim=-1)
        read = torch.stack((r, z, torch.zeros_like(n), n), dim=2)
        recurrent = rearrange(self.recurrent, "h p (g q) -> h p g q", g=3)
        return read + self.bias, torch.cat((recurrent, torch.zeros_like(recurrent[:, :, :1])), dim=2)


class SLSTM(Recurrent):
    """c_t = f c_{t-1} + e^i tanh(z), n_t = f n_{t-1} + e^i, y_t = o c_t / n_t; the gates read y_{t-1} within each head.

    Beck et al. 2024, arXiv:2405.04517. i and f read a short convolution of the input, z and o the input itself, all by
    block-diagonal matrices; then a LayerNorm of each head. With `out_proj` a projection follows, as in other mixers;
    the paper has none. Biases of f start between 5 and -7 in each head, the more of them low the deeper the layer is
    (`depth`, 0 to 1).
    Shape: x (b, t, d) -> (b, t, d).
    """

    roles = {"recurrent": "matrix"}

    def __init__(self, dim: int, *, num_heads: int, conv_len: int, norm_eps: float, out_proj: bool, depth: float):
        super().__init__()
        width, std = dim // num_heads, (2 / (5 * dim)) ** 0.5
        self.num_heads, self.depth = num_heads, depth
        self.conv = CausalConv(dim, length=conv_len, bias=True)
        self.input_gate, self.forget_gate, self.value, self.output_gate = (
            BlockDiagonal(dim, num_heads=num_heads, bias=False, std=std) for _ in range(4))
        self.recurrent = nn.Parameter(torch.empty(num_heads, width, 4 * width))
        self.bias = nn.Parameter(torch.empty(4, dim))
        self.norm = GatedNorm(dim, group=width, activation="none", eps=norm_eps, shared=False, centred=True)
        self.out = Linear(dim, dim, bias=False) if out_proj else nn.Identity()
        self.reset_parameters()

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "SLSTM":
        own, depth = cfg.slstm, cfg.index / max(1, cfg.model.num_layers - 1)
        return cls(cfg.dim, num_heads=own.num_heads, conv_len=own.conv_len, norm_eps=own.norm_eps,
                   out_proj=own.out_proj, depth=depth)

    def fan_in(self) -> dict[str, int]:
        return {"recurrent": self.recurrent.shape[1]}

    @torch.no_grad()
    def reset_parameters(self) -> None:
        fill(self.recurrent, 0.0)
        fill(self.bias, 0.0)
        place = torch.linspace(0, 1, self.recurrent.shape[1], device=self.bias.device)
        self.bias[1] = (5 - 12 * place ** (0.3 + 1.3 * self.depth)).repeat(self.num_heads)

    @log_io("b t d, b t d -> b t _ d")
    def gates(self, x: Tensor, convolved: Tensor) -> Tensor:
        """What the gates i, f, z and o read of the tokens, in float32."""
        read = (self.input_gate(convolved), self.forget_gate(convolved), self.value(x), self.output_gate(x))
        return widen(torch.stack(read, dim=2)) + self.bias

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: State | None = None) -> Tensor:
        gates = self.gates(x, self.conv(x, context, cache and cache.conv))
        gates = rearrange(gates, "b t g (h p) -> b t g h p", h=self.num_heads)
        recurrent = rearrange(self.recurrent, "h p (g q) -> h p g q", g=4)
        y, last = run_cell("slstm", gates, recurrent, held(cache, "states"), fresh=fresh_tokens(context))
        hold(cache, states=last)
        return self.out(self.norm(y).type_as(x))


def fresh_tokens(context: Context) -> Tensor | None:
    """Before which tokens there is nothing: the first of each text, and padding; None = before the row alone.

    Shape: (b, t).
    """
    if context.positions.dim() == 1 and context.documents is None:
        return None
    fresh = torch.atleast_2d(context.positions) <= 0
    if context.documents is None:
        return fresh
    ids = context.documents.ids
    return fresh | nn.functional.pad(ids.diff() != 0, (1, 0), value=False)
