"""Rows cut into chunks of equal length, and what passes between the chunks of packed rows."""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor


def fitting(chunk: int, t: int) -> int:
    """The length of chunks for a row of t tokens: a power of 2 that is no longer than it needs."""
    return min(chunk, 1 << (t - 1).bit_length())


def in_chunks(x: Tensor, size: int) -> Tensor:
    """Shape: (b, h, t, ...) -> (b, h, n, size, ...), filled up by zeros, which change no state."""
    t = x.shape[2]
    if t % size:
        x = torch.cat((x, x.new_zeros(*x.shape[:2], -t % size, *x.shape[3:])), dim=2)
    return x.unflatten(2, (-1, size))


def whole(x: Tensor, t: int) -> Tensor:
    """Shape: (b, h, n, c, r) -> (b, h, t, r)."""
    return x.flatten(2, 3)[:, :, :t]


class Runs(NamedTuple):
    """What documents let pass: between the tokens of a chunk, into it, out of it, and through it.

    Shape: same (b, 1, n, c, c), read and write (b, 1, n, c), through (b, 1, n); True = it passes.
    """

    same: Tensor
    read: Tensor
    write: Tensor
    through: Tensor

    @classmethod
    def of(cls, runs: Tensor, size: int) -> "Runs":
        """Shape: (b, t), equal within a document."""
        ids = rearrange(_filled_up(runs, size), "b (n c) -> b 1 n c", c=size)
        last = ids[..., -1]
        before = torch.cat((ids[:, :, :1, 0], last[..., :-1]), dim=-1)  # a state before the row is the first's
        return cls(ids.unsqueeze(-1) == ids.unsqueeze(-2), ids == before.unsqueeze(-1), ids == last.unsqueeze(-1),
                   before == last)


def _filled_up(runs: Tensor, size: int) -> Tensor:
    """The last document goes on to the end of its chunk. Shape: (b, t) -> (b, n c)."""
    return torch.cat((runs, runs[:, -1:].expand(-1, -runs.shape[1] % size)), dim=1)
