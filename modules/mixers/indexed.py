"""Attention to the keys that an indexer chooses (DeepSeek sparse attention)."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from config import LatentConfig, LayerConfig
from modules.mixers.indexer import Indexer
from modules.mixers.kv_cache import KVCache
from modules.mixers.latent import LatentAttention, latent_options_of
from modules.mixers.sharing import SharingAttention, sharing_options_of
from modules.short_conv import BranchCache
from modules.stream import Carrying, Context, Stream
from tools import log_io


class IndexedCache(NamedTuple):
    """The keys of an indexer, and the cache of the attention that it chooses for."""

    indexer: KVCache
    part: KVCache | BranchCache

    def keep_rows(self, rows: list[int], *, padding: int) -> None:
        for cache in self:
            cache.keep_rows(rows, padding=padding)


class IndexedAttention(SharingAttention):
    """Attention whose queries see the keys that an indexer chooses alone, and teach the indexer.

    Shape: x (b, t, d) -> (b, t, d).
    """

    def __init__(self, dim: int, *, indexer: Callable[[], Indexer], **options: Any):
        super().__init__(dim, **options)
        self.indexer = indexer()

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "IndexedAttention":
        return cls(cfg.dim, indexer=partial(Indexer.from_config, cfg, q_dim=cfg.dim, rope_dim=cfg.indexer.head_dim),
                   **sharing_options_of(cfg))

    def make_cache(self, max_len: int) -> IndexedCache:
        return IndexedCache(self.indexer.make_cache(max_len), super().make_cache(max_len))

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: IndexedCache | None, stream: Stream) -> tuple[Tensor, Stream]:
        choice = self.indexer(x, x, context, cache and cache.indexer)
        q, keys, stream = self.find_keys(x, context, cache and cache.part, stream)
        bias, stream = self.find_bias(context, keys[2], stream)
        bias_of = self.bias_in(context) if self.in_blocks else lambda *_: bias
        y = self.join(self.look_at(q, keys, bias_of, choice.narrow(context)), x)
        if cache is None and self.indexer.cfg.loss:
            shares = self.attend.shares(q, keys[0], choice.mask, bias_of and bias_of(context.positions, keys[2]))
            stream = self.indexer.learn(choice, shares, stream)
        return y, stream


class IndexedLatentAttention(LatentAttention, Carrying):
    """The same of latent attention; the queries of the indexer come from the latent vector of those of attention.

    Without such a vector they come from x. Shape: x (b, t, d) -> (b, t, d).
    """

    def __init__(self, dim: int, latent: LatentConfig, *, indexer: Callable[[], Indexer], **options: Any):
        super().__init__(dim, latent, **options)
        self.indexer = indexer()

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "IndexedLatentAttention":
        indexer = partial(Indexer.from_config, cfg, q_dim=cfg.latent.q_rank or cfg.dim, rope_dim=cfg.latent.rope_dim)
        return cls(cfg.dim, cfg.latent, indexer=indexer, **latent_options_of(cfg))

    def make_cache(self, max_len: int) -> IndexedCache:
        return IndexedCache(self.indexer.make_cache(max_len), super().make_cache(max_len))

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: IndexedCache | None, stream: Stream) -> tuple[Tensor, Stream]:
        source, up = (self.q.latent(x), self.q.up) if self.sizes.q_rank else (x, self.q)
        choice = self.indexer(x, source, context, cache and cache.indexer)
        projected, seen = self.project(x, context.positions, q=up(source)), choice.narrow(context)
        if cache is not None:
            return self.join(self.attend_cached(*projected, seen, cache.part)), stream
        q, k, v = self.expand(*projected)
        y = self.join(self.attend_fresh(q, k, v, seen))
        if self.indexer.cfg.loss:
            stream = self.indexer.learn(choice, self.attend.shares(q, k, choice.mask, None), stream)
        return y, stream
