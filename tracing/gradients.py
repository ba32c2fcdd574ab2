"""Gradients of arguments, results and parameters, during a backward inside a trace."""

from functools import partial

import torch
from torch import Tensor, nn

from tracing.containers import map_tensors
from tracing.records import Call, NonFinite
from tracing.result import Trace
from tracing.tensors import TensorRecords


class GradientHooks:
    """Puts hooks on the arguments and results of calls, which note gradient norms and the first NaN or Inf."""

    def __init__(self, trace: Trace, tensors: TensorRecords):
        self.trace, self.tensors = trace, tensors
        self.bad_grads: set[int] = set()  # calls whose results got a gradient with NaN or Inf
        self.finished = False

    def on_arguments(self, call: Call, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """The arguments, with hooks."""
        def hooked(x):
            is_known = isinstance(x, Tensor) or hasattr(x, "_fields")  # other containers may be changed by the call
            return map_tensors(x, lambda x: self.hook(x, call, "argument", "")) if is_known else x

        return tuple(map(hooked, args)), {name: hooked(x) for name, x in kwargs.items()}

    def on_results(self, call: Call, out):
        """The results, with hooks."""
        names = iter([value.name for value in call.outputs if value.shape is not None])
        if not isinstance(out, Tensor | tuple | list):
            return out
        return map_tensors(out, lambda x: self.hook(x, call, "result", next(names, "")))

    def hook(self, x: Tensor, call: Call, side: str, name: str) -> Tensor:
        """x, or an alias of x whose hook sees the gradient of this use of x alone."""
        if not x.requires_grad or torch.jit.is_tracing():
            return x
        alias = x.view_as(x)
        alias.register_hook(partial(self.note_gradient, call, side, name))
        value = next((v for v in call.outputs if v.name == name), None) if side == "result" else None
        if earlier := self.tensors.earlier(x):
            self.tensors.remember(x, alias, value or earlier)
        return alias

    def note_gradient(self, call: Call, side: str, name: str, grad: Tensor) -> None:
        if self.finished:
            return
        with torch.no_grad(), torch._C._DisableTorchDispatch():
            norm = grad_norm([grad])
        if side == "result":
            call.grad_norms[name] = norm
        if norm < float("inf"):
            return
        if side == "result":
            self.bad_grads.add(id(call))
            if call is self.trace.calls[0] and self.trace.backward_origin is None:
                self.note_origin(call, "a NaN or Inf gradient, arriving from the loss: none was")
        elif id(call) not in self.bad_grads and self.trace.backward_origin is None:
            self.note_origin(call, "NaN or Inf")

    def note_origin(self, call: Call, what: str) -> None:
        self.trace.backward_origin = NonFinite(call.path, call.method, call.kind, call.index, "backward", what)

    def finish(self, modules: dict[str, nn.Module]) -> None:
        """Note the gradient norms of parameters; later gradients are ignored."""
        self.finished = True
        for path, part in self.trace.parts.items():
            own = modules[path].parameters(recurse=False) if path in modules else ()
            grads = [p.grad for p in own if p.grad is not None]
            if grads:
                part.grad_norm = grad_norm(grads)


def grad_norm(grads: list[Tensor]) -> float:
    """The L2 norm of all elements; NaN or Inf only if an element is."""
    return sum(g.double().square().sum().item() for g in grads) ** 0.5
