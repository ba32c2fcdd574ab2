"""Products of groups of rows with a matrix each, such as the tokens of each expert with its weights.

Each is one operation whose shapes do not depend on the groups: a model with experts compiles in one piece, is counted
without data, and its memory is predicted.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from tools import LoggingModule, log_io

# of a device, the dtypes for which torch multiplies all groups in one call; on a CPU not those that oneDNN compiles for
FAST = {"cpu": torch.float32, "cuda": torch.bfloat16}
ALIGNED_BYTES = 16  # of the rows and columns of a matrix, for that
LEAST_ROWS = 16


@torch.library.custom_op("shapeshifter::grouped_mm", mutates_args=())
def grouped_mm(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """Multiply each group of rows with the matrix of its number; group i ends before row ends[i].

    Shape: x (n, d), weight (e, d, f), ends (e,) int32 -> (n, f).
    """
    if _is_fast(x, *weight.shape[1:]):
        return nn.functional.grouped_mm(x.contiguous(), weight, offs=ends)
    out = x.new_empty(len(x), weight.shape[2])
    for number, rows in _groups(ends):
        window = _window(rows, x)
        if window.start == rows.start:  # what is too much belongs to later groups, which are still to come
            torch.mm(x[window], weight[number], out=out[window])
        else:
            out[rows] = x[window].mm(weight[number])[rows.start - window.start:][:rows.stop - rows.start]
    return out


@torch.library.custom_op("shapeshifter::grouped_outer", mutates_args=())
def grouped_outer(x: Tensor, y: Tensor, ends: Tensor) -> Tensor:
    """Multiply the transpose of each group of rows of x with those of y.

    Shape: x (n, d), y (n, f), ends (e,) int32 -> (e, d, f).
    """
    if _is_fast(x, x.shape[1], y.shape[1]):
        return nn.functional.grouped_mm(x.contiguous().mT, y.contiguous(), offs=ends)
    out = x.new_zeros(len(ends), x.shape[1], y.shape[1])
    for number, rows in _groups(ends):
        window, own = _window(rows, x), y[rows]
        if window != rows:
            own = y[window].clone()
            own[:rows.start - window.start] = own[rows.stop - window.start:] = 0
        torch.mm(x[window].mT, own, out=out[number])
    return out


def _is_fast(x: Tensor, *widths: int) -> bool:
    """Whether torch has a kernel for all groups together that suits."""
    return (len(x) > 0 and x.dtype == FAST.get(x.device.type)
            and all(width * x.element_size() % ALIGNED_BYTES == 0 for width in widths))


def _is_compiled(x: Tensor) -> bool:
    """Whether each number of rows has a program of its own, which oneDNN compiles and keeps."""
    return x.device.type == "cpu" and x.dtype == torch.bfloat16


def _window(rows: slice, x: Tensor) -> slice:
    """The rows of a group or, if few numbers of rows are to occur, some more: up to a quarter, and 16 at least."""
    count = rows.stop - rows.start
    if not _is_compiled(x):
        return rows
    step = max(LEAST_ROWS, 2 ** (count.bit_length() - 3))
    rounded = min(len(x), -(-count // step) * step)
    start = min(rows.start, len(x) - rounded)
    return slice(start, start + rounded)


def _groups(ends: Tensor) -> Iterator[tuple[int, slice]]:
    """The number and the rows of each group that has any."""
    start = 0
    for number, end in enumerate(ends.tolist()):
        if end > start:
            yield number, slice(start, end)
        start = end


@grouped_mm.register_fake
def _(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    return x.new_empty(len(x), weight.shape[2])


@grouped_outer.register_fake
def _(x: Tensor, y: Tensor, ends: Tensor) -> Tensor:
    return x.new_empty(len(ends), x.shape[1], y.shape[1])


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _of_mm(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
    x, weight, ends = context.saved_tensors
    return grouped_mm(gradient, weight.mT, ends), grouped_outer(x, gradient, ends), None


def _of_outer(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
    x, y, ends = context.saved_tensors
    return grouped_mm(y, gradient.mT, ends), grouped_mm(x, gradient, ends), None


grouped_mm.register_autograd(_of_mm, setup_context=_save)
grouped_outer.register_autograd(_of_outer, setup_context=_save)
for device in ("cpu", "cuda"):
    grouped_mm.register_autocast(device, torch.bfloat16)


@register_flop_formula([torch.ops.shapeshifter.grouped_mm, torch.ops.shapeshifter.grouped_outer])
def _flops(x_shape: torch.Size, *others: torch.Size, out_shape: torch.Size, **_: Any) -> int:
    rows, width = x_shape
    return 2 * rows * width * out_shape[-1]


class StackedLinear(LoggingModule):
    """A linear map for each group of rows.

    Shape: x (n, d), ends (e,) int32, the row before which each group ends -> (n, f); weight (e, f, d), bias (e, f).
    """

    roles = {"weight": "matrix"}

    def __init__(self, in_features: int, out_features: int, *, num_groups: int, bias: bool = False):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.empty(num_groups, out_features, in_features))
        self.bias = nn.Parameter(torch.empty(num_groups, out_features)) if bias else None

    def extra_repr(self) -> str:
        return (f"in_features={self.in_features}, out_features={self.out_features}, groups={len(self.weight)}, "
                f"bias={self.bias is not None}")

    @log_io
    def forward(self, x: Tensor, ends: Tensor) -> Tensor:
        y = grouped_mm(x, self.weight.mT, ends)
        if self.bias is None:
            return y
        number = torch.searchsorted(ends, torch.arange(len(x), device=x.device, dtype=ends.dtype), right=True)
        return y + self.bias.type_as(y)[number]
