"""Scores of tokens whose keys decay by channels: sums that no product of two matrices gives without overflow."""

import torch
from torch import Tensor

BLOCK = 8  # tokens
MOST = 18.0  # logarithm of a channel's decay in a step that counts: e^-18 is nothing to float32


def running(g: Tensor) -> Tensor:
    """The running sum of log decays over the tokens of a chunk; those of channels count for no more than MOST.

    Shape: (b, h, n, c), or (b, h, n, c, n) of channels -> the same.
    """
    return g.cumsum(3) if g.dim() == 4 else g.clamp(min=-MOST).cumsum(3)


def scores_of_channels(k: Tensor, total: Tensor, q: Tensor, other: Tensor | None = None) -> tuple[Tensor, ...]:
    """Sum over channels of q_i k_j e^{G_i - G_j} for j <= i, and the same of `other` in place of q; G is `running`.

    No factor overflows: in blocks of 8 tokens the exponents count from the middle of a block, where none is above 72;
    between neighbours, whose blocks then join, from the end of the left one. Only the arguments are kept for the
    gradient, and that of G is q dq - k dk.
    Shape: (..., c, n) each -> (..., c, c) each.
    """
    return Scores.apply(k, total, q, other)


class Blocks:
    """A chunk in blocks, whose exponents count from their middles. Shape of what it takes: (..., c, n)."""

    def __init__(self, total: Tensor):
        self.total, self.size, self.width = total, total.shape[-2], min(BLOCK, total.shape[-2])
        blocks = total.unflatten(-2, (-1, self.width))
        self.middle = blocks[..., self.width // 2, None, :]
        self.decay = (blocks - self.middle).exp()  # (..., m, w, n)

    def rows(self, q: Tensor) -> Tensor:
        """q_i e^{G_i - middle}. Shape: (..., c, n) or (..., m, w, n) -> (..., m, w, n)."""
        return q.view_as(self.decay) * self.decay

    def keys(self, k: Tensor) -> Tensor:
        """k_j e^{middle - G_j}. Shape: as of rows."""
        return k.view_as(self.decay) / self.decay

    def joints(self) -> list["Joint"]:
        """How neighbours join, then pairs of them, until the chunk is whole."""
        found, width = [], self.width
        while width < self.size:
            found.append(Joint(self, width))
            width *= 2
        return found


class Joint:
    """Two neighbours, `width` tokens each: the scores of the late one to the early one, by the decays at their edge."""

    def __init__(self, blocks: Blocks, width: int):
        self.width, self.blocks = width, width // blocks.width
        edge = blocks.total.unflatten(-2, (-1, 2 * width))[..., width - 1, None, None, :]
        early, late = self.halves(blocks.middle)
        self.of_rows, self.of_keys = (late - edge).exp(), (edge - early).exp()  # (..., g, s, 1, n)

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Shape: (..., m, w, n) -> (..., g, s, w, n), twice."""
        return x.unflatten(-3, (-1, 2, self.blocks)).unbind(-4)

    def rows(self, q: Tensor) -> Tensor:
        """Shape: (..., m, w, n) -> (..., g, s w, n)."""
        return (self.halves(q)[1] * self.of_rows).flatten(-3, -2)

    def keys(self, k: Tensor) -> Tensor:
        return (self.halves(k)[0] * self.of_keys).flatten(-3, -2)

    def add(self, place: Tensor, found: Tensor, factor: Tensor) -> None:
        """Shape: place (..., g, s, w, n), found (..., g, s w, n)."""
        place.addcmul_(found.view(place.shape), factor)

    def whole(self, inner: Tensor, low: Tensor) -> Tensor:
        """The scores of both from those within each. Shape: (..., 2 g, w, w), (..., g, w, w) -> (..., g, 2 w, 2 w)."""
        first, second = inner.unflatten(-3, (-1, 2)).unbind(-3)
        upper = torch.cat((first, torch.zeros_like(first)), dim=-1)
        return torch.cat((upper, torch.cat((low, second), dim=-1)), dim=-2)

    def low(self, scores: Tensor) -> Tensor:
        """Of the scores of a chunk those between the neighbours. Shape: (..., c, c) -> (..., g, w, w)."""
        return on_diagonal(scores, 2 * self.width)[..., self.width:, :self.width]


def on_diagonal(scores: Tensor, width: int) -> Tensor:
    """The squares on the diagonal. Shape: (..., c, c) -> (..., m, w, w)."""
    squares = scores.unflatten(-1, (-1, width)).unflatten(-3, (-1, width))  # (..., m, w, m, w)
    return torch.stack([squares[..., i, :, i, :] for i in range(squares.shape[-2])], dim=-3)


class Scores(torch.autograd.Function):
    """scores_of_channels, with its gradient."""

    @staticmethod
    def forward(ctx, k: Tensor, total: Tensor, q: Tensor, other: Tensor | None) -> tuple[Tensor, ...]:
        rows = [q] if other is None else [q, other]
        ctx.save_for_backward(k, total, *rows)
        blocks = Blocks(total)
        kept, asked = blocks.keys(k), [blocks.rows(q) for q in rows]
        found = [(q @ kept.mT).tril() for q in asked]
        for joint in blocks.joints():
            early = joint.keys(kept).mT
            found = [joint.whole(x, joint.rows(q) @ early) for x, q in zip(found, asked, strict=True)]
        return tuple(x.squeeze(-3) for x in found)

    @staticmethod
    def backward(ctx, *of_scores: Tensor) -> tuple[Tensor | None, ...]:
        k, total, *rows = ctx.saved_tensors
        blocks = Blocks(total)
        kept, asked = blocks.keys(k), [blocks.rows(q) for q in rows]
        inner = [on_diagonal(x, blocks.width).tril() for x in of_scores]
        of_asked = [x @ kept for x in inner]
        of_kept = sum(x.mT @ q for x, q in zip(inner, asked, strict=True))
        for joint in blocks.joints():
            early, of_early = joint.keys(kept), 0.0
            for q, of_q, x in zip(asked, of_asked, of_scores, strict=True):
                low = joint.low(x)
                joint.add(joint.halves(of_q)[1], low @ early, joint.of_rows)
                of_early = of_early + low.mT @ joint.rows(q)
            joint.add(joint.halves(of_kept)[0], of_early, joint.of_keys)
        of_rows = [blocks.rows(x).view_as(k) for x in of_asked]
        of_k = blocks.keys(of_kept).view_as(k)
        of_total = k * -of_k
        for q, of_q in zip(rows, of_rows, strict=True):
            of_total = torch.addcmul(of_total, q, of_q)
        return of_k, of_total, of_rows[0], of_rows[1] if len(rows) > 1 else None
