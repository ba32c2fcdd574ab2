"""Causal attention on a CPU, by products of blocks whose scores stay in its cache."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from modules.linear import product, suits_onednn

QUERIES, BLOCKS, SCORES = 128, 4, 2**19  # at least, at most, and at a time
MIN_LENGTH = 512  # of float32; below, the fused kernel is as fast
KEPT = 256  # tokens, up to which the weights in bfloat16 are kept for a gradient; of more they are computed again
Three = tuple[Tensor, Tensor, Tensor]
_few_heads = False


def is_faster(q: Tensor, k: Tensor) -> bool:
    """Whether `causal_attention` is faster than torch's fused kernel. Shape: (b, h, t, p), (b, h, s, p)."""
    t, s = q.shape[2], k.shape[2]
    if not q.is_cpu or not t == s > 1:
        return False
    return q.dtype == torch.bfloat16 or t >= MIN_LENGTH and suits_onednn(q)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """softmax(scale q.k) v, where a query sees the keys up to its own, in bfloat16 or float32 on a CPU.

    torch's fused kernel multiplies small tiles, in which a CPU does not reach a quarter of its rate. In bfloat16 this
    takes half of its time at 256 tokens, 0.7 at 2048, but scores are rounded to bfloat16; in float32, by oneDNN where
    MKL is slow, 0.65 from 512 tokens on. In bfloat16 the weights of short texts are kept for a gradient: 0.75.
    Shape: q and k (b, h, t, p), v (b, h, t, r) -> (b, h, t, r).
    """
    keeps = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    if q.dtype != torch.bfloat16:
        q, scale = q * scale, 1.0
    if torch.compiler.is_compiling():
        return _attention(q, k, v, scale, keeps)[0]
    return _CausalAttention.apply(q, k, v, scale, keeps)


@contextmanager
def few_heads() -> Iterator[None]:
    """In the block attention goes over its first heads alone: as much memory for less time, and no result."""
    global _few_heads
    _few_heads = True
    try:
        yield
    finally:
        _few_heads = False


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, q: Tensor, k: Tensor, v: Tensor, scale: float, keeps: bool) -> Tensor:
        heads = q.shape[:2]
        q, k, v = (x.flatten(0, 1) for x in (q, k, v))  # (n, t, p)
        y, kept = _means(q, k, v, scale, keeps)
        ctx.save_for_backward(q, k, v, y, kept)
        ctx.scale = scale
        return y.unflatten(0, heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, of_y: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        gradients = _gradients(of_y.flatten(0, 1), *ctx.saved_tensors, ctx.scale)
        return *(x.unflatten(0, of_y.shape[:2]) for x in gradients), None, None


# ---- the same for torch.compile, which leaves operators as they are ----


@torch.library.custom_op("shapeshifter::causal_attention", mutates_args=())
def _attention(q: Tensor, k: Tensor, v: Tensor, scale: float, keeps: bool) -> tuple[Tensor, Tensor]:
    y, kept = _means(*(x.flatten(0, 1) for x in (q, k, v)), scale, keeps)
    return y.unflatten(0, q.shape[:2]), kept


@torch.library.custom_op("shapeshifter::causal_attention_back", mutates_args=())
def _attention_back(
    of_y: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, kept: Tensor, scale: float,
) -> Three:
    gradients = _gradients(*(x.flatten(0, 1) for x in (of_y, q, k, v, y)), kept, scale)
    return tuple(x.contiguous().unflatten(0, q.shape[:2]) for x in gradients)


@_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, scale: float, keeps: bool) -> tuple[Tensor, Tensor]:
    return v.new_empty(v.shape), _room_for_weights(q.flatten(0, 1), keeps)


@_attention_back.register_fake
def _(of_y: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, kept: Tensor, scale: float) -> Three:
    return tuple(x.new_empty(x.shape) for x in (q, k, v))


