"""shapes(): a trace with symbolic sizes, without data or memory."""

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tracing.api import trace
from tracing.result import Trace

HINTS = (5, 7, 11, 13, 17, 19, 23)  # sizes that decide comparisons of symbols; all differ


def shapes(build_or_model: nn.Module | Callable[[], nn.Module], *inputs: str | Tensor) -> Trace:
    """Trace a model on fake tensors, with sizes such as `b`, `t` or `b*t`, without data or memory.

    Takes a model, or a function that builds one (which then needs no memory), and a dims string for each argument of
    forward: "b t" are token ids, "b t d float32" vectors. Letters in the model's `dims()` have the size given there,
    all others are symbols. Without inputs: "b t". Raises ValueError for an invalid dims string.
    """
    from torch._dispatch.python import enable_python_dispatcher  # else matmul needs sizes as numbers in 2.11
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv  # takes 1.3 s, so not when tools is imported

    fake = FakeTensorMode(shape_env=ShapeEnv(duck_shape=False), allow_non_fake_inputs=True)
    with fake:
        model = build_or_model if isinstance(build_or_model, nn.Module) else build_or_model()
    known = dict(model.dims()) if callable(getattr(model, "dims", None)) else {}
    symbols: dict[str, torch.SymInt] = {}
    tensors = [x if isinstance(x, Tensor) else fake_tensor(x, known, symbols, fake)
               for x in inputs or ["b t"]]  # fmt: skip
    with fake, enable_python_dispatcher(), torch.no_grad(), trace(model, known, stats="none") as record:
        model(*tensors)
    names = {str(size): letter for letter, size in symbols.items()}
    for call in record.walk():
        for value in (*call.inputs, *call.outputs):
            if value.shape is not None:
                value.shape = tuple(_rename(size, names) for size in value.shape)
    return record


def fake_tensor(text: str, known: dict, symbols: dict[str, torch.SymInt], fake) -> Tensor:
    """A fake tensor of the shape in `text`; new letters become symbols."""
    words = text.split()
    dtype = getattr(torch, words[-1], None) if words else None
    if isinstance(dtype, torch.dtype):
        words.pop()
    for word in words:
        if not (word.isidentifier() or word.isdigit()):
            raise ValueError(f"inputs={text!r}: {word!r} is not an axis: use a letter or a number")
        if word.isidentifier() and word not in known and word not in symbols:
            symbols[word] = _symbol(word, HINTS[len(symbols) % len(HINTS)], fake)
    sizes = [int(w) if w.isdigit() else symbols.get(w, known.get(w)) for w in words]
    with fake:
        return torch.zeros(sizes, dtype=dtype if isinstance(dtype, torch.dtype) else torch.int64)


def _symbol(letter: str, hint: int, fake) -> torch.SymInt:
    from torch._dynamo.source import ConstantSource
    from torch.fx.experimental.symbolic_shapes import DimDynamic, StatelessSymbolicContext

    context = StatelessSymbolicContext(dynamic_sizes=[DimDynamic.DYNAMIC])
    vector = torch.empty(hint, device="meta")
    return fake.from_tensor(
        vector, source=ConstantSource(letter), symbolic_context=context
    ).shape[0]


def _rename(size: int | str, names: dict[str, str]) -> int | str:
    if isinstance(size, int):
        return size
    return re.sub(r"s\d+", lambda match: names.get(match[0], match[0]), size)
