"""A trace in a terminal: the tree of calls, and the lines of live logging."""

import math
import os
import shutil
import sys
from dataclasses import dataclass
from io import StringIO

from tracing.folding import Fold, fold
from tracing.formats import amount, duration, fit, is_origin, number, shape_text, short_name, stats_text, value_text

ASCII = str.maketrans({"├": "|", "└": "`", "│": "|", "─": "-", "→": ">", "…": "~", "μ": "m",
                       "σ": "s", "∇": "g", "⋮": ":", "✗": "x", "·": ",", "×": "x"})  # fmt: skip

SHOWN_VALUES = 6  # per call, in the tree


# ---- the tree ----


@dataclass
class Row:
    """One line of the tree, in columns; or a `remark` across all columns."""

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
    """The trace as a tree of lines, at most `width` wide if the shapes fit."""
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
        self.shown: set = set()  # shapes on a line above
        self.origin = trace.first_nonfinite
        for call in trace.calls:
            self.add(call, None, "", "", 0)

    def add(self, call, parent, lead: str, below: str, level: int) -> None:
        """Add the rows of a call: `lead` is the prefix of its first line, `below` that of the others."""
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
    """Lay rows out as lines of (text, style), with as many statistics as fit."""
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


def stats_columns(row: Row, spare: int) -> list[tuple[str, str]]:
    """min … max, then σ, then μ, as many as fit into `spare` columns."""
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
    """Lines of (text, style) as one string, with or without color."""
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
    """The model's class and the totals."""
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


# ---- live lines ----


def entry(call, depth: int) -> str:
    """The arguments of a call on one line; full tensors below it."""
    inputs = [v for v in call.inputs if v.text != "None"]
    shown = ", ".join(f"{value_text(v)} {stats_text(v.stats)}".rstrip() for v in inputs)
    return _with_full("│  " * depth, f"{call.name}({shown})", inputs)


def exit(call, depth: int) -> str:
    """The results of a call on one line; full tensors below it."""
    shown = ", ".join(f"{value_text(v)} {stats_text(v.stats)}".rstrip() for v in call.outputs)
    trouble = f"   ✗ {call.problem}" if call.problem else ""
    return _with_full("│  " * depth, f"└→ {shown}{trouble}", call.outputs)


def _with_full(indent: str, line: str, values: list) -> str:
    full = [part for v in values if v.shape is not None and v.text for part in v.text.split("\n")]
    return "\n".join([indent + line, *(f"{indent}   {part}" for part in full)])
