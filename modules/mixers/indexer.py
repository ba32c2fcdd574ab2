"""The lightning indexer, which chooses the keys that each query attends to: the `indexer` flags."""

from typing import NamedTuple

import torch
from einops import einsum, rearrange
from torch import Tensor, nn

from config import IndexerConfig, LayerConfig
from configuration.acting import HEADS, mixers_of
from modules.linear import Linear
from modules.masks import Mask, Pattern
from modules.mixers.attention import what_is_seen
from modules.mixers.kv_cache import KVCache, make_kv_cache
from modules.norm import LayerNorm
from modules.precision import full_precision, widen
from modules.rope import RoPE
from modules.stream import Context, Stream
from tools import LoggingModule, log_io


class Choice(NamedTuple):
    """What an indexer says of the s keys of each query."""

    scores: Tensor  # (b, t, s) float32, minus infinity for a key that the query does not see
    chosen: Tensor  # (b, t, s) bool
    is_all: bool  # whether all keys that are seen are chosen

    @property
    def mask(self) -> Mask:
        return Mask(causal=False, allowed=self.chosen.unsqueeze(1))

    def narrow(self, context: Context) -> Context:
        """A context in which a query sees the chosen keys alone."""
        return context if self.is_all else context._replace(sight=self.mask.allowed)


class Indexer(LoggingModule):
    """I_ts = sum over heads h of w_th relu(q_th . k_s) / sqrt(p H): of the keys that query t sees, the top_k best.

    DeepSeek-AI 2025, arXiv:2512.02556, equations 1 to 4. All H heads share one key of p channels for each token, which
    LayerNorm normalises; the first channels of queries and keys are rotated. Queries come from `source`, keys and
    weights w from x. Both are detached: the indexer learns from a loss of its own alone, which teaches nothing else.
    Shape: x (b, t, d), source (b, t, q_dim) -> Choice of (b, t, s); scores in float32.
    """

    def __init__(
        self, dim: int, q_dim: int, cfg: IndexerConfig, *, rotary: nn.Module | None, pattern: Pattern, num_layers: int,
    ):
        super().__init__()
        self.cfg, self.rotary, self.pattern, self.num_layers = cfg, rotary, pattern, num_layers
        self.q = Linear(q_dim, cfg.num_heads * cfg.head_dim, bias=False)
        self.k = Linear(dim, cfg.head_dim, bias=False)
        self.k_norm = LayerNorm(cfg.head_dim, bias=True)
        self.weigh = Linear(dim, cfg.num_heads, bias=False)

    @classmethod
    def from_config(cls, cfg: LayerConfig, *, q_dim: int, rope_dim: int) -> "Indexer":
        """`q_dim` is the width of what queries come from, `rope_dim` of the first channels, those with a position."""
        layers = [cfg.model.by_kind[cfg.model.kind_at(i)] for i in range(cfg.model.num_layers)]
        return cls(cfg.dim, q_dim, cfg.indexer, pattern=Pattern.of(cfg.attention),
                   rotary=RoPE(rope_dim, cfg.rope) if cfg.position == "rope" else None,
                   num_layers=sum(len(set(HEADS).intersection(mixers_of(layer))) for layer in layers
                                  if layer.indexer.top_k))

    def extra_repr(self) -> str:
        return f"top_k={self.cfg.top_k}"

    def make_cache(self, max_len: int) -> KVCache:
        return make_kv_cache(max_len, self.pattern)

    @log_io("b t d, b t _, ... t -> b j t _, b one t _, b t j")
    def project(self, x: Tensor, source: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, and the weights of the heads."""
        q = rearrange(self.q(source), "b t (j p) -> b j t p", j=self.cfg.num_heads)
        k = rearrange(self.k_norm(self.k(x)), "b t p -> b 1 t p")
        if self.rotary is not None:
            angles = self.rotary.angles(positions)
            q, k = self.rotary(q, angles), self.rotary(k, angles)
        return q, k, self.weigh(x)

    @log_io("b j t _, b one s _, b t j -> b t s")
    def score(self, q: Tensor, k: Tensor, weights: Tensor) -> Tensor:
        """I, of all keys."""
        with full_precision(q.device.type):  # else many keys would have equal scores
            near = (widen(q) @ widen(k).mT).relu()
            return einsum(near, widen(weights), "b j t s, b t j -> b t s") * (q.shape[1] * q.shape[-1]) ** -0.5

    @log_io("b t s -> b t s")
    def choose(self, scores: Tensor) -> Tensor:
        """True for the top_k keys of a query; of equal ones the earliest."""
        best = scores.argsort(dim=-1, descending=True, stable=True)[..., :self.cfg.top_k]
        return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, best, True) & (scores > -torch.inf)

    @log_io
    def forward(self, x: Tensor, source: Tensor, context: Context, cache: KVCache | None = None) -> Choice:
        q, k, weights = self.project(x.detach(), source.detach(), context.positions)
        positions = context.positions
        if cache is not None:
            k, _, positions = cache.append(k, k[..., :0], positions)
        mask = what_is_seen(context, positions, pattern=self.pattern, fresh=q.shape[2] == k.shape[2])
        scores = mask.apply(self.score(q, k, weights).unsqueeze(1)).squeeze(1)
        is_all = k.shape[2] <= self.cfg.top_k
        return Choice(scores, scores > -torch.inf if is_all else self.choose(scores.detach()), is_all)

    def learn(self, choice: Choice, shares: Tensor, stream: Stream) -> Stream:
        """The stream with the loss of the indexer, times its coefficient, the mean over layers.

        `shares` (b, h, t, s) are the weights that attention gave to the chosen keys.
        """
        loss = divergence(choice, shares)
        return stream.add_loss("indexer", self.cfg.loss * loss / self.num_layers)


def divergence(choice: Choice, shares: Tensor) -> Tensor:
    """The mean over queries of KL(p || softmax(I)) over the chosen keys, in nats.

    p are the weights of attention, summed over its heads and divided by their sum. arXiv:2512.02556, equation 4.
    Shape: shares (b, h, t, s) -> a scalar.
    """
    wanted = shares.sum(1)
    wanted = wanted / wanted.sum(-1, keepdim=True)
    others = ~choice.chosen
    found = choice.scores.masked_fill(others, -torch.inf).log_softmax(-1).masked_fill(others, 0.0)
    return (torch.xlogy(wanted, wanted) - wanted * found).sum(-1).mean()
