"""The arguments and results of a call as records: named, with labeled axes and statistics."""

from dataclasses import dataclass

from torch import Tensor, nn

from tracing.axes import ELLIPSIS, AxisNamer, Bound, Labels, Letters
from tracing.containers import describe, flatten
from tracing.records import Call, Value
from tracing.swap import Site
from tracing.tensors import TensorRecords, shape_of


@dataclass(slots=True)
class Frame:
    """A call that has not ended."""

    call: Call
    site: Site
    module: nn.Module
    bound: Bound  # letters and their sizes, in this call and those around it
    own: Bound = ()  # letters that this call declared
    letters: Letters = frozenset()  # letters in the marks of the module and of those around it
    hidden: Letters = frozenset()  # letters that only other modules use


class ValueRecords(TensorRecords):
    """Makes the Values of a call. Its dims string labels the axes; without one they are guessed."""

    def __init__(self, dims: dict, *, stats: str, max_elems: int):
        super().__init__(stats=stats, max_elems=max_elems)
        self.namer = AxisNamer.of(tuple(dims.items()))
        self.claimed: Letters = frozenset()  # letters in the marks of the whole model

    def inputs(self, frame: Frame, args: tuple, kwargs: dict, is_root: bool) -> list[Value]:
        """Records of the arguments."""
        site = frame.site
        given = args[1:] if site.takes_self else args
        names = site.names
        if len(given) > len(names):
            names = (*names, *(f"{site.rest}[{i}]" for i in range(len(given) - len(names))))
        flat = flatten([*zip(names, given, strict=False), *kwargs.items()])
        if is_root and not site.inputs:
            bind_tokens(frame, flat)
        return self.values(frame, flat, site.inputs, guess_input)

    def outputs(self, frame: Frame, out) -> list[Value]:
        """Records of the results."""
        names = frame.site.returns
        if isinstance(out, Tensor):
            flat = [(names[0] if len(names) == 1 else "", out)]
        elif type(out) in (tuple, list):
            names = names if len(names) == len(out) else [f"[{i}]" for i in range(len(out))]
            flat = flatten(list(zip(names, out, strict=True)))
        else:
            flat = flatten([(names[0] if len(names) == 1 else "", out)])
        return self.values(frame, flat, frame.site.outputs, guess_output)

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
                value.labels = guess(self.namer, frame, value)
            values.append(value)
        return values

    def declare(self, frame: Frame, axes, x: Tensor, value: Value, earlier: Value | None, guess) -> None:
        """Give `value` the labels that `axes` declare, and note a declaration that the sizes contradict."""
        declared, problem, own = self.namer.declare(axes, value.shape, frame.own)
        if own is not frame.own:
            frame.own, frame.bound = own, self.namer.bind(frame.bound, own)
        others = declared
        if ELLIPSIS in axes:  # axes that the dims string leaves open
            others = value.labels if earlier else guess(self.namer, frame, value)
        labels = tuple((b if a is None else a) or None for a, b in zip(declared, others, strict=True))
        if not problem:
            self.name_axes(x, declared)
        value.labels = labels
        if earlier and not dict(own).keys() & set(earlier.labels) - set(labels):
            self.seen[id(x)].value = value  # what reads x from here on knows it by these names
        if problem and not frame.call.problem:
            frame.call.problem = f"{value.name or 'result'}: {problem}"


# ---- axes that nobody declared ----


def bind_tokens(frame: Frame, flat: list) -> None:
    """Bind b and t: the first argument of a language model is (b, t) token ids or (b, t, d) vectors."""
    tensors = [x for _, x in flat if isinstance(x, Tensor)]
    if not tensors or tensors[0].dim() not in (2, 3):
        return
    x = tensors[0]
    if (x.dim() == 2) != (x.is_floating_point() or x.is_complex()):
        frame.own = frame.bound = tuple(zip("bt", shape_of(x), strict=False))


def guess_input(namer: AxisNamer, frame: Frame, value: Value) -> Labels:
    return namer.guess(value.shape, frame.bound, frame.hidden)


def guess_output(namer: AxisNamer, frame: Frame, value: Value) -> Labels:
    """A module keeps the leading axes of its first tensor; a layer may change the last one."""
    source = None
    if frame.site.method == "forward":
        source = next((v for v in frame.call.inputs if v.shape is not None), None)
    if source is None:
        return namer.guess(value.shape, frame.bound, frame.hidden)
    module, shape = frame.module, value.shape
    if shape == source.shape and "out_features" not in vars(module):
        return source.labels
    leading = source.shape if isinstance(module, nn.Embedding) else source.shape[:-1]
    if shape and shape[:-1] == leading:
        before = source.labels[-1] if source.labels and leading == source.shape[:-1] else None
        width = namer.guess_width(shape[-1], frame.bound, before, frame.hidden)
        return (*source.labels[: len(leading)], width)
    return namer.guess(shape, frame.bound, frame.hidden)
