"""Verdicts as figures: mean grades with intervals, wins with their test."""

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

Verdicts = Sequence[dict[str, Any] | None]  # of each text; None = no valid reply
OTHER = {"1": "2", "2": "1", "equal": "equal"}
PARTS = ("mean", "low", "high", "count")


def criteria_table(verdicts: dict[str, Verdicts]) -> pd.DataFrame:
    """A row for each run and criterion: the mean grade with its 95 % interval over the prompts, by Student's t.

    `gap` is the difference to the first run on the prompts that both have grades for, with its interval; `p`, of a
    test of its signs, is corrected for the number of gaps (Holm).
    """
    grades = {name: pd.DataFrame([verdict or {} for verdict in given], columns=[*CRITERIA], dtype=float)
              for name, given in verdicts.items()}
    base, rows = next(iter(grades.values())), []
    for name, given in grades.items():
        for criterion in given.dropna(axis="columns", how="all"):
            row = {"run": name, "criterion": criterion} | interval("", given[criterion].dropna())
            gaps = (given[criterion] - base[criterion]).dropna()
            if given is not base and len(gaps):
                row |= interval("gap_", gaps) | {"p": flip_test(gaps)}
            rows.append(row)
    columns = ["run", "criterion", *PARTS, *(f"gap_{part}" for part in PARTS), "p"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(p=holm(table.p))


def interval(prefix: str, values: Sequence[float]) -> dict[str, float]:
    found = mean_interval(values)
    return {f"{prefix}{part}": getattr(found, part) for part in PARTS}


def flip_test(gaps: Sequence[float]) -> float:
    """Two-sided p-value of the mean if each gap could as well have the other sign (Fisher 1935); nan for one gap.

    Unlike Student's t it is valid for grades, which are few whole numbers.
    """
    if len(gaps) < 2:
        return math.nan
    return float(permutation_test((gaps,), np.mean, permutation_type="samples", random_state=0).pvalue)


def ages(verdicts: Verdicts) -> dict[str, int]:
    """The number of texts by the age group of the presumed author, the youngest first."""
    counts = Counter(verdict["age"] for verdict in verdicts if verdict)
    return {letter: counts[letter] for letter in AGES if counts[letter]}


@dataclass(frozen=True)
class Duel:
    """Two runs on the same prompts, each pair judged in both orders."""

    outcomes: tuple[str, ...]  # of each prompt: "a" or "b" won in both orders, else "tie"; "" = a reply is missing
    for_first: int  # pairs in which the text read first won in both orders
    for_second: int  # or the one read second

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
        """Of the sign test without ties that the runs are equal; nan if all are ties."""
        return sign_test(self.wins, self.losses)

    @property
    def bias_p(self) -> float:
        """Of the sign test that the judge ignores the order."""
        return sign_test(self.for_first, self.for_second)

    @property
    def share(self) -> tuple[float, float, float]:
        """The first run's share of the decided pairs with Wilson's 95 % interval; nan if none was decided."""
        decided = self.wins + self.losses
        if not decided:
            return math.nan, math.nan, math.nan
        low, high = binomtest(self.wins, decided).proportion_ci(0.95, method="wilson")
        return self.wins / decided, float(low), float(high)


def duel(forward: Verdicts, backward: Verdicts, identical: Sequence[bool]) -> Duel:
    """Combine both orders: `forward` has the first run's text first; identical texts tie."""
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
    """Exact two-sided p-value of an uneven split; nan if there is nothing to split."""
    return float(binomtest(one, one + other).pvalue) if one + other else math.nan
