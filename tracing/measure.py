"""Statistics of tensors, channels that are always 0, and floating point operations."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode, _pop_mode, _push_mode
from torch.utils.flop_counter import flop_registry

STATS = ("none", "basic", "full")
MEASURED = {
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128,
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool,
}  # fmt: skip
PLAIN = MEASURED - {torch.float16, torch.bfloat16, torch.complex64, torch.complex128, torch.bool}
HISTOGRAM_BINS = 12
HUGE = 1e15


def readable(x: Tensor) -> bool:
    """Whether the values of x can be read: not those of fake, meta, vmapped, traced or empty tensors."""
    return (
        type(x) in (Tensor, torch.nn.Parameter)
        and x.dtype in MEASURED
        and x.layout is torch.strided
        and x.numel() > 0
        and not x.is_meta
        and torch._C._functorch.peek_interpreter_stack() is None  # no vmap, no func.grad
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
        and torch._C._get_tracing_state() is None
    )


NAMES = ("min", "max", "mean", "std")


def measure(x: Tensor, max_elems: int) -> dict[str, float]:
    """min, max, mean and std of a CPU tensor; mean and std of a sample if it is large.

    min and max are over every element, and NaN if one is NaN. Mean and std are over the finite elements.
    """
    values = _real(x).numpy()  # numpy takes half of torch's time on small tensors
    low, high = float(np.minimum.reduce(values, None)), float(np.maximum.reduce(values, None))
    sample = values.reshape(-1)
    if len(sample) > max_elems:
        sample = sample[:: -(-len(sample) // max_elems)]
    if sample.dtype.kind != "f":
        sample = sample.astype(np.float32)
    if low > -HUGE and high < HUGE:
        mean, std = _moments(sample)
    else:  # NaN, Inf, or numbers whose squares overflow float32
        with np.errstate(over="ignore"):
            mean, std = _moments(sample[np.isfinite(sample)].astype(np.float64))
    return {"min": low, "max": high, "mean": mean, "std": std}


def _moments(sample: np.ndarray) -> tuple[float, float]:
    count = len(sample) or 1
    mean = float(np.add.reduce(sample)) / count
    square = float(sample.dot(sample)) / count
    if square < 2 * mean * mean:  # the short formula below would lose digits
        sample = sample - mean
        return mean, math.sqrt(float(sample.dot(sample)) / count)
    return mean, math.sqrt(square - mean * mean)


def measure_later(x: Tensor, max_elems: int) -> Tensor:
    """The numbers of measure() as a tensor on the device of x, without synchronizing."""
    x = _real(x)
    low, high = x.aminmax()
    sample = _sample(x, max_elems)
    finite = sample.isfinite()
    count = finite.sum()
    mean = sample.where(finite, 0.0).sum() / count
    std = torch.linalg.vector_norm((sample - mean).where(finite, 0.0)) / count**0.5
    return torch.stack([low.float(), high.float(), mean, std])


def _real(x: Tensor) -> Tensor:
    x = x.detach()
    if x.dtype in PLAIN:
        return x
    if x.is_complex():
        return x.abs()
    return x.byte() if x.dtype == torch.bool else x.float()


def details(x: Tensor, max_elems: int) -> dict:
    """What stats="full" adds: counts of NaN and Inf, the share of zeros, a histogram of a sample."""
    x = _real(x)
    sample = _sample(x, max_elems)
    finite = sample[sample.isfinite()]
    bins = torch.histc(finite, HISTOGRAM_BINS).int().tolist() if finite.numel() else []
    return {
        "nan": int(x.isnan().sum()),
        "inf": int(x.isinf().sum()),
        "zeros": (x == 0).float().mean().item(),
        "histogram": bins,
    }


def _sample(x: Tensor, max_elems: int) -> Tensor:
    """At most `max_elems` elements, evenly spaced, as float32."""
    x = x.flatten()
    return (x if len(x) <= max_elems else x[:: -(-len(x) // max_elems)]).float()


def live_channels(x: Tensor) -> Tensor:
    """True for each channel of the last axis that is not 0 everywhere."""
    x = x.detach().flatten(0, -2)
    if x.is_cpu and x.dtype in PLAIN:  # numpy takes a tenth of the time
        return torch.from_numpy((x.numpy() != 0).any(0))
    return (x != 0).any(0)


def _cpu_attention_flops(query: Tensor, key: Tensor, value: Tensor, *args, **kwargs) -> int:
    """Two full matrix products, though a causal mask skips half. torch has no formula for this operation."""
    *_, head_dim = query.shape
    s, value_dim = value.shape[-2:]
    return 2 * (query.numel() // head_dim) * s * (head_dim + value_dim)


def _matrix_flops(a: Tensor, b: Tensor, *args, **kwargs) -> int:
    return 2 * a.numel() * b.shape[-1]


aten = torch.ops.aten
FLOPS = flop_registry | {
    aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention_flops,
    aten.mm: _matrix_flops,  # as torch counts it, but without its slow walk through the arguments
    aten.bmm: _matrix_flops,
    aten.addmm: lambda bias, *matrices, **kwargs: _matrix_flops(*matrices),
    aten.baddbmm: lambda bias, *matrices, **kwargs: _matrix_flops(*matrices),
}

WITHOUT_FLOPS: set[int] = set()  # ids of operations, which are never freed; their own hash is slower


class CountFlops(TorchDispatchMode):
    """Calls `spend` with the FLOPs of each operation."""

    def __init__(self, spend):
        super().__init__()
        self.spend = spend

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True imports torch._dynamo, which takes a second

    def linear(self, forward, module: torch.nn.Linear, *args, **kwargs) -> Tensor:
        """nn.Linear's forward, counted as one operation instead of the four that it dispatches."""
        if _get_current_dispatch_mode() is not self or torch._C._get_tracing_state() is not None:
            return forward(module, *args, **kwargs)
        _pop_mode()
        try:
            out = forward(module, *args, **kwargs)
        finally:
            _push_mode(self)
        self.spend(2 * module.in_features * out.numel())
        return out

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func._op(*args, **kwargs) if kwargs else func._op(*args)
        if id(func) not in WITHOUT_FLOPS:
            formula = FLOPS.get(func._overloadpacket) or flop_registry.get(func._overloadpacket)  # parts add theirs
            if formula is None:
                WITHOUT_FLOPS.add(id(func))
            else:
                self.spend(formula(*args, **(kwargs or {}), out_val=out))
        return out
