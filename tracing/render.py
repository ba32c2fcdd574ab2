"""What a trace looks like in a terminal: the tree of calls, live lines, tables."""

import math
import os
import re
import shutil
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from io import StringIO

from torch import nn

WORDS = {
    "b": "batch", "t": "time", "s": "source (keys)", "d": "residual width", "h": "heads",
    "g": "key/value heads", "p": "head width", "f": "MLP width", "n": "state", "e": "experts",
    "v": "vocabulary",
}  # fmt: skip
COLUMNS = ("part", "kind", "parameters", "share", "calls", "flops", "output_bytes", "seconds")
ASCII = str.maketrans({"├": "|", "└": "`", "│": "|", "─": "-", "→": ">", "…": "~", "μ": "m",
                       "σ": "s", "∇": "g", "⋮": ":", "✗": "x", "·": ",", "×": "x"})  # fmt: skip
MAX_PERIOD = 8  # layers after which a pattern may repeat
SHOWN_VALUES = 6  # of one call's results, in the tree


# -------------------------------------------------------------------------------- words and numbers


def shape_text(value) -> str:
    """[b=2, t=16, v|f=512]; without sizes where they are the symbols themselves."""
    return f"[{', '.join(axis_text(*pair) for pair in zip(value.labels, value.shape, strict=True))}]"


def axis_text(label: str | None, size: int | str) -> str:
    return str(size) if label is None or label == str(size) else f"{label}={size}"


def number(x: float) -> str:
    """At most 7 characters, 3 digits: -3.41, 0.002, 1.2e+05, nan."""
    if x == 0:
        return "0"
    if float(x).is_integer() and abs(x) < 1e6:
        return f"{x:.0f}"
    text = f"{x:.3g}" if 1e-3 <= abs(x) < 1e5 else f"{x:.1e}"
    return text.replace("e-0", "e-").replace("e+0", "e")


def amount(x: float, unit: str = "") -> str:
    """12.3 M, with an SI prefix."""
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
    """The name as seen from the enclosing call: mlp, blocks.0, .scores"""
    if parent is None:
        return call.name
    inside = call.path.removeprefix(parent.path).strip(".") if parent.path else call.path
    if call.method == "forward":
        return inside or call.kind
    return f"{inside}.{call.method}"


# ---------------------------------------------------------------------------------- repeated layers


@dataclass
class Fold:
    """Calls that repeat those before them."""

    calls: list
    period: int
    exact: bool  # sizes too; else all but the first axis

    @property
    def text(self) -> str:
        times = len(self.calls) // self.period
        what = f"{times} more" + (f" groups of {self.period}" if self.period > 1 else "")
        return f"{what}, same shapes" + ("" if self.exact else " but for the first axis")


