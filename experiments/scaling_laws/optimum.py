"""What follows from a law: the best size for a budget of FLOPs."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.scaling_laws.law import Law

NUM_SIZES = 1000  # that are tried


class Optimum(NamedTuple):
    """The best size for a budget, of those that were trained or lie between them."""

    flops: float
    size: float  # parameters
    tokens: float
    loss: float
    is_inside: bool  # False = the best size is the smallest or the largest of the study, and may lie beyond


class Costs:
    """FLOPs of a training token by the size, as counted for the sizes of a study; between them by straight lines of
    the logarithms."""

    def __init__(self, sizes: Sequence[float], flops: Sequence[float]):
        order = np.argsort(sizes)
        self.sizes, self.flops = np.asarray(sizes, float)[order], np.asarray(flops, float)[order]

    def __call__(self, sizes: np.ndarray) -> np.ndarray:
        return np.exp(np.interp(np.log(sizes), np.log(self.sizes), np.log(self.flops)))


def optimum(law: Law, costs: Costs, flops: float) -> Optimum:
    """The size at which a budget gives the lowest loss, by counted FLOPs in place of 6 N D."""
    sizes = np.geomspace(costs.sizes[0], costs.sizes[-1], NUM_SIZES)
    tokens = flops / costs(sizes)
    losses = law.loss(sizes, tokens)
    best = int(np.argmin(losses))
    return Optimum(flops, float(sizes[best]), float(tokens[best]), float(losses[best]), 0 < best < NUM_SIZES - 1)
