"""Models that take no memory, to count and compare their weights: on the meta device, and never filled."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

RANGES = ("arange", "linspace", "logspace")


class Unfilled(TorchFunctionMode):
    """Inside, tensors on meta are not filled, and what they would be filled with is computed on the CPU.

    Arithmetic on meta has no effect, but would import torch's compiler and sympy: 70 MB, and seconds.
    """

    def __torch_function__(
        self, function: Callable, types: Sequence[type], args: Sequence = (), kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name, kwargs = getattr(function, "__name__", ""), kwargs or {}
        filled = args[0] if args else kwargs.get("tensor")
        if name.endswith("_") and not name.endswith("__") and isinstance(filled, Tensor) and filled.is_meta:
            return filled
        return function(*args, **kwargs | ({"device": "cpu"} if name in RANGES else {}))


@contextlib.contextmanager
def unfilled() -> Iterator[None]:
    """Inside, a model is made at once and takes no memory; its weights have shapes and no values."""
    with torch.device("meta"), Unfilled():
        yield
