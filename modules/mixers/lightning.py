"""Lightning attention of MiniMax-01: linear attention with constant decays, slower ones in deeper layers."""

from einops import rearrange
from torch import Tensor, nn

from config import LayerConfig
from modules.linear import Linear
from modules.mixers.decaying import FixedDecay, read_state
from modules.mixers.recurrent import GatedNorm, Recurrent, State
from modules.short_conv import without_padding
from modules.stream import Context
from tools import log_io


class LightningAttention(Recurrent):
    """out(sigmoid(gate(x)) norm(y)) with y_t = S_t^T q_t, S_t = e^-s S_{t-1} + k_t v_t^T, and [q|k|v] = silu(qkv(x)).

    MiniMax 2025, arXiv:2501.08313. The norm, an RMSNorm, is over all heads together. Head i, from 1, of h has
    s = 2^(-8i/h), `by_depth` times a share that falls from 1 in the first layer to almost 0 in the last.
    Shape: x (b, t, d) -> (b, t, d).
    """

    def __init__(self, dim: int, *, num_heads: int, head_dim: int, depth: float, norm_eps: float):
        super().__init__()
        inner = num_heads * head_dim
        self.num_heads = num_heads
        self.qkv, self.gate = Linear(dim, 3 * inner, bias=False), Linear(dim, inner, bias=False)
        share = 1 - depth + 1e-5  # what is added is in the published model
        self.decay = FixedDecay([-share * 2 ** (-8 * head / num_heads) for head in range(1, num_heads + 1)])
        self.norm = GatedNorm(inner, group=inner, activation="sigmoid", eps=norm_eps)
        self.out = Linear(inner, dim, bias=False)

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "LightningAttention":
        own, deepest = cfg.lightning, cfg.model.num_layers - 1 + 1e-5
        return cls(cfg.dim, num_heads=own.num_heads, head_dim=own.width(cfg.dim), norm_eps=own.norm_eps,
                   depth=cfg.index / deepest if own.by_depth else 0.0)

    @log_io("b t d -> b h t n, b h t n, b h t p")
    def project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, zero at padding; in the rows of qkv those of a head follow each other."""
        qkv = without_padding(nn.functional.silu(self.qkv(x)), positions)
        q, k, v = rearrange(qkv, "b t (h three p) -> three b h t p", three=3, h=self.num_heads)
        return q, k, v

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: State | None = None) -> Tensor:
        q, k, v = self.project(x, context.positions)
        y = read_state(q, k, v, self.decay(v), context, cache)
        return self.out(self.norm(y, self.gate(x)))
