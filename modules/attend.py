"""How queries, keys and values become outputs: scores, their softmax, and the mean of the values."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from config import LayerConfig
from modules.causal import causal_attention, is_faster
from modules.masks import Mask
from modules.norm import RMSNorm
from modules.precision import widen
from tools import LoggingModule, log_io


class Kernel(LoggingModule):
    """Scores of queries and keys, scale q.k or softcap tanh(scale q.k / softcap), and their softmax in float32."""

    def __init__(self, *, scale: float, softcap: float | None = None):
        super().__init__()
        self.scale, self.softcap = scale, softcap

    @log_io("b h t p, b h s p -> b h t s")
    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        scores = q @ k.mT * self.scale
        if self.softcap is None:
            return scores
        return self.softcap * torch.tanh(scores / self.softcap)

    def softmax(self, scores: Tensor, mask: Mask) -> Tensor:
        return mask.apply(widen(scores)).softmax(-1)

    @log_io("b h t _, b g s _, ... t s, ... t s -> b h t s")
    @torch.no_grad()
    def shares(self, q: Tensor, k: Tensor, mask: Mask, bias: Tensor | None) -> Tensor:
        """The weight of each key, without dropout and without a gradient.

        Shape: q (b, h, t, p), k (b, g, s, p), bias (h, t, s) or (b, h, t, s) -> (b, h, t, s).
        """
        k, _ = for_each_query_head(q, k, k)
        scores = self.scores(q, k)
        return self.softmax(scores if bias is None else scores + bias, mask)


class SDPA(Kernel):
    """softmax(scale q.k + bias) v in one fused call that never stores the scores.

    Dao et al. 2022, arXiv:2205.14135.
    Shape: q (b, h, t, p), k and v (b, g, s, p), bias (h, t, s) or (b, h, t, s) -> (b, h, t, p).
    """

    def __init__(self, *, scale: float, dropout: float = 0.0):
        super().__init__(scale=scale)
        self.dropout = dropout

    @log_io("b h t p, b g s p, b g s p, ... t s, ... t s -> b h t p")
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask, bias: Tensor | None) -> Tensor:
        if bias is not None:
            mask = Mask(causal=False, allowed=mask.apply(bias.type_as(q)))
        drops = self.training and self.dropout > 0
        if mask.causal and not drops and is_faster(q, k):
            return causal_attention(q, *for_each_query_head(q, k, v), self.scale)
        k, v = for_fused_kernel(q, k, v, mask)
        return nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask.allowed, is_causal=mask.causal, scale=self.scale,
            dropout_p=self.dropout if drops else 0.0,
            enable_gqa=q.shape[1] != k.shape[1],
        )


def for_fused_kernel(q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> tuple[Tensor, Tensor]:
    """Keys and values as a fused kernel takes them. Shape: (b, g, s, p), or (b, h, s, p) where they are repeated.

    On CUDA only the kernel for half precision without a mask takes fewer key than query heads. For the others torch
    would store all scores.
    """
    if q.device.type != "cuda" or q.dtype != torch.float32 and mask.allowed is None:
        return k, v
    return for_each_query_head(q, k, v)


def for_each_query_head(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Repeat the keys and values for the query heads that share them. Shape: (b, g, s, p) -> (b, h, s, p), twice."""
    shared = q.shape[1] // k.shape[1]
    return (k, v) if shared == 1 else tuple(repeat(x, "b g s p -> b (g shared) s p", shared=shared) for x in (k, v))


class EagerAttention(Kernel):
    """softmax(scale q.k + bias) v step by step, with an optional soft cap c tanh(scores / c).

    Vaswani et al. 2017, arXiv:1706.03762, equation 1; the cap as in Gemma 2, arXiv:2408.00118.
    Shape: q (b, h, t, p), k and v (b, g, s, p), bias (h, t, s) or (b, h, t, s) -> (b, h, t, p).
    Softmax in float32.
    """

    def __init__(self, *, scale: float, dropout: float = 0.0, softcap: float | None = None):
        super().__init__(scale=scale, softcap=softcap)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    @log_io("b h t s, ... t s -> b h t s")
    def weights(self, scores: Tensor, mask: Mask) -> Tensor:
        return self.dropout(self.softmax(scores, mask).type_as(scores))

    @log_io("b h t p, b g s p, b g s p, ... t s, ... t s -> b h t p")
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask, bias: Tensor | None) -> Tensor:
        k, v = for_each_query_head(q, k, v)
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

    def softmax(self, scores: Tensor, mask: Mask) -> Tensor:
        wide = mask.apply(widen(scores))
        sinks = self.sinks.view(-1, 1, 1).expand(*wide.shape[:-1], 1)  # (b, h, t, 1)
        return torch.cat((wide, sinks.type_as(wide)), dim=-1).softmax(-1)[..., :-1]


