"""Norms, rotations and attention of a lean model: in the operations that take least for a few rows.

A form is laid over a class that has the methods that it `stands_for`, and gives the same but for rounding.
"""

from functools import cached_property

import torch
from torch import Tensor

Table = tuple[Tensor, Tensor]  # factors of each channel, and of the other one of its pair: (t, c), or (b, 1, t, c)


class QuickNorm:
    """RMSNorm in four operations: x / hypot(|x|, sqrt(eps d)) * sqrt(d) scale. Shape: (..., d) -> (..., d)."""

    stands_for = ("forward", "normalise", "scale_in")

    @cached_property
    def constants(self) -> tuple[Tensor, Tensor]:
        """sqrt(eps d), and sqrt(d) times the scale. Shape: (), (d,)."""
        scale = self.scale_in(torch.float32).detach()
        return scale.new_tensor((self.eps * len(scale)) ** 0.5), scale * len(scale) ** 0.5

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_cpu or x.dtype != torch.float32 or self.scale is None or self.bias is not None:
            return super().forward(x)  # a GPU has a kernel
        least, scale = self.constants
        return x.div(torch.linalg.vector_norm(x, dim=-1, keepdim=True).hypot_(least)).mul_(scale)


class Turned:
    """RoPE as x * own + swapped(x) * other, with tables that are made once for all layers of a forward."""

    stands_for = ("forward", "angles", "split")

    def angles(self, positions: Tensor) -> Table:
        return self.lean_shared.once(self.first_alike, positions, self.table)

    @cached_property
    def first_alike(self) -> "Turned":
        """The first rotation of the model with the same table."""
        for other in self.lean_shared.rotations:
            if (type(other) is type(self) and other.rope.magnitude == self.rope.magnitude
                    and torch.equal(other.frequencies, self.frequencies)):
                return other
        self.lean_shared.rotations.append(self)
        return self

    def table(self, positions: Tensor) -> Table:
        cos, sin = super().angles(positions)
        return self.join(cos, cos), self.join(-sin, sin)

    def forward(self, x: Tensor, angles: Table) -> Tensor:
        if self.rotated < x.shape[-1]:
            return torch.cat((self.turned(x[..., : self.rotated], angles), x[..., self.rotated :]), dim=-1)
        return self.turned(x, angles)

    def turned(self, x: Tensor, angles: Table) -> Tensor:
        own, other = angles
        return torch.mul(x, own).addcmul_(self.swapped(x), other).type_as(x)


class TurnedHalves(Turned):
    """Pairs of i and i + c/2, of c channels."""

    def join(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.cat((a, b), dim=-1)

    def swapped(self, x: Tensor) -> Tensor:
        return x.roll(self.rotated // 2, -1)


class TurnedNeighbours(Turned):
    """Pairs of 2i and 2i + 1."""

    def join(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.stack((a, b), dim=-1).flatten(-2)

    def swapped(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)


MANY_KEYS = 2**20  # numbers, beyond a core's own cache


def weighted_mean(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None, scale: float) -> Tensor:
    """softmax(scale q.k) v for a few queries, by products of matrices: torch's fused call takes a fifth longer.

    The product with many keys is made the other way round, k q^T, which reads them in two thirds of the time.
    Shape: q (n, r, p), k and v (n, s, p), seen (b or 1, 1, 1, s) or (1, s), n = b g -> (n, r, p).
    """
    none = q.new_empty(())
    if k.numel() < MANY_KEYS:
        scores = torch.baddbmm(none, q, k.mT, beta=0, alpha=scale)  # (n, r, s)
    else:
        scores = torch.baddbmm(none, k, q.mT, beta=0, alpha=scale).mT
    if seen is not None:
        rows = len(seen) if seen.dim() == 4 else 1
        scores.unflatten(0, (rows, -1)).masked_fill_(~seen, -torch.inf)
    return torch.bmm(scores.softmax(-1), v)
