"""Learned vectors of the last few tokens, added to the stream at the entrance of a layer: the `memory` flag.

A memory reads the ids of tokens (`context.tokens`), not what earlier layers made of them. It has `from_config(cfg:
LayerConfig)`, `forward(stream, context, cache=None) -> stream` and `make_cache(max_len)`, as mixers have.
"""

from itertools import accumulate

import torch
from einops import rearrange
from torch import Tensor, nn

from config import LayerConfig
from modules.linear import Linear
from modules.ngrams import IdCache, hash_multipliers, last_tokens, primes
from modules.norm import RMSNorm, fill
from modules.precision import widen
from modules.residuals import RESIDUALS
from modules.short_conv import BranchCache, ConvCache, ShortConv
from modules.stream import Context, Stream
from tools import LoggingModule, log_io

# ---- bigram: one table for the last two tokens ----


class BigramTable(LoggingModule):
    """A vector for each hash of the last two tokens; the last row is that of a token with none before it.

    Row (36313 x_t XOR 27191 x_(t-1)) mod (rows - 1), with `factor` rows for each id of the vocabulary; zeros at first.
    Karpathy 2026 (nanochat); Jordan et al. 2025 (modded-nanogpt). Shape: tokens (b, t) -> (b, t, d).
    """

    roles = {"weight": "embedding"}
    own, before = 36313, 27191  # factors of the hash

    def __init__(self, vocab_size: int, *, dim: int, factor: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(factor * vocab_size, dim))
        self.reset_parameters()

    def extra_repr(self) -> str:
        return f"{len(self.weight)} rows"

    def reset_parameters(self) -> None:
        fill(self.weight, 0.0)

    @log_io("-> b t d")
    def forward(self, context: Context, cache: IdCache | None = None) -> Tensor:
        own, before = last_tokens(context, number=2, absent=-1, cache=cache)
        last = len(self.weight) - 1
        row = (self.own * own ^ self.before * before) % last
        return nn.functional.embedding(row.where(before >= 0, last), self.weight)


class BigramMemory(LoggingModule):
    """x + a e, with the vector e of the last two tokens and a learned number a of the layer.

    The first layer that has it looks e up in its table, and later ones take it from the stream.
    Shape: stream.x (b, t, ..., d) -> (b, t, ..., d).
    """

    def __init__(self, table: BigramTable | None, *, start: float):
        super().__init__()
        self.table, self.start, self.factor = table, start, nn.Parameter(torch.empty(1))
        self.reset_parameters()

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "BigramMemory":
        first = not layers_with(cfg, "bigram")
        table = BigramTable(cfg.padded_vocab_size, dim=cfg.dim, factor=cfg.bigram.factor) if first else None
        return cls(table, start=cfg.bigram.start)

    def reset_parameters(self) -> None:
        fill(self.factor, self.start)

    def make_cache(self, max_len: int) -> IdCache | None:
        return None if self.table is None else IdCache()

    @log_io("b t ... d -> b t ... d")
    def forward(self, stream: Stream, context: Context, cache: IdCache | None = None) -> Stream:
        if self.table is not None:
            stream = stream.carry(bigram=self.table(context, cache))
        return stream.with_x(add(stream.x, self.factor * stream.carried["bigram"]))


# ---- engram: hashed n-grams, gated by the stream ----


class NgramEmbedding(LoggingModule):
    """The vectors of the n-grams that end at a token, n = 2 ... max_n, side by side, from `num_heads` hashes of each n.

    The hash of an n-gram is (x_t m_0) XOR ... XOR (x_(t-n+1) m_(n-1)) with odd factors m; its remainders by prime
    numbers, the sizes of the heads' tables, are the rows. What lies before a text, and before the last `eos_id` in it,
    counts as `eos_id`; None = as an id that no token has.
    Cheng et al. 2026, arXiv:2601.07372 (Engram), section 2.2. Shape: tokens (b, t) -> (b, t, m).
    """

    def __init__(
        self, vocab_size: int, *, max_n: int, num_heads: int, head_dim: int, rows: int, seed: int, eos_id: int | None,
        index: int = 0, num_before: int = 0,
    ):
        super().__init__()
        self.absent, self.num_heads = vocab_size if eos_id is None else eos_id, num_heads
        self.multipliers = hash_multipliers(vocab_size, max_n, seed=seed, index=index)
        self.primes = primes(rows, number=num_before + num_heads * (max_n - 1))[num_before:]
        self.table = nn.Embedding(sum(self.primes), head_dim)
        self.sizes, self.starts = (nn.Buffer(torch.empty(max_n - 1, num_heads, dtype=torch.int64), persistent=False)
                                   for _ in range(2))
        self.reset_parameters()

    @property
    def width(self) -> int:
        return self.table.embedding_dim * len(self.primes)

    def reset_parameters(self) -> None:
        starts = [0, *accumulate(self.primes[:-1])]
        for buffer, values in ((self.sizes, self.primes), (self.starts, starts)):
            with torch.no_grad():
                buffer.copy_(torch.tensor(values).view_as(buffer))

    @log_io("-> b t _")
    def rows(self, context: Context, cache: IdCache | None = None) -> Tensor:
        """The rows of the n-grams in the table, first those of n = 2 by each head. Shape: (b, t, (max_n - 1) heads)."""
        tokens = last_tokens(context, number=len(self.multipliers), absent=self.absent, cache=cache)
        for back in range(2, len(tokens)):  # nothing reaches beyond the end of an earlier text
            tokens[back] = tokens[back].where(tokens[back - 1] != self.absent, self.absent)
        factored = [x * factor for x, factor in zip(tokens, self.multipliers, strict=True)]
        hashes = list(accumulate(factored, torch.bitwise_xor))[1:]
        return (torch.stack(hashes, dim=-1).unsqueeze(-1) % self.sizes + self.starts).flatten(-2)

    @log_io("-> b t m")
    def forward(self, context: Context, cache: IdCache | None = None) -> Tensor:
        return rearrange(self.table(self.rows(context, cache)), "b t rows width -> b t (rows width)")


