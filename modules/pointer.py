"""Copying earlier tokens into the prediction: the `pointer` flag."""

import math

import torch
from torch import Tensor, nn

from modules.linear import Linear
from modules.masks import ALL, Mask, make_mask
from modules.mixers.kv_cache import KVCache
from modules.precision import full_precision, widen
from modules.stream import Context
from tools import LoggingModule, log_io

TINY = 1e-30  # has a logarithm


class Pointer(LoggingModule):
    """Add to the probability of each token the attention to its earlier occurrences.

    logit'_v = log(exp(logit_v) + exp(gate) * sum of the weights a_ts over the occurrences s of v): a mixture of the
    head's prediction and a copy, weighted by the gate. The model must learn where to look, but not how to decode what
    it finds there into a token. Merity et al. 2016, arXiv:1609.07843 (pointer sentinel mixture).
    Shape: logits (b, t, v), hidden (b, t, d) of the last layer, source (b, s, d) of the first, tokens (b, s), positions
    of the context (s,) or (b, s) -> (b, t, v). In float32, or float64 if the logits are. The t positions are the
    last of the s, or all.
    """

    pattern = ALL  # it sees all previous tokens

    def __init__(self, dim: int, *, key_dim: int, vocab_size: int, norm: nn.Module):
        super().__init__()
        self.norm, self.vocab_size = norm, vocab_size
        self.q, self.k = Linear(dim, key_dim, bias=False), Linear(dim, key_dim, bias=False)
        self.gate = Linear(dim, 1, bias=False)
        self.gate_bias = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.gate_bias, math.log(self.vocab_size) - 3)  # at first 5 % is copied

    def make_cache(self, max_len: int) -> KVCache:
        return KVCache(max_len)

    @log_io("b t c, b s c, ... t s -> b t s")
    def weights(self, q: Tensor, k: Tensor, mask: Mask) -> Tensor:
        """The attention of each query to each key. Shape: (b, t, key_dim), (b, s, key_dim) -> (b, t, s)."""
        scores = q @ k.mT * q.shape[-1] ** -0.5
        return mask.apply(scores.unsqueeze(1)).softmax(-1).squeeze(1)

    @log_io
    def forward(
        self, logits: Tensor, hidden: Tensor, source: Tensor, tokens: Tensor, context: Context,
        cache: KVCache | None = None,
    ) -> Tensor:
        weights, gate, tokens = self.look(hidden, source, tokens, context, cache)
        return self.mix(logits, weights, gate, tokens)

    @log_io("b t d, b s d, b s, b t -> b t, b t")
    def of_targets(
        self, hidden: Tensor, source: Tensor, tokens: Tensor, targets: Tensor, context: Context,
    ) -> tuple[Tensor, Tensor]:
        """What is added to exp(logit) of each target, and to the sum of exp(logit) of all tokens, as logarithms.

        So log(exp(logit_y) + exp(first)) - log(sum of exp(logit) + exp(second)) is the log-probability of target y,
        without the other tokens' new logits. The weights of a query sum to 1.
        """
        weights, gate, tokens = self.look(hidden, source, tokens, context)
        share = weights.where(tokens.unsqueeze(1) == targets.unsqueeze(-1), 0.0).sum(-1)  # (b, t)
        gate = gate.squeeze(-1)
        return (gate + share.clamp(min=TINY).log()).where(share > 0, -torch.inf), gate

    def look(
        self, hidden: Tensor, source: Tensor, tokens: Tensor, context: Context, cache: KVCache | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The weights of all tokens (b, t, s), the gate (b, t, 1), and the tokens (b, s), with those of the cache."""
        q, k = widen(self.q(hidden)), widen(self.k(self.norm(source)))
        gate = widen(self.gate(hidden)) + self.gate_bias
        t, s, positions = hidden.shape[1], source.shape[1], context.positions
        k_positions, fresh = positions, t == s
        if cache is not None:
            fresh = cache.length == 0
            kept = cache.append(k.unsqueeze(1), tokens[:, None, :, None], positions)
            k, tokens, k_positions = kept[0].squeeze(1), kept[1][:, 0, :, 0], kept[2]
        if context.documents is None:
            mask = make_mask(positions[..., s - t :], k_positions, pattern=ALL, fresh=fresh)
        else:
            mask = Mask(causal=False, allowed=context.documents.masks[ALL][..., s - t : s, :s])
        with full_precision(hidden.device.type):
            return self.weights(q, k, mask), gate, tokens

    def mix(self, logits: Tensor, weights: Tensor, gate: Tensor, tokens: Tensor) -> Tensor:
        """The new logits, written over the old ones if no gradient is recorded.

        Sums the weights (b, t, s) of equal tokens (b, s) at the first occurrence of each.
        """
        first = first_places(tokens, logits.shape[-1])  # (b, s)
        summed = torch.zeros_like(weights).scatter_add(-1, first.unsqueeze(1).expand_as(weights), weights)  # (b, t, s)
        copied = gate + summed.clamp(min=TINY).log()
        index = tokens.unsqueeze(1).expand_as(weights)  # (b, t, s)
        old = logits.gather(-1, index)
        increase = (torch.logaddexp(old, copied) - old).where(summed > 0, 0.0)
        add = logits.scatter_add if torch.is_grad_enabled() else logits.scatter_add_
        return add(-1, index, increase)


def first_places(tokens: Tensor, vocab_size: int) -> Tensor:
    """For each place, the first place of its row that holds the same token. Shape: (b, s) -> (b, s)."""
    index = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    first = tokens.new_full((tokens.shape[0], vocab_size), tokens.shape[1])  # (b, v), of each token
    return first.scatter_reduce(-1, tokens, index, "amin").gather(-1, tokens)