class Exclusive(LoggingModule):
    """y - tanh(alpha) (y . u) u, u = v / |v|: the output of a head without a share of what its own position says.

    XSA, arXiv:2603.09078. alpha is learned for each head and starts at 0, where nothing is taken away.
    Shape: y (b, h, t, p), v (b, g, t, p), the values of the same positions -> (b, h, t, p).
    """

    def __init__(self, num_heads: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(num_heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.alpha)

    @log_io("b h t p, b g t p -> b h t p")
    def forward(self, y: Tensor, v: Tensor) -> Tensor:
        own = nn.functional.normalize(widen(v), dim=-1)
        own, _ = for_each_query_head(y, own, own)
        along = (widen(y) * own).sum(-1, keepdim=True) * own
        return (widen(y) - self.alpha.tanh().view(-1, 1, 1) * along).type_as(y)


class DifferentialAttention(LoggingModule):
    """Heads in pairs: the weights of one less lambda times those of the other, over the values of both.

    Ye et al. 2024, arXiv:2410.05258. lambda = exp(q1.k1) - exp(q2.k2) + start, of learned vectors; `start` grows with
    the layer, from 0. Head i is a pair with i + h/2; what a pair gives is normalised and scaled by 1 - start.
    Shape: q (b, h, t, p), k and v (b, g, s, p), bias (h, t, s) or (b, h, t, s) -> (b, h, t, p).
    """

    def __init__(self, attend: nn.Module, *, head_dim: int, layer: int, eps: float):
        super().__init__()
        self.attend, self.start = attend, 0.8 - 0.6 * math.exp(-0.3 * layer)
        self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2 = (
            nn.Parameter(torch.empty(head_dim)) for _ in range(4))
        self.norm = RMSNorm(2 * head_dim, eps=eps, affine=False)
        self.reset_parameters()

    def fan_in(self) -> dict[str, int]:
        return {name: len(vector) for name, vector in self.named_parameters(recurse=False)}

    def reset_parameters(self) -> None:
        for vector in (self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2):
            nn.init.normal_(vector, std=0.1)

    def share(self) -> Tensor:
        """lambda, the share of the second head that is taken away."""
        first, second = ((widen(q) * widen(k)).sum().exp() for q, k in (
            (self.lambda_q1, self.lambda_k1), (self.lambda_q2, self.lambda_k2)))
        return first - second + self.start

    @log_io("b h t p, b g s p, b g s p, ... t s, ... t s -> b h t p")
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask, bias: Tensor | None) -> Tensor:
        # two calls in place of one with values twice as wide, which no fused kernel takes
        values = (repeat(half, "b pairs s p -> b (two pairs) s p", two=2) for half in v.chunk(2, dim=1))
        y = torch.cat([self.attend(q, k, half, mask, bias) for half in values], dim=-1)  # (b, h, t, 2p)
        first, second = y.chunk(2, dim=1)
        y = self.norm(first - self.share().type_as(y) * second) * (1 - self.start)
        return rearrange(y, "b pairs t (two p) -> b (pairs two) t p", two=2)


def make_attend(cfg: LayerConfig) -> nn.Module:
    """How queries, keys and values become outputs, by the flags of a layer."""
    kernel = make_kernel(cfg, cfg.head_width, normalised=cfg.has_qk_norm)
    if not cfg.attention.differential:
        return kernel
    return DifferentialAttention(kernel, head_dim=cfg.head_width, layer=cfg.index, eps=cfg.norm_eps)


def make_latent_attend(cfg: LayerConfig) -> nn.Module:
    """The same for mixer=latent, whose values are not as wide as its keys."""
    return make_kernel(cfg, cfg.latent.head_dim, of_any_widths, normalised=False)


def make_kernel(
    cfg: LayerConfig, width: int, adapt: Callable[[type[nn.Module]], type[nn.Module]] = lambda kernel: kernel, *,
    normalised: bool,
) -> nn.Module:
    """One fused call for keys of this width; what it cannot do is done step by step.

    `normalised`: whether queries and keys are.
    """
    own = cfg.attention
    scale = cfg.score_scale(width, normalised=normalised) if own.scale is None else own.scale
    if own.sinks:
        return adapt(SinkAttention)(own.num_heads, scale=scale, dropout=own.dropout, softcap=own.softcap)
    if own.is_fused:
        return adapt(SDPA)(scale=scale, dropout=own.dropout)
    return adapt(EagerAttention)(scale=scale, dropout=own.dropout, softcap=own.softcap)


@cache
def of_any_widths(kernel: type[nn.Module]) -> type[nn.Module]:
    """The same kernel for values that are not as wide as keys: its trace names no widths."""
    @log_io("b h t _, b g s _, b g s _, ... t s, ... t s -> b h t _")
    def forward(self, *args: Any) -> Tensor:
        return kernel.forward(self, *args)

    return type(kernel.__name__, (kernel,), {"forward": forward, "__doc__": kernel.__doc__})
