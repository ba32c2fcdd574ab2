"""What linear attentions share: heads, a constant decay of each, and the read of a state by the queries of a row."""

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from modules.mixers.recurrent import State, held, hold, runs_of
from modules.precision import Float32Buffers, constants, widen
from modules.scans import decayed_attention
from modules.stream import Context
from tools import log_io


class FixedDecay(Float32Buffers):
    """The same log decay at every token: a constant of each head, `rates`. Shape: v (b, h, t, p) -> (b, h, t)."""

    def __init__(self, rates: Sequence[float]):
        super().__init__()
        self.rates, self.log_decay = tuple(rates), constants(len(rates))
        self.reset_parameters()

    def extra_repr(self) -> str:
        return ", ".join(f"{rate:.3g}" for rate in self.rates)

    def reset_parameters(self) -> None:
        self.log_decay.copy_(torch.tensor(self.rates))

    @log_io("b h t _ -> b h t")
    def forward(self, v: Tensor) -> Tensor:
        return self.log_decay.to(widen(v).dtype).view(1, -1, 1).expand(v.shape[:3])


def in_heads(x: Tensor, num_heads: int) -> Tensor:
    """Shape: (b, t, h p) -> (b, h, t, p)."""
    return rearrange(x, "b t (h p) -> b h t p", h=num_heads)


def read_state(q: Tensor, k: Tensor, v: Tensor, g: Tensor, context: Context, cache: State | None) -> Tensor:
    """What each query reads of the decaying sum of k v^T up to its token, and keep the last sum: see decayed_attention.

    Shape: q and k (b, h, t, n), v (b, h, t, p), g (b, h, t) or (b, h, t, n) -> (b, t, h p).
    """
    y, state = decayed_attention(q, k, v, g, held(cache, "state"), runs=runs_of(context))
    hold(cache, state=state)
    return rearrange(y, "b h t p -> b t (h p)")
