"""Gated linear attention: a state whose key channels decay as the token says."""

from torch import Tensor, nn

from config import LayerConfig
from modules.linear import Linear
from modules.mixers.decaying import in_heads, read_state
from modules.mixers.recurrent import GatedNorm, LowRank, Recurrent, State
from modules.precision import widen
from modules.short_conv import without_padding
from modules.stream import Context
from tools import log_io


class GatedLinearAttention(Recurrent):
    """out(norm(y) silu(gate(x))) with y_t = S_t^T q_t / sqrt(n) and S_t = diag(e^{g_t}) S_{t-1} + k_t v_t^T.

    Yang et al. 2023, arXiv:2312.06635, equations 3 and 4 and section 4.4: g = log sigmoid(W_2 W_1 x + b) / `divisor`,
    of each channel of a key; W_1 has `rank` rows. The norm is an RMSNorm of each head.
    Shape: x (b, t, d) -> (b, t, d).
    """

    def __init__(
        self, dim: int, *, num_heads: int, key_dim: int, value_dim: int, rank: int, divisor: float, norm_eps: float,
    ):
        super().__init__()
        keys, inner = num_heads * key_dim, num_heads * value_dim
        self.num_heads, self.divisor, self.scale = num_heads, divisor, key_dim**-0.5
        self.q, self.k = (Linear(dim, keys, bias=False) for _ in range(2))
        self.v, self.gate = (Linear(dim, inner, bias=False) for _ in range(2))
        self.logits = LowRank(dim, keys, rank=rank, bias=True)
        self.norm = GatedNorm(inner, group=value_dim, eps=norm_eps)
        self.out = Linear(inner, dim, bias=False)

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "GatedLinearAttention":
        own = cfg.gla
        return cls(cfg.dim, num_heads=own.num_heads, key_dim=own.key_dim(cfg.dim), value_dim=own.value_dim(cfg.dim),
                   rank=own.rank, divisor=own.divisor, norm_eps=own.norm_eps)

    @log_io("b t d -> b h t n, b h t n, b h t p")
    def project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, scaled, keys and values; values are zero at padding."""
        v = without_padding(self.v(x), positions)
        q, k, v = (in_heads(part, self.num_heads) for part in (self.q(x), self.k(x), v))
        return q * self.scale, k, v

    @log_io("b t d -> b h t n")
    def decay(self, x: Tensor) -> Tensor:
        """The log decay of each channel of a key, in float32."""
        decay = nn.functional.logsigmoid(widen(self.logits(x))) / self.divisor
        return in_heads(decay, self.num_heads)

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: State | None = None) -> Tensor:
        y = read_state(*self.project(x, context.positions), self.decay(x), context, cache)
        return self.out(self.norm(y, self.gate(x)))
