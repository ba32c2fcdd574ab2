"""h_t = a_t h_{t-1} + b_t: one operation for torch, of any length, with a backward pass of its own."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from modules.precision import widen

Way = Callable[..., Iterator]  # the order of time: iter, or reversed

SHORT = 64  # tokens that a plain loop goes through: more make chunks of so many, whose loops go on at the same time


def diagonal_scan(
    a: Tensor, b: Tensor, h: Tensor | None = None, *, runs: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """All h_t = a_t h_{t-1} + b_t, and the last.

    Shape: a and b (b, t, ...), where axes of a after t may be 1; h (b, ...) or None = 0; runs (b, t)
    -> (b, t, ...) in the dtype of b, (b, ...) in float32.
    """
    wide, a = widen(b), widen(a)
    if runs is not None:
        same = (runs[:, 1:] == runs[:, :-1]).view(len(runs), -1, *[1] * (b.dim() - 2))
        a = torch.cat((a[:, :1], a[:, 1:].where(same, 0.0)), dim=1)
    begin = torch.zeros_like(wide[:, 0]) if h is None else widen(h)
    if b.shape[1] == 1:
        last = torch.addcmul(wide[:, 0], a[:, 0], begin)
        return last.unsqueeze(1).to(b.dtype), last
    y = scan(a, wide.contiguous(), begin)
    return y.to(b.dtype), y[:, -1]


@torch.library.custom_op("shapeshifter::scan", mutates_args=())
def scan(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
    """Shape: a (b, t, ...), axes after t may be 1; b (b, t, ...); h (b, ...) -> (b, t, ...)."""
    return _scan(a, b, h, iter)


def _scan(a: Tensor, b: Tensor, h: Tensor, way: Way) -> Tensor:
    """y_t = a_t y_(t-1) + b_t, or with reversed as the way y_t = a_t y_(t+1) + b_t; h comes before the first.

    First all chunks go through their tokens at once, each from 0, then the states pass from chunk to chunk.
    """
    t = b.shape[1]
    pad = -t % SHORT if t > SHORT else 0
    if pad:
        a, b = (torch.cat((x, x.new_full((len(x), pad, *x.shape[2:]), fill)), dim=1)
                for x, fill in ((a, 1.0), (b, 0.0)))
    a, b = (x.unflatten(1, (-1, min(t, SHORT))) for x in (a, b))  # (b, chunks, tokens, ...)
    y, last = torch.empty_like(b), h.unsqueeze(1) if b.shape[1] == 1 else torch.zeros_like(b[:, :, 0])
    for factor, added, out in _steps(way, 2, a, b, y):
        last = torch.addcmul(added, factor, last, out=out)
    return (y if b.shape[1] == 1 else _joined(a, y, last, h, way)).flatten(1, 2)[:, :t].contiguous()


def _joined(a: Tensor, y: Tensor, last: Tensor, h: Tensor, way: Way) -> Tensor:
    """Add to chunks that began from 0 what the states before them leave; `last` are the states at their ends."""
    reach, decay, begins = torch.empty_like(a), torch.ones_like(a[:, :, 0]), torch.empty_like(last)
    for factor, out in _steps(way, 2, a, reach):
        decay = torch.mul(factor, decay, out=out)
    for end, factor, out in _steps(way, 1, last, decay, begins):
        out.copy_(h)
        h = torch.addcmul(end, factor, h)
    return y.addcmul_(reach, begins.unsqueeze(2))


def _steps(way: Way, dim: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The parts of tensors along an axis, in an order."""
    return zip(*(way(x.unbind(dim)) for x in tensors), strict=True)


@scan.register_fake
def _(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
    return torch.empty_like(b)


@torch.library.custom_op("shapeshifter::scan_back", mutates_args=())
def scan_back(a: Tensor, grad: Tensor) -> Tensor:
    """The gradient of b from that of y: e_t = grad_t + a_{t+1} e_{t+1}. Shape: as in scan."""
    later = torch.cat((a[:, 1:], torch.zeros_like(a[:, :1])), dim=1)
    return _scan(later, grad, torch.zeros_like(grad[:, 0]), reversed)


@scan_back.register_fake
def _(a: Tensor, grad: Tensor) -> Tensor:
    return torch.empty_like(grad)


def _keep(ctx, inputs, output) -> None:
    a, _, h = inputs
    ctx.save_for_backward(a, h, output)


def _backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    a, h, y = ctx.saved_tensors
    e = scan_back(a, grad.contiguous())
    of_a = torch.cat(((e[:, :1] * h.unsqueeze(1)), e[:, 1:] * y[:, :-1]), dim=1).sum_to_size(a.shape)
    return of_a, e, (a[:, 0] * e[:, 0])


scan.register_autograd(_backward, setup_context=_keep)
