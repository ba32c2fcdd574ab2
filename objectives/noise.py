"""Random numbers as a function of keys: the same on every machine, in any batch, and after a resume.

A key is a number of 64 bits, of a row say; every draw from it has a number. The bits are those of SplitMix64 (Steele,
Lea & Flood 2014, "Fast splittable pseudorandom number generators", OOPSLA), in integers that wrap around.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

GOLDEN = -7046029254386353131  # 2^64 / the golden ratio, odd
MIX = (30, -4658895280553007687), (27, -7723592293110705685)


def mixed(x: Tensor) -> Tensor:
    """Bits that show no trace of their order. Shape: any int64 -> the same."""
    x = x + GOLDEN
    for shift, factor in MIX:
        x = (x ^ _shifted(x, shift)) * factor
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, by: int) -> Tensor:
    """The bits moved to the right, zeros from the left."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def uniform(keys: Tensor, size: Sequence[int] = (), *, draw: int = 0) -> Tensor:
    """Numbers in [0, 1) for each key; each `draw` gives others. Shape: keys (b,) -> (b, *size), float64."""
    index = torch.arange(math.prod(size), device=keys.device)
    bits = mixed(mixed(mixed(keys) + draw).unsqueeze(-1) + index * GOLDEN)
    return (_shifted(bits, 11).double() * 2.0**-53).view(*keys.shape, *size)


def normal(keys: Tensor, size: Sequence[int], *, draw: int = 0) -> Tensor:
    """Standard normal numbers for each key, by Box and Muller. Shape: keys (b,) -> (b, *size), float32."""
    radius, angle = uniform(keys, (*size, 2), draw=draw).unbind(-1)
    return ((-2 * (1 - radius).log()).sqrt() * (2 * math.pi * angle).cos()).float()


def ranks(keys: Tensor, among: Tensor, *, draw: int = 0, size: int | None = None) -> Tensor:
    """A random order of the places that are `among`, counted from 0; the others come last. Of each `size` places.

    Shape: keys (b,), among (b, t) bool -> (b, t).
    """
    t = among.shape[1]
    value = uniform(keys, (t,), draw=draw).where(among, 2.0)
    if size is not None:
        value = torch.nn.functional.pad(value, (0, -t % size), value=2.0).unflatten(1, (-1, size))
    return value.argsort(-1).argsort(-1).flatten(1)[:, :t]


def row_keys(*numbers: Tensor | int) -> Tensor:
    """A key of several numbers, the last of which may be a tensor (b,). Shape: -> (b,), int64."""
    key: Tensor | int = torch.zeros((), dtype=torch.int64)
    for number in numbers:
        key = mixed(key + number)
    return key


def keys_of_text(tokens: Tensor) -> Tensor:
    """A key of each row that follows from its tokens alone. Shape: (b, t) -> (b,), int64."""
    place = mixed(torch.arange(tokens.shape[1], device=tokens.device))
    return mixed((mixed(tokens) ^ place).mul(GOLDEN).sum(-1))
