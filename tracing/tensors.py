"""Records of tensors: shape, dtype, size and statistics, without keeping the tensors."""

import weakref
from dataclasses import dataclass

import torch
from torch import Tensor

from tracing.axes import MOVING, Labels, Shape
from tracing.readings import Readings
from tracing.records import Value


@dataclass(slots=True)
class Seen:
    """What is known of a tensor that was seen before."""

    ref: weakref.ref
    version: int | None  # it changes when the tensor does
    value: Value  # its record when it was last measured
    records: list[Value]  # all its records, also those of its aliases
    named: set[int]  # axes that a dims string has named


class _Names(dict):
    """torch.float32 -> "float32"."""

    def __missing__(self, dtype: torch.dtype) -> str:
        self[dtype] = str(dtype).removeprefix("torch.")
        return self[dtype]


DTYPES = _Names()


class TensorRecords:
    """Makes the Values of tensors. A tensor that was seen before, and not changed since, is not measured again."""

    def __init__(self, *, stats: str, max_elems: int):
        self.stats = stats
        self.seen: dict[int, Seen] = {}  # by the id of a tensor
        self.readings = Readings(stats=stats, max_elems=max_elems)

    def tensor_value(self, name: str, x: Tensor) -> tuple[Value, Value | None]:
        """The record of x and, if x was seen before, its earlier record, whose labels it gets."""
        seen, version = self.seen.get(id(x)), version_of(x)
        if seen is None or seen.ref() is not x:
            seen = None
        elif version == seen.version is not None:
            old = seen.value
            value = Value(name, "", old.shape, old.labels, old.dtype, old.bytes, old.stats, old.checksum)
            seen.records.append(value)
            return value, old
        shape = shape_of(x)
        if seen and seen.value.shape != shape:
            seen = None
        symbolic = str in map(type, shape)
        earlier = seen and seen.value
        value = Value(name, "", shape, earlier.labels if earlier else (), DTYPES[x.dtype], 0 if symbolic else x.nbytes)
        records, named = (seen.records, seen.named) if seen else ([], set())
        self.seen[id(x)] = Seen(weakref.ref(x), version, value, records, named)
        records.append(value)
        self.readings.read(x, value, records)
        return value, earlier

    def earlier(self, x: Tensor) -> Value | None:
        """The latest record of x."""
        seen = self.seen.get(id(x))
        return seen and seen.value

    def remember(self, x: Tensor, alias: Tensor, value: Value) -> None:
        """Make `value` the record of an alias of x, whose axes get their names with those of x."""
        seen = self.seen[id(x)]
        self.seen[id(alias)] = Seen(weakref.ref(alias), version_of(alias), value, seen.records, seen.named)

    def name_axes(self, x: Tensor, declared: Labels) -> None:
        """Give all records of x the names that `declared` has for axes, except those that were declared before."""
        seen = self.seen[id(x)]
        new = {i: label for i, label in enumerate(declared) if label and i not in seen.named}
        if new:
            for record in seen.records:
                record.labels = tuple([new[i] if i in new and unsure(label, record.labels) else label
                                       for i, label in enumerate(record.labels)])  # fmt: skip
            seen.named.update(new)

    def settle(self) -> None:
        """Fetch the numbers that are still on an accelerator."""
        self.readings.settle()


def unsure(label: str | None, labels: Labels) -> bool:
    """Whether a guessed label gives way to a declared one: not b, t or s, which follow from places, if it is unique."""
    return label not in MOVING or labels.count(label) > 1


def version_of(x: Tensor) -> int | None:
    """A number that changes when x is changed in place; None in inference mode, where nobody counts."""
    return None if x.is_inference() else x._version


def shape_of(x: Tensor) -> Shape:
    """Sizes as integers; symbolic ones as text."""
    shape = tuple(x.shape)
    return shape if {*map(type, shape)} <= {int} else tuple(map(_number_or_text, shape))


def _number_or_text(size) -> int | str:
    """Under torch.jit.trace a size is a tensor."""
    text = str(size) if isinstance(size, torch.SymInt) else str(int(size))
    return int(text) if text.isdigit() else text
