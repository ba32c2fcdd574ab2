"""HGRN2: linear attention whose keys are what its channels forget."""

import torch
from torch import Tensor, nn

from config import LayerConfig
from modules.linear import Linear
from modules.mixers.decaying import in_heads, read_state
from modules.mixers.recurrent import GatedNorm, Recurrent, State
from modules.precision import widen
from modules.short_conv import without_padding
from modules.stream import Context
from tools import log_io


class HGRN2(Recurrent):
    """S_t = diag(f_t) S_{t-1} + (1 - f_t) v_t^T, y_t = S_t^T q_t for each head, f = floor + (1 - floor) sigmoid(W_f x).

    Qin et al. 2024, arXiv:2404.07904. q = silu(W_q x), v = W_v x; an RMSNorm over all heads before the output.
    `floor` is the lower bound of the forget gates, which the paper learns for each layer and here is given.
    Shape: x (b, t, d) -> (b, t, d).
    """

    def __init__(self, dim: int, *, num_heads: int, key_dim: int, head_dim: int, floor: float, norm_eps: float):
        super().__init__()
        self.num_heads, self.floor = num_heads, floor
        self.q, self.forget = (Linear(dim, num_heads * key_dim, bias=False) for _ in range(2))
        self.v = Linear(dim, num_heads * head_dim, bias=False)
        self.norm = GatedNorm(num_heads * head_dim, group=num_heads * head_dim, activation="none", eps=norm_eps)
        self.out = Linear(num_heads * head_dim, dim, bias=False)

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "HGRN2":
        own = cfg.hgrn2
        return cls(cfg.dim, num_heads=own.num_heads, key_dim=own.key_width(cfg.dim), head_dim=own.width(cfg.dim),
                   floor=own.floor, norm_eps=own.norm_eps)

    @log_io("b t d -> b h t n, b h t n, b h t p, b h t n")
    def inputs(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys, values (zeros at padding) and the logarithms of what is kept of each channel of a key."""
        q, forget, v = (in_heads(y, self.num_heads)
                        for y in (self.q(x), self.forget(x), without_padding(self.v(x), positions)))
        forget = widen(forget)
        k = (1 - self.floor) * torch.sigmoid(-forget)
        log_kept = torch.log1p(-k) if self.floor else nn.functional.logsigmoid(forget)
        return nn.functional.silu(q) * q.shape[-1] ** -0.5, k, v, log_kept

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: State | None = None) -> Tensor:
        y = read_state(*self.inputs(x, context.positions), context, cache)
        return self.out(self.norm(y).type_as(x))
