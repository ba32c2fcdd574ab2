"""The records of a trace: calls, values and modules, as numbers and names, never tensors."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from tracing.axes import Labels, Shape


@dataclass(slots=True)
class Value:
    """One argument or result of a call: a tensor, or any other object as `text`."""

    name: str
    text: str = ""
    shape: Shape | None = None
    labels: Labels = ()
    dtype: str = ""
    bytes: int = 0
    stats: dict = field(default_factory=dict)
    checksum: str = ""  # of the bytes of a tensor; "" if they were not read

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

    `flops` (2 per multiply-add; causal attention counts in full) and `seconds` (without the tracer's own) include those
    of the children.
    """

    path: str
    method: str
    kind: str
    index: int = 0  # number of earlier calls of this path and method
    title: str = ""
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    children: list["Call"] = field(default_factory=list)
    seconds: float = 0.0
    flops: int = 0
    problem: str = ""  # how the sizes contradict a dims string
    exception: str = ""  # of the innermost call that raised
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
    """A module of the model. A shared parameter counts at its first module."""

    kind: str
    parameters: int  # of the module and all below it
    shared: list[str] = field(default_factory=list)  # names under which its other parameters count
    grad_norm: float | None = None  # of the module's own parameters


@dataclass(frozen=True, slots=True)
class NonFinite:
    """The call that made the first NaN or Inf of finite numbers."""

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
