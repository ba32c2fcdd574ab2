"""Turning watched calls into records: arguments by name, axes by letter, statistics, time."""

import functools
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from itertools import islice
from time import perf_counter

import torch
from torch import Tensor, nn

from tracing import measure
from tracing.axes import ELLIPSIS, AxisNamer, Bound, Labels, Shape
from tracing.records import Call, Value
from tracing.swap import Site

MAX_VALUES = 32  # kept of one call's arguments, and of its results
LINEAR = nn.Linear.forward  # as it is when nobody traces
NOTHING = (None, None, None)
PLAIN = (int, float, bool, str, type(None), torch.dtype, torch.device)


class _Names(dict):
    """torch.float32 -> "float32"."""

    def __missing__(self, dtype: torch.dtype) -> str:
        self[dtype] = str(dtype).removeprefix("torch.")
        return self[dtype]


DTYPES = _Names()


@dataclass(slots=True)
class Frame:
    """A call that has not ended."""

    call: Call
    site: Site
    module: nn.Module
    bound: Bound  # letters and their sizes, in this call and those around it
    own: Bound = ()  # letters that this call declared


class Recorder:
    """Turns the calls of the modules in `paths` (id -> path) into a tree of Call records."""

    def __init__(self, paths: dict[int, str], dims: dict, *, stats: str, max_elems: int):
        self.paths, self.stats, self.max_elems = paths, stats, max_elems
        self.namer = AxisNamer.of(tuple(dims.items()))
        self.roots: list[Call] = []
        self.stack: list[Frame] = []
        self.counts: dict[tuple[str, str], int] = defaultdict(int)
        self.seen: dict[int, tuple] = {}  # id of a tensor -> (weak reference, version, Value)
        self.late: list[tuple[dict, Tensor]] = []  # statistics still on an accelerator
        self.flops = measure.CountFlops(self.spend_flops) if stats != "none" else None
        self.spent = 0.0  # seconds that recording itself took
        self.thread = threading.get_ident()

    def path_of(self, module: nn.Module) -> str | None:
        """The path of a module that is watched, else None."""
        return self.paths.get(id(module))

    def wants(self, module: nn.Module, site: Site) -> bool:
        """Whether to record this method of a watched module."""
        return True

    def around(self, site: Site, module: nn.Module | None, inner: Callable) -> Callable:
        """`inner`, or what records it, where it is a call of the watched model."""
        backward = torch._C._current_graph_task_id() != -1
        if threading.get_ident() != self.thread and not backward:
            return inner
        top = self.stack[-1] if self.stack else None
        if module is None and top:  # a static or class method belongs to who calls it
            module = top.module
        path = self.path_of(module)
        if path is None or not self.wants(module, site):
            return inner
        if top and top.module is module and top.site.method == site.method and top.site is not site:
            return inner  # super().forward(x)
        if site.function is LINEAR and self.flops is not None:
            inner = functools.partial(self.flops.linear, inner)
        return functools.partial(self.run, site, module, path, inner, backward)

    def run(self, site: Site, module, path: str, inner: Callable, recompute: bool, *args, **kwargs):
        begun = perf_counter()
        key = path, site.method
        count = self.counts[key]
        self.counts[key] = count + 1
        call = Call(path, site.method, type(module).__name__, count, site.title, recompute=recompute)
        top = self.stack[-1] if self.stack else None
        (top.call.children if top else self.roots).append(call)
        frame = Frame(call, site, module, top.bound if top else ())
        args, kwargs = self.enter(frame, args, kwargs)
        self.stack.append(frame)
        start = perf_counter()
        self.spent += start - begun
        spent = self.spent
        try:
            out = inner(*args, **kwargs)
        except Exception as error:
            has_enough = type(error).__name__ == "_StopRecomputationError"  # how checkpointing ends: no failure
            if not has_enough and not any(below.exception for below in call.walk()):
                call.exception = f"{type(error).__name__}: {error}"
            raise
        finally:
            end = perf_counter()
            call.seconds = end - start - (self.spent - spent)
            self.stack.pop()
            if top:
                top.call.flops += call.flops
        out = self.leave(frame, out)
        self.spent += perf_counter() - end
        return out

    def spend_flops(self, flops: int) -> None:
        if self.stack:
            self.stack[-1].call.flops += flops

    # -- arguments and results

    def enter(self, frame: Frame, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Note the arguments; return those to call with."""
        site = frame.site
        given = args[1:] if site.takes_self else args
        names = site.names
        if len(given) > len(names):
            names = (*names, *(f"{site.rest}[{i}]" for i in range(len(given) - len(names))))
        flat = flatten([*zip(names, given, strict=False), *kwargs.items()])
        if not self.stack and not site.inputs:
            self.bind_tokens(frame, flat)
        frame.call.inputs = self.values(frame, flat, site.inputs, self.guess_input)
        return args, kwargs

    def leave(self, frame: Frame, out):
        """Note the results; return them."""
        names = frame.site.returns
        if isinstance(out, Tensor):
            flat = [(names[0] if len(names) == 1 else "", out)]
        elif type(out) in (tuple, list):
            names = names if len(names) == len(out) else [f"[{i}]" for i in range(len(out))]
            flat = flatten(list(zip(names, out, strict=True)))
        else:
            flat = flatten([(names[0] if len(names) == 1 else "", out)])
        frame.call.outputs = self.values(frame, flat, frame.site.outputs, self.guess_output)
        return out

    def values(self, frame: Frame, flat: list, declared, guess) -> list[Value]:
        """A record for each (name, object); tensors get the axes `declared` for them, in order."""
        declared = iter(declared)
        values = []
        for name, x in flat:
            if not isinstance(x, Tensor):
                values.append(Value(name, text=describe(x)))
                continue
            axes = next(declared, None)
            value, earlier = self.tensor_value(name, x)
            if axes is not None:
                self.declare(frame, axes, x, value, earlier, guess)
            elif earlier is None:
                value.labels = guess(frame, value)
            values.append(value)
        return values

    def declare(self, frame: Frame, axes, x: Tensor, value: Value, earlier: Value | None, guess) -> None:
        """Give `value` the labels that `axes` promise, and note a promise that is broken."""
        labels, problem, own = self.namer.declare(axes, value.shape, frame.own)
        if own is not frame.own:
            frame.own, frame.bound = own, self.namer.bind(frame.bound, own)
        if ELLIPSIS in axes:  # what dims leave open
            others = value.labels if earlier else guess(frame, value)
            labels = tuple(a or b for a, b in zip(labels, others, strict=True))
        if earlier and labels != earlier.labels:
            self.decide(earlier, labels)
            self.remember(x, value)
        value.labels = labels
        if problem and not frame.call.problem:
            frame.call.problem = f"{value.name or 'result'}: {problem}"

    @staticmethod
    def decide(earlier: Value, labels: Labels) -> None:
        """Where an earlier record of the same tensor was unsure, a declaration decides."""
        pairs = zip(earlier.labels, labels, strict=True)
        earlier.labels = tuple([new if old and "|" in old else old for old, new in pairs])

    def tensor_value(self, name: str, x: Tensor) -> tuple[Value, Value | None]:
        """The record of x; where x was seen before, with its labels, and that earlier record."""
        version = None if x.is_inference() else x._version
        ref, seen_version, seen = self.seen.get(id(x), NOTHING)
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

    def remember(self, x: Tensor, value: Value) -> None:
        version = None if x.is_inference() else x._version
        self.seen[id(x)] = (weakref.ref(x), version, value)

    def measure(self, x: Tensor) -> dict:
        with torch._C._DisableTorchDispatch():  # hides this from users' modes, and from our own
            if x.is_cpu:
                stats = measure.measure(x, self.max_elems)
            else:
                stats = dict.fromkeys(measure.NAMES, 0.0)
                self.late.append((stats, measure.measure_later(x, self.max_elems)))
            if self.stats == "full":
                stats |= measure.details(x, self.max_elems)
        return stats

    def settle(self) -> None:
        """Fetch the statistics that still lie on an accelerator."""
        for stats, numbers in self.late:
            stats.update(zip(measure.NAMES, numbers.tolist(), strict=True))
        self.late.clear()

    # -- names of axes that nobody declared

    def bind_tokens(self, frame: Frame, flat: list) -> None:
        """The first argument of a language model is (b, t) token ids, or (b, t, d) vectors."""
        tensors = [x for _, x in flat if isinstance(x, Tensor)]
        if not tensors or tensors[0].dim() not in (2, 3):
            return
        x = tensors[0]
        if (x.dim() == 2) != (x.is_floating_point() or x.is_complex()):
            frame.own = frame.bound = tuple(zip("bt", shape_of(x), strict=False))

    def guess_input(self, frame: Frame, value: Value) -> Labels:
        return self.namer.guess(value.shape, frame.bound)

    def guess_output(self, frame: Frame, value: Value) -> Labels:
        """A module keeps the leading axes of its first tensor; a layer may change the last one."""
        source = None
        if frame.site.method == "forward":
            source = next((v for v in frame.call.inputs if v.shape is not None), None)
        if source is None:
            return self.namer.guess(value.shape, frame.bound)
        module, shape = frame.module, value.shape
        if shape == source.shape and "out_features" not in vars(module):
            return source.labels
        leading = source.shape if isinstance(module, nn.Embedding) else source.shape[:-1]
        if shape and shape[:-1] == leading:
            before = source.labels[-1] if source.labels and leading == source.shape[:-1] else None
            width = self.namer.guess_width(shape[-1], frame.bound, before)
            return (*source.labels[: len(leading)], width)
        return self.namer.guess(shape, frame.bound)


def flatten(pairs: list[tuple[str, object]]) -> list[tuple[str, object]]:
    """Tensors and other things in nested containers, named q, pair[0], cache.k, extra[mask]."""
    flat: list[tuple[str, object]] = []
    for name, x in pairs:
        if isinstance(x, Tensor) or not is_container(x):
            flat.append((name, x))
        else:
            inner = islice(_items(x), MAX_VALUES)
            flat += flatten([(f"{name}{key}", item) for key, item in inner])
    return flat[:MAX_VALUES]


def is_container(x) -> bool:
    return isinstance(x, tuple | list | dict) or is_dataclass(x) and not isinstance(x, type)


def _items(x) -> Iterator[tuple[str, object]]:
    if hasattr(x, "_fields"):
        return ((f".{key}", getattr(x, key)) for key in x._fields)
    if isinstance(x, dict):
        return ((f"[{key}]", item) for key, item in x.items())
    if is_dataclass(x):
        return ((f".{field.name}", getattr(x, field.name)) for field in fields(x))
    return ((f"[{i}]", item) for i, item in enumerate(x))


def shape_of(x: Tensor) -> Shape:
    """Sizes as numbers; as text where they are symbols."""
    shape = tuple(x.shape)
    return shape if {*map(type, shape)} <= {int} else tuple(map(_number_or_text, shape))


def _number_or_text(size) -> int | str:
    """Under torch.jit.trace a size is a tensor."""
    text = str(size) if isinstance(size, torch.SymInt) else str(int(size))
    return int(text) if text.isdigit() else text


def describe(x) -> str:
    """Short text for what is no tensor: the value of plain things, the class of others."""
    text = repr(x) if isinstance(x, PLAIN) else type(x).__name__
    return text if len(text) <= 40 else text[:39] + "…"
