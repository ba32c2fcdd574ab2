"""Attention masks: which tokens a query sees, by their distance, their place in the text and their document."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from config import AttentionConfig


class Pattern(NamedTuple):
    """Which tokens a query sees besides what causality and documents say; the fields are flags of AttentionConfig.

    A window of `window` tokens that are `dilation` apart (Beltagy et al. 2020, arXiv:2004.05150), within its own chunk
    (Llama 4); and every stride-th token counted from the query (Child et al. 2019, arXiv:1904.10509), and the first
    `global_tokens`, which also see all (arXiv:2004.05150).
    """

    window: int | None = None
    dilation: int = 1
    chunk: int | None = None
    stride: int | None = None
    global_tokens: int = 0

    @classmethod
    def of(cls, cfg: AttentionConfig) -> "Pattern":
        return cls(*cfg.pattern)

    @property
    def near(self) -> int | None:
        """The tokens up to the query, itself included, among which are all that it sees nearby; None = no limit."""
        window = None if self.window is None else (self.window - 1) * self.dilation + 1
        limits = [limit for limit in (window, self.chunk) if limit is not None]
        return min(limits) if limits else None

    @property
    def num_kept(self) -> int | None:
        """The tokens of a text that later ones may see; None = all."""
        return None if self.near is None or self.stride else self.near + self.global_tokens

    def sees(self, q_positions: Tensor, k_positions: Tensor, *, causal: bool = True) -> Tensor:
        """True for a key that a query sees. Shape: (..., t), (..., s) -> (..., t, s)."""
        i, j = q_positions.unsqueeze(-1), k_positions.unsqueeze(-2)
        seen = self._is_near(i, j)
        if self.stride:
            seen = seen | ((i - j) % self.stride == 0)
        if self.global_tokens:
            seen = seen | _is_first(i, self.global_tokens) | _is_first(j, self.global_tokens)
        return seen & (j <= i) if causal else seen

    def _is_near(self, i: Tensor, j: Tensor) -> Tensor:
        distance = (i - j).abs()
        seen = distance >= 0 if self.window is None else distance < self.window * self.dilation
        if self.dilation > 1:
            seen = seen & (distance % self.dilation == 0)
        return seen if self.chunk is None else seen & (i // self.chunk == j // self.chunk)


def _is_first(positions: Tensor, number: int) -> Tensor:
    return (positions >= 0) & (positions < number)


ALL = Pattern()


class Mask(NamedTuple):
    """Which keys a query sees: its own and all earlier ones (`causal`), or those in `allowed`; None = all.

    Shape: allowed (t, s) or (b, 1, t, s), True for a key that is seen.
    """

    causal: bool
    allowed: Tensor | None

    def apply(self, scores: Tensor) -> Tensor:
        """Set the scores of unseen keys to minus infinity. Shape: (..., t, s) -> (..., t, s)."""
        if self.causal:
            hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        elif self.allowed is None:
            return scores
        else:
            hidden = ~self.allowed
        return scores.masked_fill(hidden, float("-inf"))


class Documents(NamedTuple):
    """The documents of packed rows; no information passes from one to another.

    `ids` (b, t) are equal within a document, whose tokens are contiguous. `masks` are what a query sees, for each
    pattern of the model: (b, 1, t, t), or (b, n, size, 2 size) for attention in blocks; made once for all layers.
    """

    ids: Tensor
    masks: dict[Pattern, Tensor]

    @classmethod
    def of(cls, ids: Tensor, patterns: Iterable[Pattern], *, causal: bool = True) -> "Documents":
        places, masks = positions_within(ids), {}
        for pattern in patterns:
            size = block_size(pattern, ids.shape[1], causal=causal)
            masks[pattern] = (within(ids, pattern.sees(places, places, causal=causal)) if size is None
                              else seen_in_blocks(pattern, places, ids, size=size))
        return cls(ids, masks)

    def positions(self) -> Tensor:
        """Tokens since the start of the document. Shape: (b, t)."""
        return positions_within(self.ids)

    def mask(self, pattern: Pattern, *, causal: bool) -> Mask:
        """What a query sees of its row. Shape: (b, 1, t, t)."""
        if block_size(pattern, self.ids.shape[1], causal=causal) is None:
            return Mask(causal=False, allowed=self.masks[pattern])
        places = self.positions()
        return Mask(causal=False, allowed=within(self.ids, pattern.sees(places, places)))


def positions_within(ids: Tensor) -> Tensor:
    """Tokens since the start of the document, from the ids of documents. Shape: (b, t) -> (b, t)."""
    index = torch.arange(ids.shape[1], device=ids.device)
    begins = ids.diff(prepend=ids[:, :1] - 1) != 0
    return index - index.where(begins, 0).cummax(-1).values


def mask_of_source(
    source_positions: Tensor | None, source_documents: Tensor | None, documents: Documents | None,
) -> Tensor | None:
    """The tokens of a source that a query sees: not padding, and of its own document if they have documents.

    Shape: source_positions (s,) or (b, s), source_documents (b, s) -> (b or 1, 1, t or 1, s); None = all.
    """
    seen = None
    if source_positions is not None:
        seen = (source_positions >= 0).view(-1, 1, 1, source_positions.shape[-1])
    if source_documents is not None:
        same = (documents.ids.unsqueeze(-1) == source_documents.unsqueeze(-2)).unsqueeze(1)
        seen = same if seen is None else seen & same
    return seen


def within(ids: Tensor, seen: Tensor) -> Tensor:
    """What is seen of the query's own document. Shape: (b, t), (b, t, t) -> (b, 1, t, t)."""
    return (seen & (ids.unsqueeze(-1) == ids.unsqueeze(-2))).unsqueeze(1)


