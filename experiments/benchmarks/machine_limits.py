"""How fast the machine multiplies the matrices of a model and copies memory, measured where the model is measured."""

import math
import time
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from config import ModelConfig
from experiments.benchmarks.beside import Kind, timed
from model import Model, spelled_out
from modules.linear import by_onednn, product
from showing.gallery import cached_numbers

COPIED = 2**26  # bytes, more than most caches hold
LEAST_SECONDS = 0.05  # of each measurement, of which the fastest call counts
ADAMW_BYTES = 28  # of a parameter: it reads weight, gradient and both moments, and writes all but the gradient


def matmul_rate(model: Model, rows: int, dtype: torch.dtype, by: Kind, *, backward: bool = False) -> float:
    """FLOP/s of the products of all linear layers with `rows` vectors; `backward`: with those of their gradients."""
    device = next(model.parameters()).device
    shapes = Counter((part.in_features, part.out_features) for part in model.modules() if isinstance(part, nn.Linear))
    flops = seconds = 0.0
    for (wide, out), number in shapes.items():
        sizes = (rows, wide), (out, wide), (rows, out)
        x, w, y = (torch.randn(size, dtype=dtype, device=device) for size in sizes)
        pairs = [(x, w), (y, w.T), (y.T, x.T)] if backward else [(x, w)]
        flops += number * len(pairs) * 2 * rows * wide * out
        seconds += number * sum(seconds_of_product(a, b, by) for a, b in pairs)
    return flops / seconds


def seconds_of_product(a: Tensor, b: Tensor, by: Kind) -> float:
    """The seconds of a b^T, by the faster of the libraries that there are."""
    ways = [lambda: torch.mm(a, b.T)]
    if by_onednn(a, b):
        ways.append(lambda: product(a.contiguous(), b))
    return min(fastest(way, a.device, by) for way in ways)


def copy_rate(device: torch.device, by: Kind) -> float:
    """Bytes read and written in a second of a copy."""
    source = torch.ones(COPIED, dtype=torch.uint8, device=device)
    goal = torch.empty_like(source)
    return 2 * COPIED / fastest(lambda: goal.copy_(source), device, by)


def fastest(call: Callable[[], object], device: torch.device, by: Kind) -> float:
    """The seconds of the fastest of several calls."""
    best, until = math.inf, time.perf_counter() + LEAST_SECONDS
    call()
    while time.perf_counter() < until or best == math.inf:
        best = min(best, getattr(timed(call, device), by))
    return best


def in_words(rate: float, copied: float) -> str:
    return f"products {rate / 1e9:,.0f} GFLOP/s, copies {copied / 1e9:,.1f} GB/s"


# ---- generation ----


def flops_of_reading(cfg: ModelConfig, texts: int, length: int, *, cached: int = 0) -> int:
    """FLOPs of the logits after `length` tokens of each text that come after `cached` ones."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        model = Model(spelled_out(cfg)).eval()
        cache = model.make_cache(cached + length)
        tokens = torch.zeros(texts, cached + length, dtype=torch.int64)
        if cached:
            model(tokens[:, :cached], cache=cache, last_only=True)
        before = counter.get_total_flops()
        model(tokens[:, cached:], cache=cache, last_only=True)
        return counter.get_total_flops() - before


def cached_bytes(cfg: ModelConfig) -> int:
    """Bytes in float32 of the keys and values of a token."""
    return 4 * sum(cached_numbers(cfg.at(layer)) for layer in range(cfg.num_layers))
