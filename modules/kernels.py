"""Functions whose gradients are written by hand, because they take less time or memory than those of autograd."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from modules.precision import full_precision, widen

Split = Callable[[Tensor], tuple[Tensor, Tensor]]


class _OfTargets(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        index, p = targets.unsqueeze(-1), logits.softmax(-1)
        ctx.save_for_backward(p, index)
        logit = logits.gather(-1, index).squeeze(-1)
        return logit, logits.amax(-1) - p.amax(-1).log() - logit  # the largest p is not rounded to 0

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, of_logit: Tensor, of_nats: Tensor) -> tuple[Tensor, None]:
        p, index = ctx.saved_tensors
        gradient = p * of_nats.unsqueeze(-1)
        return gradient.scatter_add_(-1, index, (of_logit - of_nats).unsqueeze(-1)), None


def of_targets(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The logit of each target, and its nats, -log softmax(logits) there; their sum is logsumexp(logits).

    Its gradient is softmax * d nats, and at the target d logit - d nats besides: two passes over the logits, where
    those of a softmax, two gathers and their sum take seven. Shape: (..., v), (...) int64 -> (...), (...).
    """
    return _OfTargets.apply(logits, targets)


class _SumOfChunks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, call: Callable[..., Sequence[Tensor]], size: int, num_parts: int, *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        is_wanted, parts, parameters = ctx.needs_input_grad[3:], tensors[:num_parts], tensors[num_parts:]
        chunks, sums, of_parameters = [], None, None
        for pieces in zip(*(part.split(size, dim=1) for part in parts), strict=True):
            found, gradients = _of_chunk(call, pieces, parameters, is_wanted)
            chunks.append(gradients[:num_parts])
            of_parameters = _added(of_parameters, gradients[num_parts:])
            sums = found if sums is None else [one + other for one, other in zip(sums, found, strict=True)]
        of_parts = [None if each[0] is None else torch.cat(each, dim=1) for each in zip(*chunks, strict=True)]
        ctx.gradients = [*of_parts, *of_parameters]
        ctx.mark_non_differentiable(*sums[1:])
        return tuple(sums)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, of_sum: Tensor, *_) -> tuple[Tensor | None, ...]:
        return None, None, None, *(None if x is None else x * of_sum for x in ctx.gradients)


def _of_chunk(
    call: Callable[..., Sequence[Tensor]], pieces: Sequence[Tensor], parameters: Sequence[Tensor],
    is_wanted: Sequence[bool],
) -> tuple[list[Tensor], list[Tensor | None]]:
    """What `call` finds for a chunk, and the gradients of the first of it, None where none is wanted."""
    own = [piece.detach().requires_grad_(is_it) for piece, is_it in zip(pieces, is_wanted, strict=False)]
    with torch.enable_grad():
        found = call(*own)
    wanted = [x for x, is_it in zip((*own, *parameters), is_wanted, strict=True) if is_it]
    gradients = iter(torch.autograd.grad(found[0], wanted) if wanted else ())
    return [x.detach().clone() for x in found], [next(gradients) if is_it else None for is_it in is_wanted]


def _added(sums: list[Tensor | None] | None, more: list[Tensor | None]) -> list[Tensor | None]:
    """The sums of gradients, changed; None = none so far."""
    if sums is None:
        return more
    return [total if x is None else total.add_(x) for total, x in zip(sums, more, strict=True)]


def sum_of_chunks(
    call: Callable[..., Sequence[Tensor]], *parts: Tensor, parameters: Sequence[Tensor], size: int,
) -> list[Tensor]:
    """The sums of what `call` returns for chunks of `size` positions of parts (b, t, ...), scalars.

    The first has a gradient, for the parts and for the `parameters` that `call` reads. It is made together with the
    sum, so that of what a chunk needs, such as its logits, nothing is kept or computed twice: they stay in a cache.
    Hsu et al. 2024, arXiv:2410.10989 (Liger kernels), section 3.2.
    """
    if torch.is_grad_enabled():
        return list(_SumOfChunks.apply(call, size, len(parts), *parts, *parameters))
    chunks = zip(*(part.split(size, dim=1) for part in parts), strict=True)
    return [torch.stack(each).sum() for each in zip(*(call(*chunk) for chunk in chunks), strict=True)]


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, scale: Tensor | None, eps: float) -> Tensor:
        wide = widen(x)
        inverse = (wide.square().mean(-1, keepdim=True) + eps).rsqrt()
        ctx.save_for_backward(x, inverse, scale)
        y = wide * inverse
        return (y if scale is None else y.mul_(scale)).type_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, of_y: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, inverse, scale = ctx.saved_tensors
        wide, of_y = widen(x), widen(of_y)
        products = of_y * wide
        with full_precision(x.device.type):
            dots = products.sum(-1, keepdim=True) if scale is None else (products @ scale).unsqueeze(-1)
            of_scale = None if scale is None else inverse.flatten() @ products.reshape(-1, x.shape[-1])
        of_x = of_y * inverse if scale is None else (of_y * scale).mul_(inverse)
        of_x.addcmul_(wide, dots * inverse.pow(3), value=-1 / x.shape[-1])
        return of_x.type_as(x), of_scale, None


def rms_norm(x: Tensor, scale: Tensor | None, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * scale over the last axis; the scale is in float32 as the statistics are, or float64.

    torch has no kernel of its own for a CPU, and goes over x some twenty times. Shape: (..., d), (d,) -> (..., d).
    """
    if x.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _RMSNorm.apply(x, scale, eps)
    return nn.functional.rms_norm(widen(x), x.shape[-1:], scale, eps).type_as(x)


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, cos: Tensor, sin: Tensor, split: Split) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.split = split
        return _rotated(x, cos, sin, split)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, of_y: Tensor) -> tuple[Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotated(of_y, cos, -sin, ctx.split), None, None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, split: Split) -> Tensor:
    wide = widen(x)
    of_each = cos.new_empty(*cos.shape[:-1], x.shape[-1])  # (..., t, p)
    for part in split(of_each):
        part.copy_(cos)
    y = torch.mul(wide, of_each, out=torch.empty(x.shape, dtype=wide.dtype, device=x.device))
    for out, other, sign in zip(split(y), reversed(split(wide)), (-1, 1), strict=True):
        out.addcmul_(other, sin, value=sign)
    return y.type_as(x)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, split: Split) -> Tensor:
    """Turn pairs (a, b) of channels, which `split` gives, to (a cos - b sin, b cos + a sin), in float32.

    Shape: x (..., t, p), cos and sin (..., t, p/2) -> (..., t, p).
    """
    return _Rotation.apply(x, cos, sin, split)