# ---- blocks: each sees itself and the one before, so time and memory follow the window ----

MIN_BLOCK = 64  # smaller blocks spend more time on calls than on products


def block_size(pattern: Pattern, t: int, *, causal: bool) -> int | None:
    """The tokens of a block, at least as many as a query looks back; None = blocks would not help, or cannot be."""
    if not causal or pattern.num_kept is None or pattern.global_tokens or not isinstance(t, int):
        return None  # t can be a symbol, see tools.shapes
    size = max(pattern.near, min(MIN_BLOCK, t // 4))
    return size if 3 * size <= t else None


def seen_in_blocks(pattern: Pattern, positions: Tensor, ids: Tensor | None, *, size: int) -> Tensor:
    """Which keys of its own block and of the one before a query sees; a query past the end sees itself.

    Shape: positions (t,) or (b, t), ids of documents (b, t) -> (b or 1, n, size, 2 size).
    """
    (q, k), (i, j) = (_pairs(x, size, filler) for x, filler in (
        (positions, 0), (torch.arange(positions.shape[-1], device=positions.device), -1)))
    seen = pattern.sees(q, k) & (j >= 0).unsqueeze(-2)
    if ids is not None:
        q_ids, k_ids = _pairs(ids, size, 0)
        seen = seen & (q_ids.unsqueeze(-1) == k_ids.unsqueeze(-2))
    itself = torch.ones(size, 2 * size, dtype=torch.bool, device=seen.device).triu(size).tril(size)
    return seen | itself & (i < 0).unsqueeze(-1)


def _pairs(x: Tensor, size: int, filler: int) -> tuple[Tensor, Tensor]:
    """What belongs to the queries and to the keys of each block.

    Shape: (t,) or (b, t) -> (b or 1, n, size), (b or 1, n, 2 size).
    """
    x = torch.atleast_2d(x)
    padded = nn.functional.pad(x, (size, -x.shape[1] % size), value=filler)
    return padded[:, size:].unflatten(1, (-1, size)), padded.unfold(1, 2 * size, size)


# ---- rows of one text ----


def make_mask(
    q_positions: Tensor, k_positions: Tensor, *, pattern: Pattern, fresh: bool, causal: bool = True,
) -> Mask:
    """What a query sees by its position; see Pattern.

    A full mask costs attention its fast path, so one is made only if it is needed: for a pattern that hides something
    of the text, for rows that start at different positions (b, t), or for several new tokens after cached ones.
    `fresh`: there are no cached ones.
    """
    t, s = q_positions.shape[-1], k_positions.shape[-1]
    shared_start = q_positions.dim() == 1
    if shared_start and _hides_nothing(pattern, s) and (fresh or t == 1):
        return Mask(causal=causal and bool(t > 1), allowed=None)  # t can be a symbol, see tools.shapes
    allowed = pattern.sees(q_positions, k_positions, causal=causal)
    if not shared_start:
        # padding has negative positions; only padding sees itself, because a softmax needs at least one key
        i, j = q_positions.unsqueeze(-1), k_positions.unsqueeze(-2)
        allowed = (allowed & (j >= 0) | (i == j)).unsqueeze(1)
    return Mask(causal=False, allowed=allowed)


def mask_of_sight(
    sight: Tensor, q_positions: Tensor, k_positions: Tensor, *, pattern: Pattern, documents: Documents | None,
) -> Mask:
    """What a query sees of what it may see: as far as its pattern reaches, of its own document, and no padding.

    Shape: sight (b or 1, 1, t, s), positions (t,), (s,) or (b, t), (b, s) -> (b or 1, 1, t, s).
    """
    i, j = q_positions.unsqueeze(-1), k_positions.unsqueeze(-2)
    near = pattern.sees(q_positions, k_positions, causal=False) & ((j >= 0) | (i == j))
    seen = sight & near.view(-1, 1, *near.shape[-2:])
    return Mask(causal=False, allowed=seen if documents is None else seen & within(
        documents.ids, torch.ones_like(documents.ids[:, :1, None], dtype=torch.bool)))


def _hides_nothing(pattern: Pattern, s: int) -> bool:
    """Whether s tokens in a row are all within the window of the last; where chunks begin depends on positions."""
    return pattern.chunk is None and pattern.dilation == 1 and (pattern.window is None or pattern.window >= s)
