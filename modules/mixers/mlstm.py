"""mLSTM: linear attention with an exponential input gate, a forget gate, and a sum of keys that normalises."""

import torch
from einops import rearrange
from torch import Tensor, nn

from config import LayerConfig
from modules.linear import Linear
from modules.mixers.decaying import in_heads
from modules.mixers.recurrent import GatedNorm, Recurrent, State, held, hold, runs_of
from modules.norm import fill
from modules.precision import widen
from modules.scans import normalised_attention
from modules.stream import Context
from tools import LoggingModule, log_io

FORGET_START = (3.0, 6.0)  # of the forget gates before their sigmoid, from the first head to the last


class HeadGate(LoggingModule):
    """A number for each head and token; at first `start`, whatever the token, evenly over heads, and noise of `std`.

    Shape: x (b, t, _) -> (b, h, t), in float32.
    """

    def __init__(self, width: int, *, num_heads: int, start: tuple[float, float], std: float = 0.0):
        super().__init__()
        self.start, self.std = start, std
        self.weight, self.bias = nn.Parameter(torch.empty(num_heads, width)), nn.Parameter(torch.empty(num_heads))
        self.reset_parameters()

    def fan_in(self) -> dict[str, int]:
        return {"weight": self.weight.shape[1]}

    @torch.no_grad()
    def reset_parameters(self) -> None:
        fill(self.weight, 0.0)
        start = torch.linspace(*self.start, len(self.bias))
        if self.std:
            self.bias.normal_(std=self.std).add_(start)
        else:
            self.bias.copy_(start)

    @log_io("b t _ -> b h t")
    def forward(self, x: Tensor) -> Tensor:
        return rearrange(widen(nn.functional.linear(x, self.weight)) + self.bias, "b t h -> b h t")


class CappedGate(HeadGate):
    """A HeadGate whose numbers are no larger than `cap`: cap tanh(y / cap). Shape: as of HeadGate."""

    def __init__(self, width: int, *, num_heads: int, start: tuple[float, float], cap: float):
        super().__init__(width, num_heads=num_heads, start=start)
        self.cap = cap

    @log_io("b t _ -> b h t")
    def forward(self, x: Tensor) -> Tensor:
        return self.cap * torch.tanh(super().forward(x) / self.cap)


class MLSTM(Recurrent):
    """S_t = f S_{t-1} + e^i k v^T, n_t = f n_{t-1} + e^i k, f = sigmoid(forget gate), for each head.

    Beck et al. 2024, arXiv:2405.04517, with the capped gates of xLSTM 7B, arXiv:2503.13427. The output is S_t^T q over
    max(|n_t^T q|, 1) + eps e^m, where m is the largest logarithm of a weight in n; then a LayerNorm of each head and a
    gate. Shape: x (b, t, d) -> (b, t, d).
    """

    def __init__(
        self, dim: int, *, num_heads: int, key_dim: int, head_dim: int, gate_cap: float, input_start: float, eps: float,
        norm_eps: float,
    ):
        super().__init__()
        self.num_heads, self.eps = num_heads, eps
        self.q, self.k = (Linear(dim, num_heads * key_dim, bias=False) for _ in range(2))
        self.v, self.gate = (Linear(dim, num_heads * head_dim, bias=False) for _ in range(2))
        self.input_gate, self.forget_gate = (CappedGate(dim, num_heads=num_heads, start=start, cap=gate_cap)
                                             for start in ((input_start, input_start), FORGET_START))
        self.norm = GatedNorm(num_heads * head_dim, group=head_dim, activation="sigmoid", eps=norm_eps, shared=False,
                              centred=True)
        self.out = Linear(num_heads * head_dim, dim, bias=False)

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "MLSTM":
        own = cfg.mlstm
        return cls(cfg.dim, num_heads=own.num_heads, key_dim=own.key_width(cfg.dim), head_dim=own.width(cfg.dim),
                   gate_cap=own.gate_cap, input_start=own.input_start, eps=own.eps, norm_eps=own.norm_eps)

    @log_io("b t d -> b h t, b h t")
    def gates(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The logarithms of what is kept and of what is added."""
        return log_weights(self.forget_gate(x), self.input_gate(x), positions)

    @log_io("b t d -> b h t n, b h t n, b h t p")
    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (in_heads(y, self.num_heads) for y in (self.q(x), self.k(x), self.v(x)))
        return q * q.shape[-1] ** -0.5, k, v

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: State | None = None) -> Tensor:
        weights = self.gates(x, context.positions)
        y = read_memory(*self.project(x), *weights, eps=self.eps, context=context, cache=cache)
        return self.out(self.norm(y, self.gate(x)).type_as(x))


def log_weights(forget: Tensor, added: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithms of what is kept and of what is added: all and nothing at padding. Shape: (b, h, t) each."""
    kept = nn.functional.logsigmoid(forget)
    if positions.dim() == 1:
        return kept, added
    there = (positions >= 0).unsqueeze(1)
    return kept.where(there, 0.0), added.where(there, float("-inf"))


def read_memory(
    q: Tensor, k: Tensor, v: Tensor, kept: Tensor, added: Tensor, *, eps: float, context: Context, cache: State | None,
) -> Tensor:
    """What each query reads, see normalised_attention, and keep the last state.

    Shape: q and k (b, h, t, n), v (b, h, t, p), kept and added (b, h, t) -> (b, t, h p), in float32.
    """
    y, state, m = normalised_attention(q, k, v, kept, added, held(cache, "state"), held(cache, "m"), eps=eps,
                                       runs=runs_of(context))
    hold(cache, state=state, m=m)
    return rearrange(y, "b h t p -> b t (h p)")
