"""The text of numbers, shapes, values and calls."""


def shape_text(value) -> str:
    """[b=2, t=16, v|f=512]; without sizes that are the symbols themselves."""
    return f"[{', '.join(axis_text(*pair) for pair in zip(value.labels, value.shape, strict=True))}]"


def axis_text(label: str | None, size: int | str) -> str:
    return str(size) if label is None or label == str(size) else f"{label}={size}"


def number(x: float) -> str:
    """At most 7 characters and 3 digits: -3.41, 0.002, 1.2e+05, nan."""
    if x == 0:
        return "0"
    if float(x).is_integer() and abs(x) < 1e6:
        return f"{x:.0f}"
    text = f"{x:.3g}" if 1e-3 <= abs(x) < 1e5 else f"{x:.1e}"
    return text.replace("e-0", "e-").replace("e+0", "e")


def amount(x: float, unit: str = "") -> str:
    """A number with an SI prefix: 12.3 M."""
    if not isinstance(x, int | float):
        return str(x)
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if x >= size:
            return f"{x / size:.3g} {prefix}{unit}"
    return f"{x:.3g} {unit}".strip()


def duration(seconds: float) -> str:
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return "0 us"


def value_text(value) -> str:
    """x float32 [b=2, t=16, d=64]"""
    if value.shape is None:
        return f"{value.name}={value.text}".strip("=")
    return f"{value.name} {value.dtype} {shape_text(value)}".strip()


def stats_text(stats: dict) -> str:
    if not stats:
        return ""
    low, high, mean, std = (number(stats[k]) for k in ("min", "max", "mean", "std"))
    return f"{low} … {high}  μ {mean}  σ {std}"


def signature(call) -> str:
    """blocks.0.mlp.up(input float32 [b=2, t=16, d=64])"""
    return f"{call.name}({', '.join(value_text(v) for v in call.inputs if v.text != 'None')})"


def is_origin(call, origin) -> bool:
    """Whether this call made the first NaN or Inf."""
    key = call.path, call.method, call.index
    return origin is not None and key == (origin.path, origin.method, origin.index)


def short_name(call, parent) -> str:
    """The name relative to the enclosing call: mlp, blocks.0, .scores"""
    if parent is None:
        return call.name
    inside = call.path.removeprefix(parent.path).strip(".") if parent.path else call.path
    if call.method == "forward":
        return inside or call.kind
    return f"{inside}.{call.method}"


def fit(text: str, width: int) -> str:
    """Exactly `width` characters: padded, or cut with …"""
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"
