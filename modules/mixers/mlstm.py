"""mLSTM: linear attention with an exponential input gate, a forget gate, and a sum of keys that normalises."""

import torch
from einops import rearrange
from torch import Tensor, nn

from config import LayerConfig
from modules.mixers.decaying import in_heads
from modules.mixers.recurrent import GatedNorm, Recurrent, State, held, hold, runs_of
from modules.norm import fill
from modules.precision import widen
from modules.scans import decayed_attention, decayed_maximum
from modules.stream import Context
from tools import LoggingModule, log_io

FORGET_START = (3.0, 6.0)  # of the forget gates before their sigmoid, from the first head to the last


class HeadGate(LoggingModule):
    """A number for each head and token, no larger than `cap`; at first `start`, whatever the token, evenly over heads.

    Shape: x (b, t, d) -> (b, h, t), in float32.
    """

    def __init__(self, dim: int, *, num_heads: int, start: tuple[float, float], cap: float):
        super().__init__()
        self.start, self.cap = start, cap
        self.weight, self.bias = nn.Parameter(torch.empty(num_heads, dim)), nn.Parameter(torch.empty(num_heads))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        fill(self.weight, 0.0)
        self.bias.copy_(torch.linspace(*self.start, len(self.bias)))

    @log_io("b t d -> b h t")
    def forward(self, x: Tensor) -> Tensor:
        y = widen(nn.functional.linear(x, self.weight)) + self.bias
        return rearrange(self.cap * torch.tanh(y / self.cap), "b t h -> b h t")


class MLSTM(Recurrent):
    """S_t = f S_{t-1} + e^i k v^T, n_t = f n_{t-1} + e^i k, f = sigmoid(forget gate), for each head.

    Beck et al. 2024, arXiv:2405.04517, with the capped gates of xLSTM 7B, arXiv:2503.13427. The output is S_t^T q over
    max(|n_t^T q|, 1) + eps e^m, where m is the largest logarithm of a weight in n; then a LayerNorm of each head and a
    gate. The normaliser n is one more value of 1. Shape: x (b, t, d) -> (b, t, d).
    """

    def __init__(
        self, dim: int, *, num_heads: int, key_dim: int, head_dim: int, gate_cap: float, input_start: float, eps: float,
        norm_eps: float,
    ):
        super().__init__()
        self.num_heads, self.eps = num_heads, eps
        self.q, self.k = (nn.Linear(dim, num_heads * key_dim, bias=False) for _ in range(2))
        self.v, self.gate = (nn.Linear(dim, num_heads * head_dim, bias=False) for _ in range(2))
        self.input_gate, self.forget_gate = (HeadGate(dim, num_heads=num_heads, start=start, cap=gate_cap)
                                             for start in ((input_start, input_start), FORGET_START))
        self.norm = GatedNorm(num_heads * head_dim, group=head_dim, activation="sigmoid", eps=norm_eps, shared=False,
                              centred=True)
        self.out = nn.Linear(num_heads * head_dim, dim, bias=False)

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "MLSTM":
        own = cfg.mlstm
        return cls(cfg.dim, num_heads=own.num_heads, key_dim=own.key_width(cfg.dim), head_dim=own.width(cfg.dim),
                   gate_cap=own.gate_cap, input_start=own.input_start, eps=own.eps, norm_eps=own.norm_eps)

    @log_io("b t d -> b h t, b h t")
    def gates(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The logarithms of what is kept and of what is added: all and nothing at padding."""
        kept, added = nn.functional.logsigmoid(self.forget_gate(x)), self.input_gate(x)
        if positions.dim() == 1:
            return kept, added
        there = (positions >= 0).unsqueeze(1)
        return kept.where(there, 0.0), added.where(there, float("-inf"))

    @log_io("b t d -> b h t n, b h t n, b h t p")
    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (in_heads(y, self.num_heads) for y in (self.q(x), self.k(x), self.v(x)))
        return q * q.shape[-1] ** -0.5, k, v

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: State | None = None) -> Tensor:
        (q, k, v), (kept, added) = self.project(x), self.gates(x, context.positions)
        runs, k = runs_of(context), widen(k) * added.exp().unsqueeze(-1)
        v = torch.cat((v, torch.ones_like(v[..., :1])), dim=-1)
        sums, last = decayed_attention(q, k, widen(v), kept, held(cache, "state"), runs=runs)
        m = decayed_maximum(kept, added, held(cache, "m"), runs=runs)
        hold(cache, state=last, m=m[..., -1])
        y = sums[..., :-1] / (sums[..., -1:].abs().clamp(min=1.0) + self.eps * m.exp().unsqueeze(-1))
        y = self.norm(rearrange(y, "b h t p -> b t (h p)"), self.gate(x))
        return self.out(y.type_as(x))
