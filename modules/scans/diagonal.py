"""h_t = a_t h_{t-1} + b_t: one operation for torch, of any length, with a backward pass of its own."""

import torch
from torch import Tensor

from modules.precision import widen

LEVEL = 32  # steps of a chunk on a GPU, which has many chunks at a time


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
    return _levels(a, b, h) if b.is_cuda else _loop(a, b, h)


def _loop(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
    y = torch.empty_like(b)
    for factor, added, out in zip(a.unbind(1), b.unbind(1), y.unbind(1), strict=True):
        h = torch.addcmul(added, factor, h, out=out)
    return y


def _levels(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
    """The same in few steps: all chunks go through their tokens at once, then the states pass from chunk to chunk."""
    t, pad = b.shape[1], -b.shape[1] % LEVEL
    a, b = (torch.cat((x, x.new_zeros(len(x), pad, *x.shape[2:])), dim=1).unflatten(1, (-1, LEVEL)) for x in (a, b))
    y, decay = torch.empty_like(b), a.cumprod(2)  # (b, chunks, LEVEL, ...)
    last = torch.zeros_like(b[:, :, 0])
    for i in range(LEVEL):
        last = torch.addcmul(b[:, :, i], a[:, :, i], last)
        y[:, :, i] = last
    begins = []
    for chunk in range(b.shape[1]):
        begins.append(h)
        h = y[:, chunk, -1] + decay[:, chunk, -1] * h
    return torch.addcmul(y, decay, torch.stack(begins, dim=1).unsqueeze(2)).flatten(1, 2)[:, :t].contiguous()


@scan.register_fake
def _(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
    return torch.empty_like(b)


@torch.library.custom_op("shapeshifter::scan_back", mutates_args=())
def scan_back(a: Tensor, grad: Tensor) -> Tensor:
    """The gradient of b from that of y: e_t = grad_t + a_{t+1} e_{t+1}. Shape: as in scan."""
    if grad.is_cuda:
        earlier = torch.cat((torch.zeros_like(a[:, :1]), a[:, 1:].flip(1)), dim=1)
        return _levels(earlier, grad.flip(1), torch.zeros_like(grad[:, 0])).flip(1)
    found = torch.empty_like(grad)
    factors, e = (*a.unbind(1)[1:], None), None
    for factor, given, out in zip(reversed(factors), reversed(grad.unbind(1)), reversed(found.unbind(1)), strict=True):
        e = out.copy_(given) if e is None else torch.addcmul(given, factor, e, out=out)
    return found


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
