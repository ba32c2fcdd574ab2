"""The scaling law loss = E + A / N^a + B / D^b of a model of N parameters and D tokens: its fit and its intervals."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares, nnls

EXPONENTS = 0.01, 5.0  # between which a and b are looked for
STARTS = 12  # of each, from which the best is improved
LEAST = 3  # sizes, and numbers of tokens, below which nothing is fitted


class Points(NamedTuple):
    """Runs; arrays of one length."""

    sizes: np.ndarray  # parameters
    tokens: np.ndarray
    losses: np.ndarray

    def taken(self, which: np.ndarray) -> "Points":
        """Some of them, by a mask or their numbers."""
        return Points(*(array[which] for array in self))


class Law(NamedTuple):
    """The five parameters."""

    E: float
    A: float
    a: float
    B: float
    b: float

    def of_size(self, sizes: np.ndarray | float) -> np.ndarray | float:
        """What the loss would lose with an endless model."""
        return self.A * sizes**-self.a

    def of_tokens(self, tokens: np.ndarray | float) -> np.ndarray | float:
        """What the loss would lose with endless text."""
        return self.B * tokens**-self.b

    def loss(self, sizes: np.ndarray | float, tokens: np.ndarray | float) -> np.ndarray | float:
        return self.E + self.of_size(sizes) + self.of_tokens(tokens)


def fit_law(points: Points, *, entropy: float | None = None, start: tuple[float, float] | None = None) -> Law:
    """The law with the least squares of relative residuals, which are those of the logarithm of the loss if small.

    Variable projection (Golub & Pereyra 1973; for scaling laws arXiv:2603.22339): for any a and b the best E, A and B,
    none below 0, are a linear problem, so that only a and b are searched for, from `start` or from a grid. E is
    `entropy` if that is given. Raises ValueError for fewer than 3 sizes or 3 numbers of tokens.
    """
    for name, values in (("sizes", points.sizes), ("numbers of tokens", points.tokens)):
        if len(set(values)) < LEAST:
            raise ValueError(f"a fit needs {LEAST} {name} or more, and {len(set(values))} are there")
    problem = Projection(points, entropy)
    if start is None:
        grid = np.geomspace(*EXPONENTS, STARTS)
        start = min(((a, b) for a in grid for b in grid), key=lambda pair: np.sum(problem(np.log(pair))**2))
    found = least_squares(problem, np.log(start), method="lm", xtol=1e-14, ftol=1e-14, gtol=1e-14, max_nfev=400)
    return problem.law(found.x)


class Projection:
    """The relative residuals of the best E, A and B for the logarithms of a and b."""

    def __init__(self, points: Points, entropy: float | None):
        self.points, self.entropy = points, entropy
        self.units = tuple(float(np.exp(np.log(values).mean())) for values in points[:2])  # to keep A and B near 1
        known = 0.0 if entropy is None else entropy
        self.target = (points.losses - known) / points.losses

    def __call__(self, logs: np.ndarray) -> np.ndarray:
        columns, factors = self._solved(logs)
        return columns @ factors - self.target

    def _solved(self, logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The columns of the linear problem and their factors. Shapes: (runs, 2 or 3), (2 or 3,)."""
        a, b = np.exp(np.clip(logs, *np.log(EXPONENTS)))
        sizes, tokens = (values / unit for values, unit in zip(self.points[:2], self.units, strict=True))
        terms = [np.ones_like(sizes)] * (self.entropy is None) + [sizes**-a, tokens**-b]
        columns = np.stack(terms, axis=1) / self.points.losses[:, None]
        return columns, nnls(columns, self.target)[0]

    def law(self, logs: np.ndarray) -> Law:
        a, b = map(float, np.exp(np.clip(logs, *np.log(EXPONENTS))))
        *own, A, B = map(float, self._solved(logs)[1])
        return Law(own[0] if own else self.entropy, A * self.units[0] ** a, a, B * self.units[1] ** b, b)


def residuals(points: Points, law: Law) -> np.ndarray:
    """The logarithms of the losses less those of the law."""
    return np.log(points.losses / law.loss(points.sizes, points.tokens))


def scatter(points: Points, law: Law, parameters: int = 5) -> float:
    """The standard deviation of a run around the law, relative to its loss; nan without a run to spare."""
    spare = len(points.losses) - parameters
    return float(np.sqrt(np.sum(residuals(points, law) ** 2) / spare)) if spare > 0 else float("nan")
