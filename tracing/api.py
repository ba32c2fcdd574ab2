"""trace(): record what a model does inside a `with` block."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from tracing import measure
from tracing.formats import signature
from tracing.result import Trace
from tracing.selecting import Selection, TraceRecorder
from tracing.swap import unwatch, watch

Globs = str | Sequence[str]


@contextmanager
def trace(
    model: nn.Module, dims: dict[str, int | tuple[int, ...]] | None = None, *, stats: str = "basic",
    depth: int | None = None, include: Globs | None = None, exclude: Globs = (), methods: Globs | None = None,
    leaves: bool = True, grad: bool = False, stop_on_nan: bool = False, max_elems: int = 1 << 20,
) -> Iterator[Trace]:  # fmt: skip
    """Record every call of `model` in the block: `with trace(model) as t: model(x)`; `print(t)`.

    dims: sizes of letters. None = `model.dims()`, if it has that method.
    stats: "none" (shapes and time), "basic" (also min, max, mean, std, FLOPs) or "full" (also counts of NaN, Inf and
        zeros, and a histogram). Beyond `max_elems` elements, mean and std are those of an even sample.
    depth, include, exclude, methods: which calls to keep, by nesting, globs of module paths, globs of method names.
    leaves: also modules without a mark, such as nn.Linear. grad: also gradient norms of a backward in the block.
    stop_on_nan: raise FloatingPointError when a call makes the first NaN or Inf.

    Raises ValueError for an unknown word, and for a glob that fits nothing in the model. An exception in the model
    passes through, with a note of the call and its shapes; the trace keeps what came before it.
    """
    check(model, stats, stop_on_nan)
    inner = getattr(model, "_orig_mod", model)
    if dims is None:
        dims = inner.dims() if callable(getattr(inner, "dims", None)) else {}
    record = Trace(dict(dims))
    if inner is not model:
        record.notes.append("a compiled model: traced as it runs without torch.compile")
    selection = Selection(depth, as_list(include), as_list(exclude), as_list(methods), leaves)
    with recording(TraceRecorder(inner, record, selection, stats=stats, grad=grad, stop_on_nan=stop_on_nan,
                                 max_elems=max_elems)):  # fmt: skip
        yield record


def check(model: nn.Module, stats: str, stop_on_nan: bool) -> None:
    if stats not in measure.STATS:
        raise ValueError(f"stats={stats!r} is not known: use one of {', '.join(measure.STATS)}")
    if stats == "none" and stop_on_nan:
        raise ValueError("stop_on_nan=True needs values, stats='none' reads none: use stats='basic'")
    if not isinstance(model, nn.Module):
        raise ValueError(f"model={model!r} is not an nn.Module: give trace() the module to watch")


def as_list(globs: Globs | None) -> list[str] | None:
    return [globs] if isinstance(globs, str) else None if globs is None else list(globs)


@contextmanager
def recording(recorder: TraceRecorder) -> Iterator[None]:
    """Have a recorder see the calls in the block, without torch.compile."""
    record = recorder.trace
    with ExitStack() as stack:
        if "torch._dynamo" in sys.modules:  # otherwise nothing can be compiled yet
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        keys = watch(recorder, recorder.modules.values())
        stack.callback(unwatch, recorder, keys)
        if recorder.flops is not None:
            stack.enter_context(recorder.flops)
        try:
            yield
        except Exception as error:
            if call := record.failed:
                record.notes.append(f"stopped by {call.exception}")
                error.add_note(f"in {signature(call)}")
            raise
        finally:
            recorder.finish()
    if not record.calls:
        record.notes.append("no call of this model was seen in the block")
