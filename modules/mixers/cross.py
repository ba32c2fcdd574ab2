"""Cross-attention, which reads a source beside the text: the `cross` flag."""

from typing import Any

from einops import rearrange
from torch import Tensor

from config import LayerConfig
from modules.masks import Mask
from modules.mixers.attention import Attention, heads_of, unturned
from modules.mixers.kv_cache import SourceCache
from modules.stream import Context
from tools import log_io

# of attention within the text: a source has neither positions relative to it nor values of the same token
WITHIN_TEXT = {"pattern": None, "rotary": None, "distance_bias": None, "norm_after_rope": False, "exclusive": False,
               "value_embedding": None, "temperature": None}


class CrossAttention(Attention):
    """Each token looks at all of the source but its padding: queries from x, keys and values from the source.

    Vaswani et al. 2017, arXiv:1706.03762, 3.2.3. With a cache the source is read once. A token that sees nothing of it,
    such as padding of packed rows, takes nothing from it.
    Shape: x (b, t, d), context.source (b, s, d) -> (b, t, d).
    """

    def __init__(self, dim: int, **options: Any):
        super().__init__(dim, **options)
        del self.pattern  # the model makes masks for the patterns of its parts

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "CrossAttention":
        return cls(cfg.dim, **WITHIN_TEXT | heads_of(cfg))

    def make_cache(self, max_len: int) -> SourceCache:
        return SourceCache()

    @log_io("b t d -> b h t p")
    def ask(self, x: Tensor) -> Tensor:
        """The queries."""
        return self.queries(self.q(x), unturned)

    @log_io("b s d -> b g s p, b g s p")
    def read_source(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values."""
        k, v = self.keys_and_values(self.k(source), self.v(source), unturned)
        return k, v

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: SourceCache | None = None) -> Tensor:
        q = self.ask(x)
        k, v, seen = self.find_source(context, cache)
        if seen is None:
            y = self.attend(q, k, v, Mask(causal=False, allowed=None), None)
        else:
            blind = ~seen.any(-1, keepdim=True)  # (b or 1, 1, t or 1, 1); a softmax needs at least one key
            allowed = (seen | blind).expand(-1, -1, q.shape[2], -1)
            y = self.attend(q, k, v, Mask(causal=False, allowed=allowed), None).masked_fill(blind, 0.0)
        return self.join(rearrange(y, "b h t p -> b t (h p)"), x)

    def find_source(self, context: Context, cache: SourceCache | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys and values (b, g, s, p), and what is seen of them: of the source, or of the cache."""
        if context.source is None:
            return cache.keys, cache.values, cache.seen
        k, v = self.read_source(context.source)
        if cache is not None:
            cache.keys, cache.values, cache.seen = k, v, context.source_seen
        return k, v, context.source_seen


CROSS = {"attention": CrossAttention, "none": None}
