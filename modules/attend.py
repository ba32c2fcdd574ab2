"""How queries, keys and values become outputs: scores, their softmax, and the mean of the values."""

import torch
from einops import repeat
from torch import Tensor, nn

from config import LayerConfig
from modules.masks import Mask
from modules.precision import widen
from tools import LoggingModule, log_io


class SDPA(LoggingModule):
    """softmax(scale q.k + bias) v in one fused call that never stores the scores.

    Dao et al. 2022, arXiv:2205.14135.
    Shape: q (b, h, t, p), k and v (b, g, s, p), bias (h, t, s) or (b, h, t, s) -> (b, h, t, p).
    """

    def __init__(self, *, scale: float, dropout: float = 0.0):
        super().__init__()
        self.scale, self.dropout = scale, dropout

    @log_io("b h t p, b g s p, b g s p, ... t s, ... t s -> b h t p")
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask, bias: Tensor | None) -> Tensor:
        if bias is not None:
            mask = Mask(causal=False, allowed=mask.apply(bias.type_as(q)))
        return nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask.allowed, is_causal=mask.causal, scale=self.scale,
            dropout_p=self.dropout if self.training else 0.0,
            enable_gqa=q.shape[1] != k.shape[1],
        )


class EagerAttention(LoggingModule):
    """softmax(scale q.k + bias) v step by step, with an optional soft cap c tanh(scores / c).

    Vaswani et al. 2017, arXiv:1706.03762, equation 1; the cap as in Gemma 2, arXiv:2408.00118.
    Shape: q (b, h, t, p), k and v (b, g, s, p), bias (h, t, s) or (b, h, t, s) -> (b, h, t, p).
    Softmax in float32.
    """

    def __init__(self, *, scale: float, dropout: float = 0.0, softcap: float | None = None):
        super().__init__()
        self.scale, self.softcap = scale, softcap
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    @log_io("b h t p, b h s p -> b h t s")
    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        scores = q @ k.mT * self.scale
        if self.softcap is None:
            return scores
        return self.softcap * torch.tanh(scores / self.softcap)

    @log_io("b h t s, ... t s -> b h t s")
    def weights(self, scores: Tensor, mask: Mask) -> Tensor:
        return self.dropout(mask.apply(widen(scores)).softmax(-1).type_as(scores))

    @log_io("b h t p, b g s p, b g s p, ... t s, ... t s -> b h t p")
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask, bias: Tensor | None) -> Tensor:
        shared = q.shape[1] // k.shape[1]  # query heads for each key head
        if shared > 1:
            k, v = (repeat(x, "b g s p -> b (g shared) s p", shared=shared) for x in (k, v))
        scores = self.scores(q, k)
        if bias is not None:
            scores = scores + bias
        return self.weights(scores, mask).type_as(v) @ v  # a bias is in float32


class SinkAttention(EagerAttention):
    """The same with one more score for each head, learned, that takes a share of the weights and gives nothing.

    Agarwal et al. 2025 (gpt-oss), arXiv:2508.10925; Xiao et al. 2023, arXiv:2309.17453.
    """

    def __init__(self, num_heads: int, *, scale: float, dropout: float = 0.0, softcap: float | None = None):
        super().__init__(scale=scale, dropout=dropout, softcap=softcap)
        self.sinks = nn.Parameter(torch.empty(num_heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.sinks)

    @log_io("b h t s, ... t s -> b h t s")
    def weights(self, scores: Tensor, mask: Mask) -> Tensor:
        wide = mask.apply(widen(scores))
        sinks = self.sinks.view(-1, 1, 1).expand(*wide.shape[:-1], 1)  # (b, h, t, 1)
        weights = torch.cat((wide, sinks.type_as(wide)), dim=-1).softmax(-1)[..., :-1]
        return self.dropout(weights.type_as(scores))


def make_attend(cfg: LayerConfig) -> nn.Module:
    """How queries, keys and values become outputs; what one fused call cannot do is done step by step."""
    own = cfg.attention
    scale = cfg.head_width**-0.5 if own.scale is None else own.scale
    if own.sinks:
        return SinkAttention(own.num_heads, scale=scale, dropout=own.dropout, softcap=own.softcap)
    if own.is_fused:
        return SDPA(scale=scale, dropout=own.dropout)
    return EagerAttention(scale=scale, dropout=own.dropout, softcap=own.softcap)
