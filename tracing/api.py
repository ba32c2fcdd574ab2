"""trace(): what users call, with its filters, gradients and search for NaN."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from tracing import measure, render
from tracing.records import Trace
from tracing.selecting import TraceRecorder
from tracing.swap import unwatch, watch


@contextmanager
def trace(
    model: nn.Module,
    dims: dict[str, int | tuple[int, ...]] | None = None,
    *,
    stats: str = "basic",
    depth: int | None = None,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] = (),
    methods: str | Sequence[str] | None = None,
    leaves: bool = True,
    grad: bool = False,
    stop_on_nan: bool = False,
    max_elems: int = 1 << 20,
):
    """Record every call of `model` in the block: `with trace(model) as t: model(x)`; `print(t)`.

    dims: sizes of letters; None asks `model.dims()`, if there is that method.
    stats: "none" (shapes and time), "basic" (min, max, mean, std, FLOPs) or "full" (and counts of
        NaN, Inf and zeros, and a histogram). Of more than `max_elems` elements, mean and std take
        an even sample.
    depth, include, exclude, methods: which calls to keep, by nesting, by globs of module paths, by
        globs of method names. leaves: also modules without a mark, such as nn.Linear.
    grad: also gradient norms, for a backward pass inside the block.
    stop_on_nan: raise FloatingPointError where a call makes the first NaN or Inf.

    Raises ValueError for a word it does not know. An exception in the model passes through, with
    a note of the call and its shapes, and the trace holds what came before it.
    """
    if stats not in measure.STATS:
        raise ValueError(f"stats={stats!r} is not known: use one of {', '.join(measure.STATS)}")
    if stats == "none" and stop_on_nan:
        raise ValueError("stop_on_nan=True needs values, stats='none' reads none: use stats='basic'")
    if not isinstance(model, nn.Module):
        raise ValueError(f"model={model!r} is not an nn.Module: give trace() the module to watch")
    notes = []
    if hasattr(model, "_orig_mod"):
        model = model._orig_mod
        notes.append("a compiled model: traced as it runs without torch.compile")
    if dims is None:
        dims = model.dims() if callable(getattr(model, "dims", None)) else {}
    record = Trace(dict(dims))
    record.notes += notes
    recorder = TraceRecorder(
        model, record, stats=stats, depth=depth, include=_list(include), exclude=_list(exclude),
        methods=_list(methods), leaves=leaves, grad=grad, stop_on_nan=stop_on_nan,
        max_elems=max_elems,
    )  # fmt: skip
    record.calls = recorder.roots
    with ExitStack() as stack:
        if "torch._dynamo" in sys.modules:  # else nothing can be compiled yet
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        keys = watch(recorder, recorder.modules.values())
        stack.callback(unwatch, recorder, keys)
        if recorder.flops is not None:
            stack.enter_context(recorder.flops)
        try:
            yield record
        except Exception as error:
            _add_note(error, record)
            raise
        finally:
            recorder.finish()
    if not record.calls:
        record.notes.append("no call of this model was seen in the block")


def _list(globs: str | Sequence[str] | None) -> list[str] | None:
    return [globs] if isinstance(globs, str) else None if globs is None else list(globs)


def _add_note(error: Exception, record: Trace) -> None:
    call = record.failed
    if call:
        record.notes.append(f"stopped by {call.exception}")
        error.add_note(f"in {render.signature(call)}")
