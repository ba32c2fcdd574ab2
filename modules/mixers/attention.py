"""Attention: each token takes a weighted mean over the tokens that it sees."""

from collections.abc import Callable
from functools import partial
from typing import Any

from einops import rearrange
from torch import Tensor, nn

from config import LayerConfig
from modules.attend import Exclusive, make_attend
from modules.linear import Linear
from modules.masks import Mask, Pattern, make_mask, mask_of_sight
from modules.mixers.blocked import Bias, attend_in_blocks, block_of
from modules.mixers.earlier import EarlierProjections, Projections
from modules.mixers.kv_cache import Keys, KVCache, make_kv_cache
from modules.norm import norm_maker
from modules.position import BIASES, Temperature
from modules.precision import narrow
from modules.qk_norm import qk_norm_maker
from modules.rope import ROTARY
from modules.short_conv import BranchCache
from modules.stream import Context
from tools import LoggingModule, log_io

Turn = Callable[[Tensor], Tensor]  # rotates queries or keys


def unturned(x: Tensor) -> Tensor:
    return x


def with_cached(k: Tensor, v: Tensor, positions: Tensor, cache: KVCache | BranchCache | None) -> Keys:
    """Keys and values of these tokens, after those that are cached."""
    own = cache.part if isinstance(cache, BranchCache) else cache
    return (k, v, positions) if own is None else own.append(k, v, positions)


class OutputGate(LoggingModule):
    """Multiply the output of each head by a sigmoid of the layer's input: a number for each head, or each channel.

    Qiu et al. 2025, arXiv:2505.06708.
    Shape: y (b, t, h p), x (b, t, d) -> (b, t, h p).
    """

    def __init__(self, dim: int, *, num_heads: int, head_dim: int, kind: str):
        super().__init__()
        self.num_heads = num_heads
        self.gate = Linear(dim, num_heads * {"head": 1, "channel": head_dim}[kind], bias=False)

    @log_io("b t q, b t d -> b t q")
    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        gate = rearrange(self.gate(x).sigmoid(), "b t (h one_or_p) -> b t h one_or_p", h=self.num_heads)
        return rearrange(rearrange(y, "b t (h p) -> b t h p", h=self.num_heads) * gate, "b t h p -> b t (h p)")


class ValueEmbedding(LoggingModule):
    """v + m sigmoid(gate(x)) e, with a learned vector e of each token and a gate of each head; m is its largest value.

    Karpathy 2026 (nanochat); without a gate Zhou et al. 2024, arXiv:2410.17897, and Jordan et al. 2025. The gate reads
    the first `gate_dim` channels of the layer's input.
    Shape: v (b, g, t, p), x (b, t, d), tokens (b, t) -> (b, g, t, p).
    """

    def __init__(self, vocab_size: int, *, num_kv_heads: int, head_dim: int, gate_dim: int, gate_max: float):
        super().__init__()
        self.table, self.gate_max = nn.Embedding(vocab_size, num_kv_heads * head_dim), gate_max
        self.gate = Linear(gate_dim, num_kv_heads, bias=False)

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "ValueEmbedding":
        own = cfg.attention
        return cls(cfg.padded_vocab_size, num_kv_heads=own.kv_heads, head_dim=cfg.head_width,
                   gate_dim=min(cfg.dim, own.value_gate_dim), gate_max=own.value_gate_max)

    @log_io("b g t p, b t d, b t -> b g t p")
    def forward(self, v: Tensor, x: Tensor, tokens: Tensor) -> Tensor:
        gate = rearrange(self.gate_max * self.gate(x[..., :self.gate.in_features]).sigmoid(), "b t g -> b g t 1")
        e = rearrange(self.table(tokens), "b t (g p) -> b g t p", p=v.shape[-1])
        return v + (gate * e).type_as(v)


