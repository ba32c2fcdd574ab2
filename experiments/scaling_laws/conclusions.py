"""What a study's losses say: the law with its intervals, how well it predicts, and the best sizes."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from experiments.scaling_laws.bootstrap import interval, ranges, resampled
from experiments.scaling_laws.law import LEAST, Law, Points, fit_law, residuals, scatter
from experiments.scaling_laws.optimum import Costs, Optimum, optimum

LEAST_RUNS = 7  # a fit of 5 parameters and something to tell its scatter by
NUM_BUDGETS = 5
BENT = 0.01  # p below which the law does not describe the runs
LEAST_PAIRS = 8  # of neighbours, to tell a pattern from chance
EXACT = 1e-6  # scatter below which there is nothing but rounding


@dataclass(frozen=True)
class Fit:
    """A law and how sure it is."""

    law: Law
    ranges: dict[str, tuple[float, float]]  # 95 % intervals of its parameters
    scatter: float  # of a run around it, relative to its loss
    laws: list[Law]  # of the bootstrap

    def loss_range(self, size: float, tokens: float) -> tuple[float, float]:
        """The 95 % interval of the law's loss."""
        return interval([law.loss(size, tokens) for law in self.laws])


@dataclass(frozen=True)
class LeftOut:
    """The largest runs, as the law of all others predicts them."""

    size: float
    tokens: float
    measured: float  # the mean over the seeds
    predicted: float
    low: float
    high: float  # of 95 %, with the scatter of a run

    @property
    def error(self) -> float:
        """Relative."""
        return self.predicted / self.measured - 1


@dataclass(frozen=True)
class Conclusions:
    """All that is said of a study."""

    free: Fit
    known: Fit | None  # with E at the text's entropy
    left_out: LeftOut | None  # None = the others are too few for a fit
    optima: list[Optimum]  # for budgets from those of the smallest runs to those of the largest
    growth: tuple[float, float, float]  # the power of the budget with which the best size grows, and its interval


def why_not(table: pd.DataFrame) -> str | None:
    """Why these runs allow no fit; None = they do."""
    sizes, counts = table["size"].nunique(), table.for_tokens.nunique()
    if min(sizes, counts) >= LEAST and len(table) >= LEAST_RUNS:
        return None
    return (f"no law is fitted: that needs {LEAST} sizes, {LEAST} numbers of tokens and {LEAST_RUNS} runs, and there "
            f"are {sizes}, {counts} and {len(table)}")


def points_of(table: pd.DataFrame) -> Points:
    return Points(*(table[name].to_numpy(float) for name in ("parameters", "tokens", "bits_per_byte")))


def conclude(table: pd.DataFrame, entropy: float | None) -> Conclusions:
    """Fit a study of which `why_not` says nothing. `entropy` is the E of a second fit; None = no second fit."""
    points = points_of(table)
    free = make_fit(points)
    costs = costs_of(table)
    budgets = np.geomspace(table.flops.min(), table.flops.max(), NUM_BUDGETS)
    powers = [law.b / (law.a + law.b) for law in (free.law, *free.laws)]
    return Conclusions(free, None if entropy is None else make_fit(points, entropy), leave_out(table),
                       [optimum(free.law, costs, budget) for budget in budgets],
                       (powers[0], *interval(powers[1:])))


def make_fit(points: Points, entropy: float | None = None) -> Fit:
    law = fit_law(points, entropy=entropy)
    laws = resampled(points, law, entropy=entropy)
    return Fit(law, ranges(laws), scatter(points, law, 5 if entropy is None else 4), laws)


def costs_of(table: pd.DataFrame) -> Costs:
    """FLOPs of a token of each size, as the logs have counted them."""
    sizes = (table.flops / table.tokens).groupby(table.parameters).mean()
    return Costs(sizes.index.to_numpy(), sizes.to_numpy())


def leave_out(table: pd.DataFrame) -> LeftOut | None:
    """Predict the largest size on the most tokens from all other runs."""
    largest = (table.parameters == table.parameters.max()) & (table.for_tokens == table.for_tokens.max())
    if not largest.any() or why_not(table[~largest]):
        return None
    size, tokens, measured = (float(values.mean()) for values in points_of(table[largest]))
    fit = make_fit(points_of(table[~largest]))
    chance = np.random.default_rng(1).standard_normal(len(fit.laws)) * fit.scatter
    drawn = [law.loss(size, tokens) * np.exp(one) for law, one in zip(fit.laws, chance, strict=True)]
    return LeftOut(size, tokens, measured, float(fit.law.loss(size, tokens)), *interval(drawn))


def bend(table: pd.DataFrame, fit: Fit) -> str | None:
    """A sentence if the runs lie off the law in a pattern rather than by chance; None = they do not.

    By chance neighbouring sizes on the same tokens lie off it independently; an error that all runs of a size share
    does not change that.
    """
    left = pd.Series(residuals(points_of(table), fit.law), table.index)
    grid = left.groupby([table.parameters, table.for_tokens]).mean().unstack()  # sizes x numbers of tokens
    pairs = pd.DataFrame({"one": grid[:-1].to_numpy().ravel(), "other": grid[1:].to_numpy().ravel()}).dropna()
    if not fit.scatter > EXACT or len(pairs) < LEAST_PAIRS:
        return None
    p = stats.pearsonr(pairs.one, pairs.other, alternative="greater").pvalue
    corners = ", ".join(f"{grid.iloc[row, column]:+.1%} for the {one} on the {other}" for row, one in (
        (0, "smallest"), (-1, "largest")) for column, other in ((0, "fewest tokens"), (-1, "most")))
    return None if p >= BENT else (
        f"The law does not describe these runs: they lie off it in a pattern ({corners}; by chance with p = {p:.1g}), "
        "which no interval here allows for. More tokens, and none of the fewest, may be where it holds.")


def unmeasured(fit: Fit, points: Points) -> list[str]:
    """A sentence for each exponent that the runs do not tell: its term at the largest is below a run's scatter."""
    law, largest, most = fit.law, float(points.sizes.max()), float(points.tokens.max())
    noise, found = fit.scatter * law.loss(largest, most), []
    for name, what, term in (("a", f"size at {largest:,.0f} parameters", law.of_size(largest)),
                             ("b", f"tokens at {most:,.0f}", law.of_tokens(most))):
        if term < noise:
            found.append(f"The part of the loss that is due to {what}, {term:.4f}, is below the scatter of a run, "
                         f"{noise:.4f}: {name} is not measured there, and says nothing of larger ones.")
    if law.E == 0:
        found.append("E is 0, its bound: the runs do not tell how much loss is left in the end.")
    return found
