"""Projections of earlier tokens beside a token's own: Canon B (`canon=qkv`) and `attention.key_offset`."""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from config import LayerConfig
from modules.shift import previous
from modules.short_conv import ConvCache, ShortConv
from modules.stream import Context
from tools import LoggingModule, log_io

Projections = tuple[Tensor, Tensor, Tensor]  # queries (b, t, h p), keys and values (b, t, g p), before they are split


class ProjectionCache(NamedTuple):
    """The last projections, for the convolution and for the offset of keys."""

    conv: ConvCache
    keys: ConvCache

    def keep_rows(self, rows: list[int], *, padding: int) -> None:
        for cache in self:
            cache.keep_rows(rows, padding=padding)


class EarlierProjections(LoggingModule):
    """A short convolution of queries, keys and values; then half of each key comes from the token before.

    Allen-Zhu 2025, Physics of Language Models 4.1 (Canon B); Jordan et al. 2024 (modded-nanogpt: key offset). The first
    token of a text keeps its own key.
    Shape: (b, t, h p), (b, t, g p), (b, t, g p) -> the same.
    """

    def __init__(self, q_dim: int, kv_dim: int, *, conv_len: int | None, offset_of: int | None):
        super().__init__()
        self.sizes = q_dim, kv_dim, kv_dim
        self.offset_of = offset_of  # width of the heads whose keys are offset
        self.conv = ShortConv(sum(self.sizes), length=conv_len) if conv_len else None

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "EarlierProjections | None":
        """None if no flag asks for it."""
        own, p = cfg.attention, cfg.head_width
        if "qkv" not in cfg.canon and not own.key_offset:
            return None
        return cls(own.num_heads * p, own.kv_heads * p, conv_len=cfg.canon_len if "qkv" in cfg.canon else None,
                   offset_of=p if own.key_offset else None)

    def make_cache(self) -> ProjectionCache:
        return ProjectionCache(ConvCache(), ConvCache())

    @log_io("b t _, b t _, b t _ -> b t _, b t _, b t _")
    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context, cache: ProjectionCache | None) -> Projections:
        if self.conv is not None:
            mixed = self.conv(torch.cat((q, k, v), dim=-1), context, cache and cache.conv)
            q, k, v = mixed.split(self.sizes, dim=-1)
        return q, k if self.offset_of is None else self.offset(k, context, cache and cache.keys), v

    def offset(self, k: Tensor, context: Context, cache: ConvCache | None) -> Tensor:
        """Shape: (b, t, g p) -> (b, t, g p)."""
        positions = context.positions if context.documents is None else context.documents.positions()
        earlier = previous(k, context, cache).where(positions.unsqueeze(-1) > 0, k)
        heads, earlier = (rearrange(x, "b t (g p) -> b t g p", p=self.offset_of) for x in (k, earlier))
        half = self.offset_of // 2
        return rearrange(torch.cat((heads[..., :half], earlier[..., half:]), dim=-1), "b t g p -> b t (g p)")
