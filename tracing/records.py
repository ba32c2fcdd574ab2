"""What a trace keeps: numbers and names, never a tensor."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from tracing import page, render
from tracing.axes import Labels, Shape
from tracing.diff import diff

SCHEMA = 1


@dataclass(slots=True)
class Value:
    """One argument or result of a call: a tensor's numbers, or in `text` anything else."""

    name: str
    text: str = ""
    shape: Shape | None = None
    labels: Labels = ()
    dtype: str = ""
    bytes: int = 0
    stats: dict = field(default_factory=dict)

    @property
    def badness(self) -> int:
        """0: finite or unknown; 1: -inf, as masks have it; 2: NaN or +inf."""
        low, high = self.stats.get("min", 0.0), self.stats.get("max", 0.0)
        if math.isnan(low) or high == math.inf:
            return 2
        return int(low == -math.inf)


@dataclass(slots=True)
class Call:
    """One call of a module's forward or of a marked method.

    `flops` (2 for a multiply-add; attention in full, also if causal) and `seconds` (without the
    tracer's own) include the children's.
    """

    path: str
    method: str
    kind: str
    index: int = 0  # calls of this path and method before it
    title: str = ""
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    children: list["Call"] = field(default_factory=list)
    seconds: float = 0.0
    flops: int = 0
    problem: str = ""  # what a dims string promised and the sizes broke
    exception: str = ""  # at the innermost call that raised
    recompute: bool = False  # run again by activation checkpointing, during backward
    grad_norms: dict[str, float] = field(default_factory=dict)  # of the outputs

    @property
    def name(self) -> str:
        return call_name(self.path, self.method, self.kind)

    @property
    def output_bytes(self) -> int:
        return sum(value.bytes for value in self.outputs)

    def walk(self) -> Iterator["Call"]:
        """This call and all below it, in the order in which they began."""
        yield self
        for child in self.children:
            yield from child.walk()

    def ended(self) -> Iterator["Call"]:
        """This call and all below it, in the order in which they ended."""
        for child in self.children:
            yield from child.ended()
        yield self


@dataclass(slots=True)
class Part:
    """A module of the model. A parameter counts where it is met first."""

    kind: str
    parameters: int  # of the module and all below it
    shared: list[str] = field(default_factory=list)  # counted elsewhere, under this name
    grad_norm: float | None = None  # of the module's own parameters


@dataclass(frozen=True, slots=True)
class NonFinite:
    """The call that made the first NaN or Inf out of finite numbers."""

    path: str
    method: str
    kind: str
    index: int
    direction: str  # forward or backward
    what: str

    def __str__(self) -> str:
        return f"{self.what} first made in {call_name(self.path, self.method, self.kind)}" + (
            f" (call {self.index + 1})" if self.index else "") + f", {self.direction}"  # fmt: skip


def call_name(path: str, method: str, kind: str) -> str:
    return (path or kind) if method == "forward" else f"{path or kind}.{method}"


