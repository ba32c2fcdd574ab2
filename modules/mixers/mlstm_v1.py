"""The mLSTM of the first xLSTM: on twice as many channels, after a short convolution, with gates that have no cap."""

import torch
from torch import Tensor, nn

from config import LayerConfig
from modules.linear import Linear
from modules.mixers.block_diagonal import BlockDiagonal
from modules.mixers.decaying import in_heads
from modules.mixers.mlstm import FORGET_START, HeadGate, log_weights, read_memory
from modules.mixers.recurrent import CausalConv, Gate, GatedNorm, Recurrent, State
from modules.norm import fill
from modules.precision import widen
from modules.stream import Context
from tools import log_io

INPUT_STD = 0.1  # of the biases of the input gates at first


class MLSTMV1(Recurrent):
    """out((norm(y) + skip c) silu(z)): x and z are projections of the token, c = silu(conv(x)), y the memory of MLSTM.

    Beck et al. 2024, arXiv:2405.04517, and the layer of NX-AI/xlstm. q and k come from c, v from x, by
    matrices of blocks of few channels; both gates read q, k and v. The norm is a LayerNorm of each head, `skip` a
    factor on each channel. Shape: x (b, t, d) -> (b, t, d).
    """

    def __init__(
        self, dim: int, *, inner_dim: int, num_heads: int, block_dim: int, conv_len: int, eps: float, norm_eps: float,
        std: float,
    ):
        super().__init__()
        self.num_heads, self.eps = num_heads, eps
        self.value, self.gate = (Linear(dim, inner_dim, bias=False) for _ in range(2))
        self.conv = CausalConv(inner_dim, length=conv_len, bias=True)
        self.q, self.k, self.v = (
            BlockDiagonal(inner_dim, num_heads=inner_dim // block_dim, bias=False, std=std)
            for _ in range(3))
        self.input_gate = HeadGate(3 * inner_dim, num_heads=num_heads, start=(0.0, 0.0), std=INPUT_STD)
        self.forget_gate = HeadGate(3 * inner_dim, num_heads=num_heads, start=FORGET_START)
        self.norm = GatedNorm(inner_dim, group=inner_dim // num_heads, activation="none", eps=norm_eps, shared=False,
                              centred=True)
        self.skip = nn.Parameter(torch.empty(inner_dim))
        self.gated, self.out = Gate(), Linear(inner_dim, dim, bias=False)
        self.reset_parameters()

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "MLSTMV1":
        own, std = cfg.mlstm_v1, (2 * cfg.width_ratio / (5 * cfg.dim)) ** 0.5
        return cls(cfg.dim, std=std, inner_dim=own.inner_dim(cfg.dim), num_heads=own.num_heads, block_dim=own.block_dim,
                   conv_len=own.conv_len, eps=own.eps, norm_eps=own.norm_eps)

    def reset_parameters(self) -> None:
        fill(self.skip, 1.0)

    @log_io("b t i, b t i -> b h t n, b h t n, b h t n, b h t, b h t")
    def project(self, x: Tensor, convolved: Tensor, positions: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values, and the logarithms of what is kept and of what is added."""
        projected = (self.q(convolved), self.k(convolved), self.v(x))
        read = torch.cat(projected, dim=-1)
        q, k, v = (in_heads(y, self.num_heads) for y in projected)
        q = q * q.shape[-1] ** -0.5
        kept, added = log_weights(self.forget_gate(read), self.input_gate(read), positions)
        return q, k, v, kept, added

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: State | None = None) -> Tensor:
        values = self.value(x)
        convolved = self.conv(values, context, cache and cache.conv)
        y = read_memory(*self.project(values, convolved, context.positions), eps=self.eps, context=context, cache=cache)
        y = self.norm(y) + self.skip * widen(convolved)
        return self.out(self.gated(y, self.gate(x)).type_as(x))
