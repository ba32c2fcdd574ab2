"""Which tokens a query may look at: those before it, in its window, in its document."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor


class Mask(NamedTuple):
    """Which keys a query sees: plainly all before it (`causal`), or what `allowed` says; None = all.

    Shape: allowed (t, s) or (b, 1, t, s), True for a key that is seen.
    """

    causal: bool
    allowed: Tensor | None

    def apply(self, scores: Tensor) -> Tensor:
        """Minus infinity for a key that is not seen. Shape: (..., t, s) -> (..., t, s)."""
        if self.causal:
            hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        elif self.allowed is None:
            return scores
        else:
            hidden = ~self.allowed
        return scores.masked_fill(hidden, float("-inf"))


class Documents(NamedTuple):
    """The documents of packed rows: nothing may pass from one into the next.

    `ids` (b, t) are equal within a document, whose tokens stand side by side. `masks` has for each window of the
    model (None = no window) what a query sees, (b, 1, t, t): made once, for all layers.
    """

    ids: Tensor
    masks: dict[int | None, Tensor]

    @classmethod
    def of(cls, ids: Tensor, windows: Iterable[int | None], *, causal: bool = True) -> "Documents":
        index = torch.arange(ids.shape[1], device=ids.device)
        same = ids.unsqueeze(-1) == ids.unsqueeze(-2)
        return cls(ids, {window: (same & in_window(index, index, window, causal=causal)).unsqueeze(1)
                         for window in windows})

    def positions(self) -> Tensor:
        """Tokens since the start of the document. Shape: (b, t)."""
        index = torch.arange(self.ids.shape[1], device=self.ids.device)
        begins = self.ids.diff(prepend=self.ids[:, :1] - 1) != 0
        return index - index.where(begins, 0).cummax(-1).values

    def mask(self, window: int | None) -> Mask:
        return Mask(causal=False, allowed=self.masks[window])


def in_window(q_positions: Tensor, k_positions: Tensor, window: int | None, *, causal: bool = True) -> Tensor:
    """True if a query at i sees a key at j: i - window < j <= i, or, if not causal, i - window < j < i + window.

    Shape: (..., t), (..., s) -> (..., t, s).
    """
    i, j = q_positions.unsqueeze(-1), k_positions.unsqueeze(-2)
    if causal:
        return j <= i if window is None else (j <= i) & (j > i - window)
    return (i == i) & (j == j) if window is None else (i - j).abs() < window


def make_mask(
    q_positions: Tensor, k_positions: Tensor, *, window: int | None, fresh: bool, causal: bool = True,
) -> Mask:
    """What positions allow a query to see; see `in_window`.

    A full mask would cost attention its fast path, so there is one only if it is needed: for a window shorter than the
    text, rows that start at different places (positions (b, t)), or several new tokens that follow cached ones. `fresh`
    says that there were no cached ones.
    """
    t, s = q_positions.shape[-1], k_positions.shape[-1]
    shared_start = q_positions.dim() == 1
    if shared_start and (window is None or window >= s) and (fresh or t == 1):
        return Mask(causal=causal and bool(t > 1), allowed=None)  # t can be a symbol, see tools.shapes
    allowed = in_window(q_positions, k_positions, window, causal=causal)
    if not shared_start:
        # padding has negative positions: nothing sees it, but itself, for a softmax needs something
        i, j = q_positions.unsqueeze(-1), k_positions.unsqueeze(-2)
        allowed = (allowed & (j >= 0) | (i == j)).unsqueeze(1)
    return Mask(causal=False, allowed=allowed)
