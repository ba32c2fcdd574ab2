"""Multi-scale retention (RetNet): linear attention with a constant decay of each head, and rotary positions."""

import math

from torch import Tensor, nn

from config import LayerConfig
from modules.linear import Linear
from modules.mixers.decaying import FixedDecay, in_heads, read_state
from modules.mixers.recurrent import GatedNorm, Recurrent, State
from modules.rope import ROTARY
from modules.short_conv import without_padding
from modules.stream import Context
from tools import log_io


class Retention(Recurrent):
    """out(norm(y) silu(gate(x))) with y_t = S_t^T q_t / sqrt(n) and S_t = (1 - 2^-(a + i)) S_{t-1} + k_t v_t^T.

    Sun et al. 2023, arXiv:2307.08621, equations 5 to 8, with an RMSNorm of each head for its GroupNorm, and RoPE for
    xPos, as most code has it. i is the number of the head, from 0, and a is `first_power`.
    Shape: x (b, t, d) -> (b, t, d).
    """

    def __init__(
        self, dim: int, *, num_heads: int, key_dim: int, value_dim: int, first_power: float, norm_eps: float,
        rotary: nn.Module | None,
    ):
        super().__init__()
        inner = num_heads * value_dim
        self.num_heads, self.scale, self.rotary = num_heads, key_dim**-0.5, rotary
        self.q, self.k = (Linear(dim, num_heads * key_dim, bias=False) for _ in range(2))
        self.v, self.gate = (Linear(dim, inner, bias=False) for _ in range(2))
        self.decay = FixedDecay([math.log1p(-(2 ** -(first_power + head))) for head in range(num_heads)])
        self.norm = GatedNorm(inner, group=value_dim, eps=norm_eps)
        self.out = Linear(inner, dim, bias=False)

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "Retention":
        own, width = cfg.retnet, cfg.retnet.key_dim(cfg.dim)
        return cls(cfg.dim, num_heads=own.num_heads, key_dim=width, value_dim=own.value_dim(cfg.dim),
                   first_power=own.first_power, norm_eps=own.norm_eps,
                   rotary=ROTARY[cfg.rope.layout](width, cfg.rope) if cfg.position == "rope" else None)

    @log_io("b t d -> b h t n, b h t n, b h t p")
    def project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, scaled, keys and values; values are zero at padding."""
        v = without_padding(self.v(x), positions)
        q, k, v = (in_heads(part, self.num_heads) for part in (self.q(x), self.k(x), v))
        if self.rotary is not None:
            angles = self.rotary.angles(positions)
            q, k = self.rotary(q, angles), self.rotary(k, angles)
        return q * self.scale, k, v

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: State | None = None) -> Tensor:
        q, k, v = self.project(x, context.positions)
        return self.out(self.norm(read_state(q, k, v, self.decay(v), context, cache), self.gate(x)))
