"""The gap between two lines: its uncertainty, and its worth in tokens."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace

import numpy as np
import pandas as pd
from scipy import stats

from experiments.common.figures import last_value
from experiments.common.intervals import LEVEL, Difference, holm, welch
from experiments.comparing.differences import tokenizers, val_texts
from experiments.comparing.lines import AXES, Line, curve
from experiments.comparing.measures import HeldOut, Measures
from experiments.comparing.sources import CurveSource

UNITS = {"bits_per_byte": "bits per byte", "val_loss": "nats per token"}
RESAMPLES = 10_000
MIN_BLOCKS = 20  # of a text; fewer are too few for a bootstrap


@dataclass(frozen=True)
class Saved:
    """How much less text the better line needs to reach the other's final loss; negative = it needs more.

    The interval is over seeds, nan with one each. This is a lower bound: at that point the better line has not lowered
    its learning rate as far as the other had.
    """

    amount: float
    low: float
    high: float
    of: float  # the amount that the other has seen
    unit: str = "tokens"  # or bytes of text, if tokenizers differ


@dataclass(frozen=True)
class Gap:
    """A line minus the base: negative = better."""

    line: str
    base: str
    difference: Difference  # p is corrected for the number of tests; nan = too few seeds
    column: str
    how: str  # the source of the interval
    is_sure: bool | None  # None = unknown
    saved: Saved | None  # None = never reached, or tokens are unknown
    tests: int = 1  # number that p is corrected for
    meanings: Mapping[str, str] = field(default_factory=dict)  # those of the two whose loss is not that of the text

    def __str__(self) -> str:
        """A sentence, and another one for each loss that is a bound, or of a part of the text."""
        meant = (f"The loss of {name} is {meaning}." for name, meaning in self.meanings.items())
        return " ".join([self._compared(), *meant])

    def _compared(self) -> str:
        mean, low, high, p = self.difference
        if mean == 0:
            return f"{self.line} and {self.base} are equal."
        if mean < 0:
            low, high = -high, -low
        verb = ("is better than", "is worse than") if self.is_sure else ("lies below", "lies above")
        said = f"{self.line} {verb[mean > 0]} {self.base} by {abs(mean):.4f} {UNITS[self.column]}"
        if self.is_sure is None:
            return f"{said}, {self.how}."
        chance = "" if math.isnan(p) else f", p = {p:.2g}"
        chance += f" corrected for {self.tests} comparisons" if self.tests > 1 else ""
        said += f" (95 % interval {low:.4f} to {high:.4f}, {self.how}{chance})"
        return f"{said}{self._in_tokens()}." if self.is_sure else f"{said}: inside the noise."

    def _in_tokens(self) -> str:
        if self.saved is None:
            return ""
        better, other = (self.line, self.base) if self.difference.mean < 0 else (self.base, self.line)
        amount, low, high, of, unit = astuple(self.saved)
        sure = "" if math.isnan(low) else f"; 95 % interval {low / of:.0%} to {high / of:.0%}"
        said = f"saves {amount:,.0f}" if amount >= 0 else f"needs {-amount:,.0f} more"
        return f"; {better} {said} ({abs(amount) / of:.0%}{sure}) of the {of:,.0f} {unit} to {other}'s final loss"


def gaps(lines: Sequence[Line], measured: Mapping[CurveSource, Measures], text: HeldOut | None) -> list[Gap]:
    """Each line compared with the first, if they have a loss in common.

    With several seeds, Welch's test of the final losses of the logs, or of those `measured` on the same text if the
    logs' texts differ, corrected for the number of lines (Holm). With one seed on a side, a paired bootstrap over the
    blocks of that text.
    """
    base, *others = lines
    found = [gap for line in others if (gap := _gap(line, base, measured, text))]
    corrected = holm([gap.difference.p for gap in found])
    tests = sum(not math.isnan(p) for p in corrected)
    return [gap if math.isnan(p) else replace(gap, difference=gap.difference._replace(p=p), tests=tests,
                                              is_sure=p < LEVEL) for gap, p in zip(found, corrected, strict=True)]


def _gap(line: Line, base: Line, measured: Mapping[CurveSource, Measures], text: HeldOut | None) -> Gap | None:
    sides, column = (line, base), _common(line, base)
    on_text = [_on_text(side, measured, text) for side in sides]
    values = [[last_value(member.table, column) for member in side.members] for side in sides] if column else on_text
    if not all(values):
        return None
    difference, unit, is_sure = welch(*values), column or "bits_per_byte", None
    if not math.isnan(difference.p):
        how = f"Welch's test over {len(line.members)} and {len(base.members)} seeds"
    elif all(on_text) and len(text.block_bytes) >= MIN_BLOCKS:
        nats = [[measured[member].block_nats for member in side.members] for side in sides]
        difference, unit = Difference(welch(*on_text).mean, *bootstrap(*nats, text), math.nan), "bits_per_byte"
        how = (f"over {len(text.block_bytes)} stretches of the same text; how much another seed would change is not "
               "known")
        is_sure = difference.low * difference.high > 0
    else:
        how = "which may be noise: one seed says nothing of another, and no text was measured on that is long enough"
    better, other = sides if difference.mean < 0 else (base, line)
    return Gap(line.name, base.name, difference, unit, how, is_sure, column and tokens_saved(better, other, column),
               meanings={side.name: side.facts.meaning for side in sides if side.facts.meaning})


def _common(line: Line, base: Line) -> str | None:
    """The loss on the same text that both logs have, in bits per byte if possible."""
    if len(val_texts([line, base])) > 1:
        return None
    usable = ("bits_per_byte", "val_loss") if len(tokenizers([line, base])) < 2 else ("bits_per_byte",)
    return next((column for column in usable if line.has(column) and base.has(column)), None)


def _on_text(line: Line, measured: Mapping[CurveSource, Measures], text: HeldOut | None) -> list[float]:
    """Bits per byte of each member on the text; [] if one is not measured."""
    if text is None or not all(member in measured for member in line.members):
        return []
    return [measured[member].bits_per_byte(text) for member in line.members]


def bootstrap(nats: Sequence[Sequence[float]], base: Sequence[Sequence[float]], text: HeldOut) -> tuple[float, float]:
    """95 % interval of the difference in bits per byte, by a paired bootstrap over blocks of the text.

    Each side is the mean of its runs. Shape: nats and base (runs, blocks).
    """
    def bits(nats: np.ndarray, num_bytes: np.ndarray, axis: int) -> np.ndarray:
        return nats.sum(axis) / math.log(2) / num_bytes.sum(axis)

    blocks = np.mean(nats, axis=0) - np.mean(base, axis=0), text.block_bytes
    found = stats.bootstrap(blocks, bits, paired=True, method="percentile", n_resamples=RESAMPLES, batch=100,
                            random_state=0)
    return tuple(map(float, found.confidence_interval))


# ---- in tokens ----


def tokens_saved(better: Line, other: Line, column: str) -> Saved | None:
    """Tokens saved to the other's final loss; None if a log has no tokens, or a seed never reaches it."""
    axis = "bytes" if len(tokenizers([better, other])) > 1 else "tokens"
    ours, theirs = ([_losses(member, column) for member in side.members] for side in (better, other))
    if any(axis not in log for log in (*ours, *theirs)):
        return None
    ends = [log.iloc[-1] for log in theirs]
    saved = np.array([[end[axis] - reached(log, axis, column, end[column]) for end in ends] for log in ours])
    if not np.isfinite(saved).all():
        return None
    # (ours, theirs): a member's effect is its mean over the other side
    spread = welch(saved.mean(1), saved.mean() - saved.mean(0))
    seen = float(np.mean([end[axis] for end in ends]))
    return Saved(float(saved.mean()), spread.low, spread.high, seen, AXES[axis])


def reached(log: pd.DataFrame, axis: str, column: str, target: float) -> float:
    """Where on the axis a curve first reaches a loss, interpolated linearly; inf = never."""
    places = np.flatnonzero(log[column] <= target)
    if not len(places):
        return math.inf
    place = places[0]
    if place == 0:
        return float(log[axis].iloc[0])
    (early, high), (late, low) = log[[axis, column]].iloc[[place - 1, place]].to_numpy()
    return float(early + (late - early) * (high - target) / (high - low))


def _losses(source: CurveSource, column: str) -> pd.DataFrame:
    """A run's evaluations, all on the same tokens: the last line of a log is of the whole text, unlike the others.

    As logged if the last checkpoint is damaged or not of the last evaluation.
    """
    seen = curve(source).dropna(subset=column)
    saved = source.run.checkpoints()[-1:] if source.run else []
    if len(seen) < 2 or not saved or saved[0].step != seen["step"].iloc[-1]:
        return seen
    try:
        loss = saved[0].progress.val_loss
    except ValueError:
        return seen
    per_loss = (seen[column] / seen["val_loss"]).iloc[0]
    return seen if loss is None else seen.assign(**{column: [*seen[column].iloc[:-1], loss * per_loss]})
