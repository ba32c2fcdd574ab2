"""Confidence intervals, tests of a difference, and the correction for many tests."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.05  # significance level: a larger p-value may be chance


class Interval(NamedTuple):
    """A mean with its confidence interval, in the unit of the values."""

    mean: float
    low: float
    high: float
    std: float  # of the values, with n - 1
    count: int


class Difference(NamedTuple):
    """A difference of two means with its confidence interval, and the p-value of no difference."""

    mean: float
    low: float
    high: float
    p: float


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The mean of some values with Student's t interval; nan for a single value. Raises ValueError for none."""
    values = _array(values)
    mean, count = float(values.mean()), values.size
    if count == 1 or np.ptp(values) == 0:  # no interval; or no scatter, though the mean is rounded
        std = math.nan if count == 1 else 0.0
        return Interval(mean, mean - std, mean + std, std, count)
    low, high = stats.t.interval(confidence, count - 1, loc=mean, scale=stats.sem(values))
    return Interval(mean, float(low), float(high), float(values.std(ddof=1)), count)


def welch(values: Sequence[float], base: Sequence[float], confidence: float = 0.95) -> Difference:
    """The mean of `values` minus that of `base`, by Welch's t-test for unequal variances; p is two-sided.

    Interval and p are nan if a side has a single value. Raises ValueError if a side has none.
    """
    values, base = _array(values), _array(base)
    mean = float(values.mean() - base.mean())
    if min(values.size, base.size) == 1:
        return Difference(mean, math.nan, math.nan, math.nan)
    if np.ptp(values) == np.ptp(base) == 0:  # no scatter on either side: the difference is exact
        return Difference(mean, mean, mean, float(mean == 0))
    test = stats.ttest_ind(values, base, equal_var=False)
    return Difference(mean, *map(float, test.confidence_interval(confidence)), float(test.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979), which bounds the chance of any false positive.

    nan means that there was no test: it stays and does not count.
    """
    tested = pd.Series([*p_values], dtype=float).dropna().sort_values()
    adjusted = (tested * range(len(tested), 0, -1)).clip(upper=1).cummax()
    return adjusted.reindex(range(len(p_values))).tolist()


def _array(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.size == 0:
        raise ValueError("no values: a mean needs one or more")
    return array
