"""Turn watched calls into a tree of Call records, with their FLOPs and time."""

import functools
import threading
from collections import defaultdict
from collections.abc import Callable
from time import perf_counter

import torch
from torch import nn

from tracing import measure
from tracing.parts import kind_of
from tracing.records import Call
from tracing.swap import Site, letters_of
from tracing.values import Frame, ValueRecords

LINEAR = nn.Linear.forward  # as it is when nobody traces


class Recorder(ValueRecords):
    """Turns calls into a tree of Call records.

    A subclass says which calls: `path_of(module)` is the path of a module that it watches, else None;
    `wants(module, site)` is whether to record this method of it.
    """

    def __init__(self, dims: dict, *, stats: str, max_elems: int):
        super().__init__(dims, stats=stats, max_elems=max_elems)
        self.roots: list[Call] = []
        self.stack: list[Frame] = []
        self.counts: dict[tuple[str, str], int] = defaultdict(int)
        self.flops = measure.CountFlops(self.spend_flops) if stats != "none" else None
        self.spent = 0.0  # seconds that recording itself took
        self.thread = threading.get_ident()

    def around(self, site: Site, module: nn.Module | None, inner: Callable) -> Callable:
        """The function to call in the place of `inner`: one that records it if it is a call of the watched model."""
        backward = torch._C._current_graph_task_id() != -1
        if threading.get_ident() != self.thread and not backward:
            return inner
        top = self.stack[-1] if self.stack else None
        if module is None and top:  # a static or class method belongs to its caller
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
        """Call `inner` and record it."""
        begun = perf_counter()
        frame, above = self.begin(site, module, path, recompute)
        call = frame.call
        call.inputs = self.inputs(frame, args, kwargs, not self.stack)
        args, kwargs = self.enter(frame, args, kwargs)
        self.stack.append(frame)
        start = perf_counter()
        self.spent += start - begun
        spent = self.spent
        try:
            out = inner(*args, **kwargs)
        except Exception as error:
            note_exception(call, error)
            raise
        finally:
            end = perf_counter()
            call.seconds = end - start - (self.spent - spent)
            self.stack.pop()
            if above:
                above.call.flops += call.flops
        call.outputs = self.outputs(frame, out)
        out = self.leave(frame, out)
        self.spent += perf_counter() - end
        return out

    def begin(self, site: Site, module: nn.Module, path: str, recompute: bool) -> tuple[Frame, Frame | None]:
        """The frame of a new call, and that of the call around it."""
        index = self.counts[path, site.method]
        self.counts[path, site.method] = index + 1
        call = Call(path, site.method, kind_of(module), index, site.title, recompute=recompute)
        above = self.stack[-1] if self.stack else None
        (above.call.children if above else self.roots).append(call)
        letters = letters_of(type(module)) | (above.letters if above else frozenset())
        bound = above.bound if above else ()
        return Frame(call, site, module, bound, letters=letters, hidden=self.claimed - letters), above

    def spend_flops(self, flops: int) -> None:
        if self.stack:
            self.stack[-1].call.flops += flops

    def enter(self, frame: Frame, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """What else to do when a call begins; returns the arguments to call with."""
        return args, kwargs

    def leave(self, frame: Frame, out):
        """What else to do when a call has ended; returns its results."""
        return out


def note_exception(call: Call, error: Exception) -> None:
    """Note an exception at the innermost call that it passes."""
    ends_recomputation = type(error).__name__ == "_StopRecomputationError"  # of checkpointing: not a failure
    if not ends_recomputation and not any(below.exception for below in call.walk()):
        call.exception = f"{type(error).__name__}: {error}"
