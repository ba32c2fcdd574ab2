"""The difference of two traces."""

import math
from collections import Counter

from tracing.formats import fit, value_text

VALUES, STATISTICS, SHAPES = "values", "shapes, dtypes and statistics", "shapes and dtypes"  # what was compared
ROUNDED = "other values, statistics alike"


def diff(first, second, *, rtol: float, atol: float) -> str:
    """The calls in which two traces differ, in the order in which they ended, and what could not be compared."""
    others = {_key(call): call for call in second.ended()}
    found, how, compared = [], Counter(), 0
    for call in first.ended():
        other = others.pop(_key(call), None)
        compared += 1
        reasons = ["only in the first"] if other is None else _reasons(call, other, rtol, atol, how)
        if reasons:
            found.append((call, reasons))
    found += [(call, ["only in the second"]) for call in others.values()]
    compared += len(others)
    return _report(found, compared, how) if found else _sameness(compared, how)


def _report(found: list, compared: int, how: Counter) -> str:
    """The first call that differs and why, then the others."""
    (call, reasons), rest = found[0], found[1:]
    lines = [f"first difference: {_numbered(call)}", *(f"  {reason}" for reason in reasons)]
    beyond = next((call for call, why in found if not all(reason.endswith(ROUNDED) for reason in why)), None)
    if beyond not in (None, call):
        lines.append(f"first beyond rtol and atol: {_numbered(beyond)}")
    if rest:
        lines.append(f"then {len(rest)} more, of {compared} calls:")
        lines += [fit(f"  {_numbered(call)}: {'; '.join(why)}", 100).rstrip() for call, why in rest[:20]]
        lines += [f"  and {len(rest) - 20} more"] if len(rest) > 20 else []
    return "\n".join([*lines, *_not_compared(how)])


def _sameness(compared: int, how: Counter) -> str:
    if how and how.keys() <= {STATISTICS, SHAPES}:
        return f"the same {STATISTICS if how[STATISTICS] else SHAPES} in {compared} calls; {_not_compared(how)[0]}"
    return "; ".join([f"no difference in {compared} calls", *_not_compared(how)])


def _not_compared(how: Counter) -> list[str]:
    """A line that says of how many tensors no values were compared, and why; none if all were."""
    blind, total = how[STATISTICS] + how[SHAPES], how.total()
    if not blind:
        return []
    which = "values were" if blind == total else f"values of {blind} of {total} tensors were"
    return [f"{which} not compared, because a trace has no checksum of them (stats='none', or saved without)"]


def _key(call) -> tuple:
    return call.path, call.method, call.index


def _numbered(call) -> str:
    return f"{call.name} (call {call.index + 1})" if call.index else call.name


def _reasons(a, b, rtol: float, atol: float, how: Counter) -> list[str]:
    """The differences in the class and the results of two calls; if there are none, those in the arguments."""
    out = [f"{a.kind} | {b.kind}"] if a.kind != b.kind else []
    if len(a.outputs) != len(b.outputs):
        out.append(f"{len(a.outputs)} | {len(b.outputs)} results")
    out += _differences(a.outputs, b.outputs, rtol, atol, how)
    if a.exception != b.exception:
        out.append(f"raised {a.exception or 'nothing'} | {b.exception or 'nothing'}")
    arguments = _differences(a.inputs, b.inputs, rtol, atol, how)
    return out or [f"argument {reason}" for reason in arguments]


def _differences(first: list, second: list, rtol: float, atol: float, how: Counter) -> list[str]:
    """The differences of values, in pairs; counts how each pair of tensors was compared."""
    out = []
    for x, y in zip(first, second, strict=False):
        if (x.shape, x.dtype) != (y.shape, y.dtype) or x.shape is None and x.text != y.text:
            out.append(f"{value_text(x)} | {value_text(y)}")
        elif x.shape is not None:
            how[_closeness(x, y)] += 1
            if parts := _unlike(x, y, rtol, atol):
                out.append(f"{x.name} {parts}".strip())
    return out


def _closeness(x, y) -> str:
    if x.checksum and y.checksum:
        return VALUES
    return STATISTICS if x.stats and y.stats else SHAPES


def _unlike(x, y, rtol: float, atol: float) -> str:
    """How two tensors of one shape and dtype differ, in statistics or only in values."""
    if x.checksum and x.checksum == y.checksum:
        return ""
    parts = [
        f"{key} {x.stats[key]:.6g} | {y.stats[key]:.6g}"
        for key in ("min", "max", "mean", "std")
        if key in x.stats and key in y.stats and not _close(x.stats[key], y.stats[key], rtol, atol)
    ]
    if not parts and x.checksum and y.checksum:
        parts = [ROUNDED if x.stats and y.stats else "other values"]
    return ", ".join(parts)


def _close(x: float, y: float, rtol: float, atol: float) -> bool:
    return math.isclose(x, y, rel_tol=rtol, abs_tol=atol) or (math.isnan(x) and math.isnan(y))
