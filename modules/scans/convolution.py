"""Convolutions over a whole text: matrices within chunks, and Fourier transforms from chunk to chunk.

One transform of a whole row would mix each token with all others, at least their rounding errors. Here a transform
takes what a stretch of tokens gives to the next stretch of the same length: of chunks in pairs, then of pairs of chunks
in pairs, and so on. So no token changes a bit before it. Only one document can lie on both sides of the border of two
stretches, so that the same transforms serve packed rows, with masks on what they take and give.
"""

import math
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.flop_counter import register_flop_formula

from modules.precision import full_precision, widen
from modules.scans.ema import toeplitz

CHUNK = 32  # tokens within which one matrix gives all sums
PAIRS = 64 * 64  # of an earlier and a later token, up to which a matrix takes less time than transforms


def long_conv(u: Tensor, kernel: Tensor, past: Tensor | None = None, *, runs: Tensor | None = None) -> Tensor:
    """y_t = sum over i of kernel_i u_{t - i} for the n numbers of each channel's kernel, in O(t log(t)^2) operations.

    The stretches are the tiles of Oncescu et al. 2024, arXiv:2410.12982, of all tokens at once. `past` are the s tokens
    before the row, `runs` (b, t) are equal within a document of a packed row.
    Shape: u (b, t, d), kernel (d, n), past (b, s, d) -> (b, t, d), in float32 (float64 stays).
    """
    with full_precision(u.device.type):
        kernel, t = widen(kernel), u.shape[1]
        y = _of_row(rearrange(widen(u), "b t d -> d b t").contiguous(), kernel, runs)
        reached = 0 if past is None else min(past.shape[1], kernel.shape[1] - 1)
        if reached:
            before = rearrange(widen(past[:, past.shape[1] - reached:]), "b s d -> d b s")
            y = y + _onward(before, kernel, t)
        return rearrange(y, "d b t -> b t d")


def _of_row(u: Tensor, kernel: Tensor, runs: Tensor | None) -> Tensor:
    """The convolution of a row with nothing before it. Shape: (d, b, t), (d, n), (b, t) -> (d, b, t)."""
    t = u.shape[-1]
    if runs is None:
        width = t if t <= CHUNK else CHUNK
        y = _within(u, kernel, width)
    else:  # no matrix serves all rows, as each has other documents
        width, y = 1, u * kernel[:, :1].unsqueeze(-1)
    while width < t:
        y = y + _to_next(u, kernel, runs, width)
        width = 2 * width
    return y


def _within(u: Tensor, kernel: Tensor, width: int) -> Tensor:
    """What tokens get from their own chunk of `width` tokens. Shape: (d, b, t), (d, n) -> (d, b, t)."""
    t, rows = u.shape[-1], u.shape[1]
    chunks = rearrange(_of_length(u, -(-t // width) * width), "d b (m c) -> d (b m) c", c=width)
    y = chunks @ toeplitz(_of_length(kernel, width).t())
    return _of_length(rearrange(y, "d (b m) c -> d b (m c)", b=rows), t)


def _to_next(u: Tensor, kernel: Tensor, runs: Tensor | None, width: int) -> Tensor:
    """What every second stretch of `width` tokens gets from the one before it; others get 0. Shape: as of _of_row."""
    t = u.shape[-1]
    size = -(-(t - width) // (2 * width)) * 2 * width  # of the pairs whose second stretch has tokens
    early = _of_length(u, size).unflatten(-1, (-1, 2, width))[..., 0, :]  # (d, b, m, w)
    if runs is None:
        late = _onward(early, kernel, width)
    else:
        first, second = _of_length(runs, size).unflatten(-1, (-1, 2, width)).unbind(-2)
        edge = first[..., -1:]  # the only document that may be in both
        late = _onward(early.where(first == edge, 0.0), kernel, width).where(second == edge, 0.0)
    return _of_length(pad(late, (width, 0)).flatten(-2), t)


def _onward(u: Tensor, kernel: Tensor, t: int) -> Tensor:
    """What s tokens give to the t tokens after them. Shape: (d, ..., s), (d, n) -> (d, ..., t)."""
    s = u.shape[-1]
    kernel = _of_length(kernel, s + t)
    if t == 1 or s * t <= PAIRS:
        places = torch.arange(s + t, device=u.device)
        matrix = kernel[:, s + places[:t] - places[:s].unsqueeze(-1)]  # (d, s, t)
        return (u.flatten(1, -2) @ matrix).view(*u.shape[:-1], t)
    waves = torch.fft.rfft(kernel, n=s + t).view(len(kernel), *[1] * (u.dim() - 2), -1)
    return torch.fft.irfft(torch.fft.rfft(u, n=s + t) * waves, n=s + t)[..., s:]  # what wraps around is before s


def _of_length(x: Tensor, size: int) -> Tensor:
    """The first `size` tokens, with zeros after the last if there are too few. Shape: (..., t) -> (..., size)."""
    return x if x.shape[-1] == size else pad(x, (0, size - x.shape[-1]))


@register_flop_formula([torch.ops.aten._fft_r2c, torch.ops.aten._fft_c2r])
def _flops(x: Any, dims: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Operations of real Fourier transforms of n numbers each: 2.5 n log2(n)."""
    n, (axis,) = max(x[dims[0]], out_shape[dims[0]]), dims
    return round(2.5 * n * math.log2(n)) * math.prod(x) // x[axis]