class Attention(LoggingModule):
    """Multi-head attention with any number of key/value heads; causal if the context says so.

    Vaswani et al. 2017, arXiv:1706.03762; grouped queries: Ainslie et al. 2023, arXiv:2305.13245.
    Shape: x (b, t, d), positions (t,) or (b, t) -> (b, t, d).
    """

    in_blocks = True  # whether what is added to the scores is the same in each block of the text

    def __init__(
        self, dim: int, *, num_heads: int, num_kv_heads: int, head_dim: int,
        q_bias: bool, k_bias: bool, v_bias: bool, out_bias: bool,
        qk_norm: Callable[..., tuple[nn.Module, nn.Module]], norm_after_rope: bool,
        rotary: nn.Module | None, distance_bias: nn.Module | None,
        attend: Callable[[], nn.Module], pattern: Pattern, clip: float | None, gate: Callable[[], nn.Module] | None,
        inner_norm: nn.Module | None, exclusive: bool, temperature: nn.Module | None, own_kv: bool = True,
        value_embedding: Callable[[], nn.Module] | None = None, earlier: Callable[[], nn.Module | None] = lambda: None,
    ):
        super().__init__()
        self.head_dim, self.pattern = head_dim, pattern
        self.q = Linear(dim, num_heads * head_dim, bias=q_bias)
        self.k, self.v = (Linear(dim, num_kv_heads * head_dim, bias=bias) if own_kv else None
                          for bias in (k_bias, v_bias))
        self.q_full_norm, self.q_norm = qk_norm(num_heads, head_dim)
        self.k_full_norm, self.k_norm = (
            qk_norm(num_kv_heads, head_dim, of_keys=True) if own_kv else (nn.Identity(), nn.Identity()))
        self.q_post_norm, self.k_post_norm = nn.Identity(), nn.Identity()
        if norm_after_rope:
            self.q_norm, self.k_norm, self.q_post_norm, self.k_post_norm = (
                self.q_post_norm, self.k_post_norm, self.q_norm, self.k_norm)
        self.clip = nn.Identity() if clip is None else nn.Hardtanh(-clip, clip)
        self.rotary, self.distance_bias, self.attend = rotary, distance_bias, attend()
        self.value_embedding = value_embedding() if own_kv and value_embedding else None
        self.temperature, self.earlier = temperature, earlier()
        self.exclusive = Exclusive(num_heads) if exclusive else None
        self.gate, self.inner_norm = gate and gate(), nn.Identity() if inner_norm is None else inner_norm
        self.out = Linear(num_heads * head_dim, dim, bias=out_bias)

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "Attention":
        return cls(cfg.dim, **options_of(cfg))

    def make_cache(self, max_len: int) -> KVCache | BranchCache:
        own = make_kv_cache(max_len, self.pattern)
        return own if self.earlier is None else BranchCache(self.earlier.make_cache(), own)

    @log_io("b t d, ... t -> b h t p, b g t p, b g t p")
    def project(
        self, x: Tensor, positions: Tensor, *, mix: Callable[..., Projections] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, split into heads, normalised and rotated; `mix` changes them before that."""
        q, k, v = self.q(x), self.k(x), self.v(x)
        q, k, v = (q, k, v) if mix is None else mix(q, k, v)
        turn = self.turn_at(positions)
        return self.tempered(self.queries(q, turn), positions), *self.keys_and_values(k, v, turn)

    def tempered(self, q: Tensor, positions: Tensor) -> Tensor:
        return q if self.temperature is None else self.temperature(q, positions)

    def turn_at(self, positions: Tensor) -> Turn:
        """The rotation of queries and keys at these positions, if there is one."""
        if self.rotary is None:
            return unturned
        angles = self.rotary.angles(positions)
        return lambda x: self.rotary(x, angles)

    def queries(self, q: Tensor, turn: Turn) -> Tensor:
        """Shape: (b, t, h p) -> (b, h, t, p)."""
        q = rearrange(self.clip(self.q_full_norm(q)), "b t (h p) -> b h t p", p=self.head_dim)
        return self.q_post_norm(turn(self.q_norm(q)))

    def keys_and_values(self, k: Tensor, v: Tensor, turn: Turn) -> tuple[Tensor, Tensor]:
        """Shape: (b, t, g p) -> (b, g, t, p), twice."""
        k, v = (rearrange(self.clip(y), "b t (g p) -> b g t p", p=self.head_dim) for y in (self.k_full_norm(k), v))
        return self.k_post_norm(turn(self.k_norm(k))), v

    def read(
        self, x: Tensor, context: Context, cache: KVCache | BranchCache | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, with those of earlier tokens and what a table of the vocabulary adds."""
        mix = self.earlier and partial(self.earlier, context=context, cache=cache and cache.conv)
        q, k, v = self.project(x, context.positions, mix=mix)
        return q, k, v if self.value_embedding is None else self.value_embedding(v, x, context.tokens)

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: KVCache | BranchCache | None = None) -> Tensor:
        x = narrow(x)
        y = self.attend_to(*self.read(x, context, cache), context, cache)
        return self.join(y, x)

    def join(self, y: Tensor, x: Tensor) -> Tensor:
        """Gate, normalise and project the heads' output. Shape: y (b, t, h p), x (b, t, d) -> (b, t, d)."""
        return self.out(self.inner_norm(y if self.gate is None else self.gate(y, x)))

    def attend_to(self, q: Tensor, k: Tensor, v: Tensor, context: Context, cache: KVCache | None) -> Tensor:
        """The attention output of each query; `cache` adds earlier keys and values.

        Shape: q (b, h, t, p), k and v (b, g, t, p) -> (b, t, h p).
        """
        keys = with_cached(k, v, context.positions, cache)
        return self.look_at(q, keys, self.bias_in(context), context)

    def bias_in(self, context: Context) -> Bias | None:
        """What distances add to the scores; None = nothing."""
        return self.distance_bias and partial(self.distance_bias, causal=context.causal)

    def look_at(self, q: Tensor, keys: Keys, bias_of: Bias | None, context: Context) -> Tensor:
        """The attention output of each query to keys (b, g, s, p) with values and positions. Shape: -> (b, t, h p)."""
        k, v, k_positions = keys
        fresh = q.shape[2] == k.shape[2]
        size = block_of(self.pattern, context, q.shape[2]) if fresh and self.in_blocks else None
        if size is None:
            mask = what_is_seen(context, k_positions, pattern=self.pattern, fresh=fresh)
            y = self.attend(q, k, v, mask, bias_of and bias_of(context.positions, k_positions))
        else:
            y = attend_in_blocks(self.attend, q, k, v, self.pattern, context, size=size, bias_of=bias_of)
        y = y if self.exclusive is None else self.exclusive(y, v[:, :, v.shape[2] - q.shape[2]:])
        return rearrange(y, "b h t p -> b t (h p)")


