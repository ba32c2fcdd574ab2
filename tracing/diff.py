"""The difference of two traces."""

import math

from tracing.formats import fit, value_text


def diff(first, second, *, rtol: float, atol: float) -> str:
    """The calls in which two traces differ, in the order in which they ended."""
    others = {_key(call): call for call in second.ended()}
    found, compared = [], 0
    for call in first.ended():
        other = others.pop(_key(call), None)
        compared += 1
        reasons = ["only in the first"] if other is None else _reasons(call, other, rtol, atol)
        if reasons:
            found.append((call, reasons))
    found += [(call, ["only in the second"]) for call in others.values()]
    compared += len(others)
    if not found:
        return f"no difference in {compared} calls"
    (call, reasons), rest = found[0], found[1:]
    lines = [f"first difference: {_numbered(call)}", *(f"  {reason}" for reason in reasons)]
    if rest:
        lines.append(f"then {len(rest)} more, of {compared} calls:")
        lines += [fit(f"  {_numbered(call)}: {'; '.join(why)}", 100).rstrip() for call, why in rest[:20]]
        lines += [f"  and {len(rest) - 20} more"] if len(rest) > 20 else []
    return "\n".join(lines)


def _key(call) -> tuple:
    return call.path, call.method, call.index


def _numbered(call) -> str:
    return f"{call.name} (call {call.index + 1})" if call.index else call.name


def _reasons(a, b, rtol: float, atol: float) -> list[str]:
    """The differences in the class and the results of two calls."""
    out = [f"{a.kind} | {b.kind}"] if a.kind != b.kind else []
    if len(a.outputs) != len(b.outputs):
        out.append(f"{len(a.outputs)} | {len(b.outputs)} results")
    for x, y in zip(a.outputs, b.outputs, strict=False):
        name = f"{x.name} " if x.name else ""
        if (x.shape, x.dtype) != (y.shape, y.dtype):
            out.append(f"{value_text(x)} | {value_text(y)}")
            continue
        parts = [
            f"{key} {x.stats[key]:.6g} | {y.stats[key]:.6g}"
            for key in ("min", "max", "mean", "std")
            if key in x.stats and key in y.stats and not _close(x.stats[key], y.stats[key], rtol, atol)
        ]
        if parts:
            out.append(name + ", ".join(parts))
    if a.exception != b.exception:
        out.append(f"raised {a.exception or 'nothing'} | {b.exception or 'nothing'}")
    return out


def _close(x: float, y: float, rtol: float, atol: float) -> bool:
    return math.isclose(x, y, rel_tol=rtol, abs_tol=atol) or (math.isnan(x) and math.isnan(y))
