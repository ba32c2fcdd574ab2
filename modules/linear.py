"""Linear maps, by the faster of a CPU's two libraries of matrix products."""

from pathlib import Path
from platform import processor

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.utils.flop_counter import register_flop_formula


def _has_slow_mkl() -> bool:
    """Whether products of float32 go to MKL on a CPU of another maker than its own, for which it has older kernels."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    told = Path("/proc/cpuinfo")
    return "Intel" not in (told.read_text() if told.is_file() else processor())


SLOW_MKL = _has_slow_mkl()
MIN_PRODUCTS = 2**20  # of several rows; below, oneDNN's way to its kernel takes longer than it saves

if SLOW_MKL:
    @register_flop_formula(torch.ops.mkldnn._linear_pointwise)
    def _flops(x: torch.Size, weight: torch.Size, *_, **__) -> int:
        return 2 * x.numel() * weight[0]


class Linear(nn.Linear):
    """x W^T + b. Shape: (..., d) -> (..., f)."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + b; many rows of float32 by oneDNN where it is twice as fast, e.g. on a CPU of AMD.

    Shape: (..., d), (f, d), (f,) -> (..., f).
    """
    if not by_onednn(x, weight):
        return nn.functional.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias) if torch.is_grad_enabled() else product(x, weight, bias)


def by_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN is faster. Shape: (..., d), (f, d)."""
    rows = x.numel() // weight.shape[1]
    return rows > 1 and rows * weight.numel() >= MIN_PRODUCTS and is_onednns(x, weight)


def is_onednns(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN multiplies the two faster if they are large enough. Shape: (..., d), (f, d)."""
    return (suits_onednn(x) and weight.dtype == x.dtype
            and (weight.is_contiguous() or weight.mT.is_contiguous()))  # a part of a matrix takes it 2000 times as long


def suits_onednn(x: Tensor) -> bool:
    """Whether oneDNN multiplies whole matrices faster that are large enough, of such a tensor. Shape: any."""
    return SLOW_MKL and x.is_cpu and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b by oneDNN. Shape: (..., d), (f, d), (f,) -> (..., f)."""
    if torch.compiler.is_compiling():
        return _whole_product(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@torch.library.custom_op("shapeshifter::product", mutates_args=())
def _whole_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The same, which torch.compile leaves as it is."""
    is_dense = weight.is_contiguous() or weight.mT.is_contiguous()
    return product(x, weight if is_dense else weight.contiguous(), bias)


@_whole_product.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(weight))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, of_y: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = of_y.reshape(-1, of_y.shape[-1])  # (n, f)
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = product(rows, weight.T).view(x.shape)
        if ctx.needs_input_grad[1]:
            of_weight = _of_weight(rows, x.reshape(-1, x.shape[-1]))
        if ctx.needs_input_grad[2]:
            of_bias = rows.sum(0)
        return of_x, of_weight, of_bias


def _of_weight(rows: Tensor, x: Tensor) -> Tensor:
    """rows^T x. Of the rows a copy is made, or if that is less than half, of x and of the result.

    Shape: (n, f), (n, d) -> (f, d).
    """
    (n, f), d = rows.shape, x.shape[1]
    if n * f > 2 * d * (n + f):
        return product(x.T.contiguous(), rows.contiguous().T).T.contiguous()
    return product(rows.T.contiguous(), x.contiguous().T)
