"""Attention masks: which tokens a query sees, by position, window and document."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor


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

    `ids` (b, t) are equal within a document, whose tokens are contiguous. `masks` (b, 1, t, t) are what a query sees,
    for each window of the model (None = no window): made once for all layers.
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
    """What a query sees by its position; see `in_window`.

    A full mask costs attention its fast path, so one is made only if it is needed: for a window shorter than the text,
    for rows that start at different positions (b, t), or for several new tokens after cached ones. `fresh`: there are
    no cached ones.
    """
    t, s = q_positions.shape[-1], k_positions.shape[-1]
    shared_start = q_positions.dim() == 1
    if shared_start and (window is None or window >= s) and (fresh or t == 1):
        return Mask(causal=causal and bool(t > 1), allowed=None)  # t can be a symbol, see tools.shapes
    allowed = in_window(q_positions, k_positions, window, causal=causal)
    if not shared_start:
        # padding has negative positions; only padding sees itself, because a softmax needs at least one key
        i, j = q_positions.unsqueeze(-1), k_positions.unsqueeze(-2)
        allowed = (allowed & (j >= 0) | (i == j)).unsqueeze(1)
    return Mask(causal=False, allowed=allowed)
