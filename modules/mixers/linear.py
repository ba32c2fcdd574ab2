"""Linear attention: features of queries and keys in place of a softmax, so that a sum over the past is enough."""

import torch
from einops import rearrange
from torch import Tensor, nn

from config import LayerConfig
from modules.linear import Linear
from modules.mixers.decaying import in_heads, read_state
from modules.mixers.recurrent import Recurrent, State
from modules.precision import full_precision, widen
from modules.short_conv import without_padding
from modules.stream import Context
from tools import log_io


def elu_features(x: Tensor) -> Tensor:
    """elu(x) + 1, which is positive. Katharopoulos et al. 2020, arXiv:2006.16236. Shape: (..., n) -> (..., n)."""
    return nn.functional.elu(x) + 1


def taylor_features(x: Tensor) -> Tensor:
    """Features whose product is 1 + s + s^2 / 2, with s = q.k / sqrt(n): the start of exp(s).

    Arora et al. 2024, arXiv:2402.18668 (Based). Shape: (..., n) -> (..., 1 + n + n (n + 1) / 2).
    """
    x = x * x.shape[-1] ** -0.25
    rows, columns = torch.triu_indices(x.shape[-1], x.shape[-1], 1, device=x.device)
    return torch.cat((torch.ones_like(x[..., :1]), x, x.square() * 0.5**0.5, x[..., rows] * x[..., columns]), dim=-1)


FEATURE_MAPS = {"elu": elu_features, "taylor": taylor_features}


class LinearAttention(Recurrent):
    """out(y) with y_t = S_t^T f(q_t) / (z_t . f(q_t) + eps), S_t = S_{t-1} + f(k_t) v_t^T and z_t = z_{t-1} + f(k_t).

    Katharopoulos et al. 2020, arXiv:2006.16236, equations 16 to 20. f is `feature_map`.
    Shape: x (b, t, d) -> (b, t, d).
    """

    def __init__(self, dim: int, *, num_heads: int, key_dim: int, value_dim: int, feature_map: str, eps: float):
        super().__init__()
        self.num_heads, self.features, self.eps = num_heads, FEATURE_MAPS[feature_map], eps
        self.q, self.k = (Linear(dim, num_heads * key_dim, bias=False) for _ in range(2))
        self.v = Linear(dim, num_heads * value_dim, bias=False)
        self.out = Linear(num_heads * value_dim, dim, bias=False)

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "LinearAttention":
        own = cfg.linear
        return cls(cfg.dim, num_heads=own.num_heads, key_dim=own.query_dim(cfg.dim), value_dim=own.value_dim(cfg.dim),
                   feature_map=own.feature_map, eps=own.eps)

    @log_io("b t d -> b h t n, b h t n, b h t _")
    def project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of queries and of keys, and values beside a 1 that counts them: zero at padding. In float32."""
        q, k, v = (in_heads(widen(part(x)), self.num_heads) for part in (self.q, self.k, self.v))
        with full_precision(x.device.type):
            q, k = self.features(q), self.features(k)
        v = rearrange(torch.cat((v, torch.ones_like(v[..., :1])), dim=-1), "b h t p -> b t (h p)")
        return q, k, in_heads(without_padding(v, positions), self.num_heads)

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: State | None = None) -> Tensor:
        q, k, v = self.project(x, context.positions)
        both = read_state(q, k, v, v.new_zeros(v.shape[:3]), context, cache)
        both = rearrange(both, "b t (h p) -> b t h p", h=self.num_heads)
        y = both[..., :-1] / (both[..., -1:] + self.eps)
        return self.out(rearrange(y, "b t h p -> b t (h p)").type_as(x))
