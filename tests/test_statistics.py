"""Intervals hold what they promise, Welch's test is that of scipy, and Holm's correction that of his paper."""

import math

import numpy as np
import pytest
from scipy import stats

from experiments.common.intervals import holm, mean_interval, welch

VALUES, BASE = [0.812, 0.835, 0.829, 0.818], [0.851, 0.848, 0.856]


def test_an_interval_is_students():
    found = mean_interval(VALUES)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(VALUES), scale=stats.sem(VALUES))
    assert found == pytest.approx((np.mean(VALUES), low, high, np.std(VALUES, ddof=1), 4), rel=1e-12)


def test_a_wider_confidence_is_a_wider_interval():
    assert mean_interval(VALUES, 0.99).low < mean_interval(VALUES).low < mean_interval(VALUES, 0.5).low


def test_one_value_has_no_interval():
    mean, low, high, std, count = mean_interval([0.8])
    assert (mean, count) == (0.8, 1) and all(map(math.isnan, (low, high, std)))


def test_no_values_are_refused():
    with pytest.raises(ValueError, match="^no values"):
        mean_interval([])
    with pytest.raises(ValueError, match="^no values"):
        welch(VALUES, [])


@pytest.mark.slow
def test_an_interval_covers_the_mean_as_often_as_it_says():
    random = np.random.default_rng(0)
    found = [mean_interval(random.normal(3.0, 0.1, size=3)) for _ in range(4000)]
    assert np.mean([one.low <= 3.0 <= one.high for one in found]) == pytest.approx(0.95, abs=0.01)


def test_welch_is_that_of_scipy():
    found, theirs = welch(VALUES, BASE, 0.9), stats.ttest_ind(VALUES, BASE, equal_var=False)
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-12)
    assert (found.low, found.high) == pytest.approx(theirs.confidence_interval(0.9), rel=1e-12)
    assert found.mean == pytest.approx(np.mean(VALUES) - np.mean(BASE))


@pytest.mark.parametrize("pair", [([0.8], BASE), (VALUES, [0.8]), ([0.8], [0.9])])
def test_where_a_side_has_one_value_there_is_no_test(pair):
    assert welch(*pair).mean == pytest.approx(np.mean(pair[0]) - np.mean(pair[1]))
    assert all(map(math.isnan, welch(*pair)[1:]))


def test_equal_values_have_no_scatter():
    assert welch([0.1] * 3, [0.1] * 3) == (0.0, 0.0, 0.0, 1.0)  # 0.1 is not its own mean in floating point
    assert welch([0.3] * 3, [0.1] * 3).p == 0.0


def test_holm_multiplies_the_least_by_all_and_never_goes_down():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_does_not_count_what_was_not_tested():
    adjusted = holm([math.nan, 0.02, 0.03])
    assert math.isnan(adjusted[0]) and adjusted[1:] == pytest.approx([0.04, 0.04])
