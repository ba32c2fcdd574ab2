"""Attention to nearby tokens in blocks: time and memory follow the window, not the square of the text."""

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn

from modules.masks import Mask, Pattern, block_size, seen_in_blocks
from modules.stream import Context

Bias = Callable[[Tensor, Tensor], Tensor]  # what is added to the scores, from the positions of queries and of keys


def block_of(pattern: Pattern, context: Context, t: int) -> int | None:
    """The tokens of a block; None = attention is not in blocks."""
    if context.sight is not None or context.documents is None and context.positions.dim() > 1:
        return None  # what is seen differs from block to block; rows begin with padding
    return block_size(pattern, t, causal=context.causal)


def attend_in_blocks(
    attend: nn.Module, q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, context: Context, *, size: int,
    bias_of: Bias | None = None,
) -> Tensor:
    """What `attend` gives if each block of queries sees its own block of keys and the one before.

    Shape: q (b, h, t, p), k and v (b, g, t, p) -> (b, h, t, p).
    """
    t, documents = q.shape[2], context.documents
    allowed = (seen_in_blocks(pattern, context.positions, None, size=size) if documents is None
               else documents.masks[pattern])
    allowed = allowed.expand(len(q), -1, -1, -1).flatten(0, 1).unsqueeze(1)  # (b n, 1, size, 2 size)
    index = torch.arange(2 * size, device=q.device)
    bias = bias_of and bias_of(index[size:], index)  # it depends on distances, which are the same in all blocks
    y = attend(own(q, size), own_and_before(k, size), own_and_before(v, size), Mask(False, allowed), bias)
    return rearrange(y, "(b n) h w p -> b h (n w) p", b=len(q))[:, :, :t]


def own(x: Tensor, size: int) -> Tensor:
    """Cut into blocks, the last one filled up with zeros. Shape: (b, h, t, p) -> (b n, h, size, p)."""
    return rearrange(nn.functional.pad(x, (0, 0, 0, -x.shape[2] % size)), "b h (n w) p -> (b n) h w p", w=size)


def own_and_before(x: Tensor, size: int) -> Tensor:
    """Each block after the one before it. Shape: (b, g, t, p) -> (b n, g, 2 size, p)."""
    padded = nn.functional.pad(x, (0, 0, size, -x.shape[2] % size))
    return torch.cat([own(part, size) for part in (padded[:, :, :-size], padded[:, :, size:])], dim=2)