def fold(calls: list, parent) -> list:
    """The calls, runs of like ones replaced by the first and a Fold."""
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
    """(period, length of the repetition) of the longest pattern that repeats from i on."""
    best = (1, 0)
    for period in range(1, min(MAX_PERIOD, (len(keys) - i) // 2) + 1):
        length = 0
        while keys[i + length : i + length + period] == keys[i + length + period :][:period]:
            length += period
        if length > best[1]:
            best = (period, length)
    return best


def _likeness(call, parent, exact: bool) -> tuple:
    """Equal for calls that only differ in finite numbers: those in names, and unless `exact` in axis 0."""
    values = tuple(
        (v.name, v.dtype, v.labels, v.badness, v.shape and (v.shape if exact or v.labels[0] else v.shape[1:]))
        for v in (*call.inputs, *call.outputs)
    )
    name = re.sub(r"\d+", "#", short_name(call, parent))
    children = tuple(_likeness(child, call, exact) for child in call.children)
    return (name, call.kind, call.recompute, call.problem, call.exception, values, children)


# --------------------------------------------------------------------------------------- the terminal


@dataclass
class Row:
    """One line of the tree, in columns; or a `remark` that runs over all of them."""

    tree: str = ""
    name: str = ""
    kind: str = ""
    value: str = ""
    dtype: str = ""
    shape: str = ""
    stats: dict | None = None
    grad: float | None = None
    remark: str = ""
    style: str = ""

    @property
    def label(self) -> str:
        return f"{self.tree}{self.name}  {self.kind}".rstrip()


def text(trace, width: int | None = None, *, depth: int | None, fold: bool, color: bool | None) -> str:
    """The trace as a tree of lines, at most `width` wide as long as shapes allow it."""
    width = width or max(80, shutil.get_terminal_size((100, 24)).columns)
    if color is None:
        color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    tree = Tree(trace, depth, fold)
    lines = [*layout(tree.rows, width)]
    head = [[(line, "bold")] for line in headline(trace)]
    foot = [[(line, "yellow")] for line in remarks(trace)]
    out = paint([*head, *lines, *foot], color)
    encoding = sys.stdout.encoding or "utf-8"
    return out if "utf" in encoding.lower() else out.translate(ASCII)


class Tree:
    """The rows of a trace."""

    def __init__(self, trace, depth: int | None, fold: bool):
        self.depth, self.fold = depth, fold
        self.rows: list[Row] = []
        self.shown: set = set()  # shapes that a line above shows
        self.origin = trace.first_nonfinite
        for call in trace.calls:
            self.add(call, None, "", "", 0)

    def add(self, call, parent, lead: str, below: str, level: int) -> None:
        """The rows of a call: `lead` stands before its first line, `below` before the others."""
        new = [v for v in call.inputs if v.shape is not None
               and (call.exception or (v.shape, v.dtype) not in self.shown)]  # fmt: skip
        shown = [(v.name, v) for v in new]
        shown += [(f"→ {v.name}".rstrip(), v) for v in call.outputs if v.shape is not None]
        children = call.children if self.depth is None or level < self.depth else []
        mark = {"kind": self.tags(call), "tree": lead, "name": short_name(call, parent)}
        stem = below + ("│  " if children else "   ")
        for i, (name, value) in enumerate(shown[:SHOWN_VALUES] or [("", None)]):
            self.rows.append(value_row(name, value, call, **(mark if i == 0 else {"tree": stem})))
        if len(shown) > SHOWN_VALUES:
            self.rows.append(Row(stem, remark=f"and {len(shown) - SHOWN_VALUES} more tensors"))
        self.shown |= {(v.shape, v.dtype) for v in (*call.inputs, *call.outputs)}
        for trouble in filter(None, (call.problem, call.exception)):
            self.rows.append(Row(stem, remark=f"✗ {trouble}", style="bold red"))
        self.add_children(children, call, below, level)

    def add_children(self, children: list, call, below: str, level: int) -> None:
        items = fold(children, call) if self.fold else children
        for i, child in enumerate(items):
            last = i == len(items) - 1
            lead, under = below + ("└─ " if last else "├─ "), below + ("   " if last else "│  ")
            if isinstance(child, Fold):
                first, final = (short_name(child.calls[i], call) for i in (0, -1))
                names = first if first == final else f"{first} … {final}"
                self.rows.append(Row(below + "⋮  ", remark=f"{names}: {child.text}"))
            else:
                self.add(child, call, lead, under, level + 1)

    def tags(self, call) -> str:
        kind = call.kind if call.method == "forward" else call.title
        first = "✗ FIRST NaN/Inf" if is_origin(call, self.origin) else ""
        return " ".join(filter(None, (
            kind, "(recomputed)" if call.recompute else "", first)))  # fmt: skip


def value_row(title: str, value, call, **mark) -> Row:
    if value is None:
        return Row(**mark)
    grad = call.grad_norms.get(value.name) if title.startswith("→") else None
    return Row(**mark, value=title, dtype=value.dtype, shape=shape_text(value), stats=value.stats,
               grad=grad)  # fmt: skip


def layout(rows: list[Row], width: int):
    """Rows to lines of (text, style), with as much of the statistics as fits."""
    label, value, dtype, shape = (
        max((len(get(row)) for row in rows if not row.remark), default=0)
        for get in (lambda r: r.label, lambda r: r.value, lambda r: r.dtype, lambda r: r.shape)
    )
    label = min(label, max((len(row.tree + row.name) for row in rows), default=0) + 16)
    shape_start = label + value + 4
    if shape_start + dtype + shape + 1 > width:
        dtype = 0
    spare = width - shape_start - shape - (dtype + 1 if dtype else 0) - 2
    for row in rows:
        if row.remark:
            yield [(row.tree, "dim"), (row.remark, row.style or "italic")]
            continue
        yield [
            (row.tree, "dim"), (row.name, "bold"),
            (fit(f"  {row.kind}", label - len(row.tree) - len(row.name)) + "  ", "cyan"),
            (row.value.ljust(value) + "  ", ""),
            (row.dtype.ljust(dtype) + " " if dtype else "", "dim"),
            (row.shape.ljust(shape), "green"),
            *stats_columns(row, spare),
        ]  # fmt: skip


def fit(text: str, width: int) -> str:
    """Exactly `width` characters, cut with … where there are more."""
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"


def stats_columns(row: Row, spare: int) -> list[tuple[str, str]]:
    """min … max, then σ, then μ, as far as `spare` columns go."""
    out = []
    if row.stats and spare >= 19:
        low, high, mean, std = (row.stats[k] for k in ("min", "max", "mean", "std"))
        bad = not (math.isfinite(low) and math.isfinite(high))
        out.append((f"  {number(low):>7} … {number(high):<7}", "red" if bad else "dim"))
        if spare >= 28:
            out.append((f" σ {number(std):<6}", "dim"))
        if spare >= 38:
            out.append((f" μ {number(mean):<7}", "dim"))
    if row.grad is not None:
        out.append((f" ∇ {number(row.grad)}", "magenta"))
    return out


def paint(lines: list, color: bool) -> str:
    """Lines of (text, style) as one string, with colours or without."""
    if not color:
        return "\n".join("".join(part for part, _ in line).rstrip() for line in lines)
    from rich.console import Console
    from rich.text import Text

    console = Console(file=StringIO(), force_terminal=True, width=10_000, highlight=False)
    for line in lines:
        styled = Text.assemble(*line)
        styled.rstrip()
        console.print(styled, soft_wrap=True)
    return console.file.getvalue().rstrip("\n")


def headline(trace) -> list[str]:
    """Name and totals; the letters whose sizes are known."""
    root = trace.parts.get("")
    totals = [f"{root.kind}: {root.parameters:,} parameters"] if root else []
    flops, seconds = (sum(getattr(c, key) for c in trace.calls) for key in ("flops", "seconds"))
    totals += [f"{amount(flops, 'FLOP')}"] if flops else []
    totals += [duration(seconds)] if seconds else []
    return [" · ".join(totals)]


def remarks(trace) -> list[str]:
    lines = list(trace.notes)
    origin = trace.first_nonfinite
    if origin:
        lines.append(f"✗ {origin}")
    for path, (count, dead) in trace.dead_units().items():
        if dead:
            lines.append(f"{path}: {len(dead)} of {count} units are 0 for every token")
    return lines


# ---------------------------------------------------------------------------------------- live lines


def entry(call, depth: int) -> str:
    """What a call is given, one line; full tensors below it."""
    inputs = [v for v in call.inputs if v.text != "None"]
    shown = ", ".join(f"{value_text(v)} {stats_text(v.stats)}".rstrip() for v in inputs)
    return _with_full("│  " * depth, f"{call.name}({shown})", inputs)


def exit(call, depth: int) -> str:
    """What a call returns, one line; full tensors below it."""
    shown = ", ".join(f"{value_text(v)} {stats_text(v.stats)}".rstrip() for v in call.outputs)
    trouble = f"   ✗ {call.problem}" if call.problem else ""
    return _with_full("│  " * depth, f"└→ {shown}{trouble}", call.outputs)


def _with_full(indent: str, line: str, values: list) -> str:
    full = [part for v in values if v.shape is not None and v.text for part in v.text.split("\n")]
    return "\n".join([indent + line, *(f"{indent}   {part}" for part in full)])


# -------------------------------------------------------------------------------------------- tables


def table(trace, columns, depth: int | None) -> str:
    """One row for each module that ran or has parameters; like layers share the second row."""
    unknown = [c for c in columns if c not in COLUMNS]
    if unknown:
        raise ValueError(f"columns={unknown[0]!r} is not known: use some of {', '.join(COLUMNS)}")
    rows = {row["path"]: row for row in trace.rows()}
    below = defaultdict(list)
    for path, row in rows.items():
        if path and (row["calls"] or row["parameters"]):
            below[path.rpartition(".")[0]].append(path)
    lines = [list(columns)]

    def visit(paths: list[str], level: int) -> None:
        """A row for the sum of `paths`, then rows for what is in the first of them."""
        cells = table_cells([rows[path] for path in paths], level, rows[""]["parameters"])
        lines.append([cells[c] for c in columns])
        if len(paths) == 1 and (depth is None or level < depth):
            for group in like_layers(below[paths[0]], rows, below):
                visit(group, level + 1)

    visit([""], 0)
    return grid(lines, left={"part", "kind"})


def like_layers(paths: list[str], rows: dict, below: dict) -> list[list[str]]:
    """The paths, those of layers that cost the same as the layer before them in one group."""
    def cost(path: str) -> tuple:
        values = tuple(x for key, x in rows[path].items() if key not in ("path", "seconds"))
        return values, tuple(cost(child) for child in below[path])

    groups: list[list[str]] = []
    for i, path in enumerate(paths):
        repeats = i and path[-1].isdigit() and cost(path) == cost(paths[i - 1])
        if repeats and len(groups) > 1 and cost(groups[-1][0]) == cost(groups[-2][0]):
            groups[-1].append(path)
        else:
            groups.append([path])
    return groups


def table_cells(rows: list[dict], level: int, total: int) -> dict[str, str]:
    """The texts of one row, for one module or the sum of several."""
    first, last = (row["path"].rpartition(".")[2] or row["kind"] for row in (rows[0], rows[-1]))
    sums = {key: sum(row[key] for row in rows)
            for key in ("parameters", "calls", "flops", "output_bytes", "seconds")}  # fmt: skip
    return {
        "part": "  " * level + (first if len(rows) == 1 else f"{first} … {last}"),
        "kind": rows[0]["kind"] if len(rows) == 1 else f"{len(rows)} × {rows[0]['kind']}",
        "parameters": f"{sums['parameters']:,}",
        "share": f"{100 * sums['parameters'] / (total or 1):.1f} %",
        "calls": str(sums["calls"]),
        "flops": amount(sums["flops"], "FLOP") if sums["flops"] else "",
        "output_bytes": amount(sums["output_bytes"], "B") if sums["calls"] else "",
        "seconds": duration(sums["seconds"]) if sums["calls"] else "",
    }


def grid(rows: list[list[str]], left: set[str]) -> str:
    """Rows under their header, numbers to the right, the columns in `left` to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(w) if head in left else cell.rjust(w)
                  for cell, w, head in zip(row, widths, rows[0], strict=True)).rstrip()
        for row in rows
    ]  # fmt: skip
    return "\n".join([lines[0], "─" * max(map(len, lines)), *lines[1:]])


def parameter_table(model: nn.Module, depth: int = 3) -> str:
    """Parameters and share of every part, to `depth`; layers of one make share a row.

    A shared parameter counts where it is met first; "= embed.weight" stands where it is met again.
    """
    own, shared = _first_owners(model)
    total = sum(own.values())
    rows = [["part", "kind", "parameters", "share", ""]]

    def visit(name: str, modules: list[nn.Module], level: int) -> None:
        everything = [part for module in modules for part in module.modules()]
        count = sum(own.get(part, 0) for part in everything)
        again = dict.fromkeys(x for part in everything for x in shared.get(part, ()))
        if not count and not again:
            return
        kind = type(modules[0]).__name__
        kind = f"{len(modules)} × {kind}" if len(modules) > 1 else kind
        note = f"= {', '.join(again)}" if again and not count else ""
        share = f"{100 * count / total:.1f} %"
        rows.append(["  " * level + name, kind, f"{count:,}", share, note])
        if level < depth:
            for child_name, children in _children(modules):
                visit(child_name, children, level + 1)

    visit(type(model).__name__, [model], 0)
    return grid(rows, left={"part", "kind", ""})


def _first_owners(model: nn.Module) -> tuple[dict, dict]:
    """Per module: how many parameters are met there first, and the names of those met before."""
    names, own, shared = {}, Counter(), defaultdict(list)
    for path, module in model.named_modules():
        for name, p in module.named_parameters(recurse=False):
            if id(p) in names:
                shared[module].append(names[id(p)])
            else:
                names[id(p)] = f"{path}.{name}".strip(".")
                own[module] += p.numel()
    return own, shared


def _children(modules: list[nn.Module]):
    """(name, modules) of the children; those of a list in groups of one make."""
    for name, child in modules[0].named_children():
        siblings = [module.get_submodule(name) for module in modules]
        if not isinstance(child, nn.ModuleList):
            yield name, siblings
            continue
        groups = defaultdict(list)
        for i, layer in ((i, layer) for layers in siblings for i, layer in enumerate(layers)):
            shapes = tuple((key, p.shape) for key, p in layer.named_parameters())
            groups[type(layer), shapes].append((i, layer))
        for group in groups.values():
            numbers = sorted({i for i, _ in group})
            many = ", ".join(map(str, numbers))
            if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
                many = f"{numbers[0]} … {numbers[-1]}"
            yield f"{name}.{many}", [layer for _, layer in group]
