"""Counts and rows of all processes that train the same model, each on its part of a batch.

Inside `counted_together()` every process must run the same forward passes, for each of them waits for the others here.
Elsewhere, and in one process, a tensor stays as it is.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, distributed

_together = False


@contextlib.contextmanager
def counted_together() -> Iterator[None]:
    """In the block counts are those of all processes, where a gradient is wanted: evaluations are no part of it."""
    global _together
    _together = True
    try:
        yield
    finally:
        _together = False


def _is_together() -> bool:
    return _together and torch.is_grad_enabled()


def per_process(count: Tensor, *, least: int = 0) -> Tensor:
    """The mean of a count over the processes, whose sum is at `least` so much. Shape: any.

    If each process divides the sum of its losses by it, then the mean of these over the processes, which is what
    gradients are averaged to, is the sum of all losses divided by the whole count.
    """
    if not _is_together():
        return count.clamp(min=least) if least else count
    total = count.detach().to(torch.float64, copy=True)
    distributed.all_reduce(total)
    return (total.clamp(min=least) / distributed.get_world_size()).float()


def rows_of_all(x: Tensor) -> Tensor:
    """The rows of all processes, in the order of their batch. Shape: (b, ...) -> (processes * b, ...)."""
    if not _is_together():
        return x
    parts = [torch.empty_like(x) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def own_rows(x: Tensor) -> Tensor:
    """Of the rows of all processes those of this one. Shape: (processes * b, ...) -> (b, ...)."""
    return x.chunk(distributed.get_world_size())[distributed.get_rank()] if _is_together() else x


def full(x: Tensor) -> Tensor:
    """A tensor that may lie in parts in the processes, put together in each. Shape: any."""
    return x.full_tensor() if is_sharded(x) else x


def local(x: Tensor) -> Tensor:
    """This process's part of a tensor that may lie in parts in the processes. Shape: any."""
    return x.to_local() if is_sharded(x) else x


def is_sharded(x: Tensor) -> bool:
    """Whether a tensor lies in parts in the processes: a DTensor, which takes a second to import."""
    return hasattr(x, "full_tensor")