class SiluConv(ShortConv):
    """silu(sum over i < length of w_i * x_(t - i dilation)), without a skip connection; w is zero at first.

    Shape: (b, t, channels) -> (b, t, channels).
    """

    def reset_parameters(self) -> None:
        fill(self.weight, 0.0)

    @log_io
    def forward(self, x: Tensor, context: Context, cache: ConvCache | None = None) -> Tensor:
        return nn.functional.silu(self.mix(x, context, cache))


class StreamNorm(RMSNorm):
    """RMSNorm with a scale for each of n streams. Shape: (..., n, d) -> (..., n, d)."""

    def __init__(self, num_streams: int, dim: int, *, eps: float):
        super().__init__(dim, eps=eps)
        self.scale = nn.Parameter(torch.empty(num_streams, dim))
        self.reset_parameters()

    def normalise(self, wide: Tensor, scale: Tensor) -> Tensor:
        return super().normalise(wide, None) * scale


class Engram(LoggingModule):
    """x + v + silu(conv(norm(v))), with v = sigmoid(gate) out(e) and the vector e of the n-grams that end at a token.

    gate = signed root of norm(x) . norm(k(e)) / sqrt(d): the stream decides what of its n-grams it takes. A stream of
    several (hyper-connections) has a key, a gate and weights of the convolution of its own.
    Cheng et al. 2026, arXiv:2601.07372 (Engram), equations 3 to 6; Qwen4-Exp.
    Shape: stream.x (b, t, d) or (b, t, n, d) -> the same.
    """

    def __init__(
        self, dim: int, *, ngrams: NgramEmbedding, conv_len: int, dilation: int, eps: float, num_streams: int = 1,
        scale: float = 1.0,
    ):
        super().__init__()
        self.ngrams, self.num_streams, self.scale = ngrams, num_streams, scale * dim**-0.5
        self.k = Linear(ngrams.width, num_streams * dim, bias=False)
        self.q_norm, self.k_norm, self.v_norm = (StreamNorm(num_streams, dim, eps=eps) for _ in range(3))
        self.conv = SiluConv(num_streams * dim, length=conv_len, dilation=dilation)
        self.out = Linear(ngrams.width, dim, bias=False)

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "Engram":
        own, before = cfg.engram, [layer.engram for layer in layers_with(cfg, "engram")]
        ngrams = NgramEmbedding(
            cfg.padded_vocab_size, max_n=own.max_n, num_heads=own.num_heads, head_dim=own.head_dim, rows=own.rows,
            seed=own.seed, eos_id=own.eos_id, index=len(before),
            num_before=sum(other.num_heads * (other.max_n - 1) for other in before))
        return cls(cfg.dim, ngrams=ngrams, conv_len=own.conv_len, dilation=own.max_n, eps=own.norm_eps,
                   num_streams=count_streams(cfg), scale=cfg.width_ratio**-0.5)

    def make_cache(self, max_len: int) -> BranchCache:
        return BranchCache(ConvCache(), IdCache())

    @log_io("b t ... d -> b t ... d")
    def forward(self, stream: Stream, context: Context, cache: BranchCache | None = None) -> Stream:
        of_conv, of_ids = (None, None) if cache is None else cache
        e, streams = self.ngrams(context, of_ids), stream.x if stream.x.dim() == 4 else stream.x.unsqueeze(2)
        v = self.gate(streams, e) * self.out(e).unsqueeze(2)  # (b, t, n, d)
        normed = rearrange(self.v_norm(v), "b t n d -> b t (n d)")
        y = v + rearrange(self.conv(normed, context, of_conv), "b t (n d) -> b t n d", n=self.num_streams)
        return stream.with_x((streams + y.type_as(streams)).view_as(stream.x))

    @log_io("b t _ d, b t m -> b t _ one")
    def gate(self, x: Tensor, e: Tensor) -> Tensor:
        """The share, 0 to 1, that each stream takes of the n-grams. Shape: (b, t, n, d), (b, t, m) -> (b, t, n, 1)."""
        k = rearrange(self.k(e), "b t (n d) -> b t n d", n=self.num_streams)
        score = (widen(self.q_norm(x)) * widen(self.k_norm(k))).sum(-1, keepdim=True) * self.scale
        return (score.abs().clamp(min=1e-6).sqrt() * score.sign()).sigmoid().type_as(e)


def layers_with(cfg: LayerConfig, memory: str) -> list[LayerConfig]:
    """The layers before this one that have a memory of this kind."""
    return [layer for layer in map(cfg.model.at, range(cfg.index)) if layer.memory == memory]


def count_streams(cfg: LayerConfig) -> int:
    """The streams between blocks: n if the residual wiring widens the embedding to (b, t, n, d), else 1."""
    begun = RESIDUALS[cfg.residual].begin(torch.empty(1, 1, cfg.dim, device="meta"), cfg.model)
    return begun.shape[2] if begun.dim() == 4 else 1


def add(x: Tensor, y: Tensor) -> Tensor:
    """x with y added to each of its streams. Shape: x (b, t, d) or (b, t, n, d), y (b, t, d) -> as x."""
    return x + (y if x.dim() == y.dim() else y.unsqueeze(2)).type_as(x)


MEMORIES = {"none": None, "bigram": BigramMemory, "engram": Engram}
