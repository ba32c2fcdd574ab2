"""Which tokens a query may look at: those before it, in its window, in its document."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor


class Sight(NamedTuple):
    """Which keys a query sees: plainly all before it (`causal`), or what `mask` says; None = all.

    Shape: mask (t, s) or (b, 1, t, s), True where seen.
    """

    causal: bool
    mask: Tensor | None


class Documents(NamedTuple):
    """Where the documents of packed rows lie: nothing may pass from one into the next.

    `ids` (b, t) are equal within a document, whose tokens stand side by side. `masks` has for each window of the
    model (None = all the past) what a query sees, (b, 1, t, t): made once, for all layers.
    """

    ids: Tensor
    masks: dict[int | None, Tensor]

    @classmethod
    def of(cls, ids: Tensor, windows: Iterable[int | None]) -> "Documents":
        index = torch.arange(ids.shape[1], device=ids.device)
        same = ids.unsqueeze(-1) == ids.unsqueeze(-2)
        return cls(ids, {window: (same & before(index, index, window)).unsqueeze(1) for window in windows})

    def positions(self) -> Tensor:
        """Tokens since the start of the document. Shape: (b, t)."""
        index = torch.arange(self.ids.shape[1], device=self.ids.device)
        begins = self.ids.diff(prepend=self.ids[:, :1] - 1) != 0
        return index - index.where(begins, 0).cummax(-1).values

    def sight(self, window: int | None) -> Sight:
        return Sight(causal=False, mask=self.masks[window])


def before(q_positions: Tensor, k_positions: Tensor, window: int | None) -> Tensor:
    """True where a key at j is seen from i: i - window < j <= i. Shape: (..., t), (..., s) -> (..., t, s)."""
    i, j = q_positions.unsqueeze(-1), k_positions.unsqueeze(-2)
    return j <= i if window is None else (j <= i) & (j > i - window)


def sight(q_positions: Tensor, k_positions: Tensor, *, window: int | None, fresh: bool) -> Sight:
    """What positions allow: a query at i sees keys at j with i - window < j <= i.

    A full mask would cost attention its fast path, so there is one only where it is needed: a
    window shorter than the text, rows that start at different places (positions (b, t)), or
    several new tokens that follow cached ones. `fresh` says there were no cached ones.
    """
    t, s = q_positions.shape[-1], k_positions.shape[-1]
    shared_start = q_positions.dim() == 1
    if shared_start and (window is None or window >= s) and (fresh or t == 1):
        return Sight(causal=bool(t > 1), mask=None)  # t can be a symbol, see tools.shapes
    seen = before(q_positions, k_positions, window)
    if not shared_start:
        # padding has negative positions: nothing sees it, but itself, for a softmax needs something
        i, j = q_positions.unsqueeze(-1), k_positions.unsqueeze(-2)
        seen = (seen & (j >= 0) | (i == j)).unsqueeze(1)
    return Sight(causal=False, mask=seen)


def masked(scores: Tensor, seen: Sight) -> Tensor:
    """Minus infinity where a key is not seen. Shape: (..., t, s) -> (..., t, s)."""
    if seen.causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    elif seen.mask is None:
        return scores
    else:
        hidden = ~seen.mask
    return scores.masked_fill(hidden, float("-inf"))
