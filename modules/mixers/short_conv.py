"""The gated short convolution of LFM2: the last few tokens, by a filter of each channel between two gates."""

from torch import Tensor

from config import LayerConfig
from modules.linear import Linear
from modules.mixers.recurrent import CausalConv, Recurrent, State
from modules.stream import Context
from tools import log_io


class GatedShortConv(Recurrent):
    """out(c conv(b v)), with v, b and c linear in x. Liquid AI 2025, arXiv:2511.23404 (LFM2).

    Shape: x (b, t, d) -> (b, t, d).
    """

    def __init__(self, dim: int, *, length: int, bias: bool):
        super().__init__()
        self.in_gate, self.out_gate, self.value = (Linear(dim, dim, bias=bias) for _ in range(3))
        self.conv = CausalConv(dim, length=length, bias=bias, activation="none")
        self.out = Linear(dim, dim, bias=bias)

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "GatedShortConv":
        return cls(cfg.dim, length=cfg.short_conv.length, bias=cfg.short_conv.bias)

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: State | None = None) -> Tensor:
        y = self.conv(self.in_gate(x) * self.value(x), context, cache and cache.conv)
        return self.out(self.out_gate(x) * y)
