"""Attention whose keys and values come from one short vector of each token, which is all that the cache holds."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from einops import einsum, rearrange, repeat
from torch import Tensor, nn

from config import LatentConfig, LayerConfig
from modules.attend import make_latent_attend
from modules.linear import Linear
from modules.masks import Pattern
from modules.mixers.attention import what_is_seen
from modules.mixers.blocked import attend_in_blocks, block_of
from modules.mixers.kv_cache import KVCache, make_kv_cache
from modules.norm import RMSNorm, norm_maker
from modules.position import Temperature
from modules.rope import ROTARY
from modules.stream import Context
from tools import LoggingModule, log_io


class LowRank(LoggingModule):
    """up(norm(down(x))): a map through a latent vector of `q_rank` numbers. Shape: (b, t, d) -> (b, t, out_dim)."""

    def __init__(self, dim: int, out_dim: int, latent: LatentConfig):
        super().__init__()
        self.down = Linear(dim, latent.q_rank, bias=latent.bias)
        self.norm = RMSNorm(latent.q_rank, eps=latent.norm_eps)
        self.up = Linear(latent.q_rank, out_dim, bias=False)

    def latent(self, x: Tensor) -> Tensor:
        """The latent vector, normalised. Shape: (b, t, d) -> (b, t, q_rank)."""
        return self.norm(self.down(x))

    @log_io("b t d -> b t _")
    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.latent(x))


class LatentAttention(LoggingModule):
    """Multi-head latent attention. DeepSeek-AI 2024, arXiv:2405.04434, equations 9 to 19.

    A token has a latent vector of `kv_rank` numbers, from which the keys and values of all heads come, and a key of
    `rope_dim` numbers with its position that all heads share. A query has `nope_dim` numbers for the first kind of key
    and `rope_dim` for the second; with `q_rank` it comes from a latent vector too.

    With a cache, the maps from the latent vector are applied to the query and to the output in place of every token
    (the absorbed form): the heads then share one key, the latent vector and the rotated part.
    Shape: x (b, t, d) -> (b, t, d).
    """

    def __init__(
        self, dim: int, latent: LatentConfig, *, num_heads: int, out_bias: bool, rotary: nn.Module | None,
        attend: Callable[[], nn.Module], pattern: Pattern, inner_norm: nn.Module | None,
        temperature: nn.Module | None,
    ):
        super().__init__()
        self.sizes, self.num_heads, self.pattern = latent, num_heads, pattern
        q_dim = num_heads * latent.head_dim
        self.q = LowRank(dim, q_dim, latent) if latent.q_rank else Linear(dim, q_dim, bias=False)
        self.kv_down = Linear(dim, latent.kv_rank + latent.rope_dim, bias=latent.bias)
        self.kv_norm = RMSNorm(latent.kv_rank, eps=latent.norm_eps)
        self.kv_up = Linear(latent.kv_rank, num_heads * (latent.nope_dim + latent.v_dim), bias=False)
        self.rotary, self.attend, self.temperature = rotary, attend(), temperature
        self.inner_norm = nn.Identity() if inner_norm is None else inner_norm
        self.out = Linear(num_heads * latent.v_dim, dim, bias=out_bias)

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "LatentAttention":
        return cls(cfg.dim, cfg.latent, **latent_options_of(cfg))

    def make_cache(self, max_len: int) -> KVCache:
        return make_kv_cache(max_len, self.pattern)

    @log_io("b t d, ... t -> b h t _, b h t _, b one t r, b one t _")
    def project(
        self, x: Tensor, positions: Tensor, *, q: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Both parts of the queries, the latent vectors, and the keys that have a position; `q` if it is known."""
        sizes = self.sizes
        q = rearrange(self.q(x) if q is None else q, "b t (h p) -> b h t p", h=self.num_heads)
        q, q_turned = q.split((sizes.nope_dim, sizes.rope_dim), dim=-1)
        latent, k_turned = self.kv_down(x).split((sizes.kv_rank, sizes.rope_dim), dim=-1)
        latent, k_turned = (rearrange(part, "b t r -> b 1 t r") for part in (self.kv_norm(latent), k_turned))
        if self.rotary is not None:
            angles = self.rotary.angles(positions)
            q_turned, k_turned = self.rotary(q_turned, angles), self.rotary(k_turned, angles)
        if self.temperature is not None:
            q, q_turned = self.temperature(q, positions), self.temperature(q_turned, positions)
        return q, q_turned, latent, k_turned

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: KVCache | None = None) -> Tensor:
        projected = self.project(x, context.positions)
        return self.join(self.attend_fresh(*self.expand(*projected), context) if cache is None else
                         self.attend_cached(*projected, context, cache))

    def join(self, y: Tensor) -> Tensor:
        """Normalise and project the heads' output. Shape: (b, h, t, v_dim) -> (b, t, d)."""
        return self.out(self.inner_norm(rearrange(y, "b h t p -> b t (h p)")))

    def attend_cached(
        self, q: Tensor, q_turned: Tensor, latent: Tensor, k_turned: Tensor, context: Context, cache: KVCache,
    ) -> Tensor:
        """What each query gives after the tokens of a cache, from what is projected. Shape: -> (b, h, t, v_dim)."""
        latent, k_turned, positions = cache.append(latent, k_turned, context.positions)
        mask = what_is_seen(context, positions, pattern=self.pattern, fresh=q.shape[2] == latent.shape[2])
        k_up, v_up = self.maps()
        q = torch.cat((einsum(q, k_up, "b h t p, h p r -> b h t r"), q_turned), dim=-1)
        y = self.attend(q, torch.cat((latent, k_turned), dim=-1), latent, mask, None)  # (b, h, t, r)
        return einsum(y, v_up, "b h t r, h p r -> b h t p")

    def attend_fresh(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """What each query gives if no token is cached. Shape: (b, h, t, _), three times -> (b, h, t, _)."""
        size = block_of(self.pattern, context, q.shape[2])
        if size is not None:
            return attend_in_blocks(self.attend, q, k, v, self.pattern, context, size=size)
        mask = what_is_seen(context, context.positions, pattern=self.pattern, fresh=True)
        return self.attend(q, k, v, mask, None)

    def expand(self, q: Tensor, q_turned: Tensor, latent: Tensor, k_turned: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of each head. Shape: (b, h, t, nope_dim + rope_dim), the same, (b, h, t, v_dim)."""
        up = rearrange(self.kv_up(latent), "b 1 t (h p) -> b h t p", h=self.num_heads)
        k, v = up.split((self.sizes.nope_dim, self.sizes.v_dim), dim=-1)
        shared = repeat(k_turned, "b 1 t p -> b h t p", h=self.num_heads)
        return torch.cat((q, q_turned), dim=-1), torch.cat((k, shared), dim=-1), v

    def maps(self) -> tuple[Tensor, Tensor]:
        """From a latent vector to the keys and to the values of each head. Shape: (h, p, r), twice."""
        whole = rearrange(self.kv_up.weight, "(h p) r -> h p r", h=self.num_heads)
        return whole.split((self.sizes.nope_dim, self.sizes.v_dim), dim=1)


def latent_options_of(cfg: LayerConfig) -> dict[str, Any]:
    """What the flags of a layer say of its latent attention: its arguments besides the width and the latent's sizes."""
    own, latent = cfg.attention, cfg.latent
    return {
        "num_heads": own.num_heads, "out_bias": own.out_bias, "pattern": Pattern.of(own),
        "rotary": ROTARY[cfg.rope.layout](latent.rope_dim, cfg.rope) if cfg.position == "rope" else None,
        "attend": partial(make_latent_attend, cfg), "temperature": Temperature.from_config(cfg),
        "inner_norm": norm_maker(cfg)(own.num_heads * latent.v_dim) if cfg.inner_norm else None,
    }
