"""Verdicts as numbers: grades with their intervals, wins with their test."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest, permutation_test

from experiments.common.intervals import holm, mean_interval
from experiments.judging.rubric import AGES, CRITERIA

Verdicts = Sequence[dict[str, Any] | None]  # of each text, None = no reply was what was asked for
OTHER = {"1": "2", "2": "1", "equal": "equal"}


def criteria_table(verdicts: dict[str, Verdicts]) -> pd.DataFrame:
    """A row for each run and criterion: the mean of 10 with its 95 % interval over the beginnings, by Student's t.

    `gap` is what the run has more than the first, on the beginnings that both were graded on, with its interval; `p`,
    of its signs being chance, is corrected for the number of gaps (Holm).
    """
    first, rows = next(iter(verdicts.values())), []
    for name, given in verdicts.items():
        for criterion in CRITERIA:
            values = [verdict[criterion] for verdict in given if verdict and criterion in verdict]
            if not values:
                continue
            row = {"run": name, "criterion": criterion} | interval("", values)
            pairs = [(ours, base) for ours, base in zip(given, first, strict=True) if ours and base]
            if given is not first and pairs:
                gaps = [ours[criterion] - base[criterion] for ours, base in pairs]
                row |= interval("gap_", gaps) | {"p": flip_test(gaps)}
            rows.append(row)
    table = pd.DataFrame(rows, columns=["run", "criterion", "mean", "low", "high", "count",
                                        "gap_mean", "gap_low", "gap_high", "gap_count", "p"])
    return table.assign(p=holm(table.p))


def interval(prefix: str, values: Sequence[float]) -> dict[str, float]:
    found = mean_interval(values)
    return {f"{prefix}{part}": getattr(found, part) for part in ("mean", "low", "high", "count")}


def flip_test(gaps: Sequence[float]) -> float:
    """The two-sided p-value of a mean so far from 0 where each gap could as well have the other sign (Fisher 1935).

    Unlike Student's t it holds for grades, which are few whole numbers. One gap has none (nan).
    """
    if len(gaps) < 2:
        return math.nan
    return float(permutation_test((gaps,), np.mean, permutation_type="samples", random_state=0).pvalue)


def ages(verdicts: Verdicts) -> dict[str, int]:
    """How many texts were held for the work of each age group, the youngest first."""
    counts = Counter(verdict["age"] for verdict in verdicts if verdict)
    return {letter: counts[letter] for letter in AGES if counts[letter]}


@dataclass(frozen=True)
class Duel:
    """Two runs on the same beginnings, each pair read in both orders."""

    outcomes: tuple[str, ...]  # of each beginning: "a" or "b" in both orders, else "tie"; "" = a reply is missing
    for_first: int  # pairs of which the judge took whichever it read first, in both orders
    for_second: int  # whichever it read second

    @property
    def wins(self) -> int:
        """Of the first run."""
        return self.outcomes.count("a")

    @property
    def losses(self) -> int:
        return self.outcomes.count("b")

    @property
    def ties(self) -> int:
        return self.outcomes.count("tie")

    @property
    def missing(self) -> int:
        return self.outcomes.count("")

    @property
    def p(self) -> float:
        """That two equal runs part at least as far, by the sign test without the ties; nan where all are ties."""
        return sign_test(self.wins, self.losses)

    @property
    def bias_p(self) -> float:
        """That a judge who does not mind the order takes one place at least as often."""
        return sign_test(self.for_first, self.for_second)

    @property
    def share(self) -> tuple[float, float, float]:
        """What the first run won of the decided pairs, with Wilson's 95 % interval; nan where none was decided."""
        decided = self.wins + self.losses
        if not decided:
            return math.nan, math.nan, math.nan
        low, high = binomtest(self.wins, decided).proportion_ci(0.95, method="wilson")
        return self.wins / decided, float(low), float(high)


def duel(forward: Verdicts, backward: Verdicts, identical: Sequence[bool]) -> Duel:
    """Both orders together: `forward` has the first run's text first; where both wrote the same it is a tie."""
    outcomes, places = [], Counter()
    for one, two, same in zip(forward, backward, identical, strict=True):
        if same:
            outcomes.append("tie")
        elif one is None or two is None:
            outcomes.append("")
        else:
            agreed = one["better"] == OTHER[two["better"]] != "equal"
            outcomes.append({"1": "a", "2": "b"}[one["better"]] if agreed else "tie")
            places[one["better"]] += one["better"] == two["better"]
    return Duel(tuple(outcomes), places["1"], places["2"])


def sign_test(one: int, other: int) -> float:
    """The exact two-sided p-value of so uneven a split; nan where there is nothing to split."""
    return float(binomtest(one, one + other).pvalue) if one + other else math.nan
