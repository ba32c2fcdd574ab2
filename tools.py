"""The looking glass: LoggingModule, log_io, trace, shapes. Then device and seed. Nothing else."""

import random
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from axes import parse_dims


class LoggingModule(nn.Module):
    """The base of every part."""


def log_io(dims: str | Callable | None = None, *, name: str = ""):
    """Mark a method as worth seeing: `@log_io`, or `@log_io("b t d -> b h t p", name="split")`.

    `dims` names the axes of the positional tensors and of the results; a trace verifies it. The
    function itself comes back, with `__log_io__` set: unless traced it costs nothing.
    Raises ValueError for a malformed dims string.
    """
    if callable(dims):
        dims.__log_io__ = ("", name)
        return dims

    def mark(function: Callable) -> Callable:
        function.__log_io__ = (dims or "", name)
        return function

    if dims:
        parse_dims(dims)
    return mark


def pick_device(name: str = "auto") -> torch.device:
    """The device to run on; "auto" takes cuda, then mps, then cpu.

    Raises ValueError for a device that this machine lacks.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, here in available.items() if here))
    kind = name.partition(":")[0]
    if not available.get(kind):
        here = ", ".join(kind for kind, here in available.items() if here)
        raise ValueError(f"device={name} is not available: use one of auto, {here}")
    return torch.device(name)


def seed_everything(seed: int) -> None:
    """Seed the random numbers of Python, numpy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