def _setup_context(ctx: FunctionCtx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    *given, ctx.scale, _ = inputs
    ctx.save_for_backward(*given, *output)


def _backward(ctx: FunctionCtx, of_y: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
    return *_attention_back(of_y, *ctx.saved_tensors, ctx.scale), None, None


_attention.register_autograd(_backward, setup_context=_setup_context)


# ---- blocks of queries: of several heads in bfloat16, of one in float32, because oneDNN is given two matrices ----


def _means(q: Tensor, k: Tensor, v: Tensor, scale: float, keeps: bool) -> tuple[Tensor, Tensor]:
    """The means, and the weights if it keeps them. Shape: q and k (n, t, p), v (n, t, r) -> (n, t, r), (numbers,)."""
    y, later, kept = q.new_empty(*q.shape[:2], v.shape[2]), _later(q), _room_for_weights(q, keeps)
    if q.dtype == torch.bfloat16:
        for heads, row, seen, room in _blocks(q, kept):
            weights = _softmax(_scaled(q[heads, row], k[heads, seen].mT, scale), later, room)
            y[heads, row] = weights @ v[heads, seen]
        return y, kept
    for q_head, k_head, v_head, y_head in _heads(q, k, v, y):  # (t, p)
        for row, seen in _rows(len(q_head)):
            y_head[row] = product(_softmax(product(q_head[row], k_head[seen]), later), v_head[seen].T)
    return y, kept


def _gradients(of_y: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, kept: Tensor, scale: float) -> Three:
    """Those of q, k and v, from that of what `_means` gave. Shape: (n, t, r), (n, t, p), (n, t, p), then (n, t, r)."""
    if q.dtype == torch.bfloat16:
        return _of_some_heads(of_y, q, k, v, (of_y.float() * y).sum(-1, keepdim=True).type_as(q), kept, scale)
    own, later = torch.linalg.vecdot(of_y, y).unsqueeze(-1), _later(q)
    of_q, of_k, of_v = torch.empty_like(q), *(x.new_zeros(x.mT.shape) for x in (k, v))
    for tensors in _heads(of_y, q, k, v, own, of_q, of_k, of_v):
        for row, seen in _rows(q.shape[1]):
            _add_of_one_head(*tensors, later, row, seen)
    return of_q, of_k.mT, of_v.mT


def _of_some_heads(
    of_y: Tensor, q: Tensor, k: Tensor, v: Tensor, own: Tensor, kept: Tensor, scale: float,
) -> Three:
    later, of_q = _later(q), torch.empty_like(q)
    of_k, of_v = (torch.zeros_like(x, dtype=torch.float32) for x in (k, v))
    for heads, row, seen, weights in _blocks(q, kept):
        if weights is None:
            weights = _softmax(_scaled(q[heads, row], k[heads, seen].mT, scale), later)
        of_scores = (of_y[heads, row] @ v[heads, seen].mT).sub_(own[heads, row]).mul_(weights)
        of_q[heads, row] = _scaled(of_scores, k[heads, seen], scale)
        of_k[heads, seen] += _scaled(of_scores.mT, q[heads, row], scale)
        of_v[heads, seen] += weights.mT @ of_y[heads, row]
    return of_q, of_k.type_as(q), of_v.type_as(q)


def _add_of_one_head(
    of_y: Tensor, q: Tensor, k: Tensor, v: Tensor, own: Tensor, of_q: Tensor, of_k: Tensor, of_v: Tensor,
    later: Tensor, row: slice, seen: slice,
) -> None:
    """Shape: of_y (t, r), q and of_q (t, p), k (t, p), v (t, r), own (t, 1), of_k (p, t), of_v (r, t).

    Of two matrices the smaller is copied if one must be.
    """
    weights = _softmax(product(q[row], k[seen]), later)
    of_scores = product(of_y[row], v[seen]).sub_(own[row]).mul_(weights)
    of_q[row] = product(of_scores, k[seen].T)
    of_k[:, seen].add_(product(q[row].T.contiguous(), of_scores.T))
    of_v[:, seen].add_(product(of_y[row].T.contiguous(), weights.T))


def _blocks(q: Tensor, kept: Tensor) -> Iterator[tuple[slice, slice, slice, Tensor | None]]:
    """Heads, some of their queries, the keys that these see, and their place in what is kept. Shape: (n, t, p)."""
    for (row, seen), room in zip(_rows(q.shape[1]), _rooms(q, kept), strict=True):
        size = max(1, SCORES // (seen.stop * (row.stop - row.start)))
        for first in range(0, len(q), size)[: 1 if _few_heads else None]:
            heads = slice(first, first + size)
            yield heads, row, seen, None if room is None else room[heads]


def _heads(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """What belongs to one head after the other. Shape: (n, ...)."""
    return zip(*(x[: 1 if _few_heads else None].unbind() for x in tensors), strict=True)


def _room_for_weights(q: Tensor, keeps: bool) -> Tensor:
    """Room for the weights of `_rows`, one after the other, if they are kept. Shape: (n, t, p) -> (numbers,)."""
    keeps = keeps and q.dtype == torch.bfloat16 and q.shape[1] <= KEPT
    room = q.new_empty(sum(_sizes(q)) if keeps else 0)
    return room.zero_() if _few_heads else room  # as if all heads had been written


def _rooms(q: Tensor, kept: Tensor) -> list[Tensor | None]:
    """What is kept of each of `_rows`; None = nothing. Shape: (n, t, p), (numbers,) -> (n, row, seen)."""
    rows = [*_rows(q.shape[1])]
    if not len(kept):
        return [None] * len(rows)
    parts = zip(kept.split(_sizes(q)), rows, strict=True)
    return [part.view(len(q), -1, seen.stop) for part, (_, seen) in parts]


def _sizes(q: Tensor) -> list[int]:
    """How many weights each of `_rows` has. Shape: (n, t, p)."""
    return [len(q) * (row.stop - row.start) * seen.stop for row, seen in _rows(q.shape[1])]


def _rows(t: int) -> Iterator[tuple[slice, slice]]:
    """Some queries, and the keys that these see. There are few: oneDNN keeps a program for each shape of a product."""
    length = max(QUERIES, -(-t // BLOCKS))
    for start in range(0, t, length):
        stop = min(t, start + length)
        yield slice(start, stop), slice(0, stop)


def _later(q: Tensor) -> Tensor:
    """-inf for the keys after a query, among those of the same rows. Shape: (n, t, p) -> (row, row)."""
    length = next(_rows(q.shape[1]))[0].stop
    return q.new_full((length, length), -torch.inf).triu_(1)


def _softmax(scores: Tensor, later: Tensor, room: Tensor | None = None) -> Tensor:
    """The softmax over the keys that a query sees, those up to its own. Shape: (..., row, seen), changed."""
    length = scores.shape[-2]
    scores[..., -length:].add_(later[:length, :length])
    return torch.softmax(scores, -1, out=room)


def _scaled(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """scale (a @ b), scaled before it is rounded. Shape: (n, i, j), (n, j, k) -> (n, i, k)."""
    return torch.baddbmm(a.new_empty(()), a, b, beta=0, alpha=scale)
