"""Find the call that made the first NaN or Inf of a forward."""

import math

from tracing.records import Call, NonFinite, Value


def forward_origin(calls: list[Call]) -> NonFinite | None:
    """The first call, in the order of ending, with NaN or +Inf in its results but not its arguments."""
    for call in (call for root in calls for call in root.ended()):
        before, after = _worst(call.inputs), _worst(call.outputs)
        if after == 2 and before < 2:
            source = _source_of_minus_inf(calls, call) if before == 1 else call
            nan = any(math.isnan(value.stats.get("min", 0.0)) for value in call.outputs)
            what = "-inf (then NaN)" if source is not call else "NaN" if nan else "Inf"
            return NonFinite(source.path, source.method, source.kind, source.index, "forward", what)
    return None


def _worst(values: list[Value]) -> int:
    return max((value.badness for value in values), default=0)


def _source_of_minus_inf(calls: list[Call], victim: Call) -> Call:
    """The call that made the -Inf that `victim` turned into NaN; `victim` if none is found."""
    family = _line_to(calls, victim)
    for siblings, ancestor in reversed(family):
        earlier = siblings[: siblings.index(ancestor)]
        for call in reversed(earlier):
            if _worst(call.outputs) == 1 and _worst(call.inputs) == 0:
                return _innermost_minus_inf(call)
    return victim


def _line_to(calls: list[Call], target: Call) -> list[tuple[list[Call], Call]]:
    """From the root down to `target`: at each level all calls, and the one that leads to it."""
    for call in calls:
        if call is target:
            return [(calls, call)]
        below = _line_to(call.children, target)
        if below:
            return [(calls, call), *below]
    return []


def _innermost_minus_inf(call: Call) -> Call:
    for child in reversed(call.children):
        if _worst(child.outputs) == 1 and _worst(child.inputs) == 0:
            return _innermost_minus_inf(child)
    return call
