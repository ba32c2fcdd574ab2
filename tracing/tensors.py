"""Records of tensors: shape, dtype, size and statistics, without keeping the tensors."""

import weakref

import torch
from torch import Tensor

from tracing import measure
from tracing.axes import Shape
from tracing.records import Value

UNSEEN = (None, None, None)


class _Names(dict):
    """torch.float32 -> "float32"."""

    def __missing__(self, dtype: torch.dtype) -> str:
        self[dtype] = str(dtype).removeprefix("torch.")
        return self[dtype]


DTYPES = _Names()


class TensorRecords:
    """Makes the Values of tensors. A tensor that was seen before, and not changed since, is not measured again."""

    def __init__(self, *, stats: str, max_elems: int):
        self.stats, self.max_elems = stats, max_elems
        self.seen: dict[int, tuple] = {}  # id of a tensor -> (weak reference, version, Value)
        self.pending: list[tuple[dict, Tensor]] = []  # statistics that are still on an accelerator

    def tensor_value(self, name: str, x: Tensor) -> tuple[Value, Value | None]:
        """The record of x and, if x was seen before, its earlier record, whose labels it gets."""
        version = None if x.is_inference() else x._version
        ref, seen_version, seen = self.seen.get(id(x), UNSEEN)
        if ref is None or ref() is not x:
            seen = None
        elif version == seen_version is not None:
            return Value(name, "", seen.shape, seen.labels, seen.dtype, seen.bytes, seen.stats), seen
        shape = shape_of(x)
        if seen and seen.shape != shape:
            seen = None
        symbolic = str in map(type, shape)
        value = Value(name, "", shape, seen.labels if seen else (), DTYPES[x.dtype], 0 if symbolic else x.nbytes)
        if self.stats != "none" and measure.readable(x):
            value.stats = self.measure(x)
        self.seen[id(x)] = (weakref.ref(x), version, value)
        return value, seen

    def earlier(self, x: Tensor) -> Value | None:
        """The latest record of x."""
        return self.seen.get(id(x), UNSEEN)[2]

    def remember(self, x: Tensor, value: Value) -> None:
        """Make `value` the record of x."""
        version = None if x.is_inference() else x._version
        self.seen[id(x)] = (weakref.ref(x), version, value)

    def measure(self, x: Tensor) -> dict:
        """The statistics of x; those of a tensor on an accelerator are filled in by `settle`."""
        with torch._C._DisableTorchDispatch():  # hides this from users' modes, and from our own
            if x.is_cpu:
                stats = measure.measure(x, self.max_elems)
            else:
                stats = dict.fromkeys(measure.NAMES, 0.0)
                self.pending.append((stats, measure.measure_later(x, self.max_elems)))
            if self.stats == "full":
                stats |= measure.details(x, self.max_elems)
        return stats

    def settle(self) -> None:
        """Fetch the statistics that are still on an accelerator."""
        for stats, numbers in self.pending:
            stats.update(zip(measure.NAMES, numbers.tolist(), strict=True))
        self.pending.clear()


def shape_of(x: Tensor) -> Shape:
    """Sizes as integers; symbolic ones as text."""
    shape = tuple(x.shape)
    return shape if {*map(type, shape)} <= {int} else tuple(map(_number_or_text, shape))


def _number_or_text(size) -> int | str:
    """Under torch.jit.trace a size is a tensor."""
    text = str(size) if isinstance(size, torch.SymInt) else str(int(size))
    return int(text) if text.isdigit() else text
