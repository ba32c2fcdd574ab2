"""Which numbers stay exact when a model is moved to another dtype."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from tools import LoggingModule


def widen(x: Tensor) -> Tensor:
    """x in float32, for statistics, angles and sums; float64 stays as it is. Shape: any."""
    return x if x.dtype == torch.float64 else x.float()


def narrow(x: Tensor) -> Tensor:
    """x in the dtype of products under autocast, for several that read it: each would cast it again. Shape: any."""
    kind = x.device.type
    if kind not in AUTOCAST_DEVICES or x.dtype != torch.float32 or not torch.is_autocast_enabled(kind):
        return x
    return x.to(torch.get_autocast_dtype(kind))


# determined once at import: torch.compile cannot trace the call
AUTOCAST_DEVICES = frozenset(filter(torch.amp.is_autocast_available, ("cpu", "cuda", "mps", "xpu", "xla")))


def full_precision(device_type: str):
    """Switch autocast off, if the device has it, so that sums are in float32."""
    return torch.autocast(device_type, enabled=False) if device_type in AUTOCAST_DEVICES else nullcontext()


def constants(count: int) -> nn.Buffer:
    """A buffer for `count` float32 numbers that no checkpoint holds: `reset_parameters` fills it."""
    return nn.Buffer(torch.empty(count, dtype=torch.float32), persistent=False)


class Float32Buffers(LoggingModule):
    """A part whose float32 buffers are constants, such as frequencies: they stay float32, to the bit, in every dtype.

    `model.to(torch.bfloat16)`, `.half()`, `.double()` and the like move them to the device only.
    """

    def _apply(self, fn, recurse: bool = True):
        exact = {name: x for name, x in self._buffers.items() if x is not None and x.dtype == torch.float32}
        super()._apply(fn, recurse)
        for name, x in exact.items():
            moved = self._buffers[name]
            if moved.dtype != x.dtype:
                self._buffers[name] = x.to(moved.device)
        return self
