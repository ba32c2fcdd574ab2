"""Tracing (LoggingModule, log_io, trace, shapes), models that take no memory, device and seed."""

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from copy import copy

import numpy as np
import torch
from torch import nn

from tracing import LIVE, Trace, is_watched, shapes, trace
from tracing.axes import parse_dims
from tracing.unfilled import unfilled

__all__ = [
    "LoggingModule",
    "Trace",
    "deterministic",
    "has_fast_bfloat16",
    "is_watched",
    "log_io",
    "pick_device",
    "seed_everything",
    "shapes",
    "trace",
    "unfilled",
]


class LoggingModule(nn.Module):
    """The base class of every part: it can print its calls as they happen.

    Each switch acts on the module and, if `recursive`, on all modules in it. `trace` records calls instead.
    """

    def __repr__(self) -> str:
        """The architecture, without the parts that do nothing."""
        shown = copy(self)
        shown._modules = {name: part for name, part in self._modules.items() if type(part) is not nn.Identity}
        return super(LoggingModule, shown).__repr__()

    def enable_logging(self, recursive: bool = True) -> None:
        """Print each call with its arguments and results."""
        LIVE.change(self, recursive, lambda switches: setattr(switches, "on", True))

    def disable_logging(self, recursive: bool = True) -> None:
        """Print nothing; the methods are the original ones again."""
        LIVE.change(self, recursive, lambda switches: setattr(switches, "on", False))

    def disable_function_logging(self, name: str, recursive: bool = True) -> None:
        """Do not print the method `name`. Raises ValueError if there is none."""
        LIVE.require_method(self, recursive, name)
        LIVE.change(self, recursive, lambda switches: switches.muted.add(name))

    def enable_function_logging(self, name: str, recursive: bool = True) -> None:
        """Print the method `name` again. Raises ValueError if there is none."""
        LIVE.require_method(self, recursive, name)
        LIVE.change(self, recursive, lambda switches: switches.muted.discard(name))

    def enable_full_tensor_printing(self, recursive: bool = True) -> None:
        """Print all numbers of each tensor."""
        LIVE.change(self, recursive, lambda switches: setattr(switches, "full", True))

    def disable_full_tensor_printing(self, recursive: bool = True) -> None:
        """Print shapes and statistics only."""
        LIVE.change(self, recursive, lambda switches: setattr(switches, "full", False))


def log_io(dims: str | Callable | None = None, *, name: str = ""):
    """Mark a method to be traced: `@log_io`, or `@log_io("b t d -> b h t p", name="split")`.

    `dims` names the axes of the tensors among the positional arguments and of the results; a trace verifies them.
    Returns the function itself, with `__log_io__` set, so it costs nothing unless traced.
    Raises ValueError for an invalid dims string.
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
    """The device to run on; "auto" = cuda, else mps, else cpu.

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


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware: recent GPUs, AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    tell = getattr(torch.cpu, "get_capabilities", dict)  # an older torch does not tell: assume not
    capabilities = tell()
    return device.type == "cpu" and any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))


def seed_everything(seed: int) -> None:
    """Seed the random numbers of Python, numpy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextlib.contextmanager
def deterministic(on: bool) -> Iterator[None]:
    """In the block, if `on`, torch uses only algorithms that give the same bits on the same machine.

    Raises ValueError if an operation has none.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    if on:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by cuBLAS
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False  # it chooses the algorithm that is fastest this time
    try:
        yield
    except RuntimeError as error:
        what, found, _ = str(error).partition(" does not have a deterministic implementation")
        if not on or not found:
            raise
        raise ValueError(f"train.deterministic=True: {what} has no deterministic form on this device: leave the flag "
                         "out, or use train.device=cpu") from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
