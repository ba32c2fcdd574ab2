"""The text of whole rows, for objectives that do not read it from left to right."""

from typing import NamedTuple

import torch
from torch import Tensor

from data import IGNORED, Batch
from objectives.noise import keys_of_text


class Row(NamedTuple):
    """The tokens that a row of next-token training reads and the one after the last.

    What is no target before the last one is visible: the first token, and the source of a pair. Positions after the
    last target are padding, and negative.
    """

    tokens: Tensor  # (b, t)
    is_target: Tensor  # (b, t) bool
    positions: Tensor  # (b, t)
    keys: Tensor  # (b,)

    @classmethod
    def of(cls, batch: Batch) -> "Row":
        """Shape: x and y (b, t - 1) -> rows of t tokens."""
        is_target = torch.nn.functional.pad(batch.y != IGNORED, (1, 0))
        following = torch.nn.functional.pad(batch.x[:, 1:], (0, 1))
        tokens = torch.cat([batch.x[:, :1], batch.y.where(batch.y != IGNORED, following)], dim=1)
        places = torch.arange(tokens.shape[1], device=tokens.device)
        last = places.where(is_target, 0).amax(-1, keepdim=True)
        keys = keys_of_text(tokens) if batch.keys is None else batch.keys
        return cls(tokens, is_target, places.where(places <= last, -1), keys)

    @property
    def source_len(self) -> Tensor:
        """The tokens before the first target. Shape: (b,)."""
        return self.is_target.int().argmax(-1)
