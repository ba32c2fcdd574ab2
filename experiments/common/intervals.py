"""How sure a mean is, how sure a difference is, and what is left of it where many are looked at."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.05  # from here on a p-value says no more than that it may be chance


class Interval(NamedTuple):
    """A mean with its confidence interval, in the unit of the values."""

    mean: float
    low: float
    high: float
    std: float  # of the values, by n - 1
    count: int


class Difference(NamedTuple):
    """A difference of two means with its confidence interval, and the p-value of there being none."""

    mean: float
    low: float
    high: float
    p: float


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The mean of some values by Student's t; one value has no interval (nan). Raises ValueError for none at all."""
    mean, variance, count = _moments(values)
    error = math.sqrt(variance / count)
    half = error * _quantile(confidence, count - 1)
    return Interval(mean, mean - half, mean + half, math.sqrt(variance), count)


def welch(values: Sequence[float], base: Sequence[float], confidence: float = 0.95) -> Difference:
    """The mean of `values` less that of `base`, which may scatter differently; p is two-sided.

    Welch 1947, with the degrees of freedom of Satterthwaite 1946. With fewer than two values on a side there are
    neither interval nor p (nan). Raises ValueError where a side has none.
    """
    (mean, variance, count), (base_mean, base_variance, base_count) = _moments(values), _moments(base)
    mean, parts = mean - base_mean, (variance / count, base_variance / base_count)
    error = math.sqrt(sum(parts))
    if error == 0:  # no scatter on either side: the difference is exact
        return Difference(mean, mean, mean, float(mean == 0))
    if math.isnan(error):
        return Difference(mean, math.nan, math.nan, math.nan)
    freedom = error**4 / (parts[0]**2 / (count - 1) + parts[1]**2 / (base_count - 1))
    half = error * _quantile(confidence, freedom)
    return Difference(mean, mean - half, mean + half, float(2 * stats.t.sf(abs(mean) / error, freedom)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number: below a level with at most that chance that any is so by luck.

    Holm 1979. nan is no test: it stays, and does not count.
    """
    adjusted, least = [math.nan] * len(p_values), 0.0
    tested = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    for rank, (p, place) in enumerate(tested):
        least = max(least, min(1.0, (len(tested) - rank) * p))
        adjusted[place] = least
    return adjusted


def _moments(values: Sequence[float]) -> tuple[float, float, int]:
    """Mean, variance by n - 1 (nan of one value), count."""
    array = np.asarray(values, dtype=float)
    if array.size == 0:
        raise ValueError("no values: a mean needs one or more")
    if array.size == 1:
        return float(array[0]), math.nan, 1
    # equal values differ from their mean by rounding, which is no scatter
    return float(array.mean()), 0.0 if np.ptp(array) == 0 else float(array.var(ddof=1)), array.size


def _quantile(confidence: float, freedom: float) -> float:
    return float(stats.t.ppf((1 + confidence) / 2, freedom)) if freedom > 0 else math.nan