def what_is_seen(context: Context, k_positions: Tensor, *, pattern: Pattern, fresh: bool) -> Mask:
    """The keys that each query sees; `fresh`: none of them is cached."""
    if context.sight is not None:
        return mask_of_sight(context.sight, context.positions, k_positions, pattern=pattern,
                             documents=context.documents)
    if context.documents is not None:
        return context.documents.mask(pattern, causal=context.causal)
    return make_mask(context.positions, k_positions, pattern=pattern, fresh=fresh, causal=context.causal)


def options_of(cfg: LayerConfig) -> dict[str, Any]:
    """What the flags of a layer say of its attention: the arguments of Attention besides the width."""
    own, rope, p = cfg.attention, cfg.rope, cfg.head_width
    return heads_of(cfg) | {
        "pattern": Pattern.of(own), "norm_after_rope": own.qk_norm_after_rope, "exclusive": own.exclusive,
        "rotary": ROTARY[rope.layout](p, rope) if cfg.position == "rope" else None,
        "distance_bias": BIASES[cfg.position].from_config(cfg) if cfg.position in BIASES else None,
        "value_embedding": partial(ValueEmbedding.from_config, cfg) if own.value_embedding else None,
        "temperature": Temperature.from_config(cfg), "earlier": partial(EarlierProjections.from_config, cfg),
    }


def heads_of(cfg: LayerConfig) -> dict[str, Any]:
    """What concerns its heads, also those of attention to a source: all but positions, patterns and own values."""
    own, p = cfg.attention, cfg.head_width
    gate = partial(OutputGate, cfg.dim, num_heads=own.num_heads, head_dim=p, kind=own.gate)
    return {
        "num_heads": own.num_heads, "num_kv_heads": own.kv_heads, "head_dim": p,
        "q_bias": own.q_bias, "k_bias": own.k_bias, "v_bias": own.v_bias, "out_bias": own.out_bias,
        "qk_norm": qk_norm_maker(cfg), "attend": partial(make_attend, cfg), "clip": own.clip,
        "gate": None if own.gate == "none" else gate,
        "inner_norm": norm_maker(cfg)(own.num_heads * p) if cfg.inner_norm else None,
    }
