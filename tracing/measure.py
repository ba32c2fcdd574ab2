"""Numbers about tensors: statistics, dead channels, floating point operations."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

STATS = ("none", "basic", "full")
HISTOGRAM_BINS = 12


def readable(x: Tensor) -> bool:
    """Whether the values of x may be looked at: not in fake, meta, vmapped, traced, empty ones."""
    return (
        type(x) in (Tensor, torch.nn.Parameter)
        and x.layout is torch.strided
        and x.numel() > 0
        and not (x.is_meta or x.is_quantized)
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
        and torch._C._get_tracing_state() is None
    )


def measure(x: Tensor, max_elems: int) -> Tensor:
    """min, max, mean, std of x, as one tensor on its device; mean and std of a sample if x is large.

    min and max see every element, and are NaN where one is: so no NaN or Inf can hide.
    """
    x = x.detach()
    if x.is_complex():
        x = x.abs()
    if x.dtype == torch.bool:
        x = x.byte()
    low, high = x.aminmax()
    sample = _sample(x, max_elems).float()
    std, mean = torch.std_mean(sample, correction=0)
    return torch.stack([low.float(), high.float(), mean, std])


def details(x: Tensor, max_elems: int) -> dict:
    """What "full" adds: counts of NaN and Inf, the share of zeros, a histogram of a sample."""
    x = x.detach().abs() if x.is_complex() else x.detach()
    sample = _sample(x, max_elems).float()
    finite = sample[sample.isfinite()]
    bins = torch.histc(finite, HISTOGRAM_BINS).int().tolist() if finite.numel() else []
    return {
        "nan": int(x.isnan().sum()),
        "inf": int(x.isinf().sum()),
        "zeros": (x == 0).float().mean().item(),
        "histogram": bins,
    }


def _sample(x: Tensor, max_elems: int) -> Tensor:
    x = x.flatten()
    return x[:: -(-x.numel() // max_elems)]


def live_channels(x: Tensor) -> Tensor:
    """True for each channel of the last axis that is somewhere not 0."""
    return (x.detach() != 0).flatten(0, -2).any(0)


def _cpu_attention_flops(query: Tensor, key: Tensor, value: Tensor, *args, **kwargs) -> int:
    """Two matrix products, in full, though a causal mask skips half. torch itself has no formula."""
    return sdpa_flop_count(query.shape, key.shape, value.shape)


FLOPS = dict(flop_registry)
FLOPS[torch.ops.aten._scaled_dot_product_flash_attention_for_cpu] = _cpu_attention_flops


class CountFlops(TorchDispatchMode):
    """Hands the FLOPs of each operation to `spend`."""

    def __init__(self, spend):
        super().__init__()
        self.spend = spend

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        formula = FLOPS.get(func._overloadpacket)
        if formula is not None:
            self.spend(formula(*args, **(kwargs or {}), out_val=out))
        return out