class Trace:
    """What happened in one `with trace(...)`: print it, or see text, html, table, diff."""

    def __init__(self, dims: dict[str, int | tuple[int, ...]]):
        self.dims = dims
        self.calls: list[Call] = []
        self.parts: dict[str, Part] = {}
        self.silent: dict[str, tuple[int, list[int]]] = {}
        self.notes: list[str] = []
        self.backward_origin: NonFinite | None = None
        self.torch_version = torch.__version__

    def walk(self) -> Iterator[Call]:
        """All calls, in the order in which they began."""
        for call in self.calls:
            yield from call.walk()

    def ended(self) -> Iterator[Call]:
        """All calls, in the order in which they ended."""
        for call in self.calls:
            yield from call.ended()

    @property
    def failed(self) -> Call | None:
        """The innermost call that raised."""
        return next((call for call in self.walk() if call.exception), None)

    @property
    def first_nonfinite(self) -> NonFinite | None:
        """Where the first NaN or Inf was made, forward before backward; None without one.

        -inf alone counts as a mask, until it becomes NaN.
        """
        return forward_origin(self) or self.backward_origin

    def dead_units(self) -> dict[str, tuple[int, list[int]]]:
        """Per activation: its number of channels, and those that were 0 for every token."""
        return self.silent

    def rows(self) -> list[dict]:
        """Per module: path, kind, parameters, calls, flops, output_bytes, seconds."""
        rows = {
            path: {"path": path, "kind": part.kind, "parameters": part.parameters, "calls": 0,
                   "flops": 0, "output_bytes": 0, "seconds": 0.0}
            for path, part in self.parts.items()
        }  # fmt: skip
        for call in self.walk():
            if call.method == "forward":
                row = rows[call.path]
                row["calls"] += 1
                row["flops"] += call.flops
                row["output_bytes"] += call.output_bytes
                row["seconds"] += call.seconds
        return list(rows.values())

    def table(self, columns: Sequence[str] = render.COLUMNS, depth: int | None = None) -> str:
        """The rows() as text, like layers folded. Raises ValueError for an unknown column."""
        return render.table(self, columns, depth)

    def text(self, width: int | None = None, *, depth: int | None = None, fold: bool = True,
             color: bool | None = None) -> str:  # fmt: skip
        """The tree of calls, to `depth`, repeated layers folded.

        width None: the terminal's; color None: if standard output is a terminal.
        """
        return render.text(self, width, depth=depth, fold=fold, color=color)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"<Trace of {len(list(self.walk()))} calls of {self.calls[0].kind if self.calls else 'nothing'}>"

    def html(self, path: str | Path) -> Path:
        """Write one static page that any browser opens."""
        path = Path(path)
        path.write_text(page.page(self), encoding="utf-8")
        return path

    def _repr_html_(self) -> str:
        return page.fragment(self)

    def diff(self, other: "Trace", *, rtol: float = 1e-4, atol: float = 1e-6) -> str:
        """Where two traces part: the first call that differs, then the others, in order of time."""
        return diff(self, other, rtol=rtol, atol=atol)

    def to_dict(self) -> dict:
        return {
            "schema": SCHEMA,
            "torch": self.torch_version,
            "dims": self.dims,
            "calls": [asdict(call) for call in self.calls],
            "parts": {path: asdict(part) for path, part in self.parts.items()},
            "silent": self.silent,
            "notes": self.notes,
            "backward_origin": self.backward_origin and asdict(self.backward_origin),
        }

    def to_json(self, path: str | Path) -> Path:
        """Write everything recorded; Trace.load reads it again."""
        path = Path(path)
        path.write_text(_dump(self), encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Trace":
        """Read what to_json wrote. Raises ValueError for another schema."""
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        if data.get("schema") != SCHEMA:
            raise ValueError(f"{path} has schema {data.get('schema')}: this code reads {SCHEMA}")
        trace = cls({k: _tuple(v) for k, v in data["dims"].items()})
        trace.calls = [_load_call(call) for call in data["calls"]]
        trace.parts = {path: Part(**part) for path, part in data["parts"].items()}
        trace.silent = {path: (count, dead) for path, (count, dead) in data["silent"].items()}
        trace.notes, trace.torch_version = data["notes"], data["torch"]
        origin = data["backward_origin"]
        trace.backward_origin = origin and NonFinite(**origin)
        return trace

    def __eq__(self, other) -> bool:
        return isinstance(other, Trace) and _dump(self) == _dump(other)

    __hash__ = None


def forward_origin(trace: Trace) -> NonFinite | None:
    """The first call, in the order of ending, with NaN or +inf in its results only."""
    for call in trace.ended():
        before, after = _worst(call.inputs), _worst(call.outputs)
        if after == 2 and before < 2:
            source = _source_of_minus_inf(trace, call) if before == 1 else call
            nan = any(math.isnan(value.stats.get("min", 0.0)) for value in call.outputs)
            what = "-inf (then NaN)" if source is not call else "NaN" if nan else "Inf"
            return NonFinite(source.path, source.method, source.kind, source.index, "forward", what)
    return None


def _worst(values: list[Value]) -> int:
    return max((value.badness for value in values), default=0)


def _source_of_minus_inf(trace: Trace, victim: Call) -> Call:
    """The call that made the -inf which `victim` turned into NaN; itself, if none is found."""
    family = _line_to(trace.calls, victim)
    for siblings, ancestor in reversed(family):
        earlier = siblings[: siblings.index(ancestor)]
        for call in reversed(earlier):
            if _worst(call.outputs) == 1 and _worst(call.inputs) == 0:
                return _innermost_minus_inf(call)
    return victim


def _line_to(calls: list[Call], target: Call) -> list[tuple[list[Call], Call]]:
    """From the root down to `target`: at each level all calls, and the one that leads there."""
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


def _dump(trace: Trace) -> str:
    return json.dumps(_plain(trace.to_dict()), allow_nan=False)


def _plain(x):
    """Only what strict JSON knows: NaN and Inf become {"float": "nan"}."""
    if isinstance(x, dict):
        return {key: _plain(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [_plain(value) for value in x]
    if isinstance(x, float) and not math.isfinite(x):
        return {"float": str(x)}
    return x


def _rich(x):
    if isinstance(x, dict):
        return float(x["float"]) if x.keys() == {"float"} else {k: _rich(v) for k, v in x.items()}
    return [_rich(value) for value in x] if isinstance(x, list) else x


def _tuple(x):
    return tuple(x) if isinstance(x, list) else x


def _load_call(data: dict) -> Call:
    values = {
        side: [
            Value(**{**value, "shape": _tuple(value["shape"]), "labels": tuple(value["labels"]),
                     "stats": _rich(value["stats"])})
            for value in data[side]
        ]
        for side in ("inputs", "outputs")
    }  # fmt: skip
    children = [_load_call(child) for child in data["children"]]
    norms = _rich(data["grad_norms"])
    return Call(**{**data, **values, "children": children, "grad_norms": norms})
