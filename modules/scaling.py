"""How parameters grow with the width of a model, for the flag `scaling`."""

import math
from typing import NamedTuple

from torch import nn

from modules.mlps.grouped import StackedLinear


class Fans(NamedTuple):
    """The sizes of a parameter. What acts on each channel by itself has one input: a norm, a convolution, a table."""

    inputs: float  # numbers that add up in one output
    outputs: float  # of a matrix; a stack has several
    size: float  # all numbers


class Growth(NamedTuple):
    """The sizes of a parameter, and the powers of the width with which they grow."""

    fans: Fans
    powers: Fans


FIXED = Growth(Fans(1, 1, 1), Fans(0, 0, 0))


def fans_of(model: nn.Module) -> dict[str, Fans]:
    """The sizes of each parameter, by its name.

    nn.Linear.weight and StackedLinear.weight have the inputs of their part. A part with other matrices says it in
    `fan_in`: {"up": 16}. All others have one: norms, biases, gates, decays, convolutions of a channel, and tables, of
    which a row is taken.
    """
    inputs: dict[str, float] = {}
    for path, part in model.named_modules():
        own = {"weight": part.in_features} if isinstance(part, nn.Linear | StackedLinear) else {}
        own |= part.fan_in() if hasattr(part, "fan_in") else {}
        inputs |= {f"{path}.{name}".lstrip("."): number for name, number in own.items()}
    return {name: Fans(inputs.get(name, 1), p.shape[-2:].numel() / inputs.get(name, 1), p.numel())
            for name, p in model.named_parameters(remove_duplicate=False)}


def growth(narrow: nn.Module, wide: nn.Module, factor: int) -> dict[str, Growth]:
    """How each parameter grows from a model to one `factor` times as wide.

    Powers are whole and half ones, for sizes are rounded: to a multiple of 32, say. The inputs of a matrix that reads
    the stream have power 1, those of one that reads a latent vector of fixed rank, of a convolution and of a table 0,
    and those of one whose rank follows the root of the width 1/2.
    """
    after = fans_of(wide)
    return {name: Growth(fans, Fans(*(_power(*pair, factor) for pair in zip(fans, after[name], strict=True))))
            for name, fans in fans_of(narrow).items()}


def _power(narrow: float, wide: float, factor: int) -> float:
    return round(2 * math.log(wide / narrow, factor)) / 2
