"""Widths of heads, at the width of a model."""

import math


def part_of(width: float, num_heads: int) -> int:
    """The width of a head, if that of all is about `width`."""
    return max(1, round(width / num_heads))


def heads_at(num_heads: int, head_dim: int, factor: float) -> tuple[int, int]:
    """The number of heads and their width if all of them together are `factor` as wide: narrower if they are few."""
    inner = num_heads * head_dim * factor
    width = min(head_dim, next(usual for limit, usual in ((128, 16), (384, 32), (1536, 64), (math.inf, 128))
                               if inner < limit))
    return max(1, round(inner / width)), width
