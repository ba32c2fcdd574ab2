"""Each variant compared with the base: differences, their intervals, and a verdict."""

import math
from collections.abc import Sequence

import pandas as pd

from experiments.ablating.runner import VariantOutcome
from experiments.ablating.variants import BASE, flags_line, spell
from experiments.common.intervals import LEVEL, holm, mean_interval, welch
from runs import Run

BETTER, WORSE, NOISE = "better", "worse", "inside the noise"
UNTOLD = "not told"  # an upper bound lies above a loss
DIFFERENCES = ("difference", "difference_low", "difference_high", "wide_low", "wide_high", "p", "p_holm")
MEASURES = ("bits_per_byte", "low", "high", *DIFFERENCES)


def result_table(outcomes: Sequence[VariantOutcome]) -> pd.DataFrame:
    """A row for each variant, the best first and failed ones last, with the columns of `sizes` and `compare`.

    Of an objective whose losses are of another part of the text than the base's there is no difference. Where the
    higher of the two is an upper bound and the other a loss, the difference tells nothing.
    """
    found = compare([outcome.values if outcome.failure is None else () for outcome in outcomes])
    rows = [sizes(outcome) | measures for outcome, measures in zip(outcomes, found, strict=True)]
    base = outcomes[0].planned.cfg.facts
    for row, outcome in zip(rows, outcomes, strict=True):
        facts = outcome.planned.cfg.facts
        row["verdict"] = outcome.failure or verdict(row)
        if row["verdict"] in (BETTER, WORSE):
            lower, higher = (facts, base) if row["difference"] < 0 else (base, facts)
            row["verdict"] = UNTOLD if (lower.likelihood, higher.likelihood) == ("exact", "bound") else row["verdict"]
        if outcome.failure is None and facts.of != base.of:
            row |= dict.fromkeys(DIFFERENCES, math.nan) | {"verdict": "not compared: the loss is not of the same text"}
    return pd.DataFrame(rows).sort_values("bits_per_byte", na_position="last", kind="stable", ignore_index=True)


def compare(samples: Sequence[Sequence[float]]) -> list[dict[str, float]]:
    """Each sample of values against the first one, the base; nan if there is nothing to compare.

    `p` is from Welch's test, `p_holm` is corrected by Holm for the number of variants. The interval of a difference
    has 95 %; that from wide_low to wide_high is wider, so that all of them together have 95 % (Bonferroni).
    """
    base, *others = samples
    tested = sum(len(base) > 1 and len(values) > 1 for values in others)
    rows = []
    for place, values in enumerate(samples):
        row = dict.fromkeys(MEASURES, math.nan)
        if values:
            row["bits_per_byte"], row["low"], row["high"], *_ = mean_interval(values)
        if place and values and base:
            row["difference"], row["difference_low"], row["difference_high"], row["p"] = welch(values, base)
            _, row["wide_low"], row["wide_high"], _ = welch(values, base, 1 - LEVEL / max(1, tested))
        rows.append(row)
    for row, p in zip(rows[1:], holm([row["p"] for row in rows[1:]]), strict=True):
        row["p_holm"] = p
    return rows


def verdict(row: dict) -> str:
    """Better, worse, inside the noise, or why there is no test."""
    if row["variant"] == BASE:
        return "the base"
    if math.isnan(row["bits_per_byte"]):
        return "not trained yet"
    if math.isnan(row["p_holm"]):
        return "the base failed" if math.isnan(row["difference"]) else "one run: no test"
    if row["p_holm"] >= LEVEL:
        return NOISE
    return BETTER if row["difference"] < 0 else WORSE


def sizes(outcome: VariantOutcome) -> dict:
    """The size of a variant and the cost of its runs; seconds are the mean of the finished ones."""
    planned = outcome.planned
    logs = pd.DataFrame([Run(name).log().iloc[-1] for name in outcome.runs], columns=["flops", "seconds"])
    row = {"variant": planned.variant.label, "sized_by": flags_line(planned.sizing), "parameters": planned.parameters,
           "tokens": planned.tokens, "loss": planned.cfg.facts.meaning,
           "flops": logs.flops.max(), "seconds": logs.seconds.mean(), "match": planned.match}
    if outcome.swept:
        row["chosen"] = "" if outcome.chosen is None else spell(outcome.chosen)
    return row | {"runs": len(outcome.runs)}
