"""The result of trace(): a Trace, and the ways to see it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from tracing import module_tables, page, render, storage
from tracing.diff import diff
from tracing.nonfinite import forward_origin
from tracing.records import Call, NonFinite, Part


class Trace:
    """What happened in one `with trace(...)`: print it, or see text, html, table, diff."""

    __hash__ = None
    rows, to_dict, _repr_html_ = module_tables.module_rows, storage.to_dict, page.fragment

    def __init__(self, dims: dict[str, int | tuple[int, ...]]):
        self.dims = dims
        self.calls: list[Call] = []
        self.parts: dict[str, Part] = {}
        self.silent: dict[str, tuple[int, list[int]]] = {}  # per activation: channels, and those that were always 0
        self.notes: list[str] = []
        self.backward_origin: NonFinite | None = None
        self.torch_version = torch.__version__

    def walk(self) -> Iterator[Call]:
        """All calls, in the order in which they began."""
        return (call for root in self.calls for call in root.walk())

    def ended(self) -> Iterator[Call]:
        """All calls, in the order in which they ended."""
        return (call for root in self.calls for call in root.ended())

    @property
    def failed(self) -> Call | None:
        """The innermost call that raised."""
        return next((call for call in self.walk() if call.exception), None)

    @property
    def first_nonfinite(self) -> NonFinite | None:
        """The call that made the first NaN or Inf, forward before backward; -inf alone counts as a mask."""
        return forward_origin(self.calls) or self.backward_origin

    def dead_units(self) -> dict[str, tuple[int, list[int]]]:
        """Per activation: its number of channels, and those that were 0 for every token."""
        return self.silent

    def table(self, columns: Sequence[str] = module_tables.COLUMNS, depth: int | None = None) -> str:
        """The rows() as text, like layers folded. Raises ValueError for an unknown column."""
        return module_tables.table(self, columns, depth)

    def text(self, width: int | None = None, *, depth: int | None = None, fold: bool = True,
             color: bool | None = None) -> str:  # fmt: skip
        """The tree of calls, to `depth`, with repeated layers folded. None = as the terminal has it."""
        return render.text(self, width, depth=depth, fold=fold, color=color)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"<Trace of {len(list(self.walk()))} calls of {self.calls[0].kind if self.calls else 'nothing'}>"

    def html(self, path: str | Path) -> Path:
        """Write one static page that any browser opens."""
        Path(path).write_text(page.page(self), encoding="utf-8")
        return Path(path)

    def diff(self, other: "Trace", *, rtol: float = 1e-4, atol: float = 1e-6) -> str:
        """Where two traces differ: the first call that does, then the others, in the order in which they ended.

        Statistics may differ by rtol and atol; a tensor with any other byte is told all the same, as "other values". A
        trace without statistics, or saved without checksums, has no values to compare: the text says so.
        """
        return diff(self, other, rtol=rtol, atol=atol)

    def to_json(self, path: str | Path) -> Path:
        """Write everything recorded; Trace.load reads it again."""
        Path(path).write_text(storage.dump(self), encoding="utf-8")
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> "Trace":
        """Read what to_json wrote. Raises ValueError for another schema."""
        trace = cls({})
        vars(trace).update(storage.load(path))
        return trace

    def __eq__(self, other) -> bool:
        return isinstance(other, Trace) and storage.dump(self) == storage.dump(other)
