"""Fold runs of calls that repeat, as the layers of a model do."""

import re
from dataclasses import dataclass

from tracing.formats import short_name

MAX_PERIOD = 8  # layers after which a pattern may repeat


@dataclass
class Fold:
    """A run of calls that repeat the calls before them."""

    calls: list
    period: int
    exact: bool  # also in the first axis

    @property
    def text(self) -> str:
        times = len(self.calls) // self.period
        what = f"{times} more" + (f" groups of {self.period}" if self.period > 1 else "")
        return f"{what}, same shapes" + ("" if self.exact else " but for the first axis")


def fold(calls: list, parent) -> list:
    """The calls, with each run of like calls replaced by the first and a Fold."""
    loose = [_likeness(call, parent, False) for call in calls]
    exact = [_likeness(call, parent, True) for call in calls]
    out, i = [], 0
    while i < len(calls):
        period, length = _repetition(loose, i)
        out += calls[i : i + period]
        if length:
            start, stop = i + period, i + period + length
            same = exact[start:stop] == exact[i : i + length]
            out.append(Fold(calls[start:stop], period, same))
        i += period + length
    return out


def _repetition(keys: list, i: int) -> tuple[int, int]:
    """(period, length of the repetition) of the pattern that repeats longest from i on."""
    best = (1, 0)
    for period in range(1, min(MAX_PERIOD, (len(keys) - i) // 2) + 1):
        length = 0
        while keys[i + length : i + length + period] == keys[i + length + period :][:period]:
            length += period
        if length > best[1]:
            best = (period, length)
    return best


def _likeness(call, parent, exact: bool) -> tuple:
    """A key that is equal for calls that differ only in values, numbers in names and, unless `exact`, axis 0."""
    values = tuple(
        (v.name, v.dtype, v.labels, v.badness, v.shape and (v.shape if exact or v.labels[0] else v.shape[1:]))
        for v in (*call.inputs, *call.outputs)
    )
    name = re.sub(r"\d+", "#", short_name(call, parent))
    children = tuple(_likeness(child, call, exact) for child in call.children)
    return (name, call.kind, call.recompute, call.problem, call.exception, values, children)
